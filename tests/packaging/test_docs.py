"""The pages in docs/ keep their word; oracle: the interpreter that runs every example on them."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest

from minimp import formats

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted(DOCS.glob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_example_prints_what_the_page_says(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: doctest, which compares what each example prints with the lines below it."""
    monkeypatch.chdir(tmp_path)  # pages write files
    found = doctest.testfile(str(page), module_relative=False, encoding="utf-8", report=True)
    assert found.attempted > 10
    assert found.failed == 0


def test_every_rounding_and_overflow_rule_is_named_on_the_page() -> None:
    """Oracle: the tables themselves."""
    text = (DOCS / "formats.md").read_text("utf-8")
    missing = [name for name in (*formats.ROUNDINGS, *formats.OVERFLOWS) if name not in text]
    assert missing == []
