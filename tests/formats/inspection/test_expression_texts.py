"""What evaluate reads and refuses; oracles: values by hand, the place of a fault in the text."""

from __future__ import annotations

import math

import pytest

from minimp.errors import DataError, FormatError, SettingError
from minimp.formats import arithmetic, inspect
from minimp.formats.inspection.expressions import evaluate


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("fp16(1/3)", inspect("1/3", "fp16").value),
        ("fp16(1)/3", arithmetic("div", 1.0, 3.0, fmt="fp16")),
        ("fp16(2) + 3 * 4", 14.0),
        ("(fp16(2) + 3) * 4", 20.0),
        ("fp16(10) - 3 - 2", 5.0),
        ("fp16(16) / 4 / 2", 2.0),
        ("- - fp16(2)", 2.0),
        ("-+-+fp16(2)", 2.0),
        ("fp16(-(1/4))", -0.25),
        ("fp16(--0.5)", 0.5),
        ("fp16(- 0)", -0.0),
        ("fp16(-(-0))", 0.0),
        ("FP16( 0x1.8p-3 )", 0.1875),
        ("fp16(0x.8p1)", 1.0),
        ("half(1_000.5)", 1000.5),
        ("fp16(.5)+1.", 1.5),
        ("fp16(sqrt(9/4))", 1.5),
        ("fp16(abs(-2) * fma(2, 3, -1))", 10.0),
        ("fp16(-inf)", -math.inf),
        ("fp16(3) \u2212 1 \u00d7 2", 1.0),
        ("fp32(1e-3000 * 1e3000)", 1.0),
        ("\tfp16(1)\n+ 1 ", 2.0),
    ],
)
def test_what_it_reads(text: str, value: float) -> None:
    """Oracle: by hand: precedence, signs, spellings of numbers, exact arithmetic among plain numbers."""
    assert repr(evaluate(text).value) == repr(float(value))


@pytest.mark.parametrize(
    ("text", "kind", "message", "mark"),
    [
        ("", DataError, "expected an expression", None),
        ("  ", DataError, "expected an expression", None),
        ("fp16(", DataError, "expected a number or a format, got the end", (5, 1)),
        ("fp16(0.1", DataError, "expected ')' to close fp16(, got the end", (8, 1)),
        ("(fp16(0.1)", DataError, "expected ')' to close the ( before", (10, 1)),
        ("fp16 0.1", DataError, "expected '(' after fp16, got '0.1'", (5, 3)),
        ("fp16(0.1) fp16(0.2)", DataError, "expected + - * or / before 'fp16'", (10, 4)),
        ("fp16(0.1))", DataError, "expected + - * or / before ')'", (9, 1)),
        ("fp16(1) ** 2", DataError, "there are no powers", (9, 1)),
        ("fp16(1) ^ 2", DataError, "unexpected '^'", (8, 1)),
        ("fp16(1e)", DataError, "expected ')' to close fp16(, got 'e'", (6, 1)),
        ("fp16(0x3c00)", DataError, "0x3c00p0 is the number 15360", (5, 6)),
        ("fp16(0x)", DataError, "0x may be", (5, 2)),
        ("fp16(1e99999)", DataError, "an exponent beyond 5000", (5, 7)),
        ("fp16(0x1p99999)", DataError, "an exponent beyond 5000", (5, 9)),
        ("haif(1)", FormatError, "unknown number format 'haif'; did you mean 'half'?", (0, 4)),
        ("sqr(fp16(1))", FormatError, "the functions are sqrt, fma, abs", (0, 3)),
        ("fma(fp16(1), 2)", DataError, "fma takes 3 arguments, got 2", (0, 15)),
        ("sqrt(fp16(1), 2)", DataError, "sqrt takes 1 argument, got 2", (0, 16)),
        ("fp16(1, 2)", DataError, "fp16 takes 1 argument, got 2", (0, 10)),
        ("1 + fp16(2) * bf16(3)", FormatError, "for example fp16(bf16(3))", (4, 17)),
        ("(half(1) + 2) - -e5m2(3)", FormatError, "for example half(-e5m2(3))", (0, 24)),
        ("0.1 + 0.2", DataError, "fp16(0.1) + 0.2", None),
        ("-0.5", DataError, "name one: fp16(-0.5)", None),
        ("fp16(1/0)", DataError, "for example fp16(1)/0", (5, 3)),
        ("fp16(sqrt(2))", DataError, "for example sqrt(fp16(2))", (5, 7)),
        ("fp16(sqrt(-1))", DataError, "the root of a negative number needs a format", (5, 8)),
        ("fp16(inf - inf)", DataError, "arithmetic with inf or nan", (5, 9)),
        ("fp4(nan)", FormatError, "float4_e2m1fn has no NaN", (0, 8)),
        ("1 + fp4(0) / 0", FormatError, "float4_e2m1fn has no NaN", (4, 10)),
        ("(" * 50 + "1", DataError, "nested deeper than 40", (40, 1)),
        ("1 + " * 200 + "1", DataError, "expected at most 500 characters, got 801", None),
        ("fp16(1) + \x1b[31m", DataError, "unexpected '\\x1b'", (10, 1)),
        ("__import__('os')", DataError, 'unexpected "\'"', (11, 1)),
        ("fp16(1).real", DataError, "unexpected '.'", (7, 1)),
    ],
)
def test_what_is_refused(
    text: str, kind: type[Exception], message: str, mark: tuple[int, int] | None
) -> None:
    """Oracle: the message, and the place and length of the mark under the text."""
    with pytest.raises(kind) as fault:
        evaluate(text)
    said = str(fault.value)
    assert message in said
    assert said.startswith("evaluate: ")
    if mark is not None:
        _, shown, below, *_ = said.split("\n")
        assert (below.index("^") - 4, below.count("^")) == mark
        assert shown[4:].isprintable()
        assert shown[4 : 4 + mark[0]] == text[: mark[0]]


def test_a_long_text_is_shown_around_the_fault() -> None:
    """Oracle: the marked piece is the one that is wrong, within 100 columns."""
    text = "fp16(1) + " * 20 + "oops(3)" + " + 1" * 20
    with pytest.raises(FormatError) as fault:
        evaluate(text)
    _, shown, below, *_ = str(fault.value).split("\n")
    assert shown[below.index("^") : below.rindex("^") + 1] == "oops"
    assert max(len(shown), len(below)) <= 100


def test_settings_are_checked() -> None:
    """Oracle: the errors of round, also where nothing would need rounding."""
    for settings in (("nearest",), ("up", "wrap"), ("stochastic",)):
        with pytest.raises(SettingError):
            evaluate("fp16(1)", *settings)


def test_chained_texts_are_no_deeper_than_the_stack() -> None:
    """Oracle: the longest chains and nestings that are allowed are calculated."""
    assert evaluate("fp16(1)" + "+1" * 240).value == 241.0
    assert evaluate("-" * 400 + "fp16(1)").value == 1.0
    assert evaluate("(" * 38 + "fp16(1)" + ")" * 38).value == 1.0
