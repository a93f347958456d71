"""Tensors in notebooks: each value gets the right word, and no text becomes HTML."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import numpy as np
import pytest

import minimp as mp
from minimp.displays.kinds import KINDS, classify
from minimp.formats import FORMATS, Format, encode

VOID = {"br"}
EVIL = "<script>alert('&\"')</script>"
SIXTEEN = ("float16", "bfloat16")


class Reader(HTMLParser):
    """Reads a display: what it says, the titles of its cells, and whether every element is closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.titles: list[str] = []
        self.words: list[str] = []
        self.names: set[str] = set()
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take an element, and what it may not have."""
        self.names.add(tag)
        self.open += [tag] if tag not in VOID else []
        given = dict(attrs)
        assert not given.keys() - {"style", "title", "role", "aria-label"}
        assert "url(" not in (given.get("style") or "")
        if given.get("title"):
            self.titles.append(given["title"] or "")

    def handle_endtag(self, tag: str) -> None:
        """Close the innermost element."""
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Take text."""
        self.words.append(data)

    @property
    def text(self) -> str:
        """All text."""
        return " ".join(self.words)


def read(shown: object, most: int = 16_000) -> Reader:
    """Read what an object shows in a notebook: plain HTML, offline, of some KB at most."""
    html = shown._repr_html_()  # type: ignore[attr-defined]  # that is what is tested
    assert len(html) < most
    made = Reader(html)
    assert not made.names & {"script", "style", "link", "img", "iframe", "svg"}
    return made


def title_of(made: Reader, number: str) -> str:
    """The title of the cell of this value."""
    (found,) = {title for title in made.titles if title.startswith(f"{number}: ")}
    return found


def at_the_limits(fmt: Format) -> dict[float, str]:
    """Values at the borders of the kinds, by the definition of the format, and their words."""
    top, tiny, low = 2.0**fmt.emax, fmt.smallest_normal, fmt.smallest_subnormal
    return {
        fmt.max: "near the largest", -top: "near the largest", top * (1 - fmt.eps / 2): "normal",
        1.0: "normal", tiny: "normal", -tiny + low: "subnormal", low: "subnormal",
        np.inf: "inf", -np.inf: "inf", 0.0: "zero",
    }  # fmt: skip


@pytest.mark.parametrize("name", [*SIXTEEN, "float32", "float64"])
def test_values_at_the_limits_get_the_right_word(name: str) -> None:
    """Oracle: largest, binade of the largest, smallest normal and subnormal of the format's definition."""
    fmt = mp.formats.get(name)
    expected = at_the_limits(fmt)
    made = read(mp.tensor(np.array([*expected, np.nan]).reshape(1, -1)[:, :8], dtype=fmt))
    rest = read(mp.tensor(np.array([*expected, np.nan])[8:], dtype=fmt))
    for value, word in expected.items():
        title = title_of(made if f"{value!r}: " in str(made.titles) else rest, repr(float(value)))
        assert title.split(": ")[1].split(";")[0] == word
    assert title_of(rest, "nan").startswith("nan: nan; ")


@pytest.mark.parametrize("name", SIXTEEN)
def test_what_a_cast_did_is_told_where_it_is_known(name: str) -> None:
    """Oracle: NumPy's comparison of the numbers before and after, over all bit patterns of a kind."""
    rng = np.random.default_rng(2)
    values = np.float32(rng.choice([-1, 1], 3000) * np.exp2(rng.uniform(-148, 128, 3000)))
    values[:6] = [0.0, np.inf, np.nan, 1.0, 0.1, 3.4e38]
    leaf = mp.tensor(values, requires_grad=True)
    with np.errstate(all="ignore"):
        low = leaf.to(name)
        made = read(low)
        there = np.asarray(low.array, np.float64)
    fmt, size = low.format, np.abs(there)
    counts = {
        "overflowed to inf": (np.isinf(there) & np.isfinite(values)).sum(),
        "flushed to 0": ((there == 0) & (values != 0)).sum(),
        "inf": (np.isinf(there) & np.isinf(values)).sum(),
        "subnormal": ((size > 0) & (size < fmt.smallest_normal)).sum(),
        "nan": 1,
        "zero": 1,
    }
    for word, count in counts.items():
        assert f"{count:,}  {word}" in made.text or not count
    exact = (there == values) & (size >= fmt.smallest_normal) & (size < 2.0**fmt.emax)
    assert f"{exact.sum():,}  exact" in made.text
    assert title_of(made, repr(float(there[4]))).endswith(f"bits {grouped(there[4], fmt)}")


def grouped(value: float, fmt: Format) -> str:
    """The bits of a value by `encode`, its fields apart."""
    bits = f"{int(encode(np.float64(value), fmt)):0{fmt.bits}b}"
    return f"{bits[0]} {bits[1 : 1 + fmt.exponent_bits]} {bits[1 + fmt.exponent_bits :]}"


