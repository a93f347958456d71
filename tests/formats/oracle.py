"""An exact reference for rounding, kept as dull as can be.

A small format's values are listed, code by code, from its definition, and a number is rounded by finding its
two neighbours in the list. No ulps, no scaling, no float arithmetic: fractions and bisection; or, for
many numbers at once, sorted float64 values, which are only compared.

``test_oracle`` holds the list against NumPy's and ml_dtypes' reading of the same codes.
"""

from __future__ import annotations

import functools
import math
from bisect import bisect_right
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from minimp import formats
from minimp.formats import Format, make

SMALL = tuple(each for each in formats.FORMATS.values() if each.bits <= 16 and each.signed)
FLOATS = tuple(each for each in formats.FORMATS.values() if not each.is_integer and each.signed)
MODES = tuple(name for name in formats.ROUNDINGS if name != "stochastic")

UNSIGNED = (formats.float8_e8m0fnu, formats.uint8)
OWN = (
    make(3, 0, inf=False),
    make(3, 0, inf=False, nan=False),
    make(1, 3, inf=False, nan=False),
    make(2, 1, nan=False),
    make(4, 3, nan=False),
    make(4, 3, subnormals=False),
    make(5, 2, 13, flavour="fnuz", subnormals=False),
    make(4, 3, flavour="p3109"),
    make(5, 2, flavour="p3109"),
    make(7, 0, flavour="p3109"),
    make(5, 3, signed=False),
    make(5, 3, inf=False, signed=False),
    make(4, 4, nan=False, signed=False, subnormals=False),
    make(4, 3, -10),
    make(4, 11),
    make(5, 7),
    make(6, 9, 20, inf=False, subnormals=False),
    make(8, 7, 600),
)
"""Formats of one's own: each flavour, with and without sign, subnormals, mantissa; far from 1; of 16 bits."""
EVERY = (*SMALL, *UNSIGNED, *OWN)


def reading(fmt: Format, code: int) -> Fraction | float:
    """Read one code from the definition; inf and NaN as floats, zeros without their sign."""
    e, m, flavour = fmt.exponent_bits, fmt.mantissa_bits, fmt.flavour
    if flavour == "integer":
        return Fraction(code - (1 << fmt.bits) if fmt.signed and code >> (fmt.bits - 1) else code)
    sign = code >> (e + m)
    exponent, mantissa = (code >> m) % (1 << e), code % (1 << m)
    ones = exponent == (1 << e) - 1 and mantissa == (1 << m) - 1
    if flavour == "ieee" and exponent == (1 << e) - 1:
        return math.nan if mantissa else -math.inf if sign else math.inf
    if flavour in ("fn", "scale") and ones:
        return math.nan
    if flavour in ("inf", "p3109") and ones:
        return -math.inf if sign else math.inf
    if flavour in ("fnuz", "p3109") and sign and exponent == mantissa == 0:
        return math.nan
    if exponent or flavour == "scale":
        magnitude = (1 + Fraction(mantissa, 1 << m)) * Fraction(2) ** (exponent - fmt.bias)
    else:
        magnitude = Fraction(mantissa, 1 << m) * Fraction(2) ** (1 - fmt.bias) * fmt.has_subnormals
    return -magnitude if sign else magnitude


@functools.cache
def readings(fmt: Format) -> np.ndarray:
    """Return what every code of a small format stands for, in float64; the index is the code."""
    values = np.array([float(reading(fmt, code)) for code in range(1 << fmt.bits)])
    if fmt.signed and fmt.flavour in ("ieee", "fn", "finite", "inf"):
        values[(values == 0) & (np.arange(1 << fmt.bits) >> (fmt.bits - 1) == 1)] = -0.0
    return values


@functools.cache
def magnitudes(fmt: Format) -> np.ndarray:
    """Return the finite non-negative values of a small format in float64, ascending."""
    values = readings(fmt)
    return np.unique(values[np.isfinite(values) & (values >= 0)]) + 0.0


