"""What the commands share; oracles: widths and escape codes of what is printed, and Python's json."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimp.cli.base import columns, console, examples, json_text, progress_console


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take out what the caller's terminal says."""
    for name in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(("given_columns", "expected"), [(None, 100), ("300", 100), ("60", 60)])
def test_the_screen_has_at_most_100_columns(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    given_columns: str | None,
    expected: int,
) -> None:
    """Oracle: a long text, wrapped into a pipe: 100 columns, or what COLUMNS says where that is less."""
    if given_columns:
        monkeypatch.setenv("COLUMNS", given_columns)
    for screen in (console(), progress_console()):
        screen.print("word " * 100)
        assert screen.width == expected
    said = capsys.readouterr()
    for text in (said.out, said.err):
        assert expected - 5 < max(map(len, text.splitlines())) <= expected
    assert columns() == expected


def test_the_two_screens(capsys: pytest.CaptureFixture[str]) -> None:
    """Oracle: results go to stdout, progress to stderr, both without escape codes into a pipe."""
    console().print("[bold red]result[/]")
    progress_console().print("[bold red]progress[/] :smile: 123")
    assert capsys.readouterr() == ("result\n", "progress :smile: 123\n")


def test_a_terminal_gets_colours_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Oracle: the escape codes of red (31) with FORCE_COLOR, as if a pipe were a terminal; NO_COLOR wins."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    console().print("[red]x[/] 12 'text' None")
    assert capsys.readouterr().out == "\x1b[31mx\x1b[0m 12 'text' None\n"
    monkeypatch.setenv("NO_COLOR", "1")
    console().print("[red]x[/]")
    assert "\x1b[31m" not in capsys.readouterr().out


def test_examples() -> None:
    """Oracle: the texts, by hand."""
    assert examples("minimp a") == "example:\n  minimp a"
    assert examples("minimp a", "minimp b") == "examples:\n  minimp a\n  minimp b"


def test_json_of_everything_that_commands_hand_over() -> None:
    """Oracle: what a reader that refuses NaN makes of it, by hand."""
    value = {
        "nan": math.nan, "list": [math.inf, -math.inf, 1.5], "tuple": (1, None, True), "path": Path("a/b"),
        "numpy": [np.float32(0.5), np.int64(3), np.bool_(True), np.float64("nan")], "text": "µ",
    }  # fmt: skip
    text = json_text(value)
    assert strictly(text) == {
        "nan": "nan", "list": ["inf", "-inf", 1.5], "tuple": [1, None, True], "path": "a/b",
        "numpy": [0.5, 3, True, "nan"], "text": "µ",
    }  # fmt: skip
    assert text.endswith("}\n")
    with pytest.raises(TypeError):
        json_text({"x": object()})


def strictly(text: str) -> Any:
    """Read JSON as other languages do: no NaN, no Infinity."""

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    return json.loads(text, parse_constant=refuse)


leaves = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
)


@given(
    st.recursive(
        leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
    )
)
def test_json_comes_back(value: Any) -> None:
    """Oracle: the value itself, over nested finite values."""
    assert strictly(json_text(value)) == value