def test_nothing_is_claimed_of_a_cast_whose_source_has_changed() -> None:
    """Oracle: the same cast before and after the leaf gets other numbers, as an optimizer gives them."""
    leaf = mp.tensor([1e-9, 1.0], requires_grad=True)
    low = leaf.half()
    assert "flushed to 0" in read(low).text
    leaf.array = leaf.array + np.float32(1.0)
    assert "flushed to 0" not in read(low).text
    assert "zero" in read(low).text
    assert "flushed" not in read(mp.tensor([1e-9], dtype="float16")).text


def test_every_kind_is_one_of_the_table_and_has_a_word_for_those_who_see_no_colour() -> None:
    """Oracle: all codes of float16: the word in the legend counts what NumPy's own tests count."""
    codes = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    with np.errstate(all="ignore"):
        kinds = classify(codes.astype(np.float64), mp.float16)
    found = {KINDS[i].word: int(count) for i, count in enumerate(np.bincount(kinds)) if count}
    # two signs; 1023 fractions each of NaN and subnormals, 1024 of a binade, 29 of which are ordinary
    assert found == {
        "nan": 2 * 1023, "inf": 2, "zero": 2, "subnormal": 2 * 1023, "near the largest": 2 * 1024,
        "normal": 2 * 29 * 1024,
    }  # fmt: skip


def test_a_gradient_says_its_loss_scale() -> None:
    """Oracle: the scaler's scale."""
    x = mp.tensor([1.0, 2.0], requires_grad=True)
    mp.GradScaler(init_scale=1024.0).scale((x * x).sum()).backward()
    assert "scale=1024" in read(x.grad).text
    assert "requires_grad" in read(x).text
    assert "made by mul" in read(x * x).text


@pytest.mark.parametrize("shape", [(), (3,), (0, 3), (20,), (30, 40), (2, 3, 4, 5), (1, 1, 9)])
@pytest.mark.parametrize("kind", ["float32", "bfloat16", "int64", "bool"])
def test_any_shape_is_small_and_shows_first_and_last(shape: tuple[int, ...], kind: str) -> None:
    """Oracle: the values of NumPy at the corners of the first page."""
    values = np.arange(np.prod(shape, dtype=int)).reshape(shape) % 100 + 1
    made = read(mp.tensor(values.astype(kind) if kind in ("int64", "bool") else values.astype("f4"), kind))
    assert f"shape {shape}" in made.text
    if values.size:
        page = values[(0,) * max(len(shape) - 2, 0)]
        for corner in (page.reshape(-1)[0], page.reshape(-1)[-1]):
            assert str(bool(corner) if kind == "bool" else corner) in made.words


def test_a_large_tensor_takes_no_long_time_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the limit lowered: nothing is counted, cells keep their words."""
    monkeypatch.setattr("minimp.displays.values.MOST_COUNTED", 5)
    made = read(mp.tensor(np.float32([1e-40, 1, 2, 3, 4, 5])))
    assert "more than 5 elements: not counted" in made.text
    assert any(title.endswith("000001") or ": subnormal; bits 0 00000000 " in title for title in made.titles)


@pytest.mark.parametrize("name", list(FORMATS))
def test_a_format_shows_its_limits_and_their_codes(name: str) -> None:
    """Oracle: `encode` of the values named, and the attributes of the format."""
    fmt = FORMATS[name]
    made = read(fmt)
    text = re.sub(r"\s+", " ", made.text)
    assert f"{fmt.bits} bits" in text
    assert f"{fmt.max:.9g}" in text
    if fmt.is_integer:
        assert f"lowest{fmt.lowest:.9g}" in "".join(made.words)
        assert "smallest normal" not in text
        assert "mantissa" not in text
        return
    bits = "".join(made.words).replace(" ", "")
    for value in {1.0, fmt.max, fmt.smallest_normal, fmt.smallest_subnormal}:
        assert f"{int(encode(np.float64(value), fmt)) >> fmt.padding:0{fmt.bits}b}" in bits
    for has, word in ((fmt.has_inf, "inf"), (fmt.has_nan, "NaN")):
        assert f"{'has' if has else 'no'} {word}" in text


def test_text_is_escaped() -> None:
    """Oracle: the parser: an op whose name is markup stays text, the name as it is."""

    @mp.op()
    def plain(ctx: object, x: np.ndarray) -> np.ndarray:
        return x + 1

    plain.gradient(lambda ctx, grad: grad)
    try:
        plain.name = EVIL
        made = read(plain(mp.tensor([1.0], requires_grad=True)))
    finally:
        del mp.OPS["plain"]
    assert f"made by {EVIL}" in made.words
