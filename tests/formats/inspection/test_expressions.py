"""Arithmetic in formats as text; oracles: fractions, lists of values, mpmath."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import mpmath
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from minimp.errors import FormatError, SettingError
from minimp.formats import FORMATS, ROUNDINGS, Counter, Format, arithmetic, get, inspect, make
from minimp.formats.inspection.calculation import Calculation, Step
from minimp.formats.inspection.expressions import evaluate
from tests.formats.oracle import MODES, assert_same, round_exactly

NAMES = ("fp16", "half", "bf16", "e4m3fn", "float8_e5m2", "e3m4", "fp4", "e4m3fnuz", "e2m3")
Number = Fraction | float


# ---- an evaluator of its own -------------------------------------------------------------------------------


class Reference:
    """Writes random expressions and calculates each while it writes: fractions, and lists of values."""

    def __init__(self, draw: Callable[..., Any], mode: str, overflow: str) -> None:
        self.draw, self.mode, self.overflow = draw, mode, overflow

    def round(self, x: Fraction, name: str) -> float:
        """Round by looking the neighbours up."""
        return round_exactly(x, get(name), self.mode, self.overflow)

    def plain(self) -> tuple[str, Fraction]:
        """A plain number, or a quotient of two."""
        text = self.draw(
            st.sampled_from(["0.1", "1", "3", "1e-3", ".75", "2048", "1_000", "1/3", "0x1.8p-3"])
        )
        over, _, under = text.replace("_", "").partition("/")
        exact = Fraction(3, 16) if "x" in over else Fraction(over)
        return f"({text})" if under else text, exact / Fraction(under or "1")

    def value(self, name: str, depth: int) -> tuple[str, float]:
        """An expression whose value is one of a format; finite, or the draw is dropped."""
        kind = self.draw(
            st.sampled_from(["cast", "twice", *"+-*/", "+-"[: depth > 0], "sqrt", "fma", "neg", "abs"])
        )
        if depth == 0 or kind in ("cast", ""):
            text, exact = self.plain()
            return self.finite(f"{name}({text})", self.round(exact, name))
        if kind == "twice":
            other = self.draw(st.sampled_from(NAMES))
            text, inner = self.value(other, depth - 1)
            return self.finite(f"{name}({text})", self.round(Fraction(inner), name))
        return self.operation(kind, name, depth)

    def operation(self, kind: str, name: str, depth: int) -> tuple[str, float]:
        """An operation with at least one value of the format."""
        text, x = self.value(name, depth - 1)
        a = Fraction(x)
        if kind in ("neg", "abs"):
            return (f"-({text})", -x) if kind == "neg" else (f"abs({text})", abs(x))
        if kind == "sqrt":
            assume(a >= 0)
            return self.finite(f"sqrt({text})", self.round(root(a), name))
        other, b = self.operand(name, depth - 1)
        if kind == "fma":
            third, c = self.operand(name, depth - 1)
            return self.finite(f"fma({other}, {text}, {third})", self.round(a * b + c, name))
        assume(b != 0 or kind != "/")
        exact = {"+": a + b, "-": a - b, "*": a * b, "/": a / b if b else a}[kind]
        return self.finite(f"({text}) {kind} ({other})", self.round(exact, name))

    def operand(self, name: str, depth: int) -> tuple[str, Fraction]:
        """A value of the format, or a plain number that takes it."""
        if self.draw(st.booleans()):
            text, x = self.value(name, depth)
            return text, Fraction(x)
        text, exact = self.plain()
        return text, Fraction(self.finite(text, self.round(exact, name))[1])

    def finite(self, text: str, x: float) -> tuple[str, float]:
        """Drop what is not finite: the special values have tests of their own."""
        assume(math.isfinite(x))
        return text, x


def root(a: Fraction) -> Fraction:
    """The square root: exact where it is rational, else to 400 bits."""
    with mpmath.workprec(400):
        found = mpmath.sqrt(mpmath.mpf(a.numerator) / a.denominator)
        man, exp = found.man_exp
    near = Fraction(man) * Fraction(2) ** exp
    simple = near.limit_denominator(2**40)
    return simple if simple * simple == a else near


@st.composite
def expressions(draw: Callable[..., Any]) -> tuple[str, str, str, str, float]:
    """(text, format, rounding, overflow, value)."""
    mode, overflow = draw(st.sampled_from(MODES)), draw(st.sampled_from(["ieee", "saturate"]))
    name = draw(st.sampled_from(NAMES))
    text, value = Reference(draw, mode, overflow).value(name, draw(st.integers(0, 3)))
    assume(len(text) < 500)
    return text, name, mode, overflow, value


@given(case=expressions())
def test_random_expressions(case: tuple[str, str, str, str, float]) -> None:
    """Oracle: the evaluator above, on fractions and lists of values; every step is checked again."""
    text, name, mode, overflow, value = case
    found = evaluate(text, mode, overflow)
    assert found.value == value
    assert found.format is get(name)
    assert (found.rounding, found.overflow, found.text) == (mode, overflow, text)
    for step in found.steps:
        check_step(step, mode, overflow)
    assert max(map(len, str(found).split("\n"))) <= 100


OPERATIONS: dict[str, Callable[..., Fraction]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "fma": lambda a, b, c: a * b + c,
    "sqrt": root,
    "neg": lambda a: -a,
    "abs": abs,
}


def check_step(step: Step, mode: str, overflow: str) -> None:
    """Check a step of finite numbers by its own operands."""
    operands = [Fraction(each.value) for each in step.operands]
    assert isinstance(step.exact, Fraction)
    if step.operation != "cast":
        exact = OPERATIONS[step.operation](*operands)
        assert abs(step.exact - exact) <= abs(exact) * Fraction(2) ** -290
        assert step.irrational == (step.operation == "sqrt" and exact * exact != operands[0])
    elif operands:
        assert step.exact == operands[0]
    fmt = step.result.format
    assert step.result.value == round_exactly(step.exact, fmt, mode, overflow)
    assert step.lost == Fraction(step.result.value) - step.exact
    assert ("inexact" in step.flags) == (step.lost != 0)
    if step.lost:
        assert Fraction(step.lost_ulps).limit_denominator(10**9) == pytest.approx(
            step.lost / Fraction(step.result.ulp)
        )
    if step.operation in ("add", "sub") and "overflow" not in step.flags:
        check_sum(step, operands)
    assert step.why.endswith(".")


def check_sum(step: Step, operands: list[Fraction]) -> None:
    """An operand is swallowed if the other one is the result; bits cancel if the sum has a lower exponent."""
    a, b = operands[0], operands[1] if step.operation == "add" else -operands[1]
    swallowed = None
    if a and b and step.lost:
        swallowed = {a: 1, b: 0}.get(Fraction(step.result.value))
    assert step.swallowed == swallowed
    assert ("absorbed" in step.flags) == (swallowed is not None)
    gone = 0
    if a * b < 0 and step.exact:
        large, left = float(max(abs(a), abs(b))), float(abs(step.exact))
        gone = max(0, math.frexp(large)[1] - math.frexp(left)[1])
    elif a * b < 0:
        gone = step.result.format.precision
    assert step.cancelled == gone
    assert ("cancellation" in step.flags) == (gone >= 2)


# ---- what it says ------------------------------------------------------------------------------------------


def test_one_is_swallowed_by_2048() -> None:
    """Oracle: by hand: float16 has 11 bits, so 2049 is a tie between 2048 and 2050."""
    found = evaluate("fp16(2048) + 1")
    first, second, last = found.steps
    assert (first.text, first.operation, first.operands, first.implicit) == ("fp16(2048)", "cast", (), False)
    assert (second.text, second.operation, second.implicit) == ("1", "cast", True)
    assert (last.exact, last.result.value, last.lost, last.lost_ulps) == (2049, 2048.0, -1, -0.5)
    assert (last.flags, last.swallowed) == (("inexact", "absorbed"), 1)
    assert last.why.startswith("1 was swallowed: next to 2048 come 2047 and 2050, and 2049 went back to 2048")
    assert (found.exact, found.lost, found.lost_ulps) == (2049, -1, -0.5)
    assert evaluate("1 + fp16(2048)").steps[-1].swallowed == 0
    assert evaluate("fp16(2048) + 1", "up").value == 2050.0
    assert evaluate("fp16(2048) + 1", "up").steps[-1].swallowed is None


def test_the_text_of_a_calculation() -> None:
    """Oracle: the text for the best-known sum, its numbers by fractions."""
    assert (
        str(evaluate("fp16(0.1) + fp16(0.2)"))
        == """\
