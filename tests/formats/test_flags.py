"""What happened on the way: counts against exact fractions."""

from __future__ import annotations

import dataclasses
import math
from fractions import Fraction

import numpy as np
import pytest

from minimp import formats
from minimp.errors import SettingError
from minimp.formats import Flags, Format, encode, make
from minimp.formats.rounding import round_to
from tests.formats.oracle import EVERY, MODES, awkward, grid, lowest, on_the_row, round_all

NAMES = tuple(each.name for each in dataclasses.fields(Flags))
RULES = [("ieee", "keep"), ("saturate", "keep"), ("ieee", "flush")]


def counts(flags: Flags) -> dict[str, int]:
    """Return the counts that are not zero."""
    return {name: count for name, count in dataclasses.asdict(flags).items() if count}


def unbounded(x: Fraction, fmt: Format, mode: str) -> Fraction:
    """Round |x|, not 0, to the format's precision as if the exponent had no end."""
    magnitude, negative = abs(x), x < 0
    binade = Fraction(2) ** (magnitude.numerator.bit_length() - magnitude.denominator.bit_length())
    binade = binade if binade <= magnitude else binade / 2
    ulp = binade / (1 << fmt.mantissa_bits)
    low, part = divmod(magnitude, ulp)
    up = {
        "nearest_even": 2 * part > ulp or (2 * part == ulp and low % 2 == 1),
        "nearest_away": 2 * part >= ulp,
        "toward_zero": False,
        "up": part > 0 and not negative,
        "down": part > 0 and negative,
        "to_odd": part > 0 and low % 2 == 0,
    }[mode]
    return (low + up) * ulp


def happened(x: float, result: float, fmt: Format, mode: str) -> set[str]:
    """Name what happened to one number, by the definitions in the docstring of ``Flags``."""
    if math.isnan(x):
        return set()
    negative, nan = math.copysign(1, x) < 0, math.isnan(result)
    past, told = math.isinf(x), {"invalid": nan, "flushed": result == 0 and x != 0}
    if math.isfinite(x):
        exact = Fraction(x)
        rounded = on_the_row(exact, fmt, mode)
        homeless = x < 0 and not fmt.signed and (rounded > 0 or not fmt.has_zero)
        past = homeless or rounded > (lowest(fmt) if negative else grid(fmt).values[-1])
        told["overflow"] = past and not (homeless and nan)
        told["invalid"] = nan and not told["overflow"]
        told["inexact"] = result != x
        if x and not fmt.is_integer:
            told["tiny_before"] = abs(x) < fmt.smallest_normal
            told["tiny_after"] = unbounded(exact, fmt, mode) < fmt.smallest_normal
            told["underflow"] = told["tiny_after"] and told["inexact"]
    told["saturated"] = past and math.isfinite(result)
    return {name for name, up in told.items() if up}


@pytest.mark.parametrize("fmt", EVERY, ids=repr)
def test_counts(fmt: Format) -> None:
    """Oracle: each number's flags from exact fractions, in every mode; around values, midpoints and ends."""
    near_zero = (
        fmt.smallest_normal * np.array([1, 1 - 2.0**-40, 0.75, 2.0**-30]) if fmt.has_subnormals else []
    )
    x = np.concatenate([awkward(fmt), near_zero, np.negative(near_zero), [math.nan] * fmt.has_nan])
    x = np.append(np.random.default_rng(1).choice(x, min(len(x), 150), replace=False), [math.inf, -math.inf])
    for mode in MODES:
        for overflow, subnormals in RULES:
            flags = Flags()
            results = round_all(x, fmt, mode, overflow, subnormals)
            got = round_to(x, fmt, mode, overflow, subnormals=subnormals, flags=flags)
            twin = Flags()
            formats.round(x, fmt, mode, overflow, subnormals=subnormals, flags=twin)
            assert twin == flags
            each = [happened(a, b, fmt, mode) for a, b in zip(x.tolist(), results.tolist(), strict=True)]
            expected = {name: sum(name in told for told in each) for name in NAMES} | {"size": x.size}
            assert dataclasses.asdict(flags) == expected, (mode, overflow, subnormals)
            assert np.array_equal(got, results, equal_nan=True)


