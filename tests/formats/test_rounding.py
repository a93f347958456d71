"""Rounding against exact references, exhaustively where the formats are small."""

from __future__ import annotations

import math
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimp import formats
from minimp.formats import Format
from tests.formats.oracle import FLOATS, MODES, SMALL, assert_same, magnitudes, round_exactly

SMALL_FLOATS = [each for each in SMALL if not each.is_integer]
STORED = [each for each in FLOATS if each.name not in ("tfloat32", "float64")]
finite = st.floats(allow_nan=False, allow_infinity=False)


def intervals(fmt: Format) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return neighbouring magnitudes low < high in float64 and the parity of low's code.

    Small formats: all of them. float32 and tfloat32: a spread sample, from float32 bit patterns.
    """
    if fmt.bits <= 16:
        values = magnitudes(fmt)
        return values[:-1], values[1:], np.arange(len(values) - 1) % 2 == 1
    step = 1 << fmt.padding
    codes = np.unique(np.geomspace(1, 0x7F000000 // step, 20_000).astype(np.uint32))
    low = (codes * step).astype(np.uint32).view(np.float32).astype(np.float64)
    high = ((codes + 1) * step).astype(np.uint32).view(np.float32).astype(np.float64)
    return low, high, codes % 2 == 1


def expected_between(mode: str, side: int, negative: bool, odd: np.ndarray) -> np.ndarray:
    """Tell where a number between low and high goes to high; side: -1, 0, 1 seen from the midpoint."""
    if mode == "nearest_even":
        return np.full(odd.shape, side > 0) if side else odd
    if mode == "nearest_away":
        return np.full(odd.shape, side >= 0)
    if mode == "to_odd":
        return ~odd
    return np.full(odd.shape, (mode == "up" and not negative) or (mode == "down" and negative))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("fmt", [each for each in FLOATS if each.name != "float64"], ids=repr)
def test_around_every_midpoint(fmt: Format, mode: str, dtype: type) -> None:
    """Oracle: by construction. Each midpoint between neighbours, and the numbers right beside it."""
    low, high, odd = intervals(fmt)
    middle = (low + high) / 2
    keep = middle.astype(dtype) == middle  # float32 holds no midpoints of its own values
    low, high, odd, middle = low[keep], high[keep], odd[keep], middle[keep].astype(dtype)
    if fmt.name == "float32" and dtype is np.float32:
        assert not keep.any()
        return
    assert keep.sum() > len(keep) // 2
    for sign in (1, -1):
        for side, x in (
            (-1, np.nextafter(middle, dtype(0))),
            (0, middle),
            (1, np.nextafter(middle, dtype(np.inf))),
        ):
            goes_high = expected_between(mode, side, sign < 0, odd)
            got = formats.round(sign * x, fmt, mode)
            wanted = sign * np.where(goes_high, high, low)
            if not fmt.has_negative_zero:
                wanted = wanted + 0.0
            assert got.dtype == dtype
            assert_same(got, wanted, sign * x)


@pytest.mark.parametrize("mode", [*MODES, "stochastic"])
@pytest.mark.parametrize("fmt", SMALL, ids=repr)
def test_values_of_the_format_stay(fmt: Format, mode: str) -> None:
    """Oracle: identity, for every value of every small format, in every mode."""
    values = magnitudes(fmt)
    for x in (values, -values + (0.0 if fmt.has_negative_zero else 0.0 * values)):
        signed = x if fmt.has_negative_zero else x + 0.0
        assert_same(formats.round(x, fmt, mode, rng=0 if mode == "stochastic" else None), signed, x)


@pytest.fixture(scope="module")
def patterns() -> np.ndarray:
    """float32 numbers of every sign, exponent and kind: 400,000 random bit patterns and the corners."""
    bits = np.random.default_rng(1).integers(0, 1 << 32, 400_000, dtype=np.uint32)
    corners = np.array([0, 1, 0x7F800000, 0x7FC00000, 0x7F7FFFFF, 0x00800000, 0x007FFFFF], np.uint32)
    with np.errstate(invalid="ignore"):
        return np.concatenate([bits, corners, corners | 0x80000000]).view(np.float32)


@pytest.mark.parametrize("fmt", STORED, ids=repr)
def test_float32_rounds_as_ml_dtypes_does(fmt: Format, patterns: np.ndarray) -> None:
    """Oracle: NumPy's and ml_dtypes' own casts from float32, which are right (those from float64 are not)."""
    x = patterns if fmt.has_nan else patterns[~np.isnan(patterns)]
    with np.errstate(all="ignore"):
        expected = x.astype(fmt.dtype).astype(np.float32)
    got = formats.round(x, fmt)
    assert got.dtype == np.float32
    assert_same(got, expected, x)


@pytest.mark.parametrize("source", [np.float16, ml_dtypes.bfloat16], ids=["float16", "bfloat16"])
@pytest.mark.parametrize("fmt", STORED, ids=repr)
def test_every_16_bit_number_into_every_format(fmt: Format, source: type) -> None:
    """Oracle: ml_dtypes, from float32, for all 65,536 codes."""
    with np.errstate(all="ignore"):
        x = np.arange(1 << 16, dtype=np.uint16).view(source)
        x = x if fmt.has_nan else x[~np.isnan(x)]
        expected = x.astype(np.float32).astype(fmt.dtype).astype(np.float32)
        got = formats.round(x, fmt)
    assert got.dtype == np.float32
    assert_same(got, expected)


@pytest.mark.parametrize("target", [np.float16, np.float32])
def test_float64_is_rounded_once(target: type) -> None:
    """Oracle: NumPy's casts from float64, which are right, on numbers close to ties of the narrow format."""
    random = np.random.default_rng(2)
    narrow = random.standard_normal(50_000).astype(target)
    above = np.nextafter(narrow, target(np.inf))
    middle = (narrow.astype(np.float64) + above.astype(np.float64)) / 2
    for x in (middle, np.nextafter(middle, 9.0), np.nextafter(middle, -9.0), random.standard_normal(50_000)):
        assert_same(formats.round(x, target), x.astype(target).astype(np.float64), x)


