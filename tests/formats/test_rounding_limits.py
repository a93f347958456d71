"""Rounding at the limits: overflow, special values, signs of zero, input that is refused."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest

from minimp import formats
from minimp.errors import DataError, FormatError, SettingError
from tests.formats.oracle import SMALL, assert_same, magnitudes

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("name", "x", "ieee", "saturated"),
    [
        ("float8_e4m3fn", 464.0, 448.0, 448.0),  # OCP OFP8 1.0: judged after rounding
        ("float8_e4m3fn", np.nextafter(464.0, 500), NAN, 448.0),
        ("float8_e4m3fn", INF, NAN, 448.0),
        ("float8_e4m3fn", NAN, NAN, NAN),
        ("float8_e5m2", 61439.0, 57344.0, 57344.0),
        ("float8_e5m2", 61440.0, INF, 57344.0),
        ("float8_e5m2", INF, INF, 57344.0),
        ("float16", 65519.0, 65504.0, 65504.0),
        ("float16", 65520.0, INF, 65504.0),
        ("bfloat16", (2 - 2.0**-8) * 2.0**127, INF, (2 - 2.0**-7) * 2.0**127),  # 0x7f7f8000
        ("bfloat16", 3.396177e38, (2 - 2.0**-7) * 2.0**127, (2 - 2.0**-7) * 2.0**127),
        ("float8_e4m3fnuz", 248.0, NAN, 240.0),
        ("float4_e2m1fn", 1e9, 6.0, 6.0),  # OCP MX 1.0: clamps, there is nothing else
        ("float6_e3m2fn", INF, 28.0, 28.0),
        ("int8", 127.5, 127.0, 127.0),
        ("int8", INF, 127.0, 127.0),
    ],
)
def test_overflow_policies(name: str, x: float, ieee: float, saturated: float) -> None:
    """Oracle: the specifications' own numbers."""
    for sign in (1, -1):
        negative = -1 if name != "int8" or not math.isfinite(saturated) else -128 / 127
        wanted = np.array([ieee, ieee, saturated]) * (1 if sign > 0 else negative)
        got = [formats.round(sign * x, name, overflow=each) for each in (None, "ieee", "saturate")]
        assert_same(np.array(got, np.float64), wanted)


def test_directed_modes_overflow_by_direction() -> None:
    """Oracle: IEEE 754-2019, 7.4, with NaN for inf in e4m3fn."""
    x = np.array([1e9, -1e9])
    table = {
        "nearest_even": (INF, -INF),
        "nearest_away": (INF, -INF),
        "toward_zero": (65504, -65504),
        "up": (INF, -65504),
        "down": (65504, -INF),
        "to_odd": (65504, -65504),
    }
    for mode, wanted in table.items():
        assert_same(formats.round(x, "float16", mode), np.array(wanted))
    assert_same(formats.round(x, "float8_e4m3fn", "up"), np.array([NAN, -448]))
    assert_same(formats.round(x, "float8_e4m3fn", "down"), np.array([448, NAN]))
    assert_same(formats.round([449.0, -449.0], "float8_e4m3fn", "toward_zero"), np.array([448.0, -448.0]))
    assert_same(formats.round([INF, -INF], "float16", "toward_zero"), np.array([INF, -INF]))


def test_zeros_keep_their_sign_where_there_is_one() -> None:
    """Oracle: IEEE 754-2019, 6.3; fnuz formats and integers have no -0."""
    x = np.array([0.0, -0.0, 1e-300, -1e-300])
    assert_same(formats.round(x, "float16"), np.array([0.0, -0.0, 0.0, -0.0]))
    for name in ("float8_e4m3fnuz", "float8_e5m2fnuz", "int8"):
        assert_same(formats.round(x, name), np.zeros(4))


