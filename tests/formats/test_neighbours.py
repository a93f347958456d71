"""The row of values: wide formats, by their patterns and by hand; what is no value."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest

from minimp import formats
from minimp.errors import DataError, FormatError, ShapeError
from minimp.formats import make, next_down, next_up, ulp_distance, values
from tests.formats.oracle import assert_same


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ml_dtypes.bfloat16])
def test_next_is_nextafter(dtype: type) -> None:
    """Oracle: NumPy's and ml_dtypes' nextafter, on random patterns and the corners."""
    fmt = formats.get(dtype)
    codes = np.random.default_rng(1).integers(0, 1 << fmt.bits, 50_000, fmt.code_dtype)
    corners = [0, 1, fmt.max_code, fmt.inf_code, fmt.nan_code, 1 << fmt.mantissa_bits]
    corners = np.array(corners + [each | 1 << (fmt.bits - 1) for each in corners], fmt.code_dtype)
    with np.errstate(all="ignore"):
        x = np.concatenate([codes, corners]).view(dtype)
        up = np.nextafter(x, dtype(np.inf)).astype(np.float64)
        down = np.nextafter(x, dtype(-np.inf)).astype(np.float64)
        up[(up == 0) & (x < 0)] = -0.0  # IEEE 754-2019, 5.3.1, which ml_dtypes' bfloat16 does not follow
        assert_same(next_up(x, fmt), up, x)
        assert_same(next_down(x, fmt), down, x)


def test_tfloat32_steps_by_its_own_ulp() -> None:
    """Oracle: float32 patterns 2^13 apart."""
    x = formats.round(np.random.default_rng(2).standard_normal(1000).astype(np.float32), "tfloat32")
    away = (x.view(np.uint32) + (1 << 13)).view(np.float32)
    assert_same(next_up(np.abs(x), "tfloat32"), np.abs(away))
    assert_same(next_down(-np.abs(x), "tfloat32"), -np.abs(away))
    assert next_up(0.0, "tfloat32") == 2.0**-136


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_ulp_distance_counts_patterns(dtype: type) -> None:
    """Oracle: the difference of the patterns as whole numbers, from one end of the row to the other."""
    fmt = formats.get(dtype)
    random = np.random.default_rng(3)
    magnitude = random.integers(0, fmt.inf_code, (2, 20_000), fmt.code_dtype, endpoint=True)
    sign = random.choice([-1, 1], (2, 20_000))
    a, b = magnitude.view(dtype) * sign.astype(dtype)
    places = [
        [int(code) * int(side) for code, side in zip(*each, strict=True)]
        for each in zip(magnitude, sign, strict=True)
    ]
    expected = [float(abs(first - second)) for first, second in zip(*places, strict=True)]
    assert ulp_distance(a, b, fmt).tolist() == expected
    ends = ulp_distance(-np.inf, np.inf, fmt)
    assert ends == 2.0 * fmt.inf_code


def test_ulp_distance_by_hand() -> None:
    """Oracle: by hand; zeros are one place, and the two numbers next to them 2 apart."""
    tiny = 2.0**-24
    for a, b, steps in (
        (0.0, -0.0, 0),
        (tiny, -tiny, 2),
        (65504.0, math.inf, 1),
        (1.0, 2.0, 1024),
        (-math.inf, math.inf, 2 * 0x7C00),
        (math.nan, math.nan, 0),
    ):
        assert ulp_distance(a, b, "float16") == steps
    assert math.isnan(ulp_distance(1.0, math.nan, "float16"))
    assert ulp_distance(-128, 127, "int8") == 255
    assert ulp_distance(2.0**-127, 2.0**127, "float8_e8m0fnu") == 254
    assert ulp_distance(-1.0, 1.0, make(4, 3, subnormals=False)) == 2 * (7 * 8 - 8 + 1)
    assert ulp_distance([[1.0], [2.0]], [1.0, 2.0, 4.0], "float16").tolist() == [
        [0, 1024, 2048],
        [1024, 0, 1024],
    ]


def test_zeros_by_hand() -> None:
    """Oracle: IEEE 754-2019, 5.3.1; formats without -0 have none; unsigned ones end at 0."""
    tiny = 2.0**-24
    assert_same(next_up(-tiny, "float16"), np.float64(-0.0))
    assert_same(next_down(tiny, "float16"), np.float64(0.0))
    assert_same(next_up([0.0, -0.0], "float16"), np.array([tiny, tiny]))
    assert_same(next_down([0.0, -0.0], "float16"), np.array([-tiny, -tiny]))
    assert_same(next_up(-(2.0**-10), "float8_e4m3fnuz"), np.float64(0.0))
    assert_same(next_up(-1, "int8"), np.float64(0.0))
    assert_same(next_down(0.0, "uint8"), np.float64(0.0))
    assert_same(next_down(2.0**-127, "float8_e8m0fnu"), np.float64(2.0**-127))
    bare = make(4, 3, subnormals=False)
    assert_same(next_up(0.0, bare), np.float64(bare.smallest_normal))
    assert_same(next_down(bare.smallest_normal, bare), np.float64(0.0))


def test_shapes_are_kept() -> None:
    """Oracle: the input's shape."""
    for shape in ((), (0,), (2, 3)):
        x = np.ones(shape)
        assert next_up(x, "float16").shape == next_down(x, "bfloat16").shape == shape
        assert ulp_distance(x, 1.0, "float8_e5m2").shape == shape


def test_what_is_no_value_is_refused() -> None:
    """Oracle: the messages."""
    for step in (next_up, next_down):
        with pytest.raises(FormatError, match=r"expected values of float16, but 1 of 2 are none, .*0\.1"):
            step([1.0, 0.1], "float16")
        with pytest.raises(FormatError, match="did you mean 'float16'"):
            step(1.0, "floot16")
    with pytest.raises(FormatError, match="values of float8_e8m0fnu"):
        next_up(0.0, "float8_e8m0fnu")
    with pytest.raises(FormatError, match="values of float4_e2m1fn"):
        ulp_distance(1.0, math.inf, "float4_e2m1fn")
    with pytest.raises(ShapeError, match=r"\(2,\), \(3,\) do not broadcast"):
        ulp_distance(np.ones(2), np.ones(3), "float16")
    with pytest.raises(DataError, match="complex128"):
        next_up(1j, "float16")


@pytest.mark.parametrize("fmt", [formats.float32, formats.tfloat32, formats.float64, make(8, 8)], ids=repr)
def test_long_rows_are_not_listed(fmt: formats.Format) -> None:
    """Oracle: the message gives the number of codes and the way out."""
    with pytest.raises(FormatError, match=rf"{fmt} has 2\^{fmt.bits} codes, too many") as caught:
        values(fmt)
    assert "next_up" in str(caught.value)