def test_double_rounding_traps() -> None:
    """Oracle: by hand. Each is just off a tie, by less than float32 can see; through float32 all go wrong."""
    traps = [
        (1.6445312500000002, "bfloat16", 1.6484375),  # ml_dtypes 0.6.0 gives 1.640625
        (1 + 2.0**-8 + 2.0**-40, "bfloat16", 1 + 2.0**-7),
        (1 + 2.0**-11 + 2.0**-52, "float16", 1 + 2.0**-10),
        (1 + 3 * 2.0**-11 - 2.0**-52, "float16", 1 + 2.0**-10),
        (1.0625 + 2.0**-50, "float8_e4m3fn", 1.125),
        (464 + 2.0**-30, "float8_e4m3fn", math.nan),
        (2.0**-25 + 2.0**-77, "float16", 2.0**-24),
        (65520 - 2.0**-30, "float16", 65504.0),
    ]
    for x, name, expected in traps:
        assert_same(formats.round(x, name), np.float64(expected))
        through_float32 = formats.round(np.float32(x), name)
        assert through_float32 != expected


@pytest.mark.parametrize("overflow", ["ieee", "saturate"])
@pytest.mark.parametrize("fmt", SMALL, ids=repr)
@given(data=st.data())
def test_any_float64_against_fractions(fmt: Format, overflow: str, data: st.DataObject) -> None:
    """Oracle: neighbours looked up in the list of all values, compared as fractions."""
    near = st.floats(-4 * fmt.max, 4 * fmt.max)
    tiny = st.floats(-4 * fmt.smallest_normal, 4 * fmt.smallest_normal)
    x = data.draw(st.one_of(finite, near, tiny))
    for mode in MODES:
        expected = np.float64(round_exactly(Fraction(x), fmt, mode, overflow))
        if expected == 0 and fmt.has_negative_zero:
            expected = np.copysign(expected, x)
        assert_same(formats.round(x, fmt, mode, overflow), expected, np.float64(x))


GFLOAT_NAMES = {
    "float16": "binary16",
    "bfloat16": "bfloat16",
    "float8_e4m3fn": "ocp_e4m3",
    "float8_e5m2": "ocp_e5m2",
    "float6_e2m3fn": "ocp_e2m3",
    "float6_e3m2fn": "ocp_e3m2",
    "float4_e2m1fn": "ocp_e2m1",
}
GFLOAT_MODES = {
    "nearest_even": "TiesToEven",
    "nearest_away": "TiesToAway",
    "toward_zero": "TowardZero",
    "up": "TowardPositive",
    "down": "TowardNegative",
}


@pytest.mark.parametrize("mode", GFLOAT_MODES)
@pytest.mark.parametrize("name", GFLOAT_NAMES)
def test_agrees_with_gfloat(name: str, mode: str) -> None:
    """Oracle: gfloat's round_ndarray; overflow there is by the same two rules."""
    gfloat = pytest.importorskip("gfloat")
    known = pytest.importorskip("gfloat.formats")
    info = getattr(known, f"format_info_{GFLOAT_NAMES[name]}")
    fmt, random = formats.get(name), np.random.default_rng(3)
    x = random.standard_normal(20_000) * 2.0 ** random.integers(
        fmt.emin - fmt.mantissa_bits - 3, fmt.emax + 3, 20_000
    )
    x = np.concatenate([x, [0.0, -0.0, fmt.max, -fmt.max, np.inf, -np.inf]])
    for overflow in ("ieee", "saturate") if fmt.has_nan else ("saturate",):
        expected = gfloat.round_ndarray(info, x, gfloat.RoundMode[GFLOAT_MODES[mode]], overflow == "saturate")
        assert_same(formats.round(x, fmt, mode, overflow), expected, x)


