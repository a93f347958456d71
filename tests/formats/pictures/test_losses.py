"""What a tensor loses in a format; oracles: rounding by fractions, element by element; cases by hand."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from minimp.errors import DataError, FormatError, SettingError
from minimp.formats import FORMATS, Format, get, make
from minimp.formats.pictures.losses import FATES, Losses, best_exponent, compare_losses, losses, percent
from minimp.formats.pictures.ranges import extent
from tests.formats.oracle import SMALL, grid, round_exactly
from tests.tolerances import assert_close

NARROW = [each for each in SMALL if each.bits <= 8] + [get("float16"), get("bfloat16")]


def fate(x: float, fmt: Format, exponent: int, overflow: str) -> tuple[str, float]:
    """Return what becomes of one number, and the value stored, by fractions and a list of all values."""
    if not math.isfinite(x):
        return ("nan" if math.isnan(x) else "infinite"), math.nan
    scaled = Fraction(x) * Fraction(2) ** exponent
    stored = round_exactly(scaled, fmt, "nearest_even", overflow)
    if not x:
        return "zeros", 0.0
    if not math.isfinite(stored):
        return ("to_nan" if math.isnan(stored) else "to_inf"), stored
    if _beyond(scaled, fmt):
        return "clamped", stored
    if not stored:
        return "flushed", 0.0
    return ("exact" if Fraction(stored) == scaled else "rounded"), stored


def _beyond(x: Fraction, fmt: Format) -> bool:
    """Tell whether x would be rounded to more than the end, if values went on at the last distance."""
    values = grid(fmt).values
    limit = Fraction(128) if fmt.is_integer and x < 0 else values[-1]
    half = (values[-1] - values[-2]) / 2
    odd = len(values) % 2 == 0 and limit == values[-1]  # the code of the end
    return abs(x) > limit + half or (odd and abs(x) == limit + half)


def assert_counted(found: Losses, x: Sequence[float], overflow: str) -> None:
    """Fail unless a record is what fractions say, element by element."""
    fmt, scale = found.format, Fraction(2) ** found.exponent
    fates = [fate(each, fmt, found.exponent, overflow) for each in x]
    counts = Counter(name for name, _ in fates)
    assert {name: getattr(found, name) for name in FATES} == {name: counts[name] for name in FATES}
    assert found.overflowed == counts["clamped"] + counts["to_inf"] + counts["to_nan"]
    kept = [stored for name, stored in fates if name in ("exact", "rounded")]
    assert found.subnormal == sum(abs(each) < fmt.smallest_normal for each in kept)
    landed = [abs(each) for _, each in fates if math.isfinite(each) and each]
    assert found.binades == Counter(math.frexp(each)[1] - 1 for each in landed)
    pairs = [
        (Fraction(number) * scale, Fraction(stored) if math.isfinite(stored) else None)
        for number, (name, stored) in zip(x, fates, strict=True)
        if name not in ("infinite", "nan")
    ]
    relative = [math.inf if b is None else float(abs(b / a - 1)) for a, b in pairs if a]
    assert_close(found.max_relative_error, max(relative, default=0.0), "fp64_same_maths")
    _assert_sqnr(found.sqnr_db, pairs)


def _assert_sqnr(decibels: float, pairs: list[tuple[Fraction, Fraction | None]]) -> None:
    signal = sum(given * given for given, _ in pairs)
    noise = sum((stored - given) ** 2 for given, stored in pairs if stored is not None)
    if not signal:
        assert math.isnan(decibels)
    elif any(stored is None for _, stored in pairs):
        assert decibels == -math.inf
    elif not noise:
        assert decibels == math.inf
    else:
        ratio = signal / noise
        if abs(math.log10(ratio.numerator) - math.log10(ratio.denominator)) < 300:
            assert_close(10 ** (decibels / 10), float(ratio), "fp64_same_maths")
        else:  # beyond float64, of which the decibels are not
            wanted = 10 * (math.log10(ratio.numerator) - math.log10(ratio.denominator))
            assert_close(decibels, wanted, "fp64_same_maths")


NUMBERS = st.one_of(
    st.floats(),
    st.floats(-600, 600),
    st.builds(math.ldexp, st.integers(-4095, 4095), st.integers(-30, 6)),
    st.sampled_from([0.0, 464.0, 65519.0, 65520.0, 127.5, -128.5, 2.0**-10, 3 * 2.0**-26, 2.0**-25, 61440.0]),
)


@given(
    st.lists(NUMBERS, min_size=1, max_size=12),
    st.sampled_from(NARROW),
    st.integers(-12, 12),
    st.sampled_from(["ieee", "saturate"]),
)
@example([464.0, -464.0, 465.0], get("e4m3fn"), 0, "ieee")
@example([65519.0, 65520.0], get("fp16"), 0, "saturate")
@example([127.5, 127.4, -128.4, -128.5, -128.6], get("int8"), 0, "ieee")
@example([0.0, math.nan], get("fp4"), 0, "ieee")
@example([1e300, 1e-300], get("e5m2"), 3, "saturate")
def test_each_element_has_its_fate(x: list[float], fmt: Format, exponent: int, overflow: str) -> None:
    """Oracle: fractions and a list of all values of the format, element by element; also at best."""
    finite = [abs(each) for each in x if math.isfinite(each)]
    exponent = min(exponent, 1023 - math.frexp(max(finite, default=0))[1])
    found = losses(x, fmt, exponent=exponent, overflow=overflow)
    assert_counted(found, x, overflow)
    assert found.tensor == extent(x)
    if found.at_best is not None:
        assert found.at_best.exponent == found.best_exponent
        assert_counted(found.at_best, x, overflow)


@pytest.mark.parametrize("fmt", NARROW, ids=repr)
def test_the_values_of_a_format_lose_nothing(fmt: Format) -> None:
    """Oracle: all values are exact, the middles between them rounded; subnormals are those below 2^emin."""
    values = [float(each) for each in grid(fmt).values]
    found = losses(values, fmt)
    assert (found.zeros, found.exact) == (1, len(values) - 1)
    assert found.subnormal == sum(0 < each < fmt.smallest_normal for each in values)
    middles = [(low + high) / 2 for low, high in pairwise(values[1:])]
    assert losses(middles, fmt).rounded == len(middles)
    assert losses([fmt.smallest_subnormal / 2], fmt).flushed == 1


@pytest.mark.parametrize(
    ("fmt", "overflow", "x", "expected"),
    [
        ("e8m0", "ieee", [1, 2.0**-127, 1.2e-38, 3.0], {"exact": 2, "rounded": 2}),
        ("e8m0", "ieee", [0.0, -1.0, 2.0**127 * 1.5, 1e-60], {"to_nan": 3, "clamped": 1}),
        ("e8m0", "saturate", [0.0, -1.0, 2.0**127 * 1.5, 1e-60], {"clamped": 4}),
        ("uint8", "ieee", [255.4, 255.5, -0.5, -0.6, 0.6], {"rounded": 2, "clamped": 2, "flushed": 1}),
        (make(4, 3, subnormals=False), "ieee", [2.0**-6, 0.9 * 2.0**-6, 0.4 * 2.0**-6, 241.0],
         {"exact": 1, "rounded": 2, "flushed": 1}),
        (make(5, 10, inf=False, nan=False), "ieee", [131040.0, 131000.0, 131008.0],
         {"clamped": 1, "exact": 1, "rounded": 1}),
    ],
)  # fmt: skip
def test_formats_of_other_kinds(fmt: Any, overflow: str, x: list[float], expected: dict[str, int]) -> None:
    """Oracle: by hand, from the rules of the formats: no zero or sign, no subnormals, no inf or NaN."""
    found = losses(x, fmt, overflow=overflow)
    assert {name: getattr(found, name) for name in FATES if getattr(found, name)} == expected


def test_wide_formats() -> None:
    """Oracle: by hand: float64 keeps all float64s; float32 flushes below 2^-150 and overflows from 2^128."""
    x = [5e-324, 1.7976931348623157e308, 0.1]
    assert (losses(x, "fp64").exact, losses(x, "fp64").subnormal) == (3, 1)
    found = losses([2.0**-150, 2.0**-149, 2.0**128, 0.1], "fp32")
    assert (found.flushed, found.subnormal, found.to_inf, found.rounded) == (1, 1, 1, 1)
    assert losses([5e-324, 3 * 5e-324], "fp64", exponent=-1).exact == 0  # 2^-1075 is no float64


# ---- laws --------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(), min_size=1, max_size=30), st.sampled_from([*FORMATS]))
def test_shares_add_up_to_one(x: list[float], name: str) -> None:
    """Oracle: every element has one fate; ``subnormal`` and ``overflowed`` are counted beside the fates."""
    found = losses(x, name)
    assert sum(getattr(found, each) for each in FATES) == found.count == len(x)
    assert_close(sum(found.shares[each] for each in FATES), 1.0, "fp64_same_maths")
    assert set(found.shares) == {*FATES, "subnormal", "overflowed"}


@given(
    st.lists(st.floats(1e-30, 1e30), min_size=1, max_size=20),
    st.sampled_from(["fp16", "e4m3fn", "fp4", "int8"]),
    st.integers(-60, 60),
)
def test_scaling_the_tensor_is_scaling_by_the_exponent(x: list[float], name: str, k: int) -> None:
    """Oracle: the numbers times 2^k, which is exact; all binades move by k, the best exponent by -k."""
    moved, plain = losses(np.ldexp(x, k), name), losses(x, name, exponent=k)
    for each in (*FATES, "subnormal", "binades", "max_relative_error"):
        assert getattr(moved, each) == getattr(plain, each)
    assert moved.tensor.binades == {at + k: count for at, count in plain.tensor.binades.items()}
    assert moved.best_exponent is not None
    assert plain.best_exponent == moved.best_exponent + k


@given(st.floats(min_value=5e-324, allow_infinity=False, allow_nan=False), st.sampled_from([*FORMATS]))
@example(448.0, "float8_e4m3fn")
@example(math.nextafter(448.0, 500), "float8_e4m3fn")
def test_the_best_exponent_is_the_largest_that_fits(largest: float, name: str) -> None:
    """Oracle: the definition, by fractions: largest · 2^s <= max < largest · 2^(s+1)."""
    exponent = best_exponent(largest, name)
    assert exponent is not None
    scaled = Fraction(largest) * Fraction(2) ** exponent
    assert scaled <= Fraction(get(name).max) < 2 * scaled


def test_tensors_of_many_blocks_and_of_few_bits() -> None:
    """Oracle: the same numbers in float64, one block after the other, and rounded by NumPy's own cast."""
    x = (np.random.default_rng(3).normal(size=3 << 16) * 2.0**-12).astype(np.float16)
    found, wide = losses(x, "e5m2"), losses(x.astype(np.float64), "e5m2")
    assert str(found) == str(wide)
    single = x.astype(np.float32) / 3
    half = single.astype(np.float16).astype(np.float32)
    counted = losses(single, "fp16")
    assert counted.flushed == np.count_nonzero((half == 0) & (single != 0))
    assert counted.exact == np.count_nonzero((half == single) & (single != 0))
    assert counted.subnormal == np.count_nonzero((half != 0) & (np.abs(half) < 2.0**-14))
    noise = np.sum((half.astype(np.float64) - single) ** 2)
    signal = np.sum(single.astype(np.float64) ** 2)
    assert_close(counted.sqnr_db, 10 * np.log10(signal / noise), "fp64_same_maths")


