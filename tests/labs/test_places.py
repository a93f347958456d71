"""What students are told about where: the cell, the line, and why a run ended."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from minimp.cli import main
from minimp.labs.catalogue import LabFolder
from minimp.labs.cells import cells_of, cells_of_notebook, notebook_of
from minimp.labs.faults import named
from minimp.labs.running import Limits, run_submission
from minimp.labs.session import run_cells

TEXT = "# %% [markdown]\n# Prose\n\n# %%\nx = 1\n\n# %%\ny = 2\nassert x == y\n"


@pytest.fixture(autouse=True)
def _same_main(monkeypatch: pytest.MonkeyPatch) -> None:
    """Running cells takes the place of __main__ and of argv: put both back."""
    import sys

    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])
    monkeypatch.setattr(sys, "argv", sys.argv)


def test_an_assert_without_a_word_is_told_by_its_line() -> None:
    """Oracle: the line of the cell, and where it stands; an error with a text keeps it."""
    _, broken = run_cells(cells_of(f"{TEXT}\n# %%\n1 / 0\n"), "mine.py")
    assert [named(each, "mine.py") for each in broken] == [
        "AssertionError: in 'assert x == y', line 2 of the cell at line 8 of mine.py",
        "ZeroDivisionError: division by zero",
    ]


def test_cells_of_a_notebook_have_jupyters_numbers(tmp_path: Path) -> None:
    """Oracle: the numbers that Jupyter gives to code cells run from the top; an empty one gets none."""
    pytest.importorskip("jupytext")
    path = tmp_path / "mine.ipynb"
    path.write_text(notebook_of(TEXT.replace("x = 1", "x = 1\n\n# %%\n")), "utf-8")
    cells = cells_of_notebook(path)
    assert [cell.place for cell in cells if not cell.is_markdown] == ["code cell 1", "code cell 2"]
    _, broken = run_cells(cells, "mine.ipynb")
    assert "line 2 of code cell 2 of mine.ipynb" in named(broken[0], "mine.ipynb")


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="elsewhere a folder in use stays")
def test_the_last_error_of_a_run_that_broke_off_is_told(tmp_path: Path) -> None:
    """Oracle: a cell that removes the folder of the run; the error's name is in the reason."""
    place = tmp_path / "lab42_doubling"
    place.mkdir()
    (place / "lab42_checks.py").write_text(
        "from minimp.labs import exercise\n\n@exercise('1a')\ndef check(lab):\n    assert lab.x\n"
    )
    mine = tmp_path / "mine.py"
    mine.write_text("# %%\nx = 1\nimport os, shutil\nshutil.rmtree(os.path.dirname(os.getcwd()))\n")
    outcome = run_submission(LabFolder(42, place.name, place), mine, Limits(seconds=30))
    assert "ended the interpreter" in outcome.reason
    assert "(FileNotFoundError: " in outcome.reason


@pytest.mark.parametrize("part", ["list", "start", "strip", "check", "grade"])
def test_help_ends_its_sentences_once(part: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Oracle: no doubled full stop."""
    assert main(["labs", part, "--help"]) == 0
    assert ".." not in capsys.readouterr().out.replace("...", "")


@pytest.mark.slow
def test_a_lab_that_is_edited_meanwhile_keeps_the_edit(tmp_path: Path) -> None:
    """Oracle: the checks are those of the start; both edits lie beside them, and the reason says where."""
    place = tmp_path / "lab42_doubling"
    place.mkdir()
    checks, first = place / "lab42_checks.py", "from minimp.labs import exercise\n"
    checks.write_text(first)
    mine = tmp_path / "mine.py"
    for number, edit in enumerate(("# one\n", "# two\n"), 1):
        mine.write_text(f"# %%\nopen({str(checks)!r}, 'w').write({edit!r})\n")
        outcome = run_submission(LabFolder(42, place.name, place), mine, Limits(seconds=30))
        assert (
            f"put back: lab42_checks.py (what came is kept as lab42_checks.changed{number})" in outcome.reason
        )
        assert checks.read_text() == first
        assert (place / f"lab42_checks.changed{number}").read_text() == edit
