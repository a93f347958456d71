"""Ops and gradients beside torch 2.13.0 on the CPU: bit for bit where both round once, else within ulps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minimp as mp
from minimp import functional, ops
from tests.ops.samples import LABELS, numbers
from tests.tolerances import assert_close

pytestmark = pytest.mark.torch
FLOATS = ("float32", "float16", "bfloat16")
ROWS = {"float32": "parity_op_fp32", "float16": "parity_op_fp16", "bfloat16": "parity_op_bf16"}
Call = Callable[..., Any]


def to_torch(array: np.ndarray[Any, Any], *, requires_grad: bool = False) -> Any:
    """Return a torch tensor with the same bits."""
    torch = pytest.importorskip("torch")
    bits = np.array(array, order="C")
    if array.dtype.name == "bfloat16":
        made = torch.from_numpy(bits.view(np.uint16).copy()).view(torch.bfloat16)
    else:
        made = torch.from_numpy(bits)
    return made.requires_grad_(requires_grad)


def from_torch(tensor: Any) -> np.ndarray[Any, Any]:
    """Return float64 values of a torch tensor."""
    return tensor.detach().double().numpy()


def both(mine: Call, theirs: Call, arrays: list[Any], fmt: str) -> tuple[list[Any], list[Any]]:
    """Return [result, gradients...] of both sides, for the same inputs and the same incoming gradient."""
    own = [mp.tensor(a, dtype=fmt, requires_grad=True) for a in arrays]
    other = [to_torch(x.detach().numpy(), requires_grad=True) for x in own]
    y, z = mine(*own), theirs(*other)
    grad = mp.tensor(numbers(np.random.default_rng(3), y.shape, y.format.name), dtype=y.format)
    y.backward(grad)
    z.backward(to_torch(grad.numpy()))
    return (
        [y.detach().numpy(), *(x.grad.numpy() for x in own)],
        [from_torch(z), *(from_torch(x.grad) for x in other)],
    )


ONCE: dict[str, tuple[Call, Call, int]] = {
    "add": (ops.add, lambda a, b: a + b, 2),
    "sub": (ops.sub, lambda a, b: a - b, 2),
    "mul": (ops.mul, lambda a, b: a * b, 2),
    "neg": (ops.neg, lambda a: -a, 1),
    "abs": (ops.abs_, lambda a: a.abs(), 1),
    "relu": (ops.relu, lambda a: a.relu(), 1),
    "add_number": (lambda a: a + 0.25, lambda a: a + 0.25, 1),  # torch's CPU rounds 0.1 to float16 first
    "mul_number": (lambda a: a * 0.1, lambda a: a * 0.1, 1),
    "number_minus": (lambda a: 3 - a, lambda a: 3 - a, 1),
    "reshape": (lambda a: a.reshape(5, 7), lambda a: a.reshape(5, 7), 1),
    "transpose": (lambda a: a.transpose(0, 1), lambda a: a.transpose(0, 1), 1),
    "slice": (lambda a: a[1:, ::2], lambda a: a[1:, ::2], 1),
    "cat": (lambda a, b: functional.cat([a, b], 1), lambda a, b: _torch().cat([a, b], 1), 2),
    "half": (lambda a: a.half(), lambda a: a.half(), 1),
    "bfloat16": (lambda a: a.bfloat16(), lambda a: a.bfloat16(), 1),
}


def _torch() -> Any:
    return pytest.importorskip("torch")


@pytest.mark.parametrize("kind", ["normal", "wide", "subnormal", "special", "ties"])
@pytest.mark.parametrize("fmt", FLOATS)
@pytest.mark.parametrize("name", list(ONCE))
def test_single_roundings_are_bit_equal(name: str, fmt: str, kind: str) -> None:
    """Oracle: torch, which computes these in float32 and rounds once too; results and gradients."""
    mine, theirs, count = ONCE[name]
    random = np.random.default_rng(len(name))
    arrays = [numbers(random, (7, 5), fmt, kind) for _ in range(count)]
    if name == "abs":  # its gradient at NaN is NaN here and 0 in torch
        arrays = [np.where(np.isnan(x), 1.0, x) for x in arrays]
    own, other = both(mine, theirs, arrays, fmt)
    for got, wanted in zip(own, other, strict=True):
        np.testing.assert_array_equal(got.astype(np.float64), wanted)


@pytest.mark.parametrize("fmt", FLOATS)
@pytest.mark.parametrize("name", ["div", "reciprocal", "sqrt"])
def test_correctly_rounded_forwards_are_bit_equal(name: str, fmt: str) -> None:
    """Oracle: torch's forward; the gradients round in other places, and are held to bounds elsewhere.

    torch's own float32 sqrt is off by an ulp where it is vectorised: there, its float64 one is rounded.
    """
    random = np.random.default_rng(4)
    arrays = [numbers(random, (200,), fmt, "positive") for _ in range(2 if name == "div" else 1)]
    own = [mp.tensor(a, dtype=fmt) for a in arrays]
    theirs: Call = {
        "div": lambda a, b: a / b,
        "sqrt": lambda a: a.sqrt(),
        "reciprocal": lambda a: a.reciprocal(),
    }[name]
    inputs = [to_torch(x.numpy()) for x in own]
    wanted = theirs(*inputs) if name != "sqrt" else theirs(inputs[0].double()).to(inputs[0].dtype)
    wanted = from_torch(wanted)
    np.testing.assert_array_equal(ops.OPS[name](*own).numpy().astype(np.float64), wanted)


def _f() -> Any:
    return _torch().nn.functional


NEAR: dict[str, tuple[Call, Call, list[tuple[int, ...]]]] = {
    "exp": (ops.exp, lambda a: a.exp(), [(7, 5)]),
    "tanh": (ops.tanh, lambda a: a.tanh(), [(7, 5)]),
    "sigmoid": (ops.sigmoid, lambda a: a.sigmoid(), [(7, 5)]),
    "gelu": (ops.gelu, lambda a: _f().gelu(a), [(7, 5)]),
    "gelu_tanh": (
        lambda a: ops.gelu(a, approximate="tanh"),
        lambda a: _f().gelu(a, approximate="tanh"),
        [(7, 5)],
    ),
    "pow": (lambda a: a**3, lambda a: a**3, [(7, 5)]),
    "sum": (lambda a: a.sum(0), lambda a: a.sum(0), [(7, 5)]),
    "mean": (lambda a: a.mean(1), lambda a: a.mean(1), [(7, 5)]),
    "amax": (lambda a: a.amax(1), lambda a: a.amax(1), [(7, 5)]),
    "max_of_dim": (lambda a: a.max(1).values, lambda a: a.max(1).values, [(7, 5)]),
    "broadcast_mul": (ops.mul, lambda a, b: a * b, [(7, 1), (5,)]),
    "matmul": (ops.matmul, lambda a, b: a @ b, [(6, 20), (20, 4)]),
    "matmul_batched": (ops.matmul, lambda a, b: a @ b, [(2, 1, 6, 9), (3, 9, 4)]),
    "matrix_vector": (ops.matmul, lambda a, b: a @ b, [(6, 9), (9,)]),
    "linear": (functional.linear, lambda *a: _f().linear(*a), [(6, 20), (4, 20), (4,)]),
    "softmax": (lambda a: functional.softmax(a, -1), lambda a: a.softmax(-1), [(7, 5)]),
    "log_softmax": (lambda a: functional.log_softmax(a, 0), lambda a: a.log_softmax(0), [(7, 5)]),
    "mse_loss": (functional.mse_loss, lambda a, b: _f().mse_loss(a, b), [(7, 5), (7, 5)]),
    "cross_entropy": (
        lambda a: functional.cross_entropy(a, LABELS, label_smoothing=0.1),
        lambda a: _f().cross_entropy(a, to_torch(LABELS), label_smoothing=0.1),
        [(7, 5)],
    ),
    "conv2d": (
        lambda *a: functional.conv2d(*a, stride=2, padding=1, groups=2),
        lambda *a: _f().conv2d(*a, stride=2, padding=1, groups=2),
        [(2, 4, 6, 5), (6, 2, 3, 3), (6,)],
    ),
    "max_pool2d": (
        lambda a: functional.max_pool2d(a, 3, 2, 1),
        lambda a: _f().max_pool2d(a, 3, 2, 1),
        [(2, 3, 7, 6)],
    ),
    "avg_pool2d": (
        lambda a: functional.avg_pool2d(a, 3, 2, 1),
        lambda a: _f().avg_pool2d(a, 3, 2, 1),
        [(2, 3, 7, 6)],
    ),
}


@pytest.mark.parametrize("fmt", FLOATS)
@pytest.mark.parametrize("name", list(NEAR))
def test_results_and_gradients_are_near(name: str, fmt: str) -> None:
    """Oracle: torch in the same format, to one unit of the largest element (four for gradients)."""
    mine, theirs, shapes = NEAR[name]
    random = np.random.default_rng(5)
    own, other = both(mine, theirs, [numbers(random, shape, fmt) for shape in shapes], fmt)
    assert_close(own[0], other[0], ROWS[fmt])
    for got, wanted in zip(own[1:], other[1:], strict=True):
        assert_close(got, wanted, ROWS[fmt].replace("_op_", "_gradient_"))


PAIRS = [
    (a, b, shape_a, shape_b)
    for a in ("float64", "float32", "float16", "bfloat16", "int64")
    for b in ("float64", "float32", "float16", "bfloat16", "int64")
    for shape_a, shape_b in [((2,), (2,)), ((2,), ()), ((), (2,)), ((), ())]
]


@pytest.mark.parametrize(("a", "b", "shape_a", "shape_b"), PAIRS)
def test_mixed_formats_promote_as_torch_does(
    a: str, b: str, shape_a: tuple[int, ...], shape_b: tuple[int, ...]
) -> None:
    """Oracle: torch.result_type, tensors with and without axes, and what `a + b` then has."""
    torch = _torch()
    wanted = torch.result_type(
        torch.ones(shape_a, dtype=getattr(torch, a)), torch.ones(shape_b, dtype=getattr(torch, b))
    )
    made = ops.add(mp.tensor(np.ones(shape_a), dtype=_name(a)), mp.tensor(np.ones(shape_b), dtype=_name(b)))
    assert made.dtype.name == str(wanted).removeprefix("torch.")


def _name(name: str) -> Any:
    return np.int64 if name == "int64" else name


@pytest.mark.parametrize("name", ["float64", "float32", "float16", "bfloat16", "int64"])
@pytest.mark.parametrize("number", [2, 0.5])
def test_numbers_promote_as_torch_does(name: str, number: float) -> None:
    """Oracle: torch.result_type with a Python number: it never widens a floating tensor."""
    torch = _torch()
    wanted = torch.result_type(torch.ones(2, dtype=getattr(torch, name)), number)
    made = mp.tensor(np.ones(2), dtype=_name(name)) * number
    assert made.dtype.name == str(wanted).removeprefix("torch.")
