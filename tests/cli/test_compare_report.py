"""`minimp compare --report`; oracles: Python's HTML parser, the run's JSON, a list of what fetches."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimp.cli import main
from minimp.experiments import EXPERIMENTS, Outcome

pytest.importorskip("jinja2", reason="needs Jinja2")

from minimp.cli.compare_page import page
from tests.test_pages import Reader

QUICK = ("--steps", "3", "--batch", "16", "--quiet", "--experiment", "loss-scaling")
PAIR = (*QUICK, "--recipes", "fp32,mixed-fp16")
CAUSES = ("weights", "master", "gradients", "optimizer", "activations")
OUTCOME = Outcome(
    "fp32", "test_loss", 0.5, (1.0, 0.5), (1.0, 1.0), 0, 0.0, 0.0, 0.0, dict.fromkeys(CAUSES, 1024), 0.1
)


def made(text: str, **changes: object) -> Reader:
    """Return what html.parser reads of a page in which every sentence is `text`."""
    experiment = replace(EXPERIMENTS["loss-scaling"], shows=text, why=text, name=text)
    rows = [(OUTCOME, text), (replace(OUTCOME, recipe="mixed-fp16", **changes), text)]
    return Reader(page([(experiment, text, rows)], text))


PLAIN = len(made("plain").tags)


@given(st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1) | st.sampled_from(
    ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "</style>", "{{ 7 * 7 }}"]
))  # fmt: skip
def test_every_string_stays_text(text: str) -> None:
    """Oracle: html.parser: no sentence adds a tag, or an attribute that acts."""
    read = made(text)
    assert len(read.tags) == PLAIN
    assert not any(name.startswith("on") for _, attributes in read.tags for name in attributes)


def test_the_page_says_what_the_json_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Oracle: the JSON of the same run; what makes a browser fetch."""
    files = tmp_path / "r.html", tmp_path / "r.json"
    assert main(["compare", *PAIR, "--report", str(files[0]), "--json", str(files[1])]) == 0
    html = files[0].read_text("utf-8")
    recipes = json.loads(files[1].read_text("utf-8"))["experiments"]["loss-scaling"]["recipes"]
    words = Reader(html).text
    assert list(recipes) == ["fp32", "mixed-fp16"]
    for name, row in recipes.items():
        assert row["verdict"] in words
        assert name in {each.strip() for each in words}
    assert not re.findall(r"https?:|//[a-z]|@import|url\(|<link|src=", html)
    assert len(html) < 200_000


def test_losses_that_are_not_finite_are_said(tmp_path: Path) -> None:
    """Oracle: losses by hand: one infinite, one NaN; no path holds a word."""
    read = made("x", losses=(float("inf"), float("nan")), score=float("nan"))
    assert any("(2 not finite)" in each for each in read.text)
    paths = [attributes["d"] for tag, attributes in read.tags if tag == "path"]
    assert all(re.fullmatch(r"[MLHVh\d\s.\-]*", path) for path in paths)
    long = made("x", losses=tuple(1.0 + i % 7 for i in range(10**5)))
    assert sum(len(attributes.get("d", "")) for _, attributes in long.tags) < 20_000


def test_what_cannot_be_written_is_said_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Oracle: exit code 2, nothing trained, no file, and the name of the extra."""
    assert main(["compare", *PAIR, "--report", str(tmp_path / "none" / "r.html")]) == 2
    monkeypatch.setitem(sys.modules, "jinja2", None)
    assert main(["compare", *PAIR, "--report", str(tmp_path / "r.html")]) == 2
    said = capsys.readouterr()
    assert "minimp[report]" in said.err
    assert said.out == ""
    assert not list(tmp_path.iterdir())