fp16(0.1) + fp16(0.2) = 0.2998046875
  in float16, nearest_even

 1  fp16(0.1)  [inexact]
    exact    0.1
    rounded  0.0999755859375  0 01011 1001100110  0x2e66
    lost     -0.0000244 (-0.4 ulp)
    0.1 lies 40 % of the way from 0.0999755859375 to 0.10003662109375: nearest_even takes
    0.0999755859375.

 2  fp16(0.2)  [inexact]
    exact    0.2
    rounded  0.199951171875  0 01100 1001100110  0x3266
    lost     -0.0000488 (-0.4 ulp)
    0.2 lies 40 % of the way from 0.199951171875 to 0.2000732421875: nearest_even takes
    0.199951171875.

 3  fp16(0.1) + fp16(0.2)  [inexact]
    a        0.0999755859375  0 01011 1001100110  0x2e66
    b        0.199951171875   0 01100 1001100110  0x3266
    exact    0.2999267578125
    rounded  0.2998046875     0 01101 0011001100  0x34cc
    lost     -0.000122 (-0.5 ulp)
    The exact result lies half way between 0.2998046875 and 0.300048828125: a tie, which
    nearest_even gives to the even significand, 0.2998046875.

Result: 0.2998046875; without any rounding: 0.3; lost in all: -0.000195 (-0.8 ulp)"""
    )


def test_long_texts_are_clipped() -> None:
    """Oracle: 100 columns; the text as it was given is in `text`."""
    long = "(" + " + ".join(["0.000000000000125"] * 8) + ")"
    found = evaluate(f"e4m3fnuz(fp64(448)) / {long} - {long} * 3")
    assert max(map(len, str(found).split("\n"))) <= 100
    assert [each.text for each in found.steps if each.implicit] == [long, f"{long} * 3"]
    own = make(5, 10, name="x" * 200)
    assert max(map(len, str(evaluate("own(1) + 0.1", formats={"own": own})).split("\n"))) <= 100


def test_rounding_twice_is_told() -> None:
    """Oracle: by hand: 1 + 2^-11 + 2^-30 is above a tie of float16, and float32 rounds it onto the tie."""
    text = "fp16(fp32(1 + 1/2048 + 1/1073741824))"
    step = evaluate(text).steps[-1]
    assert "double_rounding" in step.flags
    assert (step.result.value, step.single.value if step.single else None) == (1.0, 1 + 2.0**-10)
    assert step.unrounded == 1 + Fraction(1, 2**11) + Fraction(1, 2**30)
    assert "rounded once it would be 1.0009765625" in step.why
    assert "double_rounding" not in evaluate("fp16(fp32(0.1))").steps[-1].flags
    row = evaluate("e4m3fn(fp16(fp32(1.0625 + 1/1073741824)))")  # a row of casts is compared with its start
    assert [("double_rounding" in each.flags) for each in row.steps] == [False, False, True]
    assert (row.value, row.steps[-1].single.value if row.steps[-1].single else None) == (1.0, 1.125)
    through = evaluate("fp16(fp32(1) + 1/2048 + 1/1073741824)")  # the sum's own rounding counts as well
    assert through.steps[-1].unrounded == through.steps[-2].exact


@pytest.mark.parametrize(
    ("text", "value", "flags", "why"),
    [
        ("fp16(1) / 0", math.inf, {"division_by_zero"}, "divided by zero is infinite"),
        ("fp16(-1) / 0", -math.inf, {"division_by_zero"}, "infinite"),
        ("1 / fp16(-0)", -math.inf, {"division_by_zero"}, "infinite"),
        ("1 / -fp16(0)", -math.inf, {"division_by_zero"}, "infinite"),
        ("fp16(0) / 0", math.nan, {"invalid"}, "no such number"),
        ("fp16(inf) - fp16(inf)", math.nan, {"invalid"}, "no such number"),
        ("fp16(inf) * 0", math.nan, {"invalid"}, "no such number"),
        ("sqrt(fp16(-1))", math.nan, {"invalid"}, "no such number"),
        ("sqrt(fp16(inf))", math.inf, set(), "The exact result is infinite"),
        ("sqrt(fp16(nan))", math.nan, set(), "NaN stays NaN"),
        ("fma(fp16(inf), 0, 1)", math.nan, {"invalid"}, "no such number"),
        ("abs(fp16(-inf))", math.inf, set(), "infinite"),
        ("sqrt(fp16(-0))", -0.0, set(), "Nothing is lost"),
        ("fp16(nan) + 1", math.nan, set(), "NaN stays NaN"),
        ("fp16(inf) + 1", math.inf, set(), "infinite"),
        ("fp4(1) / 0", 6.0, {"division_by_zero"}, "and becomes 6"),
        ("fp16(60000) * 2", math.inf, {"inexact", "overflow"}, "120000 lies beyond 65504"),
        ("e4m3fn(400) + 100", math.nan, {"inexact", "overflow"}, "480 lies beyond 448"),
        ("int8(-128) - 1", -128.0, {"inexact", "overflow"}, "lies beyond -128, the lowest"),
        ("-int8(-128)", 127.0, {"inexact", "overflow"}, "128 lies beyond 127"),
        ("fp16(1e-4) * 1e-4", 0.0, {"inexact", "underflow"}, "is too small"),
        ("fp16(1e-4) * 0.1", 1.0013580322265625e-05, {"inexact", "underflow"}, "with fewer bits than normal"),
        ("fp16(3) - fp16(3)", 0.0, {"cancellation"}, "All bits cancelled"),
        ("fp16(1.001) - 1", 2.0**-10, {"cancellation"}, "10 leading bits cancelled"),
        ("fma(fp16(0.1), 10, -1)", -0.000244140625, {"cancellation"}, "leading bits cancelled"),
        ("fma(fp16(1), 2048, 1)", 2048.0, {"inexact", "absorbed"}, "1 was swallowed: without it the product"),
        ("fma(fp16(1), 1, 2048)", 2048.0, {"inexact", "absorbed"}, "the product was swallowed"),
        ("abs(fp16(-0.5))", 0.5, set(), "Nothing is lost"),
        ("-fp16(0)", -0.0, set(), "Nothing is lost"),
        ("-e4m3fnuz(0)", 0.0, set(), "Nothing is lost"),
        ("e8m0(4) * 2", 8.0, set(), "Nothing is lost"),
        ("-e8m0(4)", math.nan, {"inexact", "invalid"}, "has no place for -4"),
        ("uint8(200) + 100", 255.0, {"inexact", "overflow"}, "300 lies beyond 255"),
        ("fp64(0.1) + 0.2", 0.30000000000000004, {"inexact"}, "a tie, which nearest_even gives"),
        ("sqrt(fp64(2))", math.sqrt(2), {"inexact"}, "nearest_even takes"),
        ("fp16(-2.5e-8)", -0.0, {"inexact", "underflow"}, "is too small"),
    ],
)
def test_special_steps(text: str, value: float, flags: set[str], why: str) -> None:
    """Oracle: IEEE 754-2019, 6 and 7, and the formats' own rules, by hand; Python's own float64."""
    found = evaluate(text)
    last = found.steps[-1]
    assert repr(found.value) == repr(value)
    assert set(last.flags) == flags
    assert why in last.why
    assert max(map(len, str(found).split("\n"))) <= 100


@given(a=st.floats(allow_nan=False), b=st.floats(allow_nan=False), sign=st.sampled_from(["+", "-", "*", "/"]))
def test_float64_is_pythons(a: float, b: float, sign: str) -> None:
    """Oracle: Python's float64 arithmetic."""
    assume(b != 0 or sign != "/")
    expected = {"+": a + b, "-": a - b, "*": a * b, "/": a / b if b else 0.0}[sign]
    found = evaluate(f"fp64({a!r}) {sign} fp64({b!r})").value
    assert repr(found) == repr(expected).replace("-nan", "nan")


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("fmt", FORMATS.values(), ids=repr)
def test_steps_are_those_of_arithmetic(fmt: Format, rounding: str) -> None:
    """Oracle: minimp.formats.arithmetic and inspect with the random bits of each step's place."""
    for sign, op in (("+", "add"), ("-", "sub"), ("*", "mul"), ("/", "div")):
        rngs = [Counter(7, place) if rounding == "stochastic" else None for place in range(3)]
        first = inspect("2.6", fmt, rounding, rng=rngs[0]).value
        second = inspect("1.7", fmt, rounding, rng=rngs[1]).value
        expected = arithmetic(op, first, second, fmt=fmt, rounding=rounding, rng=rngs[2])
        text = f"{fmt.name}(2.6) {sign} {fmt.name}(1.7)"
        found = evaluate(text, rounding, rng=None if rngs[0] is None else 7)
        assert_same(found.value, expected)


