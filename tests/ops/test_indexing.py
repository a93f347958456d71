"""Taking and putting elements by index: beside torch 2.13.0, at repeated places, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

import minimp as mp
from minimp import functional as f
from minimp.errors import DataError, FormatError, SettingError, ShapeError
from tests.ops.samples import FLOATS
from tests.ops.samples.indexing import ALONG, MASK, ROWS, SLICES
from tests.ops.test_torch_parity import both, to_torch
from tests.tolerances import assert_close

UNIQUE = np.array([[0, 6, 0, 3, 1], [1, 2, 3, 4, 3], [5, 5, 2, 0, 0]])
"""For dim 0 of (7, 5): no place twice."""
S = (7, 5)


def torch_() -> Any:
    """Return torch."""
    return pytest.importorskip("torch")


def at(x: Any, index: np.ndarray) -> Any:
    """Return an index of the library of x."""
    return index if isinstance(x, mp.Tensor) else to_torch(index)


# name: how it is called on a library, the shapes of its tensors; each result element is rounded at most once
EXACT: dict[str, tuple[Callable[..., Any], list[tuple[int, ...]]]] = {
    "gather": (lambda lib, x: lib.gather(x, 0, at(x, UNIQUE)), [S]),
    "take_along_dim": (lambda lib, x: lib.take_along_dim(x, at(x, np.array([[1, -1]])), 1), [S]),
    "take_flat": (lambda lib, x: lib.take_along_dim(x, at(x, np.array([3, 30]))), [S]),
    "index_select": (lambda lib, x: lib.index_select(x, 1, at(x, np.array([4, 0]))), [S]),
    "masked_select": (lambda lib, x: lib.masked_select(x, at(x, MASK[:, None])), [S]),
    "scatter": (lambda lib, x, s: lib.scatter(x, 0, at(x, UNIQUE), s), [S, (3, 5)]),
    "scatter_number": (lambda lib, x: lib.scatter(x, 0, at(x, UNIQUE), 0.25), [S]),
    "scatter_add": (lambda lib, x, s: lib.scatter_add(x, 0, at(x, UNIQUE), s), [S, (3, 5)]),
    "index_copy": (lambda lib, x, s: lib.index_copy(x, 1, at(x, np.array([4, 0])), s), [S, (7, 2)]),
    "index_add": (lambda lib, x, s: lib.index_add(x, 1, at(x, np.array([4, 0])), s), [S, (7, 2)]),
    "index_put": (lambda lib, x, s: lib.index_put(x, (at(x, np.array([4, -7])),), s), [S, (2, 5)]),
    "index_put_mask": (lambda lib, x, s: lib.index_put(x, (at(x, MASK),), s), [S, (3, 5)]),
    "index_put_added": (
        lambda lib, x, s: lib.index_put(x, (at(x, np.array([4, 0])), at(x, np.array([1, 1]))), s, True),
        [S, (2,)],
    ),
}
NEAR: dict[str, tuple[Callable[..., Any], list[tuple[int, ...]]]] = {
    "gather": (lambda lib, x: lib.gather(x, 0, at(x, ALONG)), [S]),
    "gather_rows": (lambda lib, x: lib.gather(x, -1, at(x, ROWS)), [S]),
    "index_select": (lambda lib, x: lib.index_select(x, 0, at(x, SLICES)), [S]),
    "masked_select": (lambda lib, x: lib.masked_select(x, at(x, MASK[:, None])), [(5,)]),
    "scatter_add": (lambda lib, x, s: lib.scatter_add(x, 0, at(x, ALONG), s), [S, (3, 5)]),
    "index_add": (lambda lib, x, s: lib.index_add(x, 0, at(x, SLICES), s, alpha=0.7), [S, (4, 5)]),
    "index_put": (lambda lib, x, s: lib.index_put(x, (at(x, SLICES),), s, accumulate=True), [S, (5,)]),
}
ROW = {"float64": "fp64_sums", "float32": "parity_gradient_fp32", "float16": "parity_gradient_fp16",
       "bfloat16": "parity_gradient_bf16"}  # fmt: skip


def pair(call: Callable[..., Any], shapes: list[tuple[int, ...]], fmt: str) -> tuple[list[Any], list[Any]]:
    """Return results and gradients of both libraries."""
    random = np.random.default_rng(3)
    arrays = [mp.formats.round(random.standard_normal(shape), fmt) for shape in shapes]
    return both(lambda *a: call(f, *a), lambda *a: call(torch_(), *a), arrays, fmt)


@pytest.mark.torch
@pytest.mark.parametrize("fmt", FLOATS)
@pytest.mark.parametrize("name", list(EXACT))
def test_what_meets_nothing_is_bit_equal(name: str, fmt: str) -> None:
    """Oracle: torch: elements move, or are added once; results and gradients."""
    own, other = pair(*EXACT[name], fmt)
    for got, wanted in zip(own, other, strict=True):
        np.testing.assert_array_equal(got.astype(np.float64), wanted)


@pytest.mark.torch
@pytest.mark.parametrize("fmt", FLOATS)
@pytest.mark.parametrize("name", list(NEAR))
def test_what_meets_is_near_torchs(name: str, fmt: str) -> None:
    """Oracle: torch, which rounds after each addition, where we round once."""
    own, other = pair(*NEAR[name], fmt)
    for got, wanted in zip(own, other, strict=True):
        assert_close(got, wanted, ROW[fmt])


@given(st.lists(st.integers(0, 3), max_size=12), st.integers(0, 2**32 - 1))
def test_putting_back_what_was_taken_counts_it(index: list[int], seed: int) -> None:
    """Oracle: a law: <gather(x), s> = <x, scatter_add(0, s)>, in exact small integers; and bincount."""
    random = np.random.default_rng(seed)
    places = np.array(index, np.int64).reshape(-1)
    x = mp.tensor(random.integers(-8, 8, 4).astype(np.float32))
    s = mp.tensor(random.integers(-8, 8, len(index)).astype(np.float32))
    taken = f.gather(x, 0, places)
    back = f.scatter_add(mp.tensor(np.zeros(4, np.float32)), 0, places, s)
    assert (taken * s).sum().item() == (x * back).sum().item()
    ones = f.index_add(mp.tensor(np.zeros(4, np.float32)), 0, places, np.ones(len(index), np.float32))
    np.testing.assert_array_equal(ones.numpy(), np.bincount(places, minlength=4))


@given(st.data())
def test_gather_and_scatter_are_numpys(data: st.DataObject) -> None:
    """Oracle: np.take_along_axis and np.put_along_axis, on shapes and axes drawn at random."""
    shape = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    dim = data.draw(st.integers(-len(shape), len(shape) - 1))
    length, shape[dim] = shape[dim], data.draw(st.integers(0, 4))
    random = np.random.default_rng(data.draw(st.integers(0, 99)))
    index = random.integers(0, length, shape)
    whole = [length if i == dim % len(shape) else n for i, n in enumerate(shape)]
    x, s = random.standard_normal(whole), random.standard_normal(shape)
    taken = f.gather(mp.tensor(x.T).T, dim, index)
    np.testing.assert_array_equal(taken.numpy(), np.take_along_axis(x, index, dim))
    put = f.scatter(mp.tensor(x), dim, index, mp.tensor(s.T).T)
    np.put_along_axis(x, index, s, dim)
    np.testing.assert_array_equal(put.numpy(), x)


def test_the_last_of_several_stays_and_takes_the_gradient() -> None:
    """Oracle: assignment in a loop; the derivative of what is computed."""
    for call in (
        lambda x, s: f.scatter(x, 0, np.array([1, 2, 1]), s),
        lambda x, s: f.index_copy(x, 0, np.array([1, 2, 1]), s),
        lambda x, s: f.index_put(x, (np.array([1, 2, -3]),), s),
    ):
        x = mp.tensor([0.0] * 4, requires_grad=True)
        s = mp.tensor([1.0, 2.0, 3.0], requires_grad=True)
        y = call(x, s)
        assert y.tolist() == [0, 3, 2, 0]
        y.backward(np.float32([10, 20, 30, 40]))
        assert x.grad.tolist() == [10, 0, 0, 40]
        assert s.grad.tolist() == [0, 30, 20]


@pytest.mark.parametrize("name", ["float32", "float64", "float16", "exact", "kahan"])
def test_what_meets_adds_up_as_accumulate_says(name: str) -> None:
    """Oracle: 2048 + 1 + 1 + ...: a float16 running sum stays at 2048, every wider one counts on."""
    values = np.ones(9, np.float16)
    values[0] = 2048
    with mp.accumulate(name):
        y = f.scatter_add(mp.tensor(np.zeros(2, np.float16)), 0, np.zeros(9, np.int64), values)
        x = mp.tensor(np.zeros(2, np.float16), requires_grad=True)
        f.index_select(x, 0, np.zeros(9, np.int64)).backward(values)
    wanted = 2048 if name == "float16" else 2056
    assert y.tolist() == [wanted, 0]
    assert x.grad.tolist() == [wanted, 0]


@pytest.mark.parametrize(
    ("call", "options"),
    [
        (f.gather, ()), (f.index_select, ()), (f.scatter, (1.5,)),
    ],
)  # fmt: skip
def test_only_the_index_is_kept(call: Callable[..., Any], options: tuple[Any, ...]) -> None:
    """Oracle: moving elements needs no values: 8 bytes an index, and nothing else."""
    index = np.array([[0, 1], [2, 0]]) if call is not f.index_select else np.array([0, 1, 2, 0])
    x = mp.tensor(np.ones((3, 2)), dtype="float16", requires_grad=True)
    saved = call(x, 0, index, *options).node.saved
    assert sum(array.nbytes for array in saved) == 4 * 8


def test_one_hot_is_torchs() -> None:
    """Oracle: the definition, and torch's dtype."""
    hot = f.one_hot(np.array([[2, 0]]), 4)
    np.testing.assert_array_equal(hot.numpy(), [[[0, 0, 1, 0], [1, 0, 0, 0]]])
    assert hot.dtype == np.int64
    assert f.one_hot(mp.tensor(np.array([1, 0]))).shape == (2, 2)
    assert f.one_hot(np.zeros((0, 2), np.int64), 3).shape == (0, 2, 3)


