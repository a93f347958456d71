"""Laws of rounding that hold for every number, format and mode."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minimp import formats
from minimp.formats import Format, make, next_down, next_up, ulp_distance
from minimp.formats.codes import decode, encode
from minimp.formats.rounding import round_to
from tests.formats.oracle import EVERY, MODES, OWN, assert_same

WIDE = (formats.float32, formats.tfloat32, formats.float64, make(8, 23, 120, inf=False), make(9, 30))
ALL = (*EVERY, *WIDE)
SIGNED = [each for each in ALL if each.signed and not each.is_integer]
EVEN_HANDED = ("nearest_even", "nearest_away", "toward_zero", "to_odd")


finite = st.floats(allow_nan=False, allow_infinity=False)
drawn = given(seed=st.integers(0, 1 << 32), some=st.lists(finite, max_size=8))
few = settings(max_examples=6 if settings().max_examples < 100 else 30)


def numbers(fmt: Format, seed: int, some: list[float]) -> np.ndarray:
    """Return finite numbers: those drawn, values of the format, what lies beside them, and its ends.

    Beside: half an ulp, a quarter and hardly anything away from a value.
    """
    random = np.random.default_rng(seed)
    codes = random.integers(0, fmt.max_code, 12, np.uint64, endpoint=True) << np.uint64(fmt.padding)
    values = decode(codes, fmt)
    beside = values + random.choice([-0.5, 0.5, 0.25, 2.0**-30], 12) * formats.ulp(values, fmt)
    low = fmt.smallest_normal * random.uniform(0, 4, 4)
    top = fmt.max * random.uniform(0.5, 1 if fmt.max > 2.0**1020 else 3, 4)
    x = np.concatenate([values, beside, low, top, [0.0, fmt.max, fmt.smallest_normal]])
    return np.concatenate([x * random.choice([-1.0, 1.0], x.size), some])


@pytest.mark.parametrize("fmt", ALL, ids=repr)
@few
@drawn
def test_monotone_idempotent_and_between(fmt: Format, seed: int, some: list[float]) -> None:
    """Laws: x <= y gives round(x) <= round(y); a result is a value and stays; down <= any mode <= up."""
    x = np.sort(numbers(fmt, seed, some))
    down, up = (round_to(x, fmt, mode, "saturate") for mode in ("down", "up"))
    for mode in MODES:
        got = round_to(x, fmt, mode, "saturate")
        assert (np.diff(got) >= 0).all()
        assert formats.representable(got, fmt).all()
        assert_same(round_to(got, fmt, mode, "saturate"), got, x)
        assert ((down <= got) & (got <= up)).all()
        loose = round_to(x, fmt, mode)
        loose = loose[~np.isnan(loose)]
        assert (loose[1:] >= loose[:-1]).all()
    inside = (x >= fmt.lowest) & (x <= fmt.max)
    assert (down[inside] <= x[inside]).all()
    assert (x[inside] <= up[inside]).all()


@pytest.mark.parametrize("fmt", SIGNED, ids=repr)
@few
@drawn
def test_symmetry(fmt: Format, seed: int, some: list[float]) -> None:
    """Law: round(-x) = -round(x) in the modes without a direction; up and down are mirror images."""
    x = numbers(fmt, seed, some)
    for there, back in [(mode, mode) for mode in EVEN_HANDED] + [("up", "down"), ("down", "up")]:
        for overflow in ("ieee", "saturate"):
            got, mirrored = round_to(x, fmt, there, overflow), -round_to(-x, fmt, back, overflow)
            if not fmt.has_negative_zero:
                got, mirrored = got + 0.0, mirrored + 0.0
            assert_same(got, mirrored, x)


@pytest.mark.parametrize("fmt", ALL, ids=repr)
@few
@drawn
def test_error_bounds(fmt: Format, seed: int, some: list[float]) -> None:
    """Law: inside the range the error is at most half an ulp to nearest, and less than one in other modes.

    Below the smallest normal number of a format without subnormals the ulp is that number.
    """
    x = numbers(fmt, seed, some)
    x = x[(x >= fmt.lowest) & (x <= fmt.max)]
    for mode in MODES:
        for given_, value in zip(x.tolist(), round_to(x, fmt, mode).tolist(), strict=True):
            ulp = Fraction(float(formats.ulp(given_, fmt)))
            error = abs(Fraction(value) - Fraction(given_))
            assert 2 * error <= ulp if mode.startswith("nearest") else error < ulp


@pytest.mark.parametrize("fmt", ALL, ids=repr)
@few
@drawn
def test_nearest_is_nearest(fmt: Format, seed: int, some: list[float]) -> None:
    """Law: no neighbour of the result is nearer; at a tie both nearest modes are as near."""
    x = numbers(fmt, seed, some)
    x = x[(x >= fmt.lowest) & (x <= fmt.max)]
    for mode in ("nearest_even", "nearest_away"):
        got = round_to(x, fmt, mode)
        for step in (next_up, next_down):
            beside = step(got, fmt)
            for a, b, c in zip(x.tolist(), got.tolist(), beside.tolist(), strict=True):
                if np.isfinite(c):
                    assert abs(Fraction(b) - Fraction(a)) <= abs(Fraction(c) - Fraction(a))


NARROWER = [
    (make(8, 18, flavour="ieee"), formats.bfloat16),
    (make(8, 9), formats.bfloat16),
    (make(5, 12), formats.float16),
    (make(5, 4), formats.float8_e5m2),
    (make(4, 5, inf=False), formats.float8_e4m3fn),
    (formats.float32, formats.float16),
    (formats.float16, formats.float8_e5m2),
    (formats.float64, formats.float32),
]


@pytest.mark.parametrize(("wide", "narrow"), NARROWER, ids=repr)
@few
@drawn
def test_to_odd_and_then_narrower_is_rounding_once(
    wide: Format, narrow: Format, seed: int, some: list[float]
) -> None:
    """Law (Boldo and Melquiond 2008): to odd with two bits more, then rounded again, is as good as once.

    Where the wide format's exponents reach as far as the narrow one's, two bits lower for the subnormals.
    """
    x = numbers(narrow, seed, some)
    x = x[np.abs(x) <= narrow.max]
    x = x[(np.abs(x) >= 4 * narrow.smallest_normal) | (wide.emin < narrow.emin)]
    odd = round_to(x, wide, "to_odd")
    for mode in MODES:
        assert_same(round_to(odd, narrow, mode), round_to(x, narrow, mode), x)


@pytest.mark.parametrize("fmt", ALL, ids=repr)
@few
@drawn
def test_codes_and_numbers_there_and_back(fmt: Format, seed: int, some: list[float]) -> None:
    """Law: decode(encode(x)) = round(x) in every mode; encode(decode(c)) = c for the codes of numbers."""
    x = numbers(fmt, seed, some)
    for mode in MODES:
        assert_same(decode(encode(x, fmt, mode), fmt), round_to(x, fmt, mode), x)
    codes = np.random.default_rng(seed).integers(0, fmt.max_code, 5, endpoint=True)
    codes = codes[(codes >> fmt.mantissa_bits > 0) | fmt.is_gradual] << fmt.padding
    assert encode(decode(codes.astype(fmt.code_dtype), fmt), fmt).tolist() == codes.tolist()


@pytest.mark.parametrize("fmt", ALL, ids=repr)
@few
@drawn
def test_neighbours(fmt: Format, seed: int, some: list[float]) -> None:
    """Laws: down undoes up; what is rounded up lies one step above what is rounded down."""
    x = round_to(numbers(fmt, seed, some), fmt, "nearest_even", "saturate").astype(np.float64)
    inner = x[(x > fmt.lowest) & (x < fmt.max)]
    for there, back in ((next_up, next_down), (next_down, next_up)):
        assert (back(there(inner, fmt), fmt) == inner).all()
    above = next_up(x, fmt)
    assert (above[x < fmt.max] > x[x < fmt.max]).all()
    assert (ulp_distance(above, x, fmt)[x < fmt.max] == 1).all()
    middle = inner / 2 + next_up(inner, fmt) / 2
    middle = middle[~formats.representable(middle, fmt)]
    up, down = (round_to(middle, fmt, mode).astype(np.float64) for mode in ("up", "down"))
    assert (next_up(down, fmt) == up).all()


@pytest.mark.parametrize("fmt", ALL, ids=repr)
@few
@drawn
def test_ulp_distance_is_a_metric(fmt: Format, seed: int, some: list[float]) -> None:
    """Laws: symmetric, 0 only between equals, and additive along the row, so that no way round is shorter."""
    x = round_to(numbers(fmt, seed, some), fmt, "nearest_even", "saturate").astype(np.float64)
    low, middle, high = np.sort(x[:12].reshape(3, 4), axis=0)
    assert_same(ulp_distance(low, high, fmt), ulp_distance(high, low, fmt))
    assert ((ulp_distance(low, high, fmt) == 0) == (low == high)).all()
    if fmt.bits <= 53:  # beyond, float64 rounds the counts
        total = ulp_distance(low, middle, fmt) + ulp_distance(middle, high, fmt)
        assert_same(ulp_distance(low, high, fmt), total)


@pytest.mark.parametrize("fmt", ALL, ids=repr)
@few
@drawn
def test_flush_changes_subnormals_only(fmt: Format, seed: int, some: list[float]) -> None:
    """Law: flushed is kept, but where that is subnormal; there it is a zero of the same sign."""
    x = numbers(fmt, seed, some)
    for mode in MODES:
        kept, flushed = (round_to(x, fmt, mode, subnormals=each) for each in ("keep", "flush"))
        subnormal = (kept != 0) & (np.abs(kept) < fmt.smallest_normal)
        zeros = np.copysign(0.0, kept) if fmt.has_negative_zero else np.zeros(x.shape)
        assert_same(flushed, np.where(subnormal, zeros, kept), x)


@pytest.mark.parametrize("fmt", [formats.float16, formats.bfloat16, *OWN], ids=repr)
@few
@drawn
def test_float32_and_float64_of_one_number_round_alike(fmt: Format, seed: int, some: list[float]) -> None:
    """Law: the source's type is not seen, only its value."""
    with np.errstate(over="ignore", under="ignore"):
        x = numbers(fmt, seed, some).astype(np.float32)
    for mode in MODES:
        assert_same(round_to(x, fmt, mode), round_to(x.astype(np.float64), fmt, mode), x)
