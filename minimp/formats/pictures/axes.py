"""The axes of a number line in text: which column a number falls into, and where the ticks are.

On the log axis a column is a whole number of binades, or a whole number of columns a binade, so that every
power of two lies at the left edge of a column exactly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import accumulate
from typing import Protocol

import numpy as np
import numpy.typing as npt

from minimp.formats.pictures.ranges import Extent, binades, exponent_of, values_in_binade, weighed_blocks
from minimp.formats.table import Format

__all__ = [
    "Axis",
    "LinearAxis",
    "LogAxis",
    "linear_axis",
    "log_axis",
    "short",
    "shown_binades",
    "values_below",
]

_LARGEST = float(np.finfo(np.float64).max)
_LABEL = 8  # columns from one tick to the next, at least: the longest label and some space


class Axis(Protocol):
    """What the drawing needs to know of an axis."""

    @property
    def columns(self) -> int:
        """Its length in characters; column 0 is the leftmost."""

    @property
    def note(self) -> str:
        """Its unit, for people."""

    def column(self, value: float) -> int:
        """The column that a positive value falls into; below 0 or from ``columns`` on outside the axis."""

    def start(self, fmt: Format) -> int:
        """The column of the least value of a format that the axis can show."""

    def ticks(self) -> tuple[tuple[int, str], ...]:
        """Column and label of each tick, ascending."""

    def density(self, fmt: Format, column: int) -> int:
        """How many values a format has there: in the fullest binade of the column, or in the column."""


@dataclass(frozen=True)
class LogAxis:
    """Powers of two at even distances.

    Attributes:
        low: the exponent at the left edge.
        columns: the length in characters.
        repeat: columns a binade.
        group: binades a column; one of ``repeat`` and ``group`` is 1.
    """

    low: int
    columns: int
    repeat: int = 1
    group: int = 1

    @property
    def note(self) -> str:
        """What one column is."""
        if self.group > 1:
            return f"one column is {self.group} binades"
        return f"one binade is {self.repeat} columns" if self.repeat > 1 else "one column is one binade"

    def column(self, value: float) -> int:
        """The column of a positive value."""
        fraction, exponent = math.frexp(value)
        # log2 may be rounded up to 1
        inside = min(self.repeat - 1, int(self.repeat * math.log2(2 * fraction)))
        return self.place(exponent - 1) + inside

    def place(self, exponent: int) -> int:
        """The column that a binade begins in, or lies in together with others."""
        return (exponent - self.low) * self.repeat // self.group

    def exponents(self, column: int) -> range:
        """The binades of a column."""
        first = self.low + column * self.group // self.repeat
        return range(first, first + self.group)

    def start(self, fmt: Format) -> int:
        """The column of the smallest positive value; 0 is not on this axis."""
        return self.column(fmt.smallest_subnormal)

    def ticks(self) -> tuple[tuple[int, str], ...]:
        """Powers of two whose exponents are multiples of a power of two."""
        step = self.group
        while step * self.repeat < _LABEL * self.group:
            step *= 2
        end = self.low + self.columns * self.group // self.repeat
        first = -(-self.low // step) * step
        return tuple((self.place(each), f"2^{each}") for each in range(first, end, step))

    def density(self, fmt: Format, column: int) -> int:
        """How many values the fullest binade of the column has; 0 beyond the largest value."""
        if column > self.column(fmt.max):
            return 0
        return max(values_in_binade(fmt, each) for each in self.exponents(column))

    def bars(self, own: Extent) -> tuple[int, ...]:
        """How many numbers lie in the binades of each column."""
        found = own.binades
        return tuple(
            sum(found.get(each, 0) for each in self.exponents(column)) for column in range(self.columns)
        )


def log_axis(formats: Sequence[Format], own: Extent | None, columns: int) -> LogAxis:
    """The axis for what ``shown_binades`` chooses, as long as fits into ``columns``."""
    return _fitted(*shown_binades(formats, own, columns), columns)


def shown_binades(formats: Sequence[Format], own: Extent | None, most: int) -> tuple[int, int]:
    """The exponents of the first and the last binade that a picture of formats and numbers shows.

    It shows all formats and numbers. Where that would take more than ``most`` binades and there are numbers,
    formats that have no room beside them are cut, as long as one of them has: what becomes of the numbers is
    then more to the point than the far ends of a wide format.
    """
    ranges = [(each[0], each[-1]) for each in map(binades, formats)]
    if own is None or not own.binades:
        return _hull(ranges)
    numbers = (min(own.binades), max(own.binades))
    whole, shown, held = _hull([*ranges, numbers]), numbers, 0
    for each in sorted(ranges, key=lambda each: _count(_hull((numbers, each)))):
        wider = _hull((shown, each))
        if _count(wider) <= most:
            shown, held = wider, held + 1
    if held in (0, len(ranges)):
        return whole
    room = min(_MARGIN, (most - _count(shown)) // 2)
    return max(shown[0] - room, whole[0]), min(shown[1] + room, whole[1])


_MARGIN = 2  # binades on either side where a wide format goes on


def _hull(ranges: Sequence[tuple[int, int]]) -> tuple[int, int]:
    return min(low for low, _ in ranges), max(high for _, high in ranges)


def _count(ends: tuple[int, int]) -> int:
    return ends[1] - ends[0] + 1


def _fitted(low: int, high: int, columns: int) -> LogAxis:
    """The longest axis from one exponent to another that is at most ``columns`` long."""
    count = high - low + 1
    if count <= columns:
        return LogAxis(low, count * (columns // count), repeat=columns // count)
    group = -(-count // columns)
    while high // group - low // group >= columns:  # whole groups, so that ticks fall on columns
        group += 1
    return LogAxis(low // group * group, high // group - low // group + 1, group=group)


@dataclass(frozen=True)
class LinearAxis:
    """Even distances: column c stands for the values nearest to c · high / (columns - 1)."""

    high: float
    columns: int

    @property
    def step(self) -> Fraction:
        """The distance from column to column."""
        return Fraction(self.high) / (self.columns - 1)

    @property
    def note(self) -> str:
        """What one column is."""
        return f"one column is {short(float(self.step))}"

    def column(self, value: float) -> int:
        """The nearest column; a value in the middle goes right."""
        return math.floor(Fraction(value) / self.step + Fraction(1, 2))

    def start(self, fmt: Format) -> int:
        """The column of 0, or of the smallest value where there is no 0."""
        return self.column(0.0 if fmt.has_zero else fmt.smallest_subnormal)

    def ticks(self) -> tuple[tuple[int, str], ...]:
        """Multiples of a power of two."""
        least = self.step * _LABEL
        step = Fraction(2) ** exponent_of(float(least))
        step = step if step >= least else step * 2
        marks = (float(step * each) for each in range(math.floor(Fraction(self.high) / step) + 1))
        return tuple((self.column(each), short(each)) for each in marks)

    def density(self, fmt: Format, column: int) -> int:
        """How many values fall into the column, 0 included."""
        ends = (self.step * (2 * column - 1) / 2, self.step * (2 * column + 1) / 2)
        return values_below(fmt, ends[1]) - values_below(fmt, ends[0])

    def bars(self, x: npt.ArrayLike) -> tuple[int, ...]:
        """How many numbers of x, by magnitude, fall into each column; infinities and NaN into none."""
        exact = [self.step * (2 * each - 1) / 2 for each in range(self.columns + 1)]
        edges = np.array([float(each) if each <= _LARGEST else math.inf for each in exact])
        counts = np.zeros(self.columns)
        for values, weights in weighed_blocks(x):
            found = np.searchsorted(edges, np.abs(values), side="right") - 1
            inside = np.isfinite(values) & (found < self.columns)
            counts += np.bincount(found[inside], weights[inside], minlength=self.columns)
        return tuple(int(each) for each in counts)


def linear_axis(formats: Sequence[Format], columns: int) -> LinearAxis:
    """The axis from 0 to the largest value of these formats, exactly ``columns`` long."""
    return LinearAxis(max(each.max for each in formats), columns)


def values_below(fmt: Format, bound: Fraction) -> int:
    """How many values v of ``fmt`` have 0 <= v < bound."""
    spanned, before = binades(fmt), _values_before(fmt)
    if bound <= 0:
        return 0
    if bound > Fraction(fmt.max):
        return int(fmt.has_zero) + before[-1]
    exponent = exponent_of(float(bound))  # of the next binade where bound is rounded up: then inside is 0
    if exponent < spanned[0]:
        return int(fmt.has_zero)
    step = Fraction(2) ** (max(exponent, fmt.emin) - fmt.mantissa_bits)
    inside = math.ceil((bound - Fraction(2) ** exponent) / step)
    return int(fmt.has_zero) + before[spanned.index(exponent)] + min(values_in_binade(fmt, exponent), inside)


@lru_cache(maxsize=32)
def _values_before(fmt: Format) -> tuple[int, ...]:
    """How many positive values lie before each binade of a format, and last how many there are."""
    return tuple(accumulate((values_in_binade(fmt, each) for each in binades(fmt)), initial=0))


def short(value: float) -> str:
    """A number in at most eight characters: whole ones below a million as they are, else three digits.

    >>> short(65504.0), short(3.3895313892515355e38), short(0.25)
    ('65504', '3.39e+38', '0.25')
    """
    return f"{value:.0f}" if value == int(value) and abs(value) < 1e6 else f"{value:.3g}"
