"""Arithmetic, correctly rounded, against exact fractions."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimp import formats
from minimp.errors import FormatError, SettingError, ShapeError
from minimp.formats import Format, arithmetic
from tests.formats.oracle import EVERY, MODES, SMALL, assert_same, grid, magnitudes, round_exactly

UFUNCS = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide}
OPERANDS = {"add": 2, "sub": 2, "mul": 2, "div": 2, "sqrt": 1, "fma": 3}
TINY = [each for each in SMALL if each.bits <= 8]


def samples(fmt: Format, count: int, seed: int) -> np.ndarray:
    """Draw values of a small format: random codes, zeros and the ends over-represented."""
    random = np.random.default_rng(seed)
    values = magnitudes(fmt)
    drawn = values[random.integers(0, len(values), count)]
    near = values[
        np.minimum(
            random.integers(0, len(values), count) // 2 + random.integers(0, 40, count), len(values) - 1
        )
    ]
    ends = np.array([values[0], values[1], values[-1], values[-2], fmt.smallest_normal])
    pool = np.where(random.random(count) < 0.5, drawn, near)
    pool = np.where(random.random(count) < 0.1, ends[random.integers(0, 5, count)], pool)
    signed = pool * random.choice([1.0, -1.0], count) if fmt.signed else pool
    return signed if fmt.has_negative_zero else signed + 0.0


def exactly(op: str, operands: list[float]) -> Fraction | None:
    """Return the exact result; None where it is special (a zero divisor) or irrational."""
    a, *rest = (Fraction(each) for each in operands)
    if op == "div":
        return a / rest[0] if rest[0] else None
    table = {
        "add": lambda b: a + b,
        "sub": lambda b: a - b,
        "mul": lambda b: a * b,
        "fma": lambda b, c: a * b + c,
    }
    return table[op](*rest)


@pytest.mark.parametrize("op", ["add", "sub", "mul", "div", "fma"])
@pytest.mark.parametrize("fmt", EVERY, ids=repr)
def test_small_formats_against_fractions(fmt: Format, op: str) -> None:
    """Oracle: the exact fraction, rounded by looking up its neighbours; every deterministic mode."""
    count = 300 if fmt in SMALL else 100
    operands = [samples(fmt, count, seed) for seed in range(OPERANDS[op])]
    if op == "fma" and fmt.signed:  # half of the time c nearly cancels the product: the hard cases
        product = np.clip(operands[0] * operands[1], -fmt.max, fmt.max)
        close = -formats.round(product, fmt).astype(np.float64)
        operands[2] = np.where(np.arange(count) % 2, operands[2], close + 0.0)
    for mode in MODES:
        keep = operands[1] != 0 if op == "div" else np.full(count, True)
        given_ = [each[keep] for each in operands]
        got = arithmetic(op, *given_, fmt=fmt, rounding=mode)
        exact = [exactly(op, [float(each[i]) for each in given_]) for i in range(keep.sum())]
        expected = np.array([round_exactly(each, fmt, mode) for each in exact])
        nonzero = np.array([each != 0 for each in exact])
        assert_same(np.abs(got), np.abs(expected))
        values = nonzero & ~np.isnan(expected) & (expected != 0)
        assert np.array_equal(np.sign(got[values]), np.sign(expected[values]))


@pytest.mark.parametrize("fmt", [each for each in EVERY if each.within_float32], ids=repr)
def test_sqrt_of_small_formats(fmt: Format) -> None:
    """Oracle: squares of fractions. The root lies on the right side of the neighbouring values' squares."""
    values = magnitudes(fmt)
    x = values[:: max(1, len(values) // (2000 if fmt in SMALL else 200))]
    for mode in MODES:
        got = arithmetic("sqrt", x, fmt=fmt, rounding=mode)
        for value, root in zip(x, got, strict=True):
            assert_same(root, np.float64(_root_by_search(float(value), fmt, mode)))


def _root_by_search(value: float, fmt: Format, mode: str) -> float:
    values = magnitudes(fmt)
    squares = values * values  # exact for formats of up to 16 bits
    index = int(np.searchsorted(squares, value, side="right")) - 1
    exact = math.sqrt(value)
    if Fraction(exact) ** 2 == Fraction(value):  # it may lie at a tie between 0 and a smallest value above 1
        return round_exactly(Fraction(exact), fmt, mode)
    low = float(values[index])
    high = float(values[index + 1])
    middle = (Fraction(low) + Fraction(high)) / 2
    nearest = high if middle * middle < value else low  # an irrational root is never a tie
    to_odd = low if grid(fmt).odd[index] else high
    return {"toward_zero": low, "down": low, "up": high, "to_odd": to_odd}.get(mode, nearest)


@pytest.mark.parametrize("fmt", TINY, ids=repr)
def test_all_pairs_of_8_bit_formats(fmt: Format) -> None:
    """Oracle: + - * of 8-bit values are exact in float64; where float32 holds them too, ml_dtypes rounds."""
    codes = np.arange(1 << fmt.bits)
    values = formats.decode(codes, fmt)
    values = values[np.isfinite(values)]
    a, b = values[:, None], values[None, :]
    for op in ("add", "sub", "mul"):
        exact = UFUNCS[op](a, b)
        assert_same(arithmetic(op, a, b, fmt=fmt), formats.round(exact, fmt))
        if not fmt.is_integer:
            fits = exact == exact.astype(np.float32)
            with np.errstate(over="ignore", invalid="ignore"):
                expected = exact[fits].astype(np.float32).astype(fmt.dtype).astype(np.float64)
            assert_same(arithmetic(op, a, b, fmt=fmt)[fits], expected)
            assert fits.mean() > 0.9


@pytest.mark.parametrize("op", UFUNCS)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ml_dtypes.bfloat16], ids=repr)
def test_nearest_even_is_the_machines(dtype: type, op: str) -> None:
    """Oracle: NumPy's arithmetic (IEEE 754) and ml_dtypes' bfloat16, specials included."""
    fmt = formats.get(dtype)
    random = np.random.default_rng(3)
    bits = random.integers(0, 1 << fmt.bits, (2, 60_000), dtype=fmt.code_dtype)
    with np.errstate(all="ignore"):
        a, b = bits.view(dtype)
        close = np.nextafter(a, b) if dtype in (np.float16, np.float32, np.float64) else a
        for left, right in ((a, b), (a, close), (a, a), (a, -close)):
            expected = UFUNCS[op](left, right).astype(np.float64)
            assert_same(arithmetic(op, left, right, fmt=fmt), expected)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_sqrt_is_the_machines(dtype: type) -> None:
    """Oracle: NumPy's square root, negative and special arguments included."""
    fmt = formats.get(dtype)
    x = np.random.default_rng(4).integers(0, 1 << fmt.bits, 60_000, dtype=fmt.code_dtype).view(dtype)
    with np.errstate(all="ignore"):
        assert_same(arithmetic("sqrt", x, fmt=fmt), np.sqrt(x).astype(np.float64))


