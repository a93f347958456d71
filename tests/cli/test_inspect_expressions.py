"""`minimp inspect` of expressions; oracles: minimp.formats.evaluate, numbers by hand, the help itself."""

from __future__ import annotations

import json
import re
import shlex
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimp.cli import main
from minimp.cli.inspect import is_expression
from minimp.formats import FORMATS, ROUNDINGS, inspect
from minimp.formats.inspection.expressions import evaluate
from tests.cli.processes import on_a_terminal

Capture = pytest.CaptureFixture[str]


def said(capsys: Capture, *arguments: str) -> str:
    """Run `minimp inspect`, which must succeed, and return what it prints."""
    capsys.readouterr()
    assert main(["inspect", *arguments]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def refused(capsys: Capture, *arguments: str) -> str:
    """Run `minimp inspect`, which must fail, and return its message."""
    assert main(["inspect", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    return err


SWALLOWED = """\
fp16(2048) + 1 = 2048  nearest_even: to the nearest; a tie to the even significand

 1  fp16(2048) = 2048, exactly  0 11010 0000000000  0x6800

 2  1 takes float16: 1, exactly  0 01111 0000000000  0x3c00

 3  fp16(2048) + 1  [inexact, absorbed]
    a        2048  0 11010 0000000000  0x6800
    b        1     0 01111 0000000000  0x3c00
    exact    2049
    rounded  2048  0 11010 0000000000  0x6800
    lost     -1 (-0.5 ulp)
    1 was swallowed: next to 2048 come 2047 and 2050, and 2049 went back to 2048 as a tie
    (nearest_even).

Result: 2048; without any rounding: 2049; lost in all: -1 (-0.5 ulp)
"""


def test_the_screen(capsys: Capture) -> None:
    """Oracle: the screen for 2048 + 1 in float16, its bits and numbers by hand."""
    screen = said(capsys, "fp16(2048) + 1")
    assert re.sub(" +\n", "\n", screen) == SWALLOWED
    assert "up: toward +inf; overflow saturate: to the largest value" in said(
        capsys, "fp16(65504) + 1e9", "--rounding", "up", "--overflow", "saturate"
    )


@pytest.mark.parametrize(
    "text",
    ["NAME(0.1) + 1e-30", "sqrt(NAME(2)) / 3", "fma(NAME(-1e308), 3, 1/3)", "-NAME(1e-310)", "NAME(inf)"],
)
@pytest.mark.parametrize("name", FORMATS)
def test_all_formats_fit_100_columns(capsys: Capture, name: str, text: str) -> None:
    """Oracle: the longest line; the result is evaluate's, and refused where that refuses."""
    text = text.replace("NAME", name)
    try:
        whole = evaluate(text)
    except TypeError:
        assert "has no NaN" in refused(capsys, text)
        return
    screen = said(capsys, text)
    assert max(map(len, screen.split("\n"))) <= 100
    assert re.sub(r"\s+", " ", screen).strip().endswith(re.sub(r"\s+", " ", str(whole)[-30:]))


def test_colours_are_added_to_the_same_text() -> None:
    """Oracle: the text without colours, and the fields of every code in red, green and blue."""
    code, screen = on_a_terminal("inspect", "fp16(0.1) + fp16(bf16(0.2))", COLUMNS="100", TERM="xterm")
    assert code == 0
    plain = re.sub(r"\x1b\[[\d;]*m", "", screen).replace("\r", "")
    whole = evaluate("fp16(0.1) + fp16(bf16(0.2))")
    body = [each.rstrip() for each in plain.split("\n")]
    assert body[body.index("") + 1 : -1] == str(whole).split("\n")[3:]
    for step in whole.steps:
        for seen in (*step.operands, step.result):
            painted = zip((31, 32, 34), seen.parts, strict=True)
            assert " ".join(f"\x1b[{colour}m{bits}\x1b[0m" for colour, bits in painted) in screen


def test_quiet_prints_the_value(capsys: Capture) -> None:
    """Oracle: NumPy's and Python's results of the same operations."""
    assert said(capsys, "fp16(0.1) + fp16(0.2)", "--quiet") == "0.2998046875\n"
    assert said(capsys, "fp64(0.1) + 0.2", "--quiet") == "0.30000000000000004\n"
    assert said(capsys, "-fp16(0)", "--quiet") == "-0\n"


def test_json_in_full(capsys: Capture) -> None:
    """Oracle: the last step of 2048 + 1 in float16, by hand."""
    found = json.loads(said(capsys, "fp16(2048)+1", "--json", "--rounding", "toward_zero"))
    steps = found.pop("steps")
    exact = {"value": 2049.0, "digits": "2049", "fraction": "2049", "irrational": False}
    assert found == {
        "expression": "fp16(2048)+1",
        "rounding": "toward_zero",
        "overflow": "ieee",
        "format": "float16",
        "value": 2048.0,
        "exact": exact,
        "lost": -1.0,
        "lost_ulps": -0.5,
    }
    assert [(each["expression"], each["operation"], each["implicit"]) for each in steps] == [
        ("fp16(2048)", "cast", False),
        ("1", "cast", True),
        ("fp16(2048)+1", "add", False),
    ]
    last: dict[str, Any] = steps[-1]
    operands, rounded = last.pop("operands"), last.pop("rounded")
    assert [each["code"] for each in operands] == ["0x6800", "0x3c00"]
    assert (rounded["code"], rounded["position"], rounded["between"]) == ("0x6800", 0.5, [2048.0, 2050.0])
    assert last.pop("why").startswith("1 was swallowed")
    assert last == {
        "expression": "fp16(2048)+1",
        "operation": "add",
        "implicit": False,
        "exact": exact,
        "lost": -1.0,
        "lost_ulps": -0.5,
        "flags": ["inexact", "absorbed"],
        "swallowed": 1,
        "cancelled": 0,
        "rounded_once": None,
    }


def test_json_where_numbers_end(capsys: Capture) -> None:
    """Oracle: strict JSON: infinities and NaN as strings, long fractions as null, roots as digits."""
    found = json.loads(said(capsys, "fp16(1)/0", "--json"))
    assert (found["value"], found["exact"], found["lost"]) == ("inf", None, "nan")
    assert found["steps"][-1]["exact"]["value"] == "inf"
    found = json.loads(said(capsys, "fp64(1e-4000)", "--json"))
    assert found["exact"] == {"value": 0.0, "digits": "1e-4000", "fraction": None, "irrational": False}
    found = json.loads(said(capsys, "sqrt(fp16(2))", "--json"))["steps"][-1]["exact"]
    assert (found["irrational"], found["fraction"], found["value"]) == (True, None, 2**0.5)
    assert found["digits"] == "1.414213562373095048801688724209698078569..."
    twice = json.loads(said(capsys, "fp16(fp32(1.00048828126))", "--json"))["steps"][-1]
    assert (twice["rounded"]["value"], twice["rounded_once"]) == (1.0, 1.0009765625)


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_roundings_and_seed_act(capsys: Capture, rounding: str) -> None:
    """Oracle: evaluate and inspect with the same settings."""
    seed = ["--seed", "11"] if rounding == "stochastic" else []
    rng = 11 if seed else None
    found = json.loads(said(capsys, "fp16(0.1) * 3", "--json", "--rounding", rounding, *seed))
    assert found["value"] == evaluate("fp16(0.1) * 3", rounding, rng=rng).value
    assert found.get("seed") == rng
    found = json.loads(said(capsys, "0.1", "--json", "--format", "fp16", "--rounding", rounding, *seed))
    assert found["formats"][0]["value"] == inspect("0.1", "fp16", rounding, rng=rng).value
    assert found.get("seed") == rng


def test_the_chance_is_shown(capsys: Capture) -> None:
    """Oracle: 0.1 lies 40 % up between two values of float16, 80 % in bfloat16."""
    screen = said(capsys, "0.1", "--format", "fp16,bf16", "--rounding", "stochastic", "--seed", "1")
    assert "chance of up" in screen
    assert re.search(r"float16 .* 40 % ", screen)
    assert re.search(r"bfloat16 .* 80 % ", screen)
    assert "chance" not in said(capsys, "0.1", "--format", "fp16")
    assert "lies between" not in said(capsys, "0.5", "--format", "fp16,bf16")


@pytest.mark.parametrize(
    "text", ["-fp16(0.1)", "-(fp16(0.1))", "-sqrt(fp16(2))", "-.5*fp16(2)", "-inf-fp16(1)"]
)
def test_what_begins_with_a_minus_is_no_option(capsys: Capture, text: str) -> None:
    """Oracle: evaluate, whose value it is."""
    value = evaluate(text).value
    assert (
        Fraction(said(capsys, "--quiet", text)) == value
        if abs(value) < 9e99
        else said(capsys, "--quiet", text)
    )
    assert "unknown option '-f'" in refused(capsys, "-f", "fp16(1)")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["fp16(0.1) + bf16(0.2)"],
            "float16 and bfloat16 meet in one operation\n    fp16(0.1) + bf16(0.2)\n    ^^^",
        ),
        (["fp16(0.1) + bf16(0.2)"], "help: say in which it is done, for example fp16(bf16(0.2))"),
        (["fp16(0.1) + oops(0.2)"], "\n    fp16(0.1) + oops(0.2)\n                ^^^^\n"),
        (["fp16(0.1"], "expected ')' to close fp16(, got the end\n    fp16(0.1\n            ^\n"),
        (["0.1 + 0.2"], "nothing rounds '0.1 + 0.2'\n  help: name one: fp16(0.1) + 0.2"),
        (["1 2"], "expected + - * or / before '2'"),
        (["fp4(0)/0"], "float4_e2m1fn has no NaN"),
        (["fp16(1)", "--format", "bf16"], "--format cannot act beside the expression 'fp16(1)'"),
        (["fp16(1)", "--bits", "0x3c00"], "a VALUE cannot act beside --bits"),
        (["fp16(1)", "--rounding", "nearst"], "unknown rounding 'nearst'; did you mean 'nearest_even'?"),
        (["fp16(1)", "--overflow", "saturte"], "unknown overflow 'saturte'; did you mean 'saturate'?"),
        (["fp16(1)", "--rounding", "stochastic"], "--rounding stochastic needs random numbers"),
        (["fp16(1)", "--seed", "1"], "--seed cannot act without --rounding stochastic"),
        (["fp16(1)", "--seed", "-1", "--rounding", "stochastic"], "whole number in [0, 2^64)"),
        (["--bits", "0x3c00", "--seed", "1"], "--seed cannot act beside --bits"),
        (["fp16(1)", "--quiet", "--json"], "--quiet cannot act beside --json"),
    ],
)
def test_what_is_refused(capsys: Capture, arguments: list[str], message: str) -> None:
    """Oracle: exit code 2, nothing on stdout, and what is wrong, with a mark below the place."""
    assert message in refused(capsys, *arguments)


def test_the_examples_of_the_help_work(capsys: Capture) -> None:
    """Oracle: each command that the help shows."""
    assert main(["inspect", "--help"]) == 0
    commands = re.findall(r"^  minimp inspect (.*)$", capsys.readouterr().out, re.MULTILINE)
    assert len(commands) >= 6
    assert any("fp16(" in each for each in commands)
    for each in commands:
        assert said(capsys, *shlex.split(each))


@given(st.floats() | st.integers() | st.fractions())
def test_a_number_is_no_expression(x: float | Fraction) -> None:
    """Oracle: Python's spellings of numbers; with a format around it is one."""
    assert not is_expression(str(x))
    assert not is_expression(f" +{abs(x)}\t")
    assert is_expression(f"fp16({x})")
    assert is_expression(f"{x} + 1")
