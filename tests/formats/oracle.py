"""An exact reference for rounding, kept as dull as can be.

A small format's values are listed (from ml_dtypes' or NumPy's reading of its codes), and a number is rounded
by finding its two neighbours in the list. No exponents, no ulps, no floating-point arithmetic: fractions and
bisection.
"""

from __future__ import annotations

import functools
import math
from bisect import bisect_right
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from minimp import formats
from minimp.formats import Format

SMALL = tuple(each for each in formats.FORMATS.values() if each.bits <= 16 and each.signed)
FLOATS = tuple(each for each in formats.FORMATS.values() if not each.is_integer and each.signed)
MODES = tuple(name for name in formats.ROUNDINGS if name != "stochastic")


@functools.cache
def magnitudes(fmt: Format) -> np.ndarray:
    """Return the finite non-negative values of a small format in float64; the index is the code."""
    if fmt.is_integer:
        return np.arange(128.0)
    codes = np.arange(1 << (fmt.bits - 1), dtype=fmt.code_dtype)
    with np.errstate(invalid="ignore"):  # ml_dtypes warns when it widens a signalling NaN
        values = codes.view(fmt.dtype).astype(np.float64)
    return values[np.isfinite(values)]


@dataclass(frozen=True)
class Grid:
    """A format's magnitudes, and the first number beyond them if the exponent had no end."""

    fmt: Format
    values: tuple[Fraction, ...]

    @property
    def beyond(self) -> Fraction:
        """The next number after the largest, one step of the top binade further."""
        return 2 * self.values[-1] - self.values[-2]


@functools.cache
def grid(fmt: Format) -> Grid:
    """Return a small format's magnitudes as fractions."""
    return Grid(fmt, tuple(Fraction(each) for each in magnitudes(fmt)))


def round_exactly(x: Fraction, fmt: Format, mode: str, overflow: str = "ieee") -> float:
    """Round a rational number to a small format by looking its neighbours up.

    The sign of a zero result is the caller's affair: this returns +0.
    """
    marks, negative, magnitude = grid(fmt), x < 0, abs(x)
    limit = Fraction(128) if fmt.is_integer and negative else marks.values[-1]
    if magnitude <= limit:
        result = float(_choose(magnitude, marks, mode, negative))
    elif magnitude < marks.beyond and _choose(magnitude, marks, mode, negative) == limit:
        result = float(limit)
    else:
        result = _overflowed(fmt, mode, overflow, negative, float(limit))
    return -result if negative and result else result


def _choose(magnitude: Fraction, marks: Grid, mode: str, negative: bool) -> Fraction:
    values = (*marks.values, marks.beyond)
    index = bisect_right(values, magnitude) - 1
    low, high = values[index], values[min(index + 1, len(values) - 1)]
    if magnitude == low:
        return low
    if mode in ("nearest_even", "nearest_away"):
        middle = (low + high) / 2
        if magnitude != middle:
            return low if magnitude < middle else high
        return high if mode == "nearest_away" or index % 2 else low
    takes_high = {"toward_zero": False, "up": not negative, "down": negative, "to_odd": index % 2 == 0}[mode]
    return high if takes_high else low


def _overflowed(fmt: Format, mode: str, overflow: str, negative: bool, limit: float) -> float:
    stays = {
        "nearest_even": False,
        "nearest_away": False,
        "toward_zero": True,
        "up": negative,
        "down": not negative,
        "to_odd": (len(grid(fmt).values) - 1) % 2 == 1,
    }[mode]
    if overflow == "saturate" or stays:
        return limit
    return math.inf if fmt.has_inf else math.nan if fmt.has_nan else limit


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
