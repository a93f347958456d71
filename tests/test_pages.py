"""HTML pages; oracles: Python's own HTML parser, a list of what reaches outside, a process without Jinja2."""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from importlib.resources import files

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimp.errors import SettingError
from minimp.frameworks.results import Comparison, Row, Section, Verdict

pytest.importorskip("jinja2", reason="needs Jinja2")

from minimp.cli.check_page import page
from minimp.pages import render, require_renderer

TEMPLATES = [each.name for each in files("minimp.pages").iterdir() if each.name.endswith(".j2")]


class Reader(HTMLParser):
    """Collects the tags and the text of a page, and complains about tags that are not closed."""

    EMPTY = frozenset({"meta", "input", "link", "br", "img"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(html)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a tag."""
        self.tags.append((tag, dict(attrs)))
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """Note its end."""
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Note text."""
        if not self.open or self.open[-1] not in ("script", "style"):
            self.text.append(data)


def comparison(text: str) -> Comparison:
    """Return a comparison in which every string is `text`."""
    row = Row(text, text, text, text, Verdict.DIFFERS, text, figures={text: text})
    section = Section("values", text, text, (row,), {text: text}, {text: text})
    return Comparison(text, {text: text}, text, (section,))


PLAIN = len(Reader(page(comparison("plain"))).tags)


@given(st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1) | st.sampled_from(
    ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "&lt;b&gt;", "'\"`", "</style>",
     "{{ 7 * 7 }}"]
))  # fmt: skip
def test_every_string_stays_text(text: str) -> None:
    """Oracle: html.parser: no string adds a tag or an attribute, and it is read back as it was given."""
    read = Reader(page(comparison(text)))
    assert len(read.tags) == PLAIN
    assert sum(each.strip() == text.strip() for each in read.text) >= 5 or not text.strip()
    assert not any(name.startswith("on") for _, attributes in read.tags for name in attributes)


def test_pages_ask_nothing_of_the_network() -> None:
    """Oracle: what makes a browser fetch: addresses, imports, fonts; and a policy that forbids it."""
    html = page(comparison("x"))
    assert not re.findall(r"https?:|//[a-z]|@import|url\(|<link|src=", html)
    assert "default-src 'none'" in html


@pytest.mark.parametrize("name", TEMPLATES)
def test_templates_trust_nobody(name: str) -> None:
    """Oracle: the word that switches escaping off does not occur."""
    text = files("minimp.pages").joinpath(name).read_text("utf-8")
    assert "|safe" not in text.replace(" ", "")
    assert "autoescape" not in text


def test_what_a_template_names_must_be_given() -> None:
    """Oracle: Jinja2's StrictUndefined."""
    import jinja2

    with pytest.raises(jinja2.UndefinedError, match="title"):
        render("check")


def test_without_jinja2_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: an import system in which Jinja2 cannot be found."""
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(SettingError, match=r"minimp\[report\]"):
        require_renderer()