single = st.floats(width=32, allow_nan=False, allow_infinity=False)


@pytest.mark.parametrize("op", ["add", "sub", "mul", "div", "sqrt", "fma"])
@pytest.mark.parametrize("name", ["float32", "tfloat32", "float64"])
@given(data=st.data())
def test_wide_formats_against_fractions(name: str, op: str, data: st.DataObject) -> None:
    """Oracle: exact fractions. The result brackets the exact value with its neighbour as the mode demands."""
    fmt = formats.get(name)
    kinds = st.floats(-2.0, 2.0, width=32), single, st.sampled_from([1.0, 1.5, 3.0, 2.0**-140, 1 + 2.0**-23])
    drawn = [data.draw(st.one_of(*kinds)) for _ in range(OPERANDS[op])]
    if name == "float64":
        drawn = [each * (1 + 2.0**-51) for each in drawn]
    operands = [float(formats.round(each, fmt, "toward_zero")) for each in drawn]
    if op == "sqrt":
        operands = [abs(operands[0])]
    if op == "div" and operands[1] == 0:
        return
    for mode in MODES:
        got = float(arithmetic(op, *operands, fmt=fmt, rounding=mode))
        _assert_rounds(op, operands, got, fmt, mode)


def _compare(op: str, operands: list[float], mark: Fraction) -> int:
    """Return the sign of exact result - mark."""
    root = op == "sqrt"
    difference = Fraction(operands[0]) - mark * abs(mark) if root else exactly(op, operands) - mark
    return (difference > 0) - (difference < 0)


