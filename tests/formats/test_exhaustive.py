"""Every code, every midpoint: what small formats allow to be tried in full."""

from __future__ import annotations

import itertools
import os
from types import ModuleType

import ml_dtypes
import numpy as np
import pytest

from minimp import formats
from minimp.formats import Format, codes, next_down, next_up, ulp, ulp_distance
from minimp.formats.rounding import round_to
from tests.formats.oracle import (
    EVERY,
    MODES,
    assert_same,
    awkward,
    beyond_all,
    lowest,
    magnitudes,
    readings,
    round_all,
)

RULES = list(itertools.product(("ieee", "saturate"), ("keep", "flush")))
SHORT = [each for each in EVERY if each.bits <= 9]
LONG = [each for each in EVERY if each.bits > 9]
BOTH = (round_to, formats.round)  # the readable form and the front door, fast where it can be
HALVES = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


def hold(fmt: Format, x: np.ndarray) -> None:
    """Assert every mode, overflow rule and treatment of subnormals on these numbers."""
    for mode in MODES:
        for overflow, subnormals in RULES:
            expected = round_all(x.astype(np.float64), fmt, mode, overflow, subnormals)
            for rounder in BOTH:
                assert_same(rounder(x, fmt, mode, overflow, subnormals=subnormals), expected, x)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("fmt", SHORT, ids=repr)
def test_around_every_value_and_midpoint(fmt: Format, dtype: type) -> None:
    """Oracle: binary search in the list of all values, at each place where a rounding can go wrong."""
    hold(fmt, awkward(fmt, dtype))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("fmt", LONG, ids=repr)
def test_around_some_values_and_midpoints(fmt: Format, dtype: type) -> None:
    """Oracle: the same, for 4,000 of the numbers in question; the slow test takes all of them."""
    hold(fmt, np.random.default_rng(1).choice(awkward(fmt, dtype), 4000))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("fmt", LONG, ids=repr)
def test_around_every_value_and_midpoint_of_16_bits(fmt: Format, dtype: type) -> None:
    """Oracle: the same, for all of the numbers in question."""
    hold(fmt, awkward(fmt, dtype))


@pytest.mark.parametrize("source", HALVES)
@pytest.mark.parametrize("fmt", EVERY, ids=repr)
def test_every_16_bit_number_in_every_mode(fmt: Format, source: str) -> None:
    """Oracle: binary search in the list of all values, for all 65,536 codes of float16 and bfloat16."""
    patterns = np.arange(1 << 16, dtype=np.uint16)
    x, wide = patterns.view(HALVES[source]), readings(formats.get(source))
    keep = slice(None) if fmt.has_nan else ~np.isnan(wide)
    for number, mode in enumerate(MODES):
        overflow, subnormals = RULES[number % 4]
        expected = round_all(wide[keep], fmt, mode, overflow, subnormals)
        for rounder in BOTH:
            with np.errstate(invalid="ignore"):  # signalling NaNs
                got = rounder(x[keep], fmt, mode, overflow, subnormals=subnormals)
            assert_same(got, expected, wide[keep])


@pytest.mark.parametrize("fmt", EVERY, ids=repr)
@pytest.mark.parametrize("form", [codes, formats], ids=["readable", "fast"])
def test_every_code_there_and_back(fmt: Format, form: ModuleType) -> None:
    """Oracle: the definition of each code; back comes the code itself, or the first that means the same."""
    every = np.arange(1 << fmt.bits, dtype=fmt.code_dtype)
    meaning = readings(fmt)
    assert_same(form.decode(every, fmt), meaning, every)
    written = form.encode(meaning, fmt)
    assert written.dtype == fmt.code_dtype
    assert_same(readings(fmt)[written], meaning, every)
    first = {}
    for code, value in zip(every.tolist(), meaning.tolist(), strict=True):
        first.setdefault((value, np.signbit(value)), code)
    numbers = ~np.isnan(meaning)
    expected = [first[value, np.signbit(value)] for value in meaning[numbers].tolist()]
    assert written[numbers].tolist() == expected
    nans = set(written[~numbers].tolist())
    assert nans <= {fmt.nan_code, (fmt.nan_code or 0) | fmt.signed << fmt.magnitude_bits}


@pytest.mark.parametrize("fmt", EVERY, ids=repr)
def test_all_values(fmt: Format) -> None:
    """Oracle: the readings of all codes, sorted, without repetitions."""
    meaning = readings(fmt)
    expected = np.unique(meaning[np.isfinite(meaning)]) + 0.0
    assert_same(formats.values(fmt), expected)
    special = formats.values(fmt, specials=True)
    kinds = {"-inf": -np.inf in meaning, "inf": np.inf in meaning, "nan": bool(np.isnan(meaning).any())}
    assert {each: each in map(str, special.tolist()) for each in kinds} == kinds
    assert len(special) == len(expected) + sum(kinds.values())
    assert_same(special[np.isfinite(special)], expected)


