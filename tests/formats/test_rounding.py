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
from minimp.errors import DataError, FormatError, SettingError
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
        assert_same(formats.round(x, fmt, mode, rng=0), signed, x)


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


@pytest.mark.parametrize("overflow", formats.OVERFLOWS)
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
    assert_same(formats.round(x, "bfloat16", "stochastic", rng=source), first)
    assert (formats.round(x, "bfloat16", "stochastic", rng=source) != first).any()
    assert (formats.round(x, "bfloat16", "stochastic") != formats.round(x, "bfloat16", "stochastic")).any()


# --- overflow, special values, input ------------------------------------------------------------------------

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