def test_nan_is_refused_where_there_is_none() -> None:
    """Oracle: the message counts what came."""
    for name in ("float4_e2m1fn", "float6_e2m3fn", "int8"):
        with pytest.raises(FormatError, match=rf"{name} has no NaN, and 1 of 2 values"):
            formats.round([1.0, NAN], name)


@pytest.mark.parametrize(
    ("x", "dtype"),
    [
        (np.float32([1.1]), np.float32),
        (np.float64([1.1]), np.float64),
        (np.array([1.1], ">f4"), np.float32),
        (np.float16([1.1]), np.float32),
        (np.array([1.1], ml_dtypes.bfloat16), np.float32),
        (np.array([1.5], ml_dtypes.float4_e2m1fn), np.float32),
        (np.int16([300]), np.float32),
        (np.array([True]), np.float32),
        (np.int32([70001]), np.float64),
        (np.int64([2**60]), np.float64),
        ([1.1], np.float64),
        (1.1, np.float64),
    ],
)
def test_input_is_widened_exactly(x: object, dtype: type) -> None:
    """Oracle: float64 holds each of these; the result has x's precision and shape."""
    exact = np.asarray(x).astype(np.float64)
    got = formats.round(x, "float64")
    assert got.dtype == dtype
    assert got.shape == np.shape(x)
    assert_same(got, exact)


def test_shapes_are_kept() -> None:
    """Oracle: the input's shape, the empty and the scalar included."""
    for shape in ((), (0,), (2, 0, 3), (2, 3), (1,)):
        x = np.ones(shape)
        for mode in formats.ROUNDINGS:
            got = formats.round(x, "float16", mode, rng=0)
            assert isinstance(got, np.ndarray)
            assert got.shape == shape
    strided = np.arange(12.0).reshape(3, 4).T[::2]
    assert_same(formats.round(strided / 3, "float8_e5m2"), formats.round(strided.copy() / 3, "float8_e5m2"))


def test_input_is_not_changed() -> None:
    """Oracle: a copy made before, and memory that is not shared."""
    for dtype in (np.float32, np.float64):
        x = np.array([1.1, NAN, -INF, 0.0], dtype)
        before = x.copy()
        got = formats.round(x, "float64")
        assert not np.shares_memory(got, x)
        assert_same(x, before)


@pytest.mark.parametrize("bad", [np.array([1j]), np.array(["1.0"]), np.array([None]), np.longdouble([1])])
def test_what_is_not_real_is_refused(bad: np.ndarray) -> None:
    """Oracle: the message names the dtype."""
    with pytest.raises(DataError, match=str(bad.dtype)):
        formats.round(bad, "float16")


def test_integers_beyond_float64_are_refused() -> None:
    """Oracle: 2^53 + 1 is the first integer that float64 lacks; 2^63 - 1 wraps in careless code."""
    for bad in (2**53 + 1, 2**63 - 1):
        with pytest.raises(DataError, match=str(bad)):
            formats.round(np.array([4, bad]), "float16")
    with pytest.raises(DataError, match=str(2**64 - 1)):
        formats.round(np.array([2**64 - 1], np.uint64), "float16")


def test_unknown_settings_are_refused() -> None:
    """Oracle: the message offers the nearest name."""
    with pytest.raises(SettingError, match="did you mean 'nearest_even'"):
        formats.round(1.0, "float16", "nearest_evn")
    with pytest.raises(SettingError, match="did you mean 'saturate'"):
        formats.round(1.0, "float16", overflow="saturates")


def test_representable() -> None:
    """Oracle: the list of all values, and the numbers between them."""
    for fmt in SMALL:
        values = magnitudes(fmt)
        assert formats.representable(values, fmt).all()
        between = (values[:-1] + values[1:]) / 2
        assert not formats.representable(between, fmt).any()
        assert not formats.representable(2 * fmt.max, fmt)
        special = formats.representable([NAN, INF, -INF, -0.0], fmt)
        assert special.tolist() == [fmt.has_nan, fmt.has_inf, fmt.has_inf, True]
