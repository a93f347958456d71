"""What each op keeps for backward; oracle: the closed form of its gradient, which needs no more than that."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minimp as mp
from minimp import functional, ops
from tests.arrays import host
from tests.ops.samples import LABELS

X = np.linspace(0.5, 2.5, 35, dtype=np.float32).reshape(7, 5)

# op: how it is called, on what, and what is kept: the inputs "a" and "b", the result "y", or a constant
KEPT: dict[str, tuple[Callable[..., Any], list[Any], list[Any]]] = {
    "add": (ops.add, [X, X], []),
    "sub": (ops.sub, [X, X], []),
    "mul": (ops.mul, [X, X + 1], ["a", "b"]),
    "mul_by_number": (lambda a: a * 3.0, [X], [None, 3.0]),
    "div": (ops.div, [X, X + 1], ["a", "b"]),
    "neg": (ops.neg, [X], []),
    "abs": (ops.abs_, [X], ["a"]),
    "exp": (ops.exp, [X], ["y"]),
    "log": (ops.log, [X], ["a"]),
    "sqrt": (ops.sqrt, [X], ["y"]),
    "reciprocal": (ops.reciprocal, [X], ["y"]),
    "tanh": (ops.tanh, [X], ["y"]),
    "sigmoid": (ops.sigmoid, [X], ["y"]),
    "relu": (ops.relu, [X], ["y"]),
    "gelu": (ops.gelu, [X], ["a"]),
    "matmul": (ops.matmul, [X, X.T], ["a", "b"]),
    "linear": (ops.linear, [X, X], ["a", "b"]),
    "softmax": (functional.softmax, [X], ["y"]),
    "log_softmax": (functional.log_softmax, [X], ["y"]),
    "sum": (ops.sum_, [X], []),
    "mean": (ops.mean, [X], []),
    "amax": (ops.amax, [X], ["a", "y"]),
    "reshape": (lambda a: a.reshape(5, 7), [X], []),
    "permute": (lambda a: a.T, [X], []),
    "expand": (lambda a: a.expand(2, 7, 5), [X], []),
    "getitem": (lambda a: a[1:], [X], []),
    "cat": (lambda a, b: functional.cat([a, b]), [X, X], []),
    "cast": (lambda a: a.to("float64"), [X], []),
    "mse_loss": (functional.mse_loss, [X, X + 1], ["a", "b"]),
    "vector_norm": (functional.vector_norm, [X], ["a", "y"]),
    "nll_loss": (lambda a: functional.nll_loss(a, LABELS), [X], [LABELS, None]),
}


@pytest.mark.parametrize("fmt", ["float32", "float16"])
@pytest.mark.parametrize("name", list(KEPT))
def test_what_is_kept_is_what_the_gradient_needs(name: str, fmt: str) -> None:
    """Oracle: the row: the arrays that the op's derivative is written in, in their own format."""
    call, arrays, wanted = KEPT[name]
    leaves = [mp.tensor(a, dtype=fmt, requires_grad=True) for a in arrays]
    y = call(*leaves)
    named = {"y": y.array, **{key: leaf.array for key, leaf in zip("ab", leaves, strict=False)}}
    assert len(y.node.saved) == len(wanted)
    for kept, key in zip(y.node.saved, wanted, strict=True):
        expected = named[key] if isinstance(key, str) else key
        np.testing.assert_array_equal(host(kept), host(expected))
        assert getattr(kept, "dtype", None) == getattr(expected, "dtype", None)


def test_normalisation_keeps_two_numbers_a_row() -> None:
    """Oracle: the input and the weight as they came; mean and 1 / sqrt(v + eps), a row each, in float32."""
    x, w = mp.tensor(X, dtype="float16", requires_grad=True), mp.tensor(X[0], dtype="float16")
    saved = functional.layer_norm(x, 5, w).node.saved
    assert saved[0] is x.array
    assert saved[1] is w.array
    assert [(a.shape, a.dtype) for a in saved[2:]] == [((7, 1), np.float32)] * 2
    assert [a.shape for a in functional.rms_norm(x, 5).node.saved[2:]] == [(7, 1)]


def test_pooling_and_dropout_keep_bytes() -> None:
    """Oracle: one byte for each maximum (windows of up to 256), and for each element of a mask."""
    images = mp.tensor(np.random.default_rng(0).standard_normal((2, 3, 8, 8)), requires_grad=True)
    (index,) = functional.max_pool2d(images, 2).node.saved
    assert (index.shape, index.itemsize) == ((2, 3, 4, 4), 1)
    (mask,) = functional.dropout(images, 0.5).node.saved
    assert (mask.shape, mask.dtype) == (images.shape, np.bool_)
    assert functional.avg_pool2d(images, 2).node.saved == ()


@pytest.mark.parametrize("needed", [0, 1])
@pytest.mark.parametrize("name", ["mul", "matmul", "linear", "div", "conv2d"])
def test_only_what_a_needed_gradient_reads_is_kept(name: str, needed: int) -> None:
    """Oracle: the gradient by one factor needs the other factor only (the divisor needs both)."""
    shape = {"conv2d": (2, 2, 3, 3)}.get(name, (4, 4))
    pair = [mp.tensor(np.ones(shape), requires_grad=i == needed) for i in range(2)]
    call = functional.conv2d if name == "conv2d" else ops.OPS[name]
    saved = call(*pair).node.saved
    assert saved[1 - needed] is not None
    assert (saved[needed] is None) == (name != "div" or needed == 0)


def test_nothing_is_kept_without_recording() -> None:
    """Oracle: no node at all under no_grad, and for inputs that need no gradient."""
    x = mp.tensor(X, requires_grad=True)
    with mp.no_grad():
        assert (x * x).node is None
    assert (x.detach() * x.detach()).node is None
    assert not (x.detach() * 2.0).requires_grad


def test_low_copies_are_kept_under_autocast() -> None:
    """Oracle: torch: casts stand above autograd, so a product keeps its factors in float16."""
    x, w = (mp.tensor(X, requires_grad=True) for _ in range(2))
    with mp.autocast("float16"):
        y = x @ w.T
    assert {array.dtype for array in y.node.saved} == {np.dtype(np.float16)}


def test_backward_frees_what_was_kept() -> None:
    """Oracle: nothing is left after backward; retain_graph keeps all of it."""
    x = mp.tensor(X, requires_grad=True)
    y = (x * x).sum()
    node = y.node.inputs[0]
    y.backward(retain_graph=True)
    assert len(node.saved) == 2
    y.backward()
    assert node.saved == ()
    np.testing.assert_array_equal(x.grad.numpy(), 4 * X)