@pytest.mark.parametrize("fmt", EVERY, ids=repr)
def test_next_of_every_value(fmt: Format) -> None:
    """Oracle: the neighbour in the sorted list, infinities included; beyond the ends nothing changes."""
    row = formats.values(fmt, specials=True)
    row = row[~np.isnan(row)]
    above, below = np.append(row[1:], row[-1]), np.insert(row[:-1], 0, row[0])
    if fmt.has_negative_zero:  # IEEE 754-2019, 5.3.1: up from the smallest negative value lies -0
        above[np.searchsorted(row, 0.0) - 1] = -0.0
    assert_same(next_up(row, fmt), above, row)
    assert_same(next_down(row, fmt), below, row)
    if fmt.has_negative_zero:
        zeros = np.array([-0.0])
        assert_same(next_up(zeros, fmt), next_up([0.0], fmt))
        assert_same(next_down(zeros, fmt), next_down([0.0], fmt))
    if fmt.has_nan:
        assert np.isnan([next_up(np.nan, fmt), next_down(np.nan, fmt)]).all()


@pytest.mark.parametrize("fmt", EVERY, ids=repr)
def test_ulp_distance_of_every_value(fmt: Format) -> None:
    """Oracle: the difference of the places in the sorted list."""
    row = formats.values(fmt, specials=True)
    row = row[~np.isnan(row)]
    places = np.arange(len(row), dtype=float)
    for place in np.random.default_rng(2).integers(0, len(row), 5):
        assert_same(ulp_distance(row, row[place], fmt), np.abs(places - place))
    if fmt.has_nan:
        assert ulp_distance([np.nan, np.nan], [np.nan, row[0]], fmt).tolist()[0] == 0
        assert np.isnan(ulp_distance(np.nan, row[0], fmt))


@pytest.mark.parametrize("fmt", EVERY, ids=repr)
def test_ulp_of_every_value(fmt: Format) -> None:
    """Oracle: the gap to the next larger magnitude in the list; at the end, that of its binade."""
    values = magnitudes(fmt)
    gaps = np.diff(values)
    got = ulp(values, fmt)
    assert_same(got[:-1], gaps, values[:-1])
    ends_a_binade = values[-1] == 2.0**fmt.emax and not fmt.is_integer  # the gap above is twice that below
    assert got[-1] == gaps[-1] * (2 if ends_a_binade else 1)
    if fmt.signed:
        assert_same(ulp(-values, fmt), got)


@pytest.mark.parametrize("fmt", EVERY, ids=repr)
def test_ends_and_what_lies_beyond(fmt: Format) -> None:
    """Oracle: the ends of the sorted list."""
    row = formats.values(fmt)
    assert (fmt.lowest, fmt.max) == (row[0], row[-1])
    assert abs(fmt.lowest) == float(lowest(fmt))
    positive = row[row > 0]
    assert fmt.smallest_subnormal == positive[0]
    assert fmt.smallest_normal in positive
    assert fmt.has_zero == (0.0 in row)
    assert fmt.emax == np.frexp(row[-1])[1] - 1
    assert_same(round_to(np.inf, fmt), np.float64(beyond_all(fmt, negative=False, limit=fmt.max)))


# Every 32-bit pattern: the whole takes minutes for a mode, so each run takes one part of PARTS, the number of
# which PATTERNS names; PATTERNS=all takes them all.
PARTS = 64


@pytest.mark.slow
@pytest.mark.parametrize("name", ["float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"])
def test_float32_patterns(name: str) -> None:
    """Oracle: NumPy's and ml_dtypes' casts from float32, 1/64 of the 2^32 patterns or all, see above."""
    fmt, chosen = formats.get(name), os.environ.get("PATTERNS", "0")
    parts = range(PARTS) if chosen == "all" else [int(chosen)]
    step = 1 << 22
    for part in parts:
        for first in range(0, (1 << 32) // PARTS, step):
            bits = np.arange(first, first + step, dtype=np.uint32) * np.uint32(PARTS) + np.uint32(part)
            with np.errstate(all="ignore"):
                x = bits.view(np.float32)
                expected = x.astype(fmt.dtype).astype(np.float32)
                got = round_to(x, fmt)  # tests.formats.fast has the same for the fast form
            wrong = (got.view(np.uint32) != expected.view(np.uint32)) & ~(np.isnan(got) & np.isnan(expected))
            assert not wrong.any(), f"{x[wrong][:5]!r}"