@pytest.mark.parametrize("fmt", EVERY, ids=repr)
def test_values_of_the_format_raise_nothing(fmt: Format) -> None:
    """Oracle: by definition; a subnormal is tiny though it is exact."""
    flags, values = Flags(), formats.values(fmt)
    round_to(values, fmt, flags=flags)
    tiny = int(((values != 0) & (np.abs(values) < fmt.smallest_normal)).sum())
    assert counts(flags) == {"size": values.size} | (
        {"tiny_before": tiny, "tiny_after": tiny} if tiny else {}
    )


def test_tininess_before_and_after_rounding() -> None:
    """Oracle: IEEE 754-2019, 7.5, by hand. x86 looks at the rounded number, Arm at the number.

    They differ from (1 - 2^-12) 2^-14 on in float16: with 11 bits and no least exponent that is a tie between
    (1 - 2^-11) 2^-14 and 2^-14, which is even.
    """
    edge, least = 2.0**-14, 2.0**-40
    for x, after in ((edge - 2.0**-26, 0), (edge - 2.0**-26 - least, 1), (edge - least, 0), (edge, None)):
        flags = Flags()
        assert round_to(x, "float16", flags=flags) == edge
        expected = {"size": 1}
        if after is not None:
            expected |= {"inexact": 1, "tiny_before": 1}
            expected |= {"tiny_after": 1, "underflow": 1} if after else {}
        assert counts(flags) == expected
    flags = Flags()
    assert round_to(edge - 2.0**-40, "float16", "toward_zero", flags=flags) == edge - 2.0**-24
    assert (flags.tiny_before, flags.tiny_after, flags.underflow) == (1, 1, 1)


def test_an_exact_subnormal_does_not_underflow() -> None:
    """Oracle: IEEE 754-2019, 7.5: the default underflow is tiny and inexact; flushing makes it inexact."""
    flags = Flags()
    round_to(2.0**-24, "float16", flags=flags)
    assert counts(flags) == {"size": 1, "tiny_before": 1, "tiny_after": 1}
    flags = Flags()
    round_to(2.0**-24, "float16", subnormals="flush", flags=flags)
    names = ("size", "inexact", "tiny_before", "tiny_after", "underflow", "flushed")
    assert counts(flags) == dict.fromkeys(names, 1)


@pytest.mark.parametrize(
    ("x", "name", "overflow", "told"),
    [
        (65519.9, "float16", "ieee", {"inexact"}),
        (65520.0, "float16", "ieee", {"inexact", "overflow"}),
        (65519.9, "float16", "saturate", {"inexact"}),
        (65520.0, "float16", "saturate", {"inexact", "overflow", "saturated"}),
        (math.inf, "float16", "ieee", set()),
        (math.inf, "float16", "saturate", {"saturated"}),
        (1e9, "float8_e4m3fn", "ieee", {"inexact", "overflow"}),
        (math.inf, "float8_e4m3fn", "ieee", {"invalid"}),
        (math.nan, "float8_e4m3fn", "ieee", set()),
        (1e9, "float4_e2m1fn", "ieee", {"inexact", "overflow", "saturated"}),
        (0.0, "float8_e8m0fnu", "ieee", {"inexact", "invalid"}),
        (0.0, "float8_e8m0fnu", "saturate", {"inexact"}),
        (-2.0, "float8_e8m0fnu", "ieee", {"inexact", "invalid"}),
        (-2.0, "float8_e8m0fnu", "saturate", {"inexact", "overflow", "saturated"}),
        (-2.0, "float8_e8m0fnu", "torch", {"inexact"}),
        (-math.inf, "float8_e8m0fnu", "ieee", {"invalid"}),
        (-math.inf, "float8_e8m0fnu", "saturate", {"saturated"}),
        (-math.inf, "uint8", "ieee", {"saturated", "flushed"}),
        (2.0**-130, "float8_e8m0fnu", "ieee", {"inexact", "tiny_before", "tiny_after", "underflow"}),
        (-2.0, "uint8", "ieee", {"inexact", "overflow", "saturated", "flushed"}),
        (300.0, "int8", "ieee", {"inexact", "overflow", "saturated"}),
        (0.25, "int8", "ieee", {"inexact", "flushed"}),
    ],
)
def test_by_hand(x: float, name: str, overflow: str, told: set[str]) -> None:
    """Oracle: the definitions, worked out by hand."""
    flags = Flags()
    round_to(x, name, overflow=overflow, flags=flags)
    assert counts(flags) == dict.fromkeys({"size", *told}, 1)