def test_formats_of_ones_own() -> None:
    """Oracle: the format that was given; names of any case; settings are checked."""
    own = make(3, 4, name="own")
    found = evaluate("Mine(0.3) + 1", formats={"mine": own})
    assert found.format is own
    assert found.value == inspect("1.3", own).value
    with pytest.raises(FormatError, match="unknown number format 'mine'"):
        evaluate("mine(0.3) + 1")
    for name in ("sqrt", "NaN", "e4-m3", "", "ö", "2x"):
        with pytest.raises(SettingError, match="expected a name"):
            evaluate("fp16(1)", formats={name: own})


@given(
    x=st.floats(0, 1e300), name=st.sampled_from(["fp64", "fp32", "bf16", "fp16"]), mode=st.sampled_from(MODES)
)
def test_roots(x: float, name: str, mode: str) -> None:
    """Oracle: squares of fractions: the root of a value lies between two values whose squares enclose it."""
    a = inspect(x, name, "toward_zero").value
    step = evaluate(f"sqrt({name}({a.hex()}))", mode).steps[-1]
    below, above = (Fraction(each) for each in step.result.between if each is not None)
    assert below**2 <= a <= above**2
    assert (below**2 == a) == (step.exact == below) == (below == above)
    middle = ((below + above) / 2) ** 2
    low = {"toward_zero": True, "down": True, "up": False}.get(mode, a < middle)
    if mode == "to_odd":
        low = int(inspect(below, name).bits, 2) % 2 == 1
    assert Fraction(step.result.value) == (below if low else above)


def test_the_whole_is_compared_with_no_rounding_at_all() -> None:
    """Oracle: fractions, and mpmath for the root."""
    found = evaluate("fp16(bf16(0.1)) * 3 - 0.3")
    assert isinstance(found, Calculation)
    assert found.exact == 0
    assert found.lost == Fraction(found.value)
    assert evaluate("fp16(1) / 0").exact is None
    assert math.isnan(evaluate("fp16(1) / 0").lost_ulps)
    exact = evaluate("sqrt(fp16(2)) * 3").exact
    assert exact is not None
    with mpmath.workprec(400):
        assert (
            abs(mpmath.mpf(exact.numerator) / exact.denominator - 3 * mpmath.sqrt(2)) < mpmath.mpf(2) ** -290
        )
