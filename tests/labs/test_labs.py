"""Every lab: runs, strips clean, and its checks catch what students get wrong."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from minimp.labs.answers import Exercise, exercises_of
from minimp.labs.catalogue import LabFolder, labs
from minimp.labs.cells import cells_of, notebook_of
from minimp.labs.child import load_checks
from minimp.labs.running import Outcome, run_submission
from minimp.labs.stripping import exercises_in, fill, strip

pytest.importorskip("matplotlib")
LABS = labs()
EACH = pytest.mark.parametrize("lab", LABS, ids=lambda lab: lab.name)


def exercises(lab: LabFolder) -> list[Exercise]:
    """Return the graded exercises of a lab."""
    return exercises_of(load_checks(lab.checks))


def wrong(lab: LabFolder) -> dict[str, tuple[tuple[str, str], ...]]:
    """Return the planted wrong answers of a lab."""
    found: dict[str, tuple[tuple[str, str], ...]] = importlib.import_module(
        f"tests.labs.wrong.lab{lab.number:02d}"
    ).WRONG
    return found


@EACH
def test_a_lab_has_what_a_lab_needs(lab: LabFolder) -> None:
    """Oracle: aims, a time, an open question with what a good answer contains, a figure, what to remember."""
    text = lab.script.read_text("utf-8")
    for wanted in (
        "After this lab you can",
        "What to remember",
        "What a good answer contains",
        "mp.labs.show(",
    ):
        assert wanted in text, wanted
    assert lab.minutes is not None
    assert 45 <= lab.minutes <= 90
    names = [each.name for each in exercises(lab)]
    assert 5 <= len(names) <= 9
    assert names == exercises_in(text)
    assert all(len(line) <= 120 for line in text.splitlines())


@EACH
def test_the_students_copy_has_no_solution(lab: LabFolder) -> None:
    """Oracle: no line of a solution is left, and each exercise raises in its place."""
    pytest.importorskip("jupytext")
    text = lab.script.read_text("utf-8")
    copy = strip(text)
    assert "SOLUTION" not in copy
    assert copy.count('raise mp.labs.NotAnswered("') == len(exercises(lab))
    solutions = re.findall(r"# BEGIN SOLUTION\n(.*?)# END SOLUTION", text, re.DOTALL)
    for line in (each.strip() for block in solutions for each in block.splitlines()):
        assert len(line) < 25 or line not in copy, line
    assert notebook_of(copy) == notebook_of(copy)


@cache
def outcome_of(name: str, kind: str, folder: str) -> Outcome:
    """Run a lab as it stands, or its student copy."""
    lab = next(each for each in LABS if each.name == name)
    text = lab.script.read_text("utf-8")
    file = Path(folder) / f"{name}-{kind}.py"
    file.write_text(text if kind == "solved" else strip(text), "utf-8")
    return run_submission(lab, file)


@EACH
@pytest.mark.slow
def test_the_solutions_pass(lab: LabFolder, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Oracle: the instructor's checks; no cell ends with an error."""
    outcome = outcome_of(lab.name, "solved", str(tmp_path_factory.mktemp("labs")))
    assert [(each.name, each.word, each.message) for each in outcome.verdicts if each.word != "passed"] == []
    assert (outcome.broken, outcome.reason) == ((), "")


@EACH
@pytest.mark.slow
def test_the_students_copy_fails_every_check(
    lab: LabFolder, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Oracle: "not answered yet", for each."""
    outcome = outcome_of(lab.name, "empty", str(tmp_path_factory.mktemp("labs")))
    assert {(each.word, each.message) for each in outcome.verdicts} == {("unanswered", "not answered yet")}
    assert outcome.points == 0


def without_figures(text: str) -> str:
    """Leave out the cells that draw: no check looks at what they do, and they take most of the time."""
    cells = re.split(r"^(?=# %%)", text, flags=re.MULTILINE)
    return "".join(each for each in cells if "mp.labs.show(" not in each)


@EACH
@pytest.mark.slow
def test_wrong_answers_are_caught_with_the_right_hint(lab: LabFolder, tmp_path: Path) -> None:
    """Oracle: planted mistakes, three or more for each exercise, and a part of what the check must say.

    The first mistakes of all exercises stand in one copy, the second and so on in others: the check of an
    exercise does not depend on the answers to others. From the fourth on the rest is not answered.
    """
    planted, text = wrong(lab), without_figures(lab.script.read_text("utf-8"))
    assert list(planted) == [each.name for each in exercises(lab)]
    assert min(map(len, planted.values())) >= 3
    missed: list[Any] = []
    for number in range(max(map(len, planted.values()))):
        here = {name: mistakes[number] for name, mistakes in planted.items() if len(mistakes) > number}
        answers = dict.fromkeys(planted, "raise mp.labs.NotAnswered('other')")
        file = tmp_path / f"{number}.py"
        file.write_text(fill(text, answers | {name: code for name, (code, _) in here.items()}), "utf-8")
        for verdict in run_submission(lab, file).verdicts:
            if verdict.name not in here:
                continue
            part = here[verdict.name][1]
            if verdict.word != "failed" or part not in verdict.message:
                missed.append((verdict.name, number, verdict.word, verdict.message, part))
    assert missed == []


@EACH
@pytest.mark.slow
def test_a_lab_runs_as_a_script(lab: LabFolder, tmp_path: Path) -> None:
    """Oracle: exit code 0; its figures are written where they are asked for."""
    environment = {**os.environ, "MPLBACKEND": "Agg", "MINIMP_LABS_FIGURES": str(tmp_path / "figures")}
    environment["PYTHONPATH"] = os.pathsep.join(part for part in sys.path if part)
    command = [sys.executable, str(lab.script)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert list((tmp_path / "figures").glob("lab*.png"))


@EACH
@pytest.mark.slow
def test_a_lab_runs_as_a_notebook(lab: LabFolder) -> None:
    """Oracle: a Jupyter kernel, through nbclient; every cell runs."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    notebook = nbformat.reads(notebook_of(lab.script.read_text("utf-8")), as_version=4)
    nbformat.validate(notebook)
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    assert sum(cell.cell_type == "code" for cell in notebook.cells) == sum(
        not cell.is_markdown for cell in cells_of(lab.script.read_text("utf-8"))
    )