@dataclass(frozen=True)
class Grid:
    """A format's magnitudes, and the first number beyond them if the exponent had no end.

    odd: whether each has an odd significand, that of the first number beyond the last one being the opposite.
    """

    fmt: Format
    values: tuple[Fraction, ...]
    odd: tuple[bool, ...]

    @functools.cached_property
    def beyond(self) -> Fraction:
        """The next number after the largest, one step of the top binade further."""
        top, binade = self.values[-1], Fraction(1)
        if self.fmt.is_integer:
            return top + 1
        while binade > top:
            binade /= 2
        while 2 * binade <= top:
            binade *= 2
        return top + binade / (1 << self.fmt.mantissa_bits)

    @functools.cached_property
    def row(self) -> tuple[Fraction, ...]:
        """The magnitudes, and the one beyond."""
        return (*self.values, self.beyond)

    @functools.cached_property
    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """The row in float64, and the parity of all but the last."""
        return np.array([float(each) for each in self.row]), np.array(self.odd)


@functools.cache
def grid(fmt: Format) -> Grid:
    """Return a small format's magnitudes as fractions, with the parity of their significands.

    One of a single bit is 1, which is odd; only zero is even then.
    """
    values = tuple(Fraction(each) for each in magnitudes(fmt))
    if fmt.mantissa_bits == 0:
        return Grid(fmt, values, tuple(each != 0 for each in values))
    every = readings(fmt).tolist()
    last_bits = {every[code]: code % 2 == 1 for code in range((1 << fmt.magnitude_bits) - 1, -1, -1)}
    return Grid(fmt, values, tuple(last_bits[each] for each in magnitudes(fmt).tolist()))


def lowest(fmt: Format) -> Fraction:
    """Return the magnitude of the least finite value."""
    marks = grid(fmt).values
    if not fmt.signed:
        return marks[0]
    return marks[-1] + fmt.is_integer


def round_exactly(
    x: Fraction, fmt: Format, mode: str, overflow: str = "ieee", subnormals: str = "keep"
) -> float:
    """Round a rational number to a small format by looking its neighbours up.

    The sign of a zero result is the caller's affair: this returns +0.
    """
    negative, rounded = x < 0, on_the_row(x, fmt, mode)
    if not fmt.has_zero and not rounded:
        if not x and overflow != "saturate":
            return math.nan
        rounded = grid(fmt).values[0]
    limit = lowest(fmt) if negative else grid(fmt).values[-1]
    homeless = negative and not fmt.signed and (rounded != 0 or not fmt.has_zero)
    if rounded > limit or homeless:
        result = _overflowed(fmt, mode, overflow, negative, float(limit))
    else:
        result = float(rounded)
    if subnormals == "flush" and result < fmt.smallest_normal:
        result = 0.0
    return -result if negative and fmt.signed and result else result


def on_the_row(x: Fraction, fmt: Format, mode: str) -> Fraction:
    """Round |x| to the row of magnitudes, the one beyond among them; past that one it stays as it is.

    Where there is no zero, what lies below the smallest value comes as 0.
    """
    marks, magnitude = grid(fmt), abs(x)
    if magnitude < marks.values[0]:
        return Fraction(0)
    return _choose(magnitude, marks, mode, x < 0) if magnitude < marks.beyond else magnitude


def _choose(magnitude: Fraction, marks: Grid, mode: str, negative: bool) -> Fraction:
    values = marks.row
    index = bisect_right(values, magnitude) - 1
    low, high = values[index], values[min(index + 1, len(values) - 1)]
    if magnitude == low:
        return low
    if mode in ("nearest_even", "nearest_away"):
        middle = (low + high) / 2
        if magnitude != middle:
            return low if magnitude < middle else high
        return high if mode == "nearest_away" or marks.odd[index] else low
    takes_high = {"toward_zero": False, "up": not negative, "down": negative, "to_odd": not marks.odd[index]}
    return high if takes_high[mode] else low


def _stays(fmt: Format, mode: str, negative: bool) -> bool:
    """IEEE 754-2019, 7.4: whether a number beyond the last one becomes it whatever the overflow rule."""
    return {
        "nearest_even": False,
        "nearest_away": False,
        "toward_zero": True,
        "up": negative,
        "down": not negative,
        "to_odd": grid(fmt).odd[-1],
    }[mode]


def beyond_all(fmt: Format, negative: bool, limit: float) -> float:
    """Return the magnitude of what stands for numbers past the last one."""
    if fmt.has_inf and (fmt.signed or not negative):
        return math.inf
    return math.nan if fmt.has_nan else limit


def _overflowed(fmt: Format, mode: str, overflow: str, negative: bool, limit: float) -> float:
    if overflow == "saturate" or _stays(fmt, mode, negative):
        return limit
    return beyond_all(fmt, negative, limit)


