"""Columns, ticks and counts of the axes in text; oracles: fractions, and every value of small formats."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from minimp.formats import FORMATS, Format, decode, get, make
from minimp.formats.pictures.axes import (
    LinearAxis,
    LogAxis,
    linear_axis,
    log_axis,
    short,
    shown_binades,
    values_below,
)
from minimp.formats.pictures.ranges import binades, extent

SMALL = tuple(each for each in FORMATS.values() if each.bits <= 16)
OWN = (make(3, 2, subnormals=False), make(5, 7, signed=False), make(2, 6, bias=9, inf=False, nan=False))
NAMES = st.lists(st.sampled_from([*FORMATS]), min_size=1, max_size=4)
COLUMNS = st.integers(29, 90)
POSITIVE = st.floats(min_value=5e-324, allow_infinity=False, allow_nan=False)


def values_of(fmt: Format) -> list[float]:
    """Return the finite values from 0 on of a small format, ascending."""
    values = np.unique(decode(np.arange(1 << fmt.bits), fmt))
    return [float(each) for each in values[np.isfinite(values) & (values >= 0)]]


# ---- powers of two at even distances -----------------------------------------------------------------------


@given(st.integers(-1074, 900), st.integers(1, 30), st.booleans(), POSITIVE)
@example(0, 3, True, math.nextafter(2.0, 0))
@example(-4, 7, True, 0.0625)
def test_the_column_of_a_number(low: int, by: int, wide: bool, value: float) -> None:
    """Oracle: fractions: powers of two lie on the left edge, all else where the rational power says."""
    axis = LogAxis(low, 80, repeat=by) if wide else LogAxis(low, 80, group=by)
    column = axis.column(value)
    per = Fraction(by) if wide else Fraction(1, by)
    exponent = math.frexp(value)[1] - 1
    assert axis.column(math.ldexp(1.0, exponent)) == math.floor((exponent - low) * per)
    # 2^(low + column / per) <= value < 2^(low + (column + 1) / per), both to the power of repeat; exact but
    # for log2's last digit, so a number at the very edge of a column may lie in the one beside it.
    assert column < math.floor((exponent + 1 - low) * per) or not wide
    power = (math.log2(value) - low) * float(per)
    assert math.floor(power - 1e-6) <= column <= math.floor(power + 1e-6)


@given(NAMES, st.lists(st.floats(allow_nan=False), max_size=6), COLUMNS)
@example(["float64"], [5e-324, 1.7e308], 29)
@example(["bfloat16", "float16"], [1e-3], 71)
def test_a_log_axis_holds_what_it_should(names: list[str], x: list[float], columns: int) -> None:
    """Oracle: the rules: all numbers are on it, and all formats where there are no numbers; ticks at 2^e."""
    chosen = [get(each) for each in names]
    own = extent(x) if x else None
    axis = log_axis(chosen, own, columns)
    assert 0 < axis.columns <= columns
    assert 1 in (axis.repeat, axis.group)
    shown = [end for each in chosen for end in (each.smallest_subnormal, each.max)]
    if own is not None and own.smallest and own.largest:
        shown = [own.smallest, own.largest]
    assert all(0 <= axis.column(each) < axis.columns for each in shown)
    if axis.group == 1 and (own is None or not own.binades):
        assert axis.columns > columns / 2  # as long as whole binades allow
    for column, label in axis.ticks():
        exponent = int(label.removeprefix("2^"))
        assert Fraction(column) == Fraction((exponent - axis.low) * axis.repeat, axis.group)
    places = [column for column, _ in axis.ticks()]
    assert all(second - first >= 8 for first, second in pairwise(places))
    assert places or axis.columns < 16


def test_numbers_come_before_the_ends_of_a_wide_format() -> None:
    """Oracle: by hand: of 100 binades float16 has 40, and there is room for two more on each side."""
    chosen = [get("bf16"), get("fp16"), get("fp64")]
    assert shown_binades(chosen, extent([0.5, 1e-3]), 100) == (-26, 17)
    assert shown_binades(chosen, extent([0.5, 1e-3]), 43) == (-25, 16)
    assert shown_binades(chosen, extent([0.5, 1e-3]), 40) == (-24, 15)
    assert shown_binades(chosen, extent([0.5, 1e-3]), 39) == (-1074, 1023)
    assert shown_binades(chosen, None, 100) == (-1074, 1023)
    assert shown_binades(chosen, extent([0.0]), 100) == (-1074, 1023)
    assert shown_binades([get("fp16")], extent([1e-30, 1e30]), 100) == (-100, 99)


@pytest.mark.parametrize("fmt", SMALL, ids=repr)
def test_density_and_bars_on_the_log_axis(fmt: Format) -> None:
    """Oracle: the values of the format counted by binade; as numbers they make the bars."""
    values = np.array(values_of(fmt))
    counts = dict(zip(*np.unique(np.frexp(values[values > 0])[1] - 1, return_counts=True), strict=True))
    for columns in (30, 80):
        axis, own = log_axis([fmt], None, columns), extent(values)
        bars = axis.bars(own)
        for column in range(axis.columns):
            inside = [counts.get(each, 0) for each in axis.exponents(column)]
            full = max(inside) if column <= axis.column(fmt.max) else 0
            assert (axis.density(fmt, column), bars[column]) == (full, sum(inside))
        assert sum(bars) == np.count_nonzero(values) * axis.repeat


# ---- even distances ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("fmt", [*SMALL, *OWN], ids=repr)
def test_values_below(fmt: Format) -> None:
    """Oracle: the list of all values, at each of 200 of them, just beside it, and in the middle."""
    values = values_of(fmt)
    chosen = values if len(values) <= 200 else values[:60] + values[-60:] + values[:: len(values) // 80]
    for each in map(Fraction, chosen):
        for bound in (each, each + Fraction(1, 10**60), each - Fraction(1, 10**60), each * Fraction(3, 2)):
            assert values_below(fmt, bound) == int(np.searchsorted(values, _ceiling(values, bound)))
    assert values_below(fmt, Fraction(10) ** 400) == len(values)
    assert values_below(fmt, Fraction(-1)) == 0


def _ceiling(values: list[float], bound: Fraction) -> float:
    """Return the least value that is not below a bound; inf where all are."""
    low, high = 0, len(values)
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if Fraction(values[middle]) < bound else (low, middle)
    return values[low] if low < len(values) else math.inf


@pytest.mark.parametrize("fmt", [each for each in (*SMALL, *OWN) if each.bits <= 8], ids=repr)
def test_the_linear_axis_marks_every_value(fmt: Format) -> None:
    """Oracle: the nearest column of each value, by fractions; every value is counted in just one column."""
    values = values_of(fmt)
    for columns in (29, 71):
        axis = linear_axis([fmt], columns)
        nearest = [
            math.floor(Fraction(each) * (columns - 1) / Fraction(fmt.max) + Fraction(1, 2)) for each in values
        ]
        assert [axis.column(each) for each in values] == nearest
        assert [axis.density(fmt, each) for each in range(columns)] == [
            nearest.count(each) for each in range(columns)
        ]
        assert axis.start(fmt) == nearest[0]


@given(st.sampled_from([*FORMATS]), COLUMNS)
def test_ticks_of_the_linear_axis(name: str, columns: int) -> None:
    """Oracle: fractions: each label is the number whose nearest column the tick is at; from 0 on, apart."""
    axis = linear_axis([get(name)], columns)
    ticks = axis.ticks()
    assert ticks[0] == (0, "0")
    assert all(second[0] - first[0] >= 8 for first, second in pairwise(ticks))
    step = Fraction(axis.high) / (columns - 1)
    distance = Fraction(2) ** round(math.log2(float(ticks[1][1]))) if len(ticks) > 1 else Fraction(1)
    for at, (column, label) in enumerate(ticks):
        assert column == math.floor(at * distance / step + Fraction(1, 2))
        assert label == short(float(at * distance))


def test_bars_of_the_linear_axis() -> None:
    """Oracle: by hand: columns for 0 to 10; magnitudes count, halves go right, the rest is beyond."""
    axis = LinearAxis(10.0, 11)
    x = [0.0, -1.0, 0.5, 1.49, 9.6, 10.4, 10.6, 1e300, math.inf, math.nan]
    assert axis.bars(x) == (1, 3, 0, 0, 0, 0, 0, 0, 0, 0, 2)


def test_short_numbers() -> None:
    """Oracle: the length, and the digits that are left."""
    for fmt in FORMATS.values():
        for value in (fmt.max, fmt.smallest_subnormal, fmt.smallest_normal):
            assert len(short(value)) <= 9
            assert abs(Fraction(short(value)) / Fraction(value) - 1) < Fraction(1, 200)
    assert (short(57344.0), short(1e6), short(0.1)) == ("57344", "1e+06", "0.1")
    assert binades("int8") == range(7)
