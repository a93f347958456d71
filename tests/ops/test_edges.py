"""Every op beside torch 2.13.0 in every format, and at the edges of shapes: no rows, no axes, one row.

The calls are those of the autocast tests, of which each op has at least one; here autocast is off.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minimp as mp
from minimp.errors import MinimpError
from minimp.frameworks.cases import CASES, Case, minimp_library, torch_library
from tests.ops.test_torch_parity import to_torch
from tests.tolerances import assert_close

torch = pytest.importorskip("torch", reason="needs torch==2.13.0")
pytestmark = pytest.mark.torch
Shape = tuple[int, ...]
Shapes = tuple[Shape, ...]
FORMATS = ("float64", "float32", "float16", "bfloat16")  # from fine to coarse
ROWS = {"float64": "fp64", "float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}
OURS, THEIRS = minimp_library(), torch_library()

EDGES: dict[str, Callable[[Shapes], Shapes]] = {
    "as it is": lambda shapes: shapes,
    "no rows in the first": lambda shapes: ((0, *shapes[0][1:]) if shapes[0] else (), *shapes[1:]),
    "no rows": lambda shapes: tuple((0, *s[1:]) if s else s for s in shapes),
    "no columns": lambda shapes: tuple((*s[:-1], 0) if s else s for s in shapes),
    "no axes": lambda shapes: ((),) * len(shapes),
    "no axes in the first": lambda shapes: ((), *shapes[1:]),
    "no axes in the last": lambda shapes: (*shapes[:-1], ()),
    "one row in the first": lambda shapes: ((1, *shapes[0][1:]) if shapes[0] else (), *shapes[1:]),
}
SIGNS = {"hinge_embedding_loss", "soft_margin_loss", "margin_ranking_loss", "mul-cosine_embedding_loss"}
"""Cases whose last input is a target of 1 and -1, which has no gradient."""
STRICTER: dict[str, str] = {
    "linear": "a bias must have a number for each output",
    **dict.fromkeys(
        ("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss"),
        "input and target of two shapes, where torch warns",
    ),
    "matmul-vecdot": "needs axes, as torch's documentation says",
}
"""Cases in which torch computes something at an edge and we refuse."""
LOOSER: dict[str, str] = {
    **dict.fromkeys(("conv1d", "conv2d"), "no output channels are a result without channels"),
    "soft_margin_loss": "input and target broadcast",
    "matmul-bilinear": "a bias without axes is added to every output",
}
"""Cases in which we compute something at an edge and torch refuses."""
FORWARD_ONLY = {
    **dict.fromkeys(("scatter", "scatter_add"), "torch's gradient fails where the source is longer"),
    "dropout": "the masks differ; so do the values",
}
NORMS = {"layer_norm", "group_norm", "batch_norm", "scaled_dot_product_attention"}
"""In 16 bits torch's CPU kernels round what lies between: these are held to torch in float64 there."""
FLOAT32_INSIDE = {"hardsigmoid": "torch's kernel multiplies by a sixth that is a float32 number"}
"""Ops of which torch's float64 is no better than float32."""


def _inputs(case: Case, shapes: Shapes, fmt: str) -> tuple[list[Any], list[Any]]:
    random = np.random.default_rng(1)
    arrays = [random.uniform(0.2, 0.9, shape) for shape in shapes]
    wanted = [True] * len(arrays)
    if str(case) in SIGNS:
        arrays[-1], wanted[-1] = np.where(arrays[-1] > 0.5, 1.0, -1.0), False
    own = [mp.tensor(a, dtype=fmt, requires_grad=w) for a, w in zip(arrays, wanted, strict=True)]
    return own, [to_torch(x.detach().numpy(), requires_grad=w) for x, w in zip(own, wanted, strict=True)]


def _result(call: Callable[[], Any]) -> Any:
    """Return the (first) result, or the refusal."""
    try:
        y = call()
    except (MinimpError, RuntimeError, ValueError, IndexError, TypeError) as fault:
        return fault
    return y[0] if isinstance(y, tuple | list) else y


def _values(x: Any) -> np.ndarray[Any, Any]:
    if isinstance(x, torch.Tensor):
        return np.asarray(x.detach().double().numpy())
    return np.asarray(x.detach().numpy()).astype(np.float64)


def _compare(case: Case, fmt: str, own: list[Any], y: Any, other: list[Any], z: Any) -> None:
    assert tuple(y.shape) == tuple(z.shape)
    assert y.dtype.name == str(z.dtype).removeprefix("torch.")
    if case.op == "dropout":
        return
    used = "float32" if fmt == "float64" and case.op in FLOAT32_INSIDE else fmt
    row = ROWS[max((used, y.dtype.name), key=lambda name: FORMATS.index(name) if name in FORMATS else 0)]
    if case.op in NORMS and fmt in FORMATS[2:]:
        other = [u.detach().double().requires_grad_() for u in other]
        z = case.call(THEIRS, *other)
    assert_close(_values(y), _values(z), f"parity_op_{row}")
    assert bool(y.requires_grad) == bool(z.requires_grad)
    if not y.requires_grad or case.op in FORWARD_ONLY:
        return
    grad = mp.tensor(np.random.default_rng(2).uniform(0.5, 1.5, y.shape), dtype=y.format)
    y.backward(grad)
    z.backward(to_torch(grad.numpy()).to(z.dtype))
    for x, u in zip(own, other, strict=True):
        assert (x.grad is None) == (u.grad is None)
        if x.grad is not None:  # beside a 1, the size of what came in: terms may cancel to nothing
            pair = (np.append(_values(each.grad), 1.0) for each in (x, u))
            assert_close(*pair, f"parity_gradient_{row}")


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.filterwarnings("ignore:.*degrees of freedom is <= 0")
@pytest.mark.filterwarnings("ignore:Using a target size")
@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides")
@pytest.mark.filterwarnings("ignore:An output with one or more elements was resized")
def test_every_op_is_torchs_at_every_edge(case: Case, fmt: str) -> None:
    """Oracle: torch on the same inputs: values, shape, format and gradients; what it refuses, we refuse."""
    for name, edge in EDGES.items():
        if fmt in ("float64", "bfloat16") and name != "as it is":
            continue
        own, other = _inputs(case, edge(case.shapes), fmt)
        mp.manual_seed(0)
        y, z = (
            _result(lambda own=own: case.call(OURS, *own)),
            _result(lambda other=other: case.call(THEIRS, *other)),
        )
        if isinstance(y, Exception) and isinstance(z, Exception):
            assert isinstance(y, MinimpError) or type(y) is type(z), name  # the call itself may not fit
        elif isinstance(y, Exception):
            assert isinstance(y, MinimpError), name
            assert str(case) in STRICTER, f"{name}: {y}"
        elif isinstance(z, Exception):
            assert str(case) in LOOSER, f"{name}: {z}"
        else:
            _compare(case, fmt, own, y, other, z)