# --- many numbers at once -----------------------------------------------------------------------------------


def round_all(
    x: np.ndarray, fmt: Format, mode: str, overflow: str = "ieee", subnormals: str = "keep"
) -> np.ndarray:
    """Round float64 numbers, infinities and NaN too, to a small format: ``round_exactly`` by binary search.

    Midpoints of neighbours are numbers of two bits more, so float64 holds them, and comparisons are exact.
    """
    marks, negative = grid(fmt), np.signbit(x)
    values, parity = marks.arrays
    magnitude = np.where(np.isfinite(x), np.abs(x), 0.0)
    index = np.minimum(np.searchsorted(values, magnitude, side="right") - 1, len(values) - 2)
    low, high = values[np.maximum(index, 0)], values[index + 1]
    odd, middle = parity[np.maximum(index, 0)], low / 2 + high / 2
    takes_high = {
        "nearest_even": (magnitude > middle) | ((magnitude == middle) & odd),
        "nearest_away": magnitude >= middle,
        "toward_zero": np.zeros(x.shape, bool),
        "up": ~negative,
        "down": negative,
        "to_odd": ~odd,
    }[mode]
    rounded = np.where((magnitude > low) & takes_high, high, low)
    rounded = np.where(magnitude >= values[-1], magnitude, rounded)
    if not fmt.has_zero:
        rounded = np.where(index < 0, values[0], rounded)
    limit = np.where(negative, float(lowest(fmt)), values[-2])
    past = (rounded > limit) | (
        negative & (x != 0) & (not fmt.signed) & ((rounded != 0) | (not fmt.has_zero))
    )
    result = rounded
    for minus in (False, True):
        edge = float(lowest(fmt)) if minus else values[-2]
        last = edge if overflow == "saturate" else beyond_all(fmt, minus, edge)
        finite_last = edge if _stays(fmt, mode, minus) else last
        result = np.where(past & (negative == minus), finite_last, result)
        result = np.where(np.isinf(x) & (negative == minus), last, result)
    if not fmt.has_zero and overflow == "ieee":
        result = np.where(x == 0, np.nan, result)
    if subnormals == "flush":
        result = np.where(result < fmt.smallest_normal, 0.0, result)
    minus = negative & (fmt.has_negative_zero | ((result != 0) & fmt.signed))
    return np.where(np.isnan(x), np.nan, np.where(minus, -result, result))


def awkward(fmt: Format, dtype: type = np.float64) -> np.ndarray:
    """Return the numbers at which rounding to a small format can go wrong, of both signs.

    All values and all midpoints between neighbours, each with its two neighbours in ``dtype``; numbers around
    and past the largest value; zeros, infinities, the ends of ``dtype``.
    """
    values, _ = grid(fmt).arrays
    with np.errstate(over="ignore", under="ignore"):
        exact = np.concatenate(
            [values, (values[:-1] + values[1:]) / 2, values[:1] / 2, values[-1] * np.array([1.5, 2, 4])]
        )
        centre = exact.astype(dtype)
        info = np.finfo(dtype)
        ends = np.array([0, np.inf, info.max, info.tiny, info.smallest_subnormal, 1, 3], dtype)
        sides = np.nextafter(centre, dtype(0)), np.nextafter(centre, dtype(np.inf))
        every = np.unique(np.concatenate([centre, *sides, ends]))
    return np.concatenate([every, -every])


def same(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Tell where two float arrays are equal bit for bit, all NaNs alike."""
    with np.errstate(invalid="ignore"):  # signalling NaNs
        left, right = np.asarray(left, np.float64), np.asarray(right, np.float64)
    both = np.isnan(left) & np.isnan(right)
    return both | ((left == right) & (np.signbit(left) == np.signbit(right)))


def assert_same(got: np.ndarray, expected: np.ndarray, given: np.ndarray | None = None) -> None:
    """Fail unless two float arrays are equal bit for bit, all NaNs alike; show the first differences."""
    got, expected = np.atleast_1d(got), np.atleast_1d(expected)
    assert got.shape == expected.shape
    wrong = ~same(got, expected)
    shown = np.flatnonzero(wrong)[:5]
    origin = "" if given is None else f" from {np.atleast_1d(given).flat[shown]!r}"
    first = f"got {got.flat[shown]!r}, expected {expected.flat[shown]!r}{origin}"
    assert not wrong.any(), f"{wrong.sum()} differ: {first}"
