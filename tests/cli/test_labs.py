"""`minimp labs`: what it prints and writes, what it refuses, and what Ctrl-C leaves."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from minimp.cli import labs as command
from minimp.cli import main
from minimp.labs.catalogue import LabFolder, lab_named, labs
from minimp.labs.running import Limits, Outcome
from minimp.labs.session import Verdict
from tests.cli.processes import environment

Capture = pytest.CaptureFixture[str]
SOLVED = "# %%\n" + lab_named("bits").script.read_text("utf-8")


def outcome(file: Path, word: str = "passed", reason: str = "", message: str = "") -> Outcome:
    """Return what a submission of one exercise came to."""
    return Outcome(file, (Verdict("1a", 2, word, message),), reason, (), "")


def pretend(monkeypatch: pytest.MonkeyPatch, made: dict[str, Outcome]) -> None:
    """Let grading give these outcomes, by the file's path; one that is missing is Ctrl-C."""

    def run(_lab: LabFolder, file: Path, _limits: Limits | None = None) -> Outcome:
        if str(file) not in made:
            raise KeyboardInterrupt
        return made[str(file)]

    monkeypatch.setattr("minimp.labs.grading.run_submission", run)
    monkeypatch.setattr(command, "run_submission", run)


def test_list_has_every_lab(capsys: Capture) -> None:
    """Oracle: the folders; lines of at most 100 columns without codes for colour."""
    assert main(["labs", "list"]) == 0
    said = capsys.readouterr().out
    assert all(lab.name in said for lab in labs())
    assert max(map(len, said.splitlines())) <= 100
    assert "\x1b" not in said


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["check", "nothing_such"], "nothing_such"),
        (["check", "bits"], "minimp labs start . lab00_bits"),
        (["check", "bits", "--hint", "9z"], "1a, 1b"),
        (["check", "bits", "--hint", "1a", "--more", "0"], "above 0"),
        (["check", "bits", "--more", "2"], "--hint EXERCISE"),
        (["check", "bits", "a.py", "--seconds", "inf"], "limits above 0"),
        (["check", "bits", "a.py", "--megabytes", "10"], "at least 1024"),
        (["grade", "bits", "a.py", "--json", "missing/a.json"], "missing/a.json"),
        (["start", "course", "nothing_such"], "nothing_such"),
    ],
)
def test_refusals(
    arguments: list[str], part: str, capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: an exit code that is neither 0 nor 1 (a wrong answer), one message, and nothing written."""
    monkeypatch.chdir(tmp_path)
    assert main(["labs", *arguments]) not in (0, 1)
    assert part in " ".join(capsys.readouterr().err.split())
    assert list(tmp_path.iterdir()) == []


def test_hints_one_after_the_other(capsys: Capture) -> None:
    """Oracle: the hints of the checks; no copy is needed for them."""
    assert main(["labs", "check", "bits", "--hint", "1a"]) == 0
    first = capsys.readouterr().out
    assert first == "1 of 2: code >> 15 is the sign\n"
    assert main(["labs", "check", "bits", "--hint", "1a", "--more", "9"]) == 0
    assert capsys.readouterr().out.startswith(first + "2 of 2: ")


def test_check_takes_the_copy_in_this_folder(
    capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: exit code 1 for a wrong answer; the notebook before the script; the message."""
    monkeypatch.chdir(tmp_path)
    made = {
        f"lab00_bits.{each}": outcome(Path(each), "failed", "", f"{each} [b]here[/b]")
        for each in ("ipynb", "py")
    }
    pretend(monkeypatch, made)
    for ending in ("py", "ipynb"):
        Path(f"lab00_bits.{ending}").write_text("")
        assert main(["labs", "check", "bits"]) == 1
        assert f"- 1a   failed: {ending} [b]here[/b]\n0 of 2 points." in capsys.readouterr().out


def test_start_refuses_to_overwrite(capsys: Capture, tmp_path: Path) -> None:
    """Oracle: the copy as it was."""
    arguments = ["labs", "start", str(tmp_path / "course"), "bits", "--scripts"]
    assert main(arguments) == 0
    path = tmp_path / "course" / "lab00_bits.py"
    assert "SOLUTION" not in path.read_text("utf-8")
    path.write_text("mine")
    capsys.readouterr()
    assert main(arguments) not in (0, 1)
    assert "never overwritten" in capsys.readouterr().err
    assert path.read_text() == "mine"


def test_grade_tells_files_of_one_name_apart(
    capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: paths in table, CSV and JSON; formulas and escape codes in names are text."""
    monkeypatch.chdir(tmp_path)
    files = ["ann/a.py", "bob/a.py", "=1+1.py", "[b]x\x1b[31m.py"]
    pretend(monkeypatch, {each: outcome(Path(each)) for each in files})
    assert main(["labs", "grade", "bits", *files, "--csv", "m.csv", "--json", "m.json"]) == 0
    said = capsys.readouterr()
    assert "ann/a.py" in said.out
    assert "bob/a.py" in said.out
    assert "[b]x" in said.out
    assert "\x1b" not in said.out + said.err
    assert max(map(len, said.out.splitlines())) <= 100
    with open("m.csv", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert [row[0] for row in rows[1:]] == ["ann/a.py", "bob/a.py", "'=1+1.py", "[b]x\\x1b[31m.py"]
    assert [each["points"] for each in json.loads(Path("m.json").read_text("utf-8"))] == [2] * 4


def test_ctrl_c_keeps_what_was_graded(
    capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: exit code 130; the first submission stands in the table and in both reports."""
    monkeypatch.chdir(tmp_path)
    pretend(monkeypatch, {"a.py": outcome(Path("a.py"))})
    assert main(["labs", "grade", "bits", "a.py", "b.py", "--csv", "m.csv", "--json", "m.json"]) == 130
    said = capsys.readouterr()
    assert "1 of 2 were graded" in said.err
    assert "a.py" in said.out
    assert [each["file"] for each in json.loads(Path("m.json").read_text())] == ["a.py"]
    assert Path("m.csv").read_text().splitlines()[1:] == ["a.py,passed,2,2,"]
    assert main(["labs", "grade", "bits", "b.py"]) == 130
    assert "0 of 1 were graded" in capsys.readouterr().err


@pytest.mark.slow
def test_check_of_a_solved_and_of_an_empty_copy(capsys: Capture, tmp_path: Path) -> None:
    """Oracle: the lab's own solutions pass with exit code 0; the copy that `start` writes, with 1."""
    file = tmp_path / "mine.py"
    file.write_text(SOLVED, "utf-8")
    assert main(["labs", "check", "bits", str(file)]) == 0
    assert main(["labs", "strip", str(tmp_path / "course")]) == 0
    capsys.readouterr()
    assert main(["labs", "check", "bits", str(tmp_path / "course" / "lab00_bits.py")]) == 1
    said = capsys.readouterr().out
    assert said.count("unanswered: not answered yet") == 7
    assert "0 of 13 points." in said
    assert max(map(len, said.splitlines())) <= 100


INTERRUPTED = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from minimp.cli import main
sys.exit(main())
"""


@pytest.mark.slow
def test_ctrl_c_in_a_real_batch(tmp_path: Path) -> None:
    """Oracle: SIGINT while the second submission sleeps: the first is kept, the sleeper does not live on."""
    (tmp_path / "a.py").write_text(SOLVED, "utf-8")
    (tmp_path / "b.py").write_text(
        f"import os, time\nopen({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\ntime.sleep(300)\n"
    )
    made = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, "labs", "grade", "bits", "a.py", "b.py", "--json", "m.json"],
        cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while (
        not ((tmp_path / "pid").exists() and (tmp_path / "pid").read_text()) and time.monotonic() < deadline
    ):
        time.sleep(0.05)
    made.send_signal(signal.SIGINT)
    out, err = made.communicate(timeout=60)
    assert made.returncode == 130, err
    assert "a.py" in out
    assert "1 of 2 were graded" in err
    assert [each["points"] for each in json.loads((tmp_path / "m.json").read_text("utf-8"))] == [13]
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