X = np.ones((3, 4), np.float32)
REFUSED: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "gather_range": (
        lambda: f.gather(X, 1, np.array([[0, 4]])), DataError,
        r"gather: index 4 \(element 1 of the index\) is out of range for dim 1 with length 4",
    ),
    "gather_negative": (
        lambda: f.gather(X, 1, np.array([[-1]])), DataError, "index -1.*\n.*count from 0 to 3"
    ),
    "gather_axes": (lambda: f.gather(X, 1, np.array([0])), ShapeError, "an index of 2 axes"),
    "gather_long": (
        lambda: f.gather(X, 1, np.zeros((4, 1), int)), ShapeError, r"nowhere longer than \(3, 4\)"
    ),
    "gather_float": (lambda: f.gather(X, 1, np.zeros((1, 1))), DataError, "integer indices, got float"),
    "gather_dim": (lambda: f.gather(X, 2, np.array([[0]])), ShapeError, "dim 2 is out of range"),
    "select_axes": (lambda: f.index_select(X, 0, np.array([[0]])), ShapeError, r"\(K,\) or \(\)"),
    "select_range": (lambda: f.index_select(X, 0, np.array([1, 3])), DataError, r"index 3 \(element 1"),
    "take_axes": (lambda: f.take_along_dim(X, np.array([0]), 1), ShapeError, "indices of 2 axes"),
    "mask": (lambda: f.masked_select(X, X), DataError, "a boolean mask"),
    "scatter_short": (
        lambda: f.scatter(X, 0, np.zeros((2, 2), int), X[:1]), ShapeError, r"nowhere shorter than \(2, 2\)"
    ),
    "scatter_format": (
        lambda: f.scatter(mp.tensor(X), 0, np.zeros((2, 2), int), X.astype(np.float16)), FormatError,
        "one format",
    ),
    "add_range": (lambda: f.index_add(X, 0, np.array([9]), X[:1]), DataError, "index_add: index 9"),
    "copy_shape": (lambda: f.index_copy(X, 0, np.array([1, 2]), X), ShapeError, r"a source \(2, 4\)"),
    "put_range": (
        lambda: f.index_put(X, (np.array([0]), np.array([-5])), 1.0), DataError,
        "index -5.*dim 1 with length 4",
    ),
    "put_axes": (lambda: f.index_put(X, (np.array([0]),) * 3, 1.0), ShapeError, "more indices than the axes"),
    "put_float": (lambda: f.index_put(X, (np.array([0.5]),), 1.0), DataError, "integer or boolean"),
    "hot_range": (lambda: f.one_hot(np.array([0, 5]), 3), DataError, r"from 0 to 2, got 5 \(element 1\)"),
    "hot_negative": (lambda: f.one_hot(np.array([-1])), DataError, "got -1"),
    "hot_nothing": (lambda: f.one_hot(np.zeros(0, int)), SettingError, "give num_classes"),
    "hot_float": (lambda: f.one_hot(np.array([0.5])), DataError, "integer labels"),
}  # fmt: skip


@pytest.mark.parametrize("name", list(REFUSED))
def test_what_cannot_be_taken_or_put_is_refused(name: str) -> None:
    """Oracle: torch refuses the same; the message names the index and its place."""
    call, kind, message = REFUSED[name]
    with pytest.raises(kind, match=message):
        call()
