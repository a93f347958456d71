"""Number lines in text; oracles: pictures checked by eye, and where log2 says that marks must be."""

from __future__ import annotations

import io
import math
from collections import Counter
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from minimp.errors import DataError, FormatError, SettingError
from minimp.formats import FORMATS, Format, decode, get, make
from minimp.formats.pictures.axes import LogAxis
from minimp.formats.pictures.number_line import NumberLine, number_line, outline

OWN = (make(3, 2, subnormals=False), make(5, 7, signed=False), make(4, 3, name="a_name_of_more_than_twenty"))

THREE = """\
                ▁▂▃▃▄▅▆▆▇███████████████████████████████
float16        0├╌╌╌╌╌╌╌╌╌┿━━━━━━━━━━━━━━━━━━━━━━━━━━━━┥ inf NaN
                subnormal from 2^-24, normal from 2^-14 to 65504; 2^10 values a binade

                               ▁▂▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃
float8_e4m3fn  0┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈├╌╌┿━━━━━━━━━━━━━┥ NaN
                subnormal from 2^-9, normal from 2^-6 to 448; 2^3 values a binade

                        ▁▂▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃
float8_e5m2    0┈┈┈┈┈┈┈┈├╌┿━━━━━━━━━━━━━━━━━━━━━━━━━━━━┥ inf NaN
                subnormal from 2^-16, normal from 2^-14 to 57344; 2^2 values a binade

                ┴───────┴───────┴───────┴───────┴───────
              2^-24   2^-16   2^-8     2^0     2^8
                one column is one binade; height over a line: log2 of its values a binade"""

CUT = """\
                            @@
                  **********@@**
                  @@@@@@@@@@@@@@
                  @@@@@@@@@@@@@@                  *
x               62 numbers, magnitudes 0.000122 to 1e+06, 1.61 % zero; the highest bar is 9.68 %

                      .:-==============-
float8_e4m3fn  0......|--+=============| NaN
                subnormal from 2^-9, normal from 2^-6 to 448; 2^3 values a binade
                x: 25.8 % flushed to 0, 19.4 % subnormal, 51.6 % normal, 1.61 % beyond the range

                @@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
bfloat16       0<===================================> inf NaN
                subnormal from 2^-133, normal from 2^-126 to 3.39e+38; 2^7 values a binade
                x: 0 % flushed to 0, 0 % subnormal, 98.4 % normal, 0 % beyond the range

                -------+-------+-------+-------+-----
                     2^-8     2^0     2^8    2^16
                one column is one binade; height over a line: log2 of its values a binade"""

FOUR_BITS = """\
                │     │     │     │     │           │          │                       │
float4_e2m1fn   ├╌╌╌╌╌╌╌╌╌╌╌┿━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━┥
                subnormal from 2^-1, normal from 2^0 to 6; 2^1 values a binade

                ┴───────────┴───────────┴───────────┴──────────┴───────────┴───────────┴
                0           1           2           3          4           5           6
                one column is 0.0845; │ is one value there, 2 to 9 so many, █ more"""


def test_three_formats() -> None:
    """Oracle: the picture, checked by eye: 40, 18 and 32 binades, of which 10, 3 and 2 are subnormal."""
    assert number_line(["fp16", "e4m3fn", "e5m2"]).text(ascii_only=False) == THREE


def test_every_value_of_four_bits() -> None:
    """Oracle: the picture, checked by eye: 0, 0.5, 1, 1.5, 2, 3, 4 and 6 on 72 columns, 6 in the last."""
    assert number_line("fp4", scale="linear").text(ascii_only=False) == FOUR_BITS


# ---- where things are --------------------------------------------------------------------------------------


def rows(line: NumberLine) -> list[str]:
    """Return the drawing in Unicode, and check what holds for every one: no line is too long."""
    text = line.text(ascii_only=False)
    assert max(map(len, text.split("\n"))) <= line.width
    plain = line.text(ascii_only=True)
    assert plain.isascii()
    assert plain.count("\n") == text.count("\n")
    return text.split("\n")


def column_of(value: float, axis: LogAxis) -> int:
    """Return the column of a power of two, by fractions; of another number that of its binade's part."""
    return math.floor(Fraction(axis.repeat, axis.group) * Fraction(math.log2(value) - axis.low))


@pytest.mark.parametrize("fmt", [*FORMATS.values(), *OWN], ids=repr)
@pytest.mark.parametrize("width", [60, 96])
def test_marks_are_where_log2_says(fmt: Format, width: int) -> None:
    """Oracle: log2 of the smallest value, of the smallest normal one, of the largest; the list of values."""
    line = number_line(fmt, width=width)
    axis = line.axis
    assert isinstance(axis, LogAxis)
    heights, drawn, *_ = rows(line)
    indent = len(drawn.split(" ")[0]) + 3
    zero = drawn[indent - 1]
    assert (zero == "0") == fmt.has_zero
    cells = drawn[indent:].partition(" ")[0]
    assert drawn[indent + len(cells) :].split() == ["inf"] * fmt.has_inf + ["NaN"] * fmt.has_nan
    first, last = column_of(fmt.smallest_subnormal, axis), column_of(fmt.max, axis)
    assert (cells[first], len(cells)) == ("├", last + 1)
    if last > first:
        assert cells[last] in "┥┿"
    edge = column_of(fmt.smallest_normal, axis)
    if edge > first:
        assert fmt.has_subnormals
        assert cells[edge] == "┿"
        assert set(cells[first + 1 : edge]) <= {"╌"}
    assert set(cells[edge + 1 : last]) <= {"━"}
    solid = [" ▁▂▃▄▅▆▇█".index(each) for each in heights[indent:]]
    assert min(solid) > 0  # not a column of a format without values
    assert len(solid) == last + 1
    if fmt.bits <= 16:
        values = decode(np.arange(1 << fmt.bits), fmt)
        exponents = np.frexp(np.unique(values[np.isfinite(values) & (values > 0)]))[1] - 1
        counts = Counter(exponents.tolist())
        top = max(counts.values()).bit_length()
        for column, height in enumerate(solid):
            fullest = max(counts[each] for each in axis.exponents(column))
            assert height == math.ceil(8 * fullest.bit_length() / top)