# --- laws ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("fmt", formats.FORMATS.values(), ids=repr)
@given(x=finite, y=finite)
def test_rounding_is_monotone_and_idempotent(fmt: Format, mode: str, x: float, y: float) -> None:
    """Law: x <= y implies round(x) <= round(y) where both are numbers; a rounded number is a fixed point."""
    low, high = formats.round(np.sort([x, y]), fmt, mode)
    assert not low > high
    numbers = formats.round([low, high], fmt, mode) if fmt.has_nan else np.array([low, high])
    assert_same(numbers, np.array([low, high]))


@pytest.mark.parametrize("mode", ["nearest_even", "nearest_away", "toward_zero", "to_odd"])
@pytest.mark.parametrize("fmt", FLOATS, ids=repr)
@given(x=finite)
def test_symmetric_modes_are_symmetric(fmt: Format, mode: str, x: float) -> None:
    """Law: round(-x) = -round(x); and up and down are each other's mirror image."""
    mirrored = -formats.round(-x, fmt, mode)
    up, down = formats.round(x, fmt, "up"), -formats.round(-x, fmt, "down")
    if not fmt.has_negative_zero:
        mirrored, down = mirrored + 0.0, down + 0.0
    assert_same(formats.round(x, fmt, mode), mirrored)
    assert_same(up, down)


@pytest.mark.parametrize("fmt", formats.FORMATS.values(), ids=repr)
@given(data=st.data())
def test_error_is_at_most_half_an_ulp(fmt: Format, data: st.DataObject) -> None:
    """Law: |round(x) - x| <= ulp/2 for nearest, < ulp otherwise; toward_zero stays between x and 0."""
    x = data.draw(st.floats(fmt.lowest, fmt.max))
    ulp = Fraction(float(formats.ulp(x, fmt)))
    for mode in MODES:
        rounded = Fraction(float(formats.round(x, fmt, mode)))
        error = abs(rounded - Fraction(x))
        assert error <= ulp / 2 if mode.startswith("nearest") else error < ulp
        if mode == "toward_zero":
            assert abs(rounded) <= abs(Fraction(x))


@given(x=st.floats(-70000, 70000))
def test_to_odd_makes_a_second_rounding_safe(x: float) -> None:
    """Law (Boldo and Melquiond 2008): to odd in float32, then to float16, equals rounding once."""
    odd = formats.round(x, "float32", "to_odd")
    for mode in MODES:
        assert_same(formats.round(odd, "float16", mode), formats.round(x, "float16", mode))


# --- stochastic ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fmt", ["float16", "bfloat16", "float8_e4m3fn", "float4_e2m1fn", "int8"])
@pytest.mark.parametrize("share", [0.03125, 0.5, 0.9])
def test_stochastic_is_unbiased(fmt: str, share: float) -> None:
    """Oracle: the binomial law. 40,000 draws; |count - n p| < 5 sigma fails a right rule in 1 of 1.7 million
    runs, and a rule biased by 0.016 or more (a 5-bit residue) is caught; the seed is fixed, so it never fails
    by chance.
    """
    n, low, high = 40_000, 3.0, float(formats.inspect(3.0, fmt).neighbours[1])
    for sign in (1.0, -1.0):
        x = np.full(n, sign * (low + share * (high - low)))
        got = formats.round(x, fmt, "stochastic", rng=np.random.default_rng(4))
        assert set(np.unique(np.abs(got))) == {low, high}
        ups = int((np.abs(got) == high).sum())
        assert abs(ups - n * share) < 5 * math.sqrt(n * share * (1 - share))


def test_stochastic_works_on_subnormals_and_overflow() -> None:
    """Oracle: the binomial law at 2^-26, a quarter of float16's smallest value (5 sigma of 10,000 draws), and
    the threshold 65536 beyond 65504.
    """
    got = formats.round(np.full(10_000, 2.0**-26), "float16", "stochastic", rng=5)
    assert set(np.unique(got)) == {0.0, 2.0**-24}
    assert abs((got > 0).sum() - 2500) < 5 * math.sqrt(10_000 * 0.25 * 0.75)
    top = formats.round(np.full(10_000, 65520.0), "float16", "stochastic", rng=6)
    assert set(np.unique(top)) == {65504.0, np.inf}


def test_stochastic_repeats_with_its_seed() -> None:
    """Oracle: equality of two runs with one seed, difference of two seeds, progress of one generator."""
    x = np.random.default_rng(7).standard_normal(1000)
    first = formats.round(x, "bfloat16", "stochastic", rng=8)
    assert_same(formats.round(x, "bfloat16", "stochastic", rng=8), first)
    assert (formats.round(x, "bfloat16", "stochastic", rng=9) != first).any()
    source = np.random.default_rng(8)
    drawn = formats.round(x, "bfloat16", "stochastic", rng=source)
    assert (formats.round(x, "bfloat16", "stochastic", rng=source) != drawn).any()
    assert_same(formats.round(x, "bfloat16", "stochastic", rng=np.random.default_rng(8)), drawn)