def _assert_rounds(op: str, operands: list[float], got: float, fmt: Format, mode: str) -> None:
    side = {"toward_zero": None, "up": 1, "down": -1}
    if math.isinf(got):
        threshold = Fraction(fmt.max) + Fraction(float(formats.ulp(fmt.max, fmt))) / (
            2 if "nearest" in mode else 1
        )
        reach = threshold if "nearest" in mode else Fraction(fmt.max)
        assert mode not in ("toward_zero", "to_odd")
        assert _compare(op, operands, reach if got > 0 else -reach) * math.copysign(1, got) >= 0
        return
    order = _compare(op, operands, Fraction(got))
    if order == 0:
        return
    below, above = formats.inspect(got, fmt).neighbours
    beyond = above if order > 0 else below
    if math.isinf(beyond):
        assert (
            mode in ("toward_zero", "to_odd", "down" if order > 0 else "up")
            or _compare(op, operands, Fraction(fmt.max) + Fraction(float(formats.ulp(fmt.max, fmt))) / 2)
            * order
            < 0
        )
        return
    assert _compare(op, operands, Fraction(beyond)) == -order, "the exact result is not next to this one"
    if "nearest" in mode:
        middle = (Fraction(got) + Fraction(beyond)) / 2
        past = _compare(op, operands, middle) * order
        odd = int(formats.encode(got, fmt)) >> fmt.padding & 1
        away = abs(got) > abs(beyond)
        assert past < 0 or (past == 0 and (away if mode == "nearest_away" else not odd))
    elif mode == "to_odd":
        assert int(formats.encode(got, fmt)) >> fmt.padding & 1
    elif mode == "toward_zero":
        assert abs(got) < abs(beyond)
    else:
        assert order == -side[mode]


def test_fma_is_not_two_roundings() -> None:
    """Oracle: by hand. (1 + 2^-10)^2 - (1 + 2^-9) = 2^-20; two roundings give 0."""
    a, c = 1 + 2.0**-10, -(1 + 2.0**-9)
    assert float(arithmetic("fma", a, a, c, fmt="float16")) == 2.0**-20
    product = arithmetic("mul", a, a, fmt="float16")
    assert float(arithmetic("add", product, c, fmt="float16")) == 0.0
    b, d = 1 + 2.0**-30, -(1 + 2.0**-29)
    assert float(arithmetic("fma", b, b, d, fmt="float64")) == 2.0**-60


def test_fma_in_float64_does_not_overflow_on_the_way() -> None:
    """Oracle: IEEE 754-2019, 5.4.1: the product has no range of its own."""
    big = 2.0**1000
    assert float(arithmetic("fma", big, big, -np.inf, fmt="float64")) == -np.inf
    assert float(arithmetic("fma", 2.0**1023, 2.0, -(2.0**1023), fmt="float64")) == 2.0**1023
    assert float(arithmetic("fma", 2.0**-600, 2.0**-600, 1.0, fmt="float64")) == 1.0
    assert float(arithmetic("fma", 2.0**-600, 2.0**-600, 1.0, fmt="float64", rounding="up")) == 1 + 2.0**-52
    assert math.isnan(float(arithmetic("fma", np.inf, 0.0, 1.0, fmt="float64")))


@pytest.mark.parametrize("name", ["float16", "float32", "float64"])
def test_signs_of_exact_zeros(name: str) -> None:
    """Oracle: IEEE 754-2019, 6.3."""
    for mode in MODES:
        difference = -0.0 if mode == "down" else 0.0
        for op, operands, zero in (
            ("sub", (1.5, 1.5), difference),
            ("add", (1.5, -1.5), difference),
            ("add", (0.0, -0.0), difference),
            ("add", (-0.0, -0.0), -0.0),
            ("sub", (-0.0, 0.0), -0.0),
            ("fma", (1.5, 2.0, -3.0), difference),
            ("fma", (-0.0, 1.0, -0.0), -0.0),
            ("mul", (-0.0, 3.0), -0.0),
            ("div", (0.0, -3.0), -0.0),
            ("sqrt", (-0.0,), -0.0),
        ):
            got = arithmetic(op, *operands, fmt=name, rounding=mode)
            assert_same(got, np.float64(zero))


def test_underflow_keeps_its_sign() -> None:
    """Oracle: IEEE 754-2019, 6.3 and 7.5."""
    tiny = 2.0**-24
    assert_same(arithmetic("mul", tiny, -tiny, fmt="float16"), np.float64(-0.0))
    assert_same(arithmetic("mul", tiny, -tiny, fmt="float16", rounding="down"), np.float64(-tiny))
    assert_same(arithmetic("mul", tiny, tiny, fmt="float16", rounding="up"), np.float64(tiny))
    least = 2.0**-1074
    assert_same(arithmetic("mul", least, -0.5, fmt="float64", rounding="toward_zero"), np.float64(-0.0))
    assert_same(arithmetic("mul", least, 0.5, fmt="float64", rounding="up"), np.float64(least))