@pytest.mark.parametrize("names", [["fp16"], ["fp16", "bf16", "e4m3fn"], ["fp64"], ["int8", "e8m0"]])
def test_ticks_are_where_log2_says(names: list[str]) -> None:
    """Oracle: fractions: under each tick its label, 2^e, and to the left of it so many binades."""
    for width in (60, 77, 100):
        line = number_line(names, width=width)
        axis, drawn = line.axis, rows(line)
        at = next(at for at, each in enumerate(drawn) if "┴" in each)
        ticks, labels = drawn[at], drawn[at + 1]
        assert isinstance(axis, LogAxis)
        indent = len(ticks) - len(ticks.lstrip())
        places = [place for place, each in enumerate(ticks) if each == "┴"]
        words = labels.split()
        assert len(places) == len(words) > 1
        for place, word in zip(places, words, strict=True):
            exponent = int(word.removeprefix("2^"))
            assert place - indent == Fraction((exponent - axis.low) * axis.repeat, axis.group)
            assert labels[place - len(word) // 2 :].startswith(word)


def test_numbers_over_the_lines() -> None:
    """Oracle: the picture, checked by eye. Of the four numbers at each 2^e, e4m3fn flushes those up to 2^-10
    (a tie goes to 0), has those from 2^-9 on as subnormals, and from 2^-6 on as normal numbers."""
    fours = np.ldexp(1.0, np.repeat(np.arange(-13, 1), 4))
    x = np.concatenate([[0.0, -1e6], fours, np.ldexp(-1.5, [-2, -2, -3, -3])])
    assert number_line(["e4m3fn", "bf16"], x).text(ascii_only=True) == CUT


@example(["float64"], [0.0, 1.7976931348623157e308], "linear", 60)
@given(
    st.lists(st.sampled_from([*FORMATS]), min_size=1, max_size=3),
    st.lists(st.floats(), min_size=1, max_size=30),
    st.sampled_from(["log", "linear"]),
    st.integers(60, 120),
)
def test_any_picture_fits(names: list[str], x: list[float], scale: str, width: int) -> None:
    """Oracle: the width, ASCII where it is asked for; bars count each finite number but 0 (and linear, 0)."""
    line = number_line(names, x, scale, width)
    rows(line)
    sizes = [abs(each) for each in x if math.isfinite(each)]
    if isinstance(line.axis, LogAxis):
        assert sum(line.bars) == line.axis.repeat * sum(each > 0 for each in sizes)
    else:
        assert sum(line.bars) == sum(line.axis.column(each) < line.axis.columns for each in sizes)


def test_formats_beside_the_picture() -> None:
    """Oracle: by hand: there is room for the numbers and float16, and none for formats around 2^±100."""
    low, high = make(4, 3, bias=100, name="low"), make(4, 3, bias=-100, name="high")
    line = number_line([get("fp16"), low, high], [1.0])
    lines = {
        each.split(" ")[0]: each.split("0", 1)[1] for each in rows(line) if each.startswith(("low", "high"))
    }
    assert lines == {"low": "◂ inf NaN", "high": f"{'┈' * (line.axis.columns - 1)}▸ inf NaN"}


# ---- words -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fmt", "said"),
    [
        ("fp16", "subnormal from 2^-24, normal from 2^-14 to 65504; 2^10 values a binade"),
        (
            "e8m0",
            "normal from 2^-127 to 1.7e+38; powers of two only; no subnormals, no zero, nothing negative",
        ),
        ("uint8", "whole numbers from 0 to 255, evenly spaced"),
        ("int8", "whole numbers from -128 to 127, evenly spaced"),
        (make(3, 2, subnormals=False), "normal from 2^-2 to 14; 2^2 values a binade; no subnormals"),
    ],
)
def test_outline(fmt: Any, said: str) -> None:
    """Oracle: the definitions of the formats."""
    assert outline(fmt) == said


@pytest.mark.parametrize(
    ("encoding", "plain"), [("ascii", True), ("latin-1", True), ("utf-8", False), (None, True)]
)
def test_plain_where_the_terminal_has_no_better(
    encoding: str | None, plain: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: Python's codecs: ASCII and Latin-1 have no box drawings; a stream may have no encoding."""
    stream = io.StringIO() if encoding is None else io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr("sys.stdout", stream)
    assert str(number_line("fp16")).isascii() is plain


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({"formats": "fp17"}, FormatError, "unknown number format"),
        ({"formats": []}, SettingError, "expected at least one format and 60 characters, got 0 and 96"),
        ({"width": 59}, SettingError, "expected at least one format and 60 characters, got 1 and 59"),
        ({"scale": "lin"}, SettingError, "unknown scale 'lin'; did you mean 'linear'"),
        ({"x": []}, DataError, "expected at least one number"),
        ({"x": ["a"]}, DataError, "expected real numbers"),
    ],
)
def test_what_is_refused(arguments: dict[str, Any], error: type[Exception], said: str) -> None:
    """Oracle: one clear error each."""
    with pytest.raises(error, match=said):
        number_line(**({"formats": get("fp16")} | arguments))
