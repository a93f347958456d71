"""Rounding of exact fractions: the scalar twin."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimp import formats
from minimp.errors import FormatError, SettingError
from minimp.formats import Format
from minimp.formats.dice import Dice
from minimp.formats.exact import floor_log2, round_fraction
from minimp.formats.rounding import round_to
from tests.formats.oracle import EVERY, MODES, assert_same, awkward, round_exactly

WIDE = (formats.float32, formats.tfloat32, formats.float64)


def numbers(fmt: Format, count: int) -> list[Fraction]:
    """Choose numbers around values, midpoints and ends, half of them moved by what float64 cannot see."""
    x = awkward(fmt)
    x = np.random.default_rng(1).choice(x[np.isfinite(x)], count)
    exact = [Fraction(each) for each in x.tolist()]
    return exact + [each * (1 + Fraction(sign, 3**60)) for each in exact for sign in (1, -1)]


@pytest.mark.parametrize("fmt", EVERY, ids=repr)
def test_against_the_list_of_values(fmt: Format) -> None:
    """Oracle: neighbours looked up in the list of all values, in every mode, rule and treatment."""
    for x in numbers(fmt, 8):
        for mode in MODES:
            for overflow in ("ieee", "saturate"):
                for subnormals in ("keep", "flush"):
                    expected = round_exactly(x, fmt, mode, overflow, subnormals)
                    if expected == 0 and x < 0 and fmt.has_negative_zero:
                        expected = -0.0
                    got = round_fraction(x, fmt, mode, overflow, subnormals=subnormals)
                    assert_same(np.float64(got), np.float64(expected), np.float64(float(x)))


@pytest.mark.parametrize("fmt", [*EVERY, *WIDE], ids=repr)
def test_agrees_with_the_array_form(fmt: Format) -> None:
    """Oracle: ``round_to`` where float64 holds the number; the named conventions too; given dice."""
    random = np.random.default_rng(2)
    x = random.integers(0, 1 << 64, 60, dtype=np.uint64).view(np.float64)
    near = random.standard_normal(60) * np.exp2(random.integers(fmt.emin - 3, fmt.emax + 2, 60))
    x = np.concatenate([x[np.isfinite(x)], near, [0.0, fmt.max, fmt.smallest_normal]])
    for overflow in formats.OVERFLOWS:
        try:
            expected = {mode: round_to(x, fmt, mode, overflow) for mode in MODES}
        except SettingError:  # a library without this format
            continue
        for mode in MODES:
            got = [round_fraction(Fraction(each), fmt, mode, overflow) for each in x.tolist()]
            assert_same(np.array(got), expected[mode], x)
    throws = random.integers(0, 256, x.shape, np.uint8)
    got = [
        round_fraction(Fraction(each), fmt, "stochastic", dice=Dice(np.float64(throw), 8))
        for each, throw in zip(x.tolist(), throws.tolist(), strict=True)
    ]
    assert_same(np.array(got), round_to(x, fmt, "stochastic", bits=throws), x)


def test_by_hand() -> None:
    """Oracle: by hand: a third, and numbers that no float is near."""
    assert round_fraction(Fraction(1, 3), "float16") == 0x555 * 2.0**-12
    assert round_fraction(Fraction(1, 3), "float64") == 1 / 3
    assert round_fraction(Fraction(10**400), "float64") == math.inf
    assert round_fraction(Fraction(-(10**400)), "float64", "up") == -np.finfo(np.float64).max
    assert round_fraction(Fraction(1, 10**400), "float64", "up") == 5e-324
    assert round_fraction(Fraction(1, 10**400), "float64") == 0
    assert math.copysign(1, round_fraction(Fraction(-1, 10**400), "float64")) == -1
    half = Fraction(1) + Fraction(1, 2**11)
    assert round_fraction(half, "float16") == 1
    assert round_fraction(half + Fraction(1, 10**100), "float16") == 1 + 2.0**-10
    assert math.isnan(round_fraction(Fraction(0), "float8_e8m0fnu"))
    assert round_fraction(Fraction(0), "float8_e8m0fnu", overflow="saturate") == 2.0**-127


@given(st.fractions(min_value=Fraction(1, 10**30), max_value=10**30))
def test_floor_log2(x: Fraction) -> None:
    """Law: 2^k <= x < 2^(k+1)."""
    assert Fraction(2) ** floor_log2(x) <= x < Fraction(2) ** (floor_log2(x) + 1)
    assert floor_log2(Fraction(2) ** floor_log2(x)) == floor_log2(x)


def test_settings_are_checked() -> None:
    """Oracle: the messages of round."""
    for wrong in (
        {"rounding": "nearest"},
        {"overflow": "wrap"},
        {"subnormals": "no"},
        {"rounding": "stochastic"},
    ):
        with pytest.raises(SettingError):
            round_fraction(Fraction(1), "float16", **wrong)
    with pytest.raises(FormatError, match="did you mean 'float16'"):
        round_fraction(Fraction(1), "floot16")
