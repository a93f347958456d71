"""Where a number lies between two values of a format, and what happened to it on the way there."""

from __future__ import annotations

import math
from bisect import bisect_left
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimp import formats
from minimp.errors import SettingError
from minimp.formats import ROUNDINGS, Format, get, inspect
from tests.formats.oracle import SMALL, assert_same


@given(x=st.fractions(min_value=-500, max_value=500), name=st.sampled_from([each.name for each in SMALL]))
def test_where_a_number_lies(x: Fraction, name: str) -> None:
    """Oracle: the two values around it in the list of all; position, and under stochastic the chance."""
    fmt = get(name)
    every = formats.values(fmt)
    seen = inspect(x, fmt)
    if not every[0] <= x <= every[-1]:
        assert seen.position is None
        return
    place = bisect_left(every, x)  # compares fractions with floats exactly
    high = Fraction(every[place].item())
    low = high if high == x else Fraction(every[place - 1].item())
    assert seen.between == (low, high)
    assert seen.position == ((x - low) / (high - low) if low != high else 0)
    assert inspect(x, fmt, "stochastic", rng=1).chance == seen.position
    assert seen.chance is None
    for mode, value in (("down", low), ("up", high)):
        assert inspect(x, fmt, mode).value == value
        assert inspect(x, fmt, mode).between == seen.between


def test_a_stochastic_result_goes_up_as_often_as_it_says() -> None:
    """Oracle: the binomial law: 1000 seeds; a right one fails this with a chance of 6e-5 (four sigma)."""
    seen = inspect("0.1", "float8_e4m3fn", "stochastic", rng=0)
    chance = float(seen.chance or 0)
    assert seen.chance == Fraction(4, 5)
    ups = sum(inspect("0.1", "float8_e4m3fn", "stochastic", rng=seed).value > 0.1 for seed in range(1000))
    assert abs(ups - 1000 * chance) <= 4 * math.sqrt(1000 * chance * (1 - chance))


@pytest.mark.parametrize(
    ("number", "name", "rounding", "overflow", "flags"),
    [
        ("1", "fp16", "nearest_even", None, ()),
        ("0.1", "fp16", "nearest_even", None, ("inexact",)),
        ("65519.9", "fp16", "nearest_even", None, ("inexact",)),
        ("65520", "fp16", "nearest_even", None, ("inexact", "overflow")),
        ("65535", "fp16", "toward_zero", None, ("inexact",)),
        ("65536", "fp16", "toward_zero", None, ("inexact", "overflow")),
        ("-65505", "fp16", "down", "saturate", ("inexact", "overflow")),
        ("-65505", "fp16", "up", "saturate", ("inexact",)),
        ("500", "e4m3fn", "nearest_even", None, ("inexact", "overflow")),
        ("6.5", "fp4", "nearest_even", None, ("inexact",)),
        ("7", "fp4", "nearest_even", None, ("inexact", "overflow")),
        ("-3", "uint8", "nearest_even", None, ("inexact", "overflow")),
        ("-0.3", "uint8", "nearest_even", None, ("inexact",)),
        ("-3", "e8m0", "nearest_even", None, ("inexact", "invalid")),
        ("-3", "e8m0", "nearest_even", "torch", ("inexact",)),
        ("-3", "e8m0", "nearest_even", "saturate", ("inexact", "overflow")),
        ("0", "e8m0", "nearest_even", None, ("inexact", "invalid")),
        ("1 * 2^-24", "fp16", "nearest_even", None, ("subnormal",)),
        ("1e-5", "fp16", "nearest_even", None, ("inexact", "underflow", "subnormal")),
        ("1e-9", "fp16", "nearest_even", None, ("inexact", "underflow")),
        ("0.99999 * 2^-14", "fp16", "nearest_even", None, ("inexact",)),
        ("0.9997 * 2^-14", "fp16", "nearest_even", None, ("inexact", "underflow")),
        ("0.99999 * 2^-14", "fp16", "toward_zero", None, ("inexact", "underflow", "subnormal")),
        ("inf", "fp16", "nearest_even", "saturate", ()),
        ("-1e-300", "e8m0", "nearest_even", "saturate", ("inexact", "overflow", "underflow")),
    ],
)
def test_flags(number: str, name: str, rounding: str, overflow: str | None, flags: tuple[str, ...]) -> None:
    """Oracle: IEEE 754-2019, 7.4 to 7.6, by hand; tininess is judged after rounding, without a lower end."""
    factor, _, power = number.partition(" * 2^")
    x = Fraction(factor) * Fraction(2) ** int(power) if power else number
    assert inspect(x, name, rounding, overflow).flags == flags


@pytest.mark.parametrize("fmt", formats.FORMATS.values(), ids=repr)
@given(
    x=st.floats(allow_nan=False, allow_infinity=False), seed=st.integers(0, 2**64 - 1), share=st.floats(0, 2)
)
def test_flags_are_those_that_round_counts(fmt: Format, x: float, seed: int, share: float) -> None:
    """Oracle: minimp.formats.round's counts, which go another way (arrays of float64); near the ends too."""
    mode = list(ROUNDINGS)[seed % len(ROUNDINGS)]
    for number in (x, share * fmt.smallest_normal, -share * fmt.max if fmt.max < 1e308 else -x):
        rng, counts = (seed if mode == "stochastic" else None), formats.Flags()
        value = formats.round(number, fmt, mode, rng=rng, flags=counts)
        seen = inspect(number, fmt, mode, rng=rng)
        assert_same(seen.value, value)
        assert ("inexact" in seen.flags) == counts.inexact
        assert ("underflow" in seen.flags) == counts.underflow
        assert ("overflow" in seen.flags) == counts.overflow
        assert ("invalid" in seen.flags) == counts.invalid


def test_one_generator_gives_one_rounding() -> None:
    """Oracle: flags and value of one throw agree, and the generator moves on."""
    generator, values = np.random.default_rng(3), set()
    for _ in range(40):
        seen = inspect(Fraction(65504 + 16), "fp16", "stochastic", rng=generator)
        assert ("overflow" in seen.flags) == math.isinf(seen.value)
        values.add(seen.value)
    assert values == {65504.0, math.inf}
    with pytest.raises(SettingError, match="random source"):
        inspect(0.1, "fp16", "stochastic")
