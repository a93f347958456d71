"""`minimp inspect`; oracles: Python's struct for bits, ml_dtypes for 8-bit values, fractions for errors."""

from __future__ import annotations

import json
import math
import re
import struct
from fractions import Fraction
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from minimp.cli import main
from minimp.cli.inspect import DEFAULT, from_bits, read_number
from minimp.errors import DataError
from minimp.formats import FORMATS, get, inspect

Capture = pytest.CaptureFixture[str]
PACKED = {"float16": "e", "float32": "f", "float64": "d"}


def said(capsys: Capture, *arguments: str) -> str:
    """Run `minimp inspect`, which must succeed, and return what it prints."""
    capsys.readouterr()
    assert main(["inspect", *arguments]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def as_json(capsys: Capture, *arguments: str) -> dict[str, dict[str, Any]]:
    """Return what `--json` prints: format -> its entry."""
    return {each["format"]: each for each in json.loads(said(capsys, "--json", *arguments))["formats"]}


def refused(capsys: Capture, *arguments: str) -> str:
    """Run `minimp inspect`, which must fail, and return its message."""
    assert main(["inspect", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    return err


# ---- what it prints ----------------------------------------------------------------------------------------

ONE_TENTH = """\
0.1  nearest_even: to the nearest; a tie to the even significand

format         sign  exponent  mantissa                 kind
float32        0     01111011  10011001100110011001101  normal
float16        0     01011     1001100110               normal
bfloat16       0     01111011  1001101                  normal
float8_e4m3fn  0     0011      101                      normal
float8_e5m2    0     01011     10                       normal

format         value                significand x 2^exponent   error       in ulps
float32        0.10000000149011612  +1.600000023841858 x 2^-4  +1.49e-9    +0.2
float16        0.0999755859375      +1.599609375 x 2^-4        -0.0000244  -0.4
bfloat16       0.10009765625        +1.6015625 x 2^-4          +0.0000977  +0.2
float8_e4m3fn  0.1015625            +1.625 x 2^-4              +0.00156    +0.2
float8_e5m2    0.09375              +1.5 x 2^-4                -0.00625    -0.4

format         code        ulp    neighbour below      neighbour above
float32        0x3dcccccd  2^-27  0.09999999403953552  0.10000000894069672
float16        0x2e66      2^-14  0.09991455078125     0.10003662109375
bfloat16       0x3dcd      2^-11  0.099609375          0.1005859375
float8_e4m3fn  0x1d        2^-7   0.09375              0.109375
float8_e5m2    0x2e        2^-6   0.078125             0.109375

format         lies between         and                  way up  flags
float32        0.09999999403953552  0.10000000149011612  80 %    inexact
float16        0.0999755859375      0.10003662109375     40 %    inexact
bfloat16       0.099609375          0.10009765625        80 %    inexact
float8_e4m3fn  0.09375              0.1015625            80 %    inexact
float8_e5m2    0.09375              0.109375             40 %    inexact
"""


def test_one_tenth(capsys: Capture) -> None:
    """Oracle: the screen for 0.1; its bits are struct's, its values and neighbours NumPy's and ml_dtypes'."""
    screen = said(capsys, "0.1")
    assert re.sub(" +\n", "\n", screen) == ONE_TENTH
    for name in DEFAULT:
        kind = np.dtype(get(name).dtype).type
        code = np.asarray(kind(0.1)).view(f"u{get(name).bits // 8}")
        assert f"0x{int(code):0{get(name).bits // 4}x}" in screen
        for near in (code, code + code.dtype.type(1), code - code.dtype.type(1)):
            neighbour = float(near.view(kind))
            assert re.search(rf"\b{neighbour!r}(\s|$)", screen, re.MULTILINE)


@pytest.mark.parametrize("value", ["-1.7976931348623157e308", "-5e-324", "1e-7", "1/3", "inf", "1e400", "0"])
def test_all_formats_fit_100_columns(capsys: Capture, value: str) -> None:
    """Oracle: the longest line, over all formats; no cell is cut, so no line is but a row or a blank."""
    screen = said(capsys, value, "--format", ",".join(FORMATS))
    lines = screen.rstrip("\n").split("\n")
    assert max(map(len, lines)) <= 100
    starts = [line.split(" ")[0] for line in lines[2:]]
    table = ["format", *FORMATS]
    assert starts == [*table, "", *table, "", *table, "", *table]


def test_the_kinds(capsys: Capture) -> None:
    """Oracle: by hand: 1e-7 lies below fp16's smallest normal, 2^-14, and below half of fp8's smallest."""
    found = as_json(capsys, "1e-7")
    kinds = [found[name]["kind"] for name in DEFAULT]
    assert kinds == ["normal", "subnormal", "normal", "zero", "zero"]
    found = as_json(capsys, "1e5", "--format", "fp16,e4m3fn,bf16,fp4")
    assert [each["kind"] for each in found.values()] == ["inf", "nan", "normal", "normal"]
    assert [each["value"] for each in found.values()] == ["inf", "nan", 99840.0, 6.0]


@pytest.mark.parametrize(
    ("value", "formula"),
    [
        ("1", "+1.0 x 2^0"),
        ("-2047", "-1.9990234375 x 2^10"),
        ("0x1p-14", "+1.0 x 2^-14"),
        ("0x1p-15", "+0.5 x 2^-14"),
        ("-0x1p-24", "-0.0009765625 x 2^-14"),
        ("0", "-"),
        ("inf", "-"),
    ],
)
def test_the_formula(capsys: Capture, value: str, formula: str) -> None:
    """Oracle: float16 by hand: normal down to 2^-14, below that significands under 1."""
    assert re.search(rf"float16 .*  {re.escape(formula)}  +none", said(capsys, value, "--format", "fp16"))


def test_quiet_prints_the_values(capsys: Capture) -> None:
    """Oracle: NumPy's float16 and float32 of 0.1, in full."""
    assert said(capsys, "0.1", "--format", "fp16,fp64", "--quiet") == "0.0999755859375\n0.1\n"
    assert said(capsys, "-0", "--format", "fp16", "--quiet") == "-0\n"


def test_json_in_full(capsys: Capture) -> None:
    """Oracle: the entry for 1/3 in float16, by hand."""
    assert json.loads(said(capsys, "1/3", "--format", "half", "--rounding", "up", "--json")) == {
        "given": "1/3",
        "rounding": "up",
        "overflow": "ieee",
        "formats": [
            {
                "format": "float16",
                "code": "0x3556",
                "sign": "0",
                "exponent": "01101",
                "mantissa": "0101010110",
                "kind": "normal",
                "value": 1366 / 4096,
                "error": float(Fraction(1366, 4096) - Fraction(1, 3)),
                "error_ulps": 2 / 3,
                "ulp": 2.0**-12,
                "below": 1365 / 4096,
                "above": 1367 / 4096,
                "between": [1365 / 4096, 1366 / 4096],
                "position": 1 / 3,
                "flags": ["inexact"],
            }
        ],
    }


def test_json_where_numbers_end(capsys: Capture) -> None:
    """Oracle: strict JSON: infinities and NaN as strings, none as null; an error may be infinite."""
    (found,) = as_json(capsys, "1e5000", "--format", "f64", "--rounding", "toward_zero").values()
    assert (found["value"], found["above"]) == (1.7976931348623157e308, "inf")
    assert (found["error"], found["error_ulps"]) == ("-inf", "-inf")
    (found,) = as_json(capsys, "inf", "--format", "fp16").values()
    assert (found["value"], found["below"], found["above"], found["error"]) == ("inf", 65504, None, 0)
    screen = said(capsys, "1e5000", "--format", "f64", "--rounding", "toward_zero")
    assert "-1e+5000  -5.01e+4707" in screen
    assert "+nan" not in said(capsys, "nan")


# ---- what it reads -----------------------------------------------------------------------------------------


@given(st.floats(width=64), st.sampled_from(sorted(PACKED)))
def test_the_bits_are_those_of_struct(value: float, name: str) -> None:
    """Oracle: struct.pack, which rounds a float64 once, to nearest even."""
    seen = inspect(read_number(repr(value)), name)
    try:
        packed = struct.pack(f">{PACKED[name]}", value)
    except OverflowError:  # where struct refuses, IEEE 754 says infinity
        packed = struct.pack(f">{PACKED[name]}", math.copysign(math.inf, value))
    if not math.isnan(value):
        assert int(seen.bits, 2) == int.from_bytes(packed, "big")


@pytest.mark.parametrize(
    "text",
    [
        "-0.1",
        "-.5",
        "-1",
        "-1.",
        "-1e-7",
        "-1E+3",
        "-1/3",
        "-0x1p-3",
        "-0x.8p1",
        "-inf",
        "-Infinity",
        "-1_000",
    ],
)
def test_negative_numbers_are_no_options(capsys: Capture, text: str) -> None:
    """Oracle: the same number without its sign, before and after the options."""
    positive = as_json(capsys, text[1:], "--format", "fp16")["float16"]
    for order in ([text, "--format", "fp16"], ["--format", "fp16", text], ["--format=fp16", "--", text]):
        negative = as_json(capsys, *order)["float16"]
        assert (negative["sign"], negative["exponent"]) == ("1", positive["exponent"])
        assert negative["mantissa"] == positive["mantissa"]
    assert main(["inspect", "-nan"]) == 0


@given(st.floats(allow_nan=False, allow_infinity=False))
@example(-0.0)
def test_hexadecimal_floats(value: float) -> None:
    """Oracle: float.hex, which Python writes exactly, and float.fromhex; the zero keeps its sign."""
    found = read_number(value.hex())
    assert Fraction(found) == Fraction(value)
    assert str(value)[0] != "-" or str(found)[0] == "-"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0x1p0", Fraction(1)),
        ("+0X1.8P-3", Fraction(3, 16)),
        ("0x.8p1", Fraction(1)),
        ("0x10.", Fraction(16)),
        ("-0x0.1", Fraction(-1, 16)),
        ("0x1.00000000000000000000000001p0", 1 + Fraction(1, 2**104)),
        ("0.1", "0.1"),
        ("0x.p1", "0x.p1"),
    ],
)
def test_numbers_as_written(text: str, expected: object) -> None:
    """Oracle: by hand; more digits than float64 has are kept; all else is left as it is."""
    assert read_number(text) == expected


@pytest.mark.parametrize("text", ["0x3c00", "-0x1", "0X_FF"])
def test_a_pattern_in_the_place_of_a_number(capsys: Capture, text: str) -> None:
    """Oracle: the message offers both readings, and both work as offered."""
    message = refused(capsys, text)
    assert f"{text} may be a bit pattern or a number" in message
    pattern, number = re.findall(r"(?:--bits|or) (\S+) for", message)
    assert main(["inspect", number]) == 0
    if not text.startswith("-"):
        assert main(["inspect", "--bits", pattern, "--format", "fp16"]) == 0


@pytest.mark.parametrize("name", [each.name for each in FORMATS.values() if each.bits <= 16])
def test_every_pattern_of_a_small_format(name: str) -> None:
    """Oracle: ml_dtypes' and NumPy's view of the same bits, over all codes; 16-bit formats by steps of 97."""
    fmt = get(name)
    codes = np.arange(0, 1 << fmt.bits, 97 if fmt.bits == 16 else 1, dtype=f"u{fmt.dtype.itemsize}")
    with np.errstate(invalid="ignore"):  # a signalling NaN
        expected = codes.view(fmt.dtype).astype(np.float64)
    for code, value in zip(codes.tolist(), expected.tolist(), strict=True):
        (seen,) = from_bits(f"0b{code:0{fmt.bits}b}", [fmt])
        assert (math.isnan(seen.value) and math.isnan(value)) or repr(seen.value) == repr(value)
        assert (int(seen.bits, 2), seen.format, seen.error) == (code, fmt, 0)
        fields = (seen.sign << (fmt.bits - 1)) + (seen.exponent << fmt.mantissa_bits) + seen.mantissa
        assert fields == code


@given(st.integers(0, 2**64 - 1), st.sampled_from([("float32", 32), ("float64", 64)]))
def test_patterns_of_wide_formats(code: int, kind: tuple[str, int]) -> None:
    """Oracle: struct.unpack."""
    name, bits = kind
    code &= (1 << bits) - 1
    (seen,) = from_bits(f"0x{code:0{bits // 4}x}", [get(name)])
    value = struct.unpack(f">{PACKED[name]}", code.to_bytes(bits // 8, "big"))[0]
    assert repr(seen.value) == repr(value)
    assert int(seen.bits, 2) == code


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("0x3c00", {"float16": 1.0, "bfloat16": 0.0078125}),
        ("0b0_01111_0000000000", {"float16": 1.0, "bfloat16": 0.0078125}),
        ("0 01111 0000000000", None),
        ("0x3f800000", {"float32": 1.0}),
        ("0x7", {"float4_e2m1fn": 6.0}),
        ("0b0011111110000000000", {"tfloat32": 1.0}),
        ("0x00000001", {"float32": 2.0**-149}),
    ],
)
def test_the_formats_of_a_pattern(capsys: Capture, pattern: str, expected: dict[str, float] | None) -> None:
    """Oracle: the formats with as many bits as are written, and their values, by hand."""
    if expected is None:
        assert "expected a bit pattern" in refused(capsys, "--bits", pattern)
        return
    assert json.loads(said(capsys, "--bits", pattern, "--json"))["given"] == pattern
    found = as_json(capsys, "--bits", pattern)
    assert {name: each["value"] for name, each in found.items()} == expected


def test_the_pattern_of_a_nan_is_kept(capsys: Capture) -> None:
    """Oracle: a NaN with a payload, on the screen and in JSON; ml_dtypes agrees that it is one."""
    assert math.isnan(float(np.uint16(0xFF81).view(ml_dtypes.bfloat16)))
    found = as_json(capsys, "--bits", "0xff81", "--format", "bf16")["bfloat16"]
    assert (found["code"], found["kind"], found["mantissa"]) == ("0xff81", "nan", "0000001")
    assert re.search(r"bfloat16 +1 +11111111 +0000001 +nan", said(capsys, "--bits", "0xff81"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["abc"], "expected a number, got 'abc'"),
        (["1/0"], "expected a number"),
        (["1e999999999"], "an exponent beyond"),
        (["0x1p999999999"], "expected a number"),
        (["1", "--format", "flaot16"], "unknown number format 'flaot16'; did you mean 'float16'?"),
        (["1", "--format", "fp16,"], "unknown number format ''"),
        (["1", "--rounding", "nearst"], "unknown rounding 'nearst'; did you mean 'nearest_even'?"),
        (["1", "--overflow", "saturte"], "unknown overflow 'saturte'; did you mean 'saturate'?"),
        (["nan", "--format", "fp4"], "float4_e2m1fn has no NaN"),
        (["--bits", "0x"], "expected a bit pattern, got '0x'"),
        (["--bits", "3c00"], "expected a bit pattern, got '3c00'"),
        (["--bits", "0x3c000"], "no format has 20 bits"),
        (["--bits", "0x3c000", "--format", "fp16,f64"], "0x3c000 needs 18 bits, and float16 has 16"),
        (["1", "--bits", "0x3c00"], "a VALUE cannot act beside --bits"),
        (["--bits", "0x3c00", "--rounding", "up"], "--rounding cannot act beside --bits"),
        (["--bits", "0x3c00", "--overflow", "ieee"], "--overflow cannot act beside --bits"),
        (["1", "--json", "--quiet"], "--quiet cannot act beside --json"),
    ],
)
def test_what_is_refused(capsys: Capture, arguments: list[str], message: str) -> None:
    """Oracle: exit code 2, nothing on stdout, and what is wrong."""
    assert message in refused(capsys, *arguments)


def test_formats_are_named_in_any_way_and_once(capsys: Capture) -> None:
    """Oracle: the formats in their first order."""
    screen = said(capsys, "1", "--json", "--format", "bf16,half", "--format", "FLOAT16", "--format", "fp32")
    found = [each["format"] for each in json.loads(screen)["formats"]]
    assert found == ["bfloat16", "float16", "float32"]


def test_rounding_and_overflow_are_named_on_the_screen(capsys: Capture) -> None:
    """Oracle: the notes of the two tables; 70000 saturates to 65504."""
    screen = said(capsys, "70000", "--format", "fp16", "--rounding", "up", "--overflow", "saturate")
    assert "up: toward +inf; overflow saturate: to the largest value" in screen
    assert "65504" in screen


def test_doctest() -> None:
    """Oracle: the example in read_number's docstring."""
    assert read_number("0x1.8p-3") == Fraction(3, 16)
    with pytest.raises(DataError):
        read_number("0x1")
