"""Sums by the name of their accumulation, against running sums written out and the product with ones."""

from __future__ import annotations

import itertools
import math
import tracemalloc
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimp import formats
from minimp.errors import FormatError, SettingError, ShapeError
from minimp.formats import matmul
from minimp.formats.accumulation.sums import sum_of
from minimp.formats.exact import round_fraction
from tests.formats.accumulation.products import draw
from tests.formats.oracle import assert_same

EVERY = ("exact", *(name.replace(":B", ":4").replace(":S", ":3") for name in formats.ACCUMULATES))


@pytest.mark.parametrize("name", EVERY)
def test_a_sum_is_the_product_with_ones(name: str) -> None:
    """Oracle: ``matmul``, whose orders are tested against plain loops; terms in C order over any axes."""
    x = draw("float16", (3, 4, 5, 6), 1)
    for count in range(5):
        for axes in itertools.combinations(range(4), count):
            for each in (x, x.transpose(2, 0, 3, 1), x[::-1, :, ::2]):
                kept = [axis for axis in range(4) if axis not in axes]
                rows = each.transpose(*kept, *axes).reshape([each.shape[i] for i in kept] + [-1])
                expected = matmul(
                    rows[..., None, :], np.ones((rows.shape[-1], 1)), fmt="float16", accumulate=name
                )
                got = sum_of(each, axes, fmt="float16", accumulate=name)
                if name in ("float32", "float64"):  # BLAS may choose another order
                    assert (np.abs(got - expected[..., 0, 0]) <= formats.ulp(got, "float16")).all()
                else:
                    assert_same(got, expected[..., 0, 0])


def test_float16_rounds_each_term_first() -> None:
    """Oracle: by hand. 1 + 2^-12 is 1 in float16, so four of them are 4; unrounded they are 4 + 2^-10."""
    x = np.full(4, 1 + 2.0**-12, np.float32)
    for name, expected in (("float16", 4.0), ("float16:fma", 4.0), ("float32", 4 + 2.0**-10)):
        assert sum_of(x, accumulate=name) == expected
    two = np.array([1 + 2.0**-11, 2.0**-11], np.float32)  # a tie, and what lifts it
    assert sum_of(two, accumulate="float16") == 1.0
    assert sum_of(two[::-1], accumulate="float16:fma") == 1 + 2.0**-10
    assert sum_of(np.full(300, 1.0, ml_dtypes.bfloat16), accumulate="bfloat16") == 256.0


@given(data=st.data())
def test_running_sums_of_any_numbers(data: st.DataObject) -> None:
    """Oracle: fractions rounded once a step; halves of any size, their overflow too."""
    numbers = data.draw(st.lists(st.floats(width=16, allow_nan=False, allow_infinity=False), max_size=30))
    x, total = np.array(numbers, np.float16), 0.0
    for term in numbers:
        total = total if math.isinf(total) else round_fraction(Fraction(total) + Fraction(term), "float16")
    for name in ("float16", "float16:fma", "chunked:1"):
        assert float(sum_of(x, accumulate=name)) == total
        many = np.tile(x[:, None], (1, 300))  # enough sums side by side for the quick form
        assert (sum_of(many, 0, accumulate=name) == total).all()


def test_the_order_is_that_of_the_terms() -> None:
    """Oracle: by hand. float16's step at 4096 is 4: terms of 2 that come first count, later ones do not."""
    x = np.array([[2.0, 2.0], [4096.0, 1.0]], np.float16)
    assert sum_of(x, accumulate="float16") == 4100.0  # 2, 4, 4100, 4100
    assert sum_of(x, (1, 0), accumulate="float16") == 4100.0  # axes are not ordered by how they are named
    assert sum_of(x.T, accumulate="float16") == 4096.0  # 2, 4096 (a tie), 4096, 4096
    assert sum_of(x[::-1], accumulate="float16") == 4096.0


def test_matrix_units_sum_what_they_multiply() -> None:
    """Oracle: by hand, and the table of units: 2^16 aligned with 2^-12 loses it; float32 is no factor."""
    x = np.array([256.0, -256.0, 2.0**-18], np.float16)
    assert sum_of(x, accumulate="tensorcore:volta", output="float32") == 0.0
    assert sum_of(x, accumulate="float32", output="float32") == 2.0**-18
    with pytest.raises(SettingError, match="got float32"):
        sum_of(x.astype(np.float32), accumulate="tensorcore:volta")


def test_shapes_and_formats() -> None:
    """Oracle: NumPy's shapes; the format of the dtype is the default, and that of the result."""
    x = np.ones((2, 3, 4), np.float16)
    for axis in (None, 0, -1, (0, 2), (), (2, 0)):
        for keepdims in (False, True):
            assert sum_of(x, axis, keepdims=keepdims).shape == x.sum(axis, keepdims=keepdims).shape
    assert sum_of(np.full(3, 1.0625, np.float16), output="float8_e4m3fn") == 3.25
    assert_same(sum_of(np.zeros((0, 3), np.float16), 0), np.zeros(3))
    assert sum_of(np.zeros((3, 0), np.float16), 0).shape == (0,)
    assert sum_of(np.float16(2.0)) == 2.0


def test_what_is_refused() -> None:
    """Oracle: one clear error each."""
    x = np.ones((2, 3), np.float16)
    for axis in (2, -3, (0, 0), (1, -1)):
        with pytest.raises(ShapeError, match="axis"):
            sum_of(x, axis)
    with pytest.raises(SettingError, match="cannot hold float64"):
        sum_of([0.1, 0.2])
    with pytest.raises(FormatError, match="values of float16"):
        sum_of([0.1], fmt="float16")
    with pytest.raises(FormatError, match="number format"):
        sum_of(np.ones(3, np.complex64))
    with pytest.raises(SettingError, match="did you mean"):
        sum_of(x, accumulate="kahn")


@pytest.mark.parametrize("axis", [0, 1, 2, (1, 2), (0, 2), (0, 1)])
def test_axes_are_not_copied_whole(axis: int | tuple[int, ...]) -> None:
    """Oracle: tracemalloc, beside the result: less than the 16 MiB of the terms; any order of memory."""
    x = np.ones((64, 128, 1024), np.float16)
    for each in (x, x.T, x.transpose(1, 0, 2)):
        tracemalloc.start()
        try:
            result = sum_of(each, axis, accumulate="float32:sequential", output="float64")
            extra = tracemalloc.get_traced_memory()[1] - result.nbytes
        finally:
            tracemalloc.stop()
        assert extra < 12 << 20
        assert (result == each.size / result.size).all()


@pytest.mark.slow
@pytest.mark.parametrize("axis", [0, 1, None])
def test_large_sums(axis: int | None) -> None:
    """Oracle: whole numbers below 2^24, which float32 adds exactly, and NumPy's int64 sum."""
    x = np.random.default_rng(2).integers(-8, 9, (4096, 4096))
    expected = x.sum(axis)
    halves = x.astype(np.float16)
    for name in ("float32", "float32:sequential", "pairwise", "chunked:64", "splitk:7", "float64"):
        if name == "chunked:64" and np.abs(expected).max() > 2048:
            continue
        got = sum_of(halves, axis, accumulate=name, output="float64")
        assert (got == expected).all()
