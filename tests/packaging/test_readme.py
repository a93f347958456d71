"""The README keeps its word; oracle: the files, and the interpreter that runs its example."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from minimp.step import STAGES

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
LINK = re.compile(r"\]\((?!https?://)([^)#\s]+)[^)]*\)")


def test_links_lead_to_files() -> None:
    """Oracle: the tree: each relative link and picture names a file that is there."""
    targets = LINK.findall(README)
    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []


@pytest.mark.parametrize("name", ["run", "test"])
def test_each_command_is_one_line_that_stands_alone(name: str) -> None:
    """Oracle: the form that .ci/run reads: a marker, a fenced sh block, one line."""
    (command,) = re.findall(rf"^<!-- command: {name} -->\n```sh\n([^\n]+)\n```$", README, re.MULTILINE)
    assert command.startswith("python3 -m venv .venv && . .venv/bin/activate && pip install ")


def test_the_example_runs_and_is_short(capsys: pytest.CaptureFixture[str]) -> None:
    """Oracle: the interpreter; every stage of the step that it walks through must check."""
    (code,) = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    assert len(code.splitlines()) <= 25
    exec(compile(code, "README.md", "exec"), {"__name__": "readme"})
    printed = capsys.readouterr().out
    assert re.findall(r"^(\w+) .*holds$", printed, re.MULTILINE) == list(STAGES)