def test_special_values() -> None:
    """Oracle: IEEE 754-2019, section 7, and the overflow rule of the formats without inf."""
    inf, nan = math.inf, math.nan
    for name, fmt_inf in (("float16", inf), ("float64", inf), ("float8_e4m3fn", nan)):
        for mode in ("nearest_even", "toward_zero"):
            assert_same(arithmetic("div", 1.0, 0.0, fmt=name, rounding=mode), np.float64(fmt_inf))
            assert_same(arithmetic("div", 0.0, 0.0, fmt=name, rounding=mode), np.float64(nan))
            assert_same(arithmetic("sqrt", -1.0, fmt=name, rounding=mode), np.float64(nan))
            assert_same(arithmetic("add", nan, 1.0, fmt=name, rounding=mode), np.float64(nan))
    assert_same(arithmetic("sub", inf, inf, fmt="float16"), np.float64(nan))
    assert_same(arithmetic("add", 65504.0, 65504.0, fmt="float16"), np.float64(inf))
    assert_same(arithmetic("add", 65504.0, 65504.0, fmt="float16", rounding="down"), np.float64(65504))
    assert_same(arithmetic("add", 448.0, 448.0, fmt="float8_e4m3fn", overflow="saturate"), np.float64(448))
    assert_same(arithmetic("add", 6.0, 6.0, fmt="float4_e2m1fn"), np.float64(6))
    assert_same(arithmetic("mul", 100.0, -2.0, fmt="int8"), np.float64(-128))
    with pytest.raises(FormatError, match="no NaN"):
        arithmetic("div", 0.0, 0.0, fmt="float4_e2m1fn")


def test_stochastic_arithmetic_draws_between_the_neighbours() -> None:
    """Oracle: the binomial law at 1/4 of an ulp, 5 sigma of 10,000 draws; float64 goes through fractions."""
    n = 10_000
    half = arithmetic("add", np.full(n, 1.0), 2.0**-12, fmt="float16", rounding="stochastic", rng=1)
    assert set(np.unique(half)) == {1.0, 1 + 2.0**-10}
    assert abs((half > 1).sum() - n / 4) < 5 * math.sqrt(n * 3 / 16)
    double = arithmetic("add", np.full(1000, 1.0), 2.0**-54, fmt="float64", rounding="stochastic", rng=1)
    assert set(np.unique(double)) == {1.0, 1 + 2.0**-52}
    assert abs((double > 1).sum() - 250) < 5 * math.sqrt(1000 * 3 / 16)


def test_a_format_far_from_one() -> None:
    """Oracle: by hand, for 8 exponent bits around 2^-470: products lie beyond float64, and the format."""
    far = Format("far", 8, 7, 600, "ieee", np.dtype(np.uint16))
    assert not far.within_float32
    least = far.smallest_subnormal
    assert arithmetic("mul", far.max, far.max, fmt=far, rounding="up").item() == least
    assert arithmetic("mul", far.max, far.max, fmt=far).item() == 0.0
    assert arithmetic("add", far.max, least, fmt=far, rounding="up").item() == np.inf
    assert arithmetic("div", least, far.max, fmt=far).item() == np.inf
    assert arithmetic("fma", far.max, -far.max, least, fmt=far, rounding="down").item() == 0.0


def test_operands_broadcast() -> None:
    """Oracle: NumPy's shapes."""
    assert arithmetic("add", np.ones((2, 1)), np.ones(3), fmt="float16").shape == (2, 3)
    assert arithmetic("fma", np.ones((2, 1)), np.ones(3), 1.0, fmt="float64").shape == (2, 3)
    assert arithmetic("add", 1, 2, fmt="int8").shape == ()
    with pytest.raises(ShapeError, match=r"\(2,\), \(3,\)"):
        arithmetic("add", np.ones(2), np.ones(3), fmt="float16")


def test_operands_must_be_values_of_the_format() -> None:
    """Oracle: the message counts and shows the stranger."""
    with pytest.raises(FormatError, match=r"expected values of float16, but 1 of 2 are none"):
        arithmetic("add", [1.0, 0.1], 1.0, fmt="float16")
    with pytest.raises(FormatError, match="float8_e4m3fn"):
        arithmetic("add", math.inf, 1.0, fmt="float8_e4m3fn")


def test_settings_are_checked() -> None:
    """Oracle: the messages."""
    with pytest.raises(SettingError, match="did you mean 'sqrt'"):
        arithmetic("sqr", 1.0, fmt="float16")
    with pytest.raises(SettingError, match="expected 2 operands, got 1"):
        arithmetic("add", 1.0, fmt="float16")
    for op, count in itertools.product(("add",), (2,)):
        with pytest.raises(SettingError, match="unknown rounding"):
            arithmetic(op, *[1.0] * count, fmt="float64", rounding="nearest")
    with pytest.raises(SettingError, match="unknown overflow"):
        arithmetic("add", 1.0, 1.0, fmt="float64", overflow="wrap")
