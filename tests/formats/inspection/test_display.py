"""The HTML of a notebook; oracles: html.parser, the inspections that are shown, WCAG 2.2's contrast."""

from __future__ import annotations

import doctest
import html
import re
from html.parser import HTMLParser
from types import ModuleType

import pytest

from minimp.formats import FORMATS, Format, inspect, make
from minimp.formats.inspection import expressions, grammar, wording
from minimp.formats.inspection.anatomy import inspect_code
from minimp.formats.inspection.display import FIELDS, calculation_html, inspection_html
from minimp.formats.inspection.expressions import evaluate

TAGS = {"div", "span", "sup"}
ATTRIBUTES = {"style", "role", "aria-label"}
HOSTILE = "</div><script>alert(1)</script><img src=x onerror='y'>\" style=\"x & <!-- "


class Reader(HTMLParser):
    """Reads HTML that must be well formed: every tag closed in its place, none but ours."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[tuple[str, dict[str, str]]] = []
        self.seen: list[tuple[str, dict[str, str], str]] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a tag and its attributes."""
        assert tag in TAGS
        given = {name: value or "" for name, value in attrs}
        assert len(given) == len(attrs)
        assert set(given) <= ATTRIBUTES
        self.open.append((tag, given))

    def handle_endtag(self, tag: str) -> None:
        """Close the tag that was opened last."""
        assert self.open, f"</{tag}> closes nothing"
        opened, _ = self.open.pop()
        assert tag == opened

    def handle_data(self, data: str) -> None:
        """Note text and the attributes around it."""
        tag, attrs = self.open[-1]
        self.texts.append(data)
        self.seen.append((tag, attrs, data))

    def handle_comment(self, data: str) -> None:
        """Refuse comments, and with them what a hostile text may hold."""
        raise AssertionError(data)

    handle_decl = handle_pi = unknown_decl = handle_comment


def read(page: str) -> Reader:
    """Parse a page, which must be well formed and load nothing."""
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    for style in re.findall(r'style="([^"]*)"', page):
        assert "url(" not in style
        assert "expression" not in style
        assert all(re.fullmatch(r"[a-z-]+:[^:;]+", each) for each in style.split(";")), style
    return reader


def bits_of(reader: Reader, colour: str) -> str:
    """Return the digits on a background of one colour, in order."""
    return "".join(text for _, attrs, text in reader.seen if f"background:{colour}" in attrs.get("style", ""))


OWN = (make(4, 3, subnormals=False), make(3, 0, inf=False, nan=False), make(5, 10, signed=False))


@pytest.mark.parametrize("fmt", [*FORMATS.values(), *OWN], ids=repr)
@pytest.mark.parametrize("number", ["0.1", "-1/3", "0", "inf", "1e300", "3", "1e-300"])
def test_the_diagram_of_a_number(fmt: Format, number: str) -> None:
    """Oracle: the inspection: its bits by fields, their indexes, value, code, error, neighbours, flags."""
    seen = inspect(number, fmt)
    reader = read(seen._repr_html_())
    text = "".join(reader.texts)
    for colour, part in zip(FIELDS.values(), seen.parts, strict=True):
        assert bits_of(reader, colour) == part
    indexes = [text for _, attrs, text in reader.seen if "font-size:8px" in attrs.get("style", "")]
    assert [each for each in indexes if each.isdigit()] == [str(each) for each in range(fmt.bits - 1, -1, -1)]
    for part in (number, fmt.name, seen.code, seen.kind, *(each.replace("_", " ") for each in seen.flags)):
        assert part in text
    fields = [name for name, part in zip(FIELDS, seen.parts, strict=True) if part]
    assert [each for each in reader.texts if each in FIELDS] == fields
    hidden = seen.kind not in ("inf", "nan") and fmt.exponent_bits > 0 and fmt.mantissa_bits > 0
    assert ("not stored" in text) == hidden


def test_the_formula_gives_the_value() -> None:
    """Oracle: the formula, calculated."""
    for fmt in (FORMATS["float16"], FORMATS["float8_e4m3fn"], *OWN):
        for number in ("0.1", "-1.5", "1e-5", "3"):
            seen = inspect(number, fmt)
            text = html.unescape("".join(read(inspection_html(seen)).texts))
            found = re.search(r"value(?:\((.)1\)(\d) × )?2(.?\d+)(?: × \(([01]) \+ (\d+)/(\d+)\))? = ", text)
            if seen.kind in ("zero", "nan"):
                assert found is None
                continue
            assert found is not None
            sign = -1 if found[2] == "1" else 1
            significand = int(found[4]) + int(found[5]) / int(found[6]) if found[4] else 1
            assert sign * significand * 2.0 ** int(found[3].replace("−", "-")) == seen.value


@pytest.mark.parametrize(("number", "bit"), [("1", "1"), ("-3", "1"), ("1e-5", "0"), ("0", "0")])
def test_the_hidden_bit(number: str, bit: str) -> None:
    """Oracle: IEEE 754-2019, 3.4: 1 in a normal number, 0 in a subnormal one and zero."""
    reader = read(inspection_html(inspect(number, "fp16")))
    assert [text for _, attrs, text in reader.seen if "1px dashed" in attrs.get("style", "")] == [bit]