def test_several_formats_side_by_side() -> None:
    """Oracle: each alone."""
    x = [1e-9, 0.1, 3e5]
    assert [str(each) for each in compare_losses(x, ["fp16", "bf16"], exponent=2)] == [
        str(losses(x, name, exponent=2)) for name in ("fp16", "bf16")
    ]


# ---- words -------------------------------------------------------------------------------------------------

SAID = """\
float8_e4m3fn: what 8 numbers of magnitude 0.0005 to 1 would lose
  zeros      1    12.5 %  zero, and zero in the format
  exact      2      25 %  a value of the format
  rounded    3    37.5 %  rounded to a neighbour, which is not zero
  flushed    1    12.5 %  rounded to zero
  nan        1    12.5 %  NaN before
  subnormal  2      25 %  of the exact and the rounded: below the normal range
  SQNR 56.6 dB; largest relative error 1; 5 of 18 binades hold a stored value
  float8_e4m3fn flushes 12.5 % to zero and makes 25 % subnormal; scaled by 2^8 it keeps every number in \
its normal range"""


def test_in_words() -> None:
    """Oracle: by hand: half the smallest subnormal is 2^-10 = 0.00098, the smallest normal 2^-6 = 0.0156."""
    assert str(losses([0.0005, 0.0021, 0.01, 0.1, 1, 0.5, 0, math.nan], "e4m3fn")) == SAID


