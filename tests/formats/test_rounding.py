"""Rounding against exact references: wide formats, other people's casts, any float64; small ones in full are
in ``test_exhaustive``, laws in ``test_laws``.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minimp import formats
from minimp.formats import Format, make
from minimp.formats.rounding import round_to
from tests.formats.oracle import EVERY, FLOATS, MODES, assert_same, round_exactly

STORED = [each for each in FLOATS if each.name not in ("tfloat32", "float64")]
finite = st.floats(allow_nan=False, allow_infinity=False)


WIDE = {  # neighbouring magnitudes are patterns of the dtype this many steps apart
    formats.float32: (np.uint32, 1),
    formats.tfloat32: (np.uint32, 1 << 13),
    make(8, 12): (np.uint32, 1 << 11),
    make(11, 30): (np.uint64, 1 << 22),
}


def intervals(fmt: Format) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return 20,000 neighbouring magnitudes low < high in float64 and the parity of low's code."""
    unsigned, step = WIDE[fmt]
    floats = np.dtype(f"f{np.dtype(unsigned).itemsize}")
    codes = np.unique(np.geomspace(1, fmt.max_code - 1, 20_000).astype(unsigned))
    ends = [(codes + unsigned(further)) * unsigned(step) for further in (0, 1)]
    low, high = (each.view(floats).astype(np.float64) for each in ends)
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
@pytest.mark.parametrize("fmt", WIDE, ids=repr)
def test_around_midpoints_of_wide_formats(fmt: Format, mode: str, dtype: type) -> None:
    """Oracle: by construction. Midpoints between neighbours, and the numbers right beside them."""
    low, high, odd = intervals(fmt)
    middle = low / 2 + high / 2
    with np.errstate(over="ignore", under="ignore"):
        keep = middle.astype(dtype) == middle  # float32 holds no midpoints of its own values
    low, high, odd, middle = low[keep], high[keep], odd[keep], middle[keep].astype(dtype)
    if fmt.mantissa_bits >= 23 and dtype is np.float32:
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
            got = round_to(sign * x, fmt, mode)
            assert got.dtype == dtype
            assert_same(formats.round(sign * x, fmt, mode), got)
            wanted = sign * np.where(goes_high, high, low)
            assert_same(got, wanted, sign * x)


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
@pytest.mark.parametrize("fmt", EVERY, ids=repr)
@settings(max_examples=10 if settings().max_examples < 100 else 40)
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
        assert_same(round_to(x, fmt, mode, overflow), expected, np.float64(x))
        assert_same(formats.round(x, fmt, mode, overflow), expected, np.float64(x))


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
