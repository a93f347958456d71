"""Every op's gradient in float64; oracle: central differences along a random direction."""

from __future__ import annotations

import numpy as np
import pytest

import minimp as mp
from minimp import functional, ops
from minimp.checks import gradcheck
from minimp.errors import FormatError
from tests.ops.samples import DIFFERENTIABLE, STRAIGHT_THROUGH, Sample

SMOOTH = [
    s
    for s in DIFFERENTIABLE
    if s.options not in ("to_float16", "to_bfloat16", "to_float32") and s.op not in STRAIGHT_THROUGH
]  # a cast out of float64 is no smooth function; its gradient is a cast, checked bit for bit elsewhere

POSITIVE = ("log", "log10", "log1p", "log2", "pow", "rsqrt", "sqrt")
"""Ops that are not defined, or not smooth, below 0."""


def points(sample: Sample, seed: int) -> list[np.ndarray]:
    """Return positive inputs between 0.3 and 2, no two of them closer than the step of the quotient."""
    random = np.random.default_rng(seed)
    made = []
    for shape in sample.shapes:
        count = int(np.prod(shape))
        spread = (np.arange(count) + random.uniform(0.3, 0.7, count)) / max(count, 1) * 1.7 + 0.3
        made.append(random.permutation(spread).reshape(shape))
    return made


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("sample", SMOOTH, ids=str)
def test_the_gradient_is_the_derivative(sample: Sample, seed: int) -> None:
    """Oracle: (f(x + h v) - f(x - h v)) / 2 h, projected on a random direction of the result."""
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], 64)
    inputs = points(sample, seed)
    if sample.op not in POSITIVE:
        inputs = [x * np.resize(signs, x.shape) for x in inputs]
    found = gradcheck(sample.call, inputs, seed=seed)
    assert found, str(found)


def test_a_whole_network_at_once() -> None:
    """Oracle: the same, through a composition in which tensors are used twice."""

    def network(x: mp.Tensor, w: mp.Tensor, v: mp.Tensor) -> mp.Tensor:
        hidden = functional.gelu(functional.linear(x, w)) + x[:, :4].tanh()
        again = functional.softmax(hidden @ v, dim=-1) * hidden.mean(1, keepdim=True)
        return functional.log_softmax(again @ v.T + hidden, dim=0).sum() + (w * w).sum() * 0.1

    random = np.random.default_rng(0)
    shapes = [(5, 6), (4, 6), (4, 3)]
    assert gradcheck(network, [random.standard_normal(s) for s in shapes])


@pytest.mark.parametrize(
    "wrong",
    [
        lambda x: x.detach() * x,
        lambda x: (x.detach() + 1.0) * x.sum(),
        lambda x: functional.relu(x) * x.detach().requires_grad_(),
    ],
)
def test_gradcheck_finds_a_gradient_that_is_missing_a_part(wrong: object) -> None:
    """Oracle: functions in which part of the derivative is detached."""
    assert not gradcheck(wrong, [np.random.default_rng(0).uniform(0.5, 2, (4, 3))])  # type: ignore[arg-type]  # a lambda


def test_gradcheck_keeps_to_float64() -> None:
    """Oracle: the docstring: a function that leaves float64 is refused, with advice."""
    with pytest.raises(FormatError, match=r"expected a float64 result.*\n  help: take out the casts"):
        gradcheck(lambda x: x.float(), [np.ones(3)])


def test_gradcheck_repeats_the_random_numbers() -> None:
    """Oracle: dropout is a fixed mask within one check, and the generator moves on after it."""
    mp.manual_seed(3)
    assert gradcheck(lambda x: ops.OPS["dropout"](x, p=0.5) * x, [np.random.default_rng(0).uniform(1, 2, 50)])
    after = mp.get_rng_state()
    mp.manual_seed(3)
    assert mp.get_rng_state() != after
