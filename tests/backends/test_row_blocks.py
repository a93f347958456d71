"""Formulas and rows in blocks; oracles: the formula on whole arrays, the readable form in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minimp.backend import get_backend
from minimp.formats import get
from minimp.ops import OPS
from minimp_backends import row_blocks
from minimp_backends.row_blocks import memory_order
from minimp_backends.rows import RowKernels
from tests.tolerances import assert_close

BACKEND: Any = get_backend("numpy")
SHAPES = [(1000,), (40, 50), (7, 11, 13), (3, 5, 4, 17), (0, 5), (2000, 1), (1, 2000), (300, 7)]


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make blocks small, so that there are many."""
    monkeypatch.setattr(row_blocks, "BLOCK", 64)


def draw(shape: tuple[int, ...], dtype: Any = np.float32, seed: int = 0) -> np.ndarray[Any, Any]:
    """Numbers over some binades."""
    random = np.random.default_rng(seed)
    return (random.standard_normal(shape) * 2.0 ** random.integers(-6, 7, shape)).astype(dtype)


@pytest.mark.parametrize("order", ["C", "F", "swapped", "reversed", "gaps"])
@pytest.mark.parametrize("shape", SHAPES)
def test_elementwise_formulas_have_the_bits_of_the_whole(shape: tuple[int, ...], order: str) -> None:
    """Oracle: the same formula called on the whole arrays; inputs of any memory order, or of several."""

    def formula(backend: Any, x: Any, y: Any) -> Any:
        return backend.xp.exp(-abs(x)) * (y + 0.3) / (1 + x * x)

    x, y = (_laid_out(draw(shape, seed=i), order) for i in range(2))
    for second in (y, np.ascontiguousarray(y)):
        found = BACKEND.elementwise(formula, x, second)
        np.testing.assert_array_equal(found, formula(BACKEND, x, second))
        assert (found.shape, found.dtype) == (x.shape, x.dtype)


def _laid_out(x: np.ndarray[Any, Any], order: str) -> np.ndarray[Any, Any]:
    if order == "C":
        return x
    if order == "F":
        return np.asfortranarray(x)
    if order == "swapped":
        return np.ascontiguousarray(np.moveaxis(x, 0, -1)).transpose(x.ndim - 1, *range(x.ndim - 1))
    if order == "reversed":
        return np.ascontiguousarray(x[::-1])[::-1]
    return np.repeat(x, 2, axis=-1)[..., ::2]


@pytest.mark.parametrize("shape", [(1000,), (40, 50), (7, 11, 13), (2000, 1), (3, 100)])
def test_rows_have_the_bits_of_the_whole(shape: tuple[int, ...]) -> None:
    """Oracle: the same formula called on the whole array; the sums over rows are NumPy's either way."""

    def formula(backend: Any, x: Any) -> Any:
        e = backend.xp.exp(x - backend.xp.max(x, axis=-1, keepdims=True))
        return e / backend.sum(e, axis=-1, keepdims=True, accumulate="float32")

    x = draw(shape)
    np.testing.assert_array_equal(BACKEND.by_rows(formula, x), formula(BACKEND, x))


def test_what_ops_hand_over_is_worked_through_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the sizes that formulas see: no more than a block, or one row."""
    seen: list[int] = []
    real = np.exp
    monkeypatch.setattr(np, "tanh", lambda x, **o: (seen.append(x.size), real(x * 0, **o))[1])
    monkeypatch.setattr(np, "exp", lambda x, **o: (seen.append(x.size), real(x, **o))[1])
    x = draw((40, 30))
    OPS["gelu"](x, approximate="tanh")
    OPS["softmax"](x)
    OPS["log_softmax"](x, dim=-1)
    assert sum(seen) == 3 * x.size
    assert max(seen) <= 64


@pytest.mark.parametrize("affine", ["both", "weight", "bias", "none"])
@pytest.mark.parametrize(("shape", "ndim"), [((9, 8, 5), 1), ((9, 8, 5), 2), ((3, 200), 1), ((150, 2), 1)])
def test_layer_norm_is_the_readable_form(shape: tuple[int, ...], ndim: int, affine: str) -> None:
    """Oracle: the readable form in float64; results, statistics and gradients."""
    x, g = draw(shape, np.float64), draw(shape, np.float64, 1)
    axes = tuple(range(-ndim, 0))
    w, b = (draw(shape[-ndim:], np.float64, i) for i in (2, 3))
    weight, bias = (w if affine in ("both", "weight") else None), (b if affine in ("both", "bias") else None)
    wanted = RowKernels.layer_norm(BACKEND, x, weight, bias, axes, 1e-5, accumulate="float64")
    found = BACKEND.layer_norm(x, weight, bias, axes, 1e-5, accumulate="float64")
    needs = (True, weight is not None, bias is not None)
    given = (g, x, weight, *wanted[1:], axes, needs)
    wanted += RowKernels.layer_norm_gradient(BACKEND, *given, accumulate="float64")
    found += BACKEND.layer_norm_gradient(*given, accumulate="float64")
    assert [part is None for part in found[4:]] == [not need for need in needs[1:]]
    for got, right in zip(found, wanted, strict=True):
        if right is not None:
            assert got.shape == right.shape
            assert_close(got, right, "fp64_sums")


def test_memory_order() -> None:
    """Oracle: strides by hand."""
    x = np.zeros((2, 3, 4))
    assert memory_order(x) == (0, 1, 2)
    assert memory_order(x.T) == (2, 1, 0)
    assert memory_order(x.transpose(1, 0, 2)) == (1, 0, 2)
    assert memory_order(x[:, ::2]) is None
    assert memory_order(x[::-1]) is None


@pytest.mark.parametrize("fmt", ["float16", "bfloat16"])
def test_rounding_keeps_the_order_of_memory(fmt: str) -> None:
    """Oracle: the strides of what came in, the bits of astype, and a twin with the same values."""
    wide = draw((8, 30, 40)).transpose(1, 0, 2)
    wanted = wide.astype(get(fmt).dtype)
    low = BACKEND.narrow(wide.copy(order="K"), get(fmt))
    np.testing.assert_array_equal(low.view(np.uint16), wanted.view(np.uint16))
    assert [2 * n for n in low.strides] == list(wide.strides)
    assert BACKEND.twins.get(low) is not None
    np.testing.assert_array_equal(BACKEND.wide(low), wanted.astype(np.float32))


@pytest.mark.parametrize("shape", [(5, 40), (5, 3, 20), (5, 2), (5,)])
@pytest.mark.parametrize("index", [np.array([[0, 4, 4], [4, 1, -1]]), np.array([2]), np.zeros((0, 3), int)])
def test_rows_meet_in_their_place(shape: tuple[int, ...], index: Any) -> None:
    """Oracle: np.add.at in float64; long rows and short ones, places from the end, none at all."""
    values = draw((*index.shape, *shape[1:]), np.float64)
    wanted = np.zeros(shape)
    np.add.at(wanted, index, values)
    found = BACKEND.scatter_add(shape, index, values, accumulate="float32")
    assert_close(found, wanted, "fp64_sums")