@pytest.mark.parametrize(
    ("x", "fmt", "said"),
    [
        ([0, math.inf], "fp16", "float16 has nothing to lose here: there is no number other than 0"),
        ([0.5, 3], "fp16", "float16 keeps every number exactly"),
        ([0.1, 3], "fp16", "float16 keeps every number in its normal range"),
        ([448, 2**-12], "e4m3fn", "float8_e4m3fn flushes 50 % to zero; no larger scale would fit"),
        ([8e4], "fp16", "float16 puts 100 % beyond its range; scaled by 2^-1 it keeps every number exactly"),
    ],
)  # fmt: skip
def test_advice(x: list[float], fmt: str, said: str) -> None:
    """Oracle: by hand."""
    assert losses(x, fmt).advice == said


def test_percent() -> None:
    """Oracle: 0 % and 100 % stand for none and all, and for nothing else."""
    for whole in (1, 7, 10**6, 10**12):
        for part in {0, 1, whole // 2, whole - 1, whole}:
            assert (percent(part, whole) == "0 %") == (part == 0)
            assert (percent(part, whole) == "100 %") == (part == whole)
            assert len(percent(part, whole)) <= 8
    assert percent(1, 3) == "33.3 %"


# ---- what is refused ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({"x": []}, DataError, "expected at least one number"),
        ({"fmt": "fp17"}, FormatError, "unknown number format"),
        ({"overflow": "wrap"}, SettingError, "unknown overflow 'wrap'"),
        ({"exponent": 0.5}, SettingError, "expected a whole number as exponent, got 0.5"),
        ({"exponent": 1024}, SettingError, "times 2\\^1024 is beyond float64"),
        ({"x": [1j]}, DataError, "expected real numbers"),
    ],
)
def test_what_is_refused(arguments: dict[str, Any], error: type[Exception], said: str) -> None:
    """Oracle: one clear error each."""
    with pytest.raises(error, match=said):
        losses(**({"x": [1.0], "fmt": "fp16"} | arguments))