def test_flags_stay_up() -> None:
    """Oracle: sums. Each call adds its counts; encode counts as round does; two records add up."""
    x = np.array([0.1, 1e9, 2.0**-30, 1.0])
    once, twice, coded = Flags(), Flags(), Flags()
    round_to(x, "float16", flags=once)
    for part in (x[:1], x[1:3], x[3:], x[:0], x.reshape(2, 2)):
        round_to(part, "float16", flags=twice)
    encode(x, "float16", flags=coded)
    assert coded == once
    assert counts(once) == {
        "size": 4,
        "inexact": 3,
        "overflow": 1,
        "tiny_before": 1,
        "tiny_after": 1,
        "underflow": 1,
        "flushed": 1,
    }
    once += coded
    assert twice == once
    with pytest.raises(TypeError):
        once += 1


def test_flags_change_no_result() -> None:
    """Oracle: the same call without them, in every mode; stochastic draws no further bits."""
    x = np.random.default_rng(2).standard_normal(1000)
    for mode in formats.ROUNDINGS:
        sources = [np.random.default_rng(3) if mode == "stochastic" else None for _ in range(2)]
        plain = round_to(x, "float8_e5m2", mode, rng=sources[0])
        counted = round_to(x, "float8_e5m2", mode, rng=sources[1], flags=Flags())
        assert np.array_equal(plain, counted)
        if mode == "stochastic":
            assert sources[0].random() == sources[1].random()


def test_stochastic_counts_what_came_out() -> None:
    """Oracle: the results. Of 1000 numbers a quarter of the way to inf, overflow counts the infinities."""
    flags = Flags()
    got = round_to(np.full(1000, 65512.0), "float16", "stochastic", rng=1, flags=flags)
    assert flags.overflow == np.isinf(got).sum()
    assert 0 < flags.overflow < 1000
    flags = Flags()
    got = round_to(np.full(1000, 2.0**-26), "float16", "stochastic", rng=1, flags=flags)
    assert flags.flushed == (got == 0).sum()
    assert flags.underflow == flags.inexact == 1000


def test_in_words() -> None:
    """Oracle: by hand."""
    flags = Flags()
    assert str(flags) == "0 rounded: all exact"
    round_to([0.1, 1e9, 2.0**-30], "float16", flags=flags)
    assert str(flags).startswith("3 rounded: 3 inexact, 1 overflow, 1 tiny before, 1 tiny after, 1 underflow")


@pytest.mark.parametrize("wrong", [True, 3, {}, []])
def test_what_cannot_count_is_refused(wrong: object) -> None:
    """Oracle: the message says what came, and how to make what counts."""
    with pytest.raises(SettingError, match="expected flags to be a Flags") as caught:
        round_to(1.0, "float16", flags=wrong)
    assert "formats.Flags()" in str(caught.value)


def test_a_format_far_from_one() -> None:
    """Oracle: by hand; where 2^-1074 in ulps is nothing to float64, it is still tiny, inexact and flushed."""
    flags = Flags()
    assert round_to(5e-324, make(4, 3, -10), flags=flags) == 0
    names = ("size", "inexact", "tiny_before", "tiny_after", "underflow", "flushed")
    assert counts(flags) == dict.fromkeys(names, 1)