def test_it_is_told_to_those_who_cannot_see_it() -> None:
    """Oracle: WAI-ARIA: the drawing has the role of an image and a label with all that it shows."""
    page = inspection_html(inspect("0.1", "fp16"))
    labels = re.findall(r'role="(\w+)" aria-label="([^"]*)"', page)
    assert labels == [
        ("group", "0.1 in float16"),
        (
            "img",
            "bits of float16: sign 0, exponent 01011, mantissa 1001100110; normal, value 0.0999755859375",
        ),
        ("img", "number line from 0.0999755859375 to 0.10003662109375: the number is 40 % of the way up"),
    ]
    whole = calculation_html(evaluate("fp16(2048) + 1"))
    spoken = re.findall(r'role="img" aria-label="([^"]*)"', whole)
    assert len(spoken) == 5
    assert spoken[-1] == "bits of float16: sign 0, exponent 11010, mantissa 0000000000; normal, value 2048"


def luminance(colour: str) -> float:
    """The relative luminance of #rrggbb (WCAG 2.2)."""
    shades = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in shades]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_white_digits_stand_out_and_text_takes_the_pages_colour() -> None:
    """Oracle: WCAG 2.2, 1.4.3: a contrast of 4.5; no other text colour is set, and no opaque background."""
    for colour in FIELDS.values():
        assert 1.05 / (luminance(colour) + 0.05) >= 4.5
    page = inspection_html(inspect("0.1", "fp16")) + calculation_html(evaluate("fp16(2048) + 1"))
    assert set(re.findall(r"[;\"]color:([^;\"]+)", page)) == {"#fff"}
    backgrounds = set(re.findall(r"[;\"]background:(#\w+)", page))
    assert backgrounds <= {*FIELDS.values(), "#d97706"}
    cells = re.findall(r'style="([^"]*color:#fff[^"]*)"', page)
    assert all(any(colour in each for colour in FIELDS.values()) for each in cells)


def test_hostile_text_stays_text() -> None:
    """Oracle: html.parser sees no tag but ours, and the text comes back as it was."""
    own = make(4, 3, name=HOSTILE)
    for page in (
        inspection_html(inspect_code(5, own)),
        inspection_html(inspect("0.1", own)),
        calculation_html(evaluate("x(0.1) + 1", formats={"x": own})),
    ):
        reader = read(page)
        assert HOSTILE[:17] in "".join(reader.texts)  # long names are clipped
    shown = inspect(0.1, "fp16")
    object.__setattr__(shown, "given", HOSTILE)
    assert "".join(read(shown._repr_html_()).texts).startswith(HOSTILE[:20])
    long = evaluate("fp16(1)" + " + 1" * 100)
    assert max(map(len, read(calculation_html(long)).texts)) <= 100


@pytest.mark.parametrize(
    "text",
    [
        "fp16(0.1) + fp16(0.2)",
        "fp16(2048) + 1",
        "e4m3fn(fp64(500)) / 0",
        "sqrt(fp64(2)) - 1.4142135623730951",
        "fma(e8m0(4), 2, 1)",
        "-int8(-128)",
        "fp16(1e-4) * 1e-4",
        "fp16(nan)",
    ],
)
@pytest.mark.parametrize("rounding", ["nearest_even", "to_odd"])
def test_a_calculation(text: str, rounding: str) -> None:
    """Oracle: the calculation: each step's operands and result bit for bit, its flags and its sentence."""
    whole = evaluate(text, rounding)
    reader = read(whole._repr_html_())
    said = "".join(reader.texts)
    shown = [
        each
        for step in whole.steps
        for each in ((*step.operands, step.result) if step.operands or step.flags else (step.result,))
    ]
    for name, colour in FIELDS.items():
        expected = "".join(each.parts[list(FIELDS).index(name)] for each in shown)
        assert bits_of(reader, colour) == expected
    for step in whole.steps:
        assert step.text in said
        assert all(flag.replace("_", " ") in said for flag in step.flags)
        assert step.why in said or not (step.operands or step.flags)
    assert "Result: " in said


def test_the_number_line() -> None:
    """Oracle: position in per cent; the value that was taken is the wide mark."""
    page = inspection_html(inspect("0.1", "fp16"))
    assert re.findall(r"left:([\d.]+)%;top:3px;width:10px", page) == ["40.00"]
    assert re.findall(r"left:([\d.]+)%;top:0;width:8px", page) == ["0.00"]
    assert re.findall(r"left:([\d.]+)%;top:0;width:8px", inspection_html(inspect("0.1", "fp16", "up"))) == [
        "100.00"
    ]
    exact = inspection_html(inspect(1.0, "fp16"))
    assert re.findall(r"left:([\d.]+)%;top:0;width:8px", exact) == ["33.33"]
    assert "number line from 0.99951171875 to 1.0009765625: the number is a value of the format" in exact
    for number in ("inf", "70000", "nan", "65504"):
        assert "number line" not in inspection_html(inspect(number, "fp16"))
    chance = inspection_html(inspect("0.1", "fp16", "stochastic", rng=1))
    assert "40 % to be rounded to the upper value" in "".join(read(chance).texts)


@pytest.mark.parametrize("module", [wording, grammar, expressions], ids=lambda each: each.__name__)
def test_the_examples_of_docstrings(module: ModuleType) -> None:
    """Oracle: the examples themselves."""
    ran = doctest.testmod(module)
    assert ran.attempted
    assert not ran.failed
