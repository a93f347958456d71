"""The tools of the labs: cells, student copies, and submissions that do what no submission should."""

from __future__ import annotations

import csv
import io
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minimp.errors import DataError, SettingError
from minimp.labs.answers import Exercise, Lab, NotAnswered, exercise
from minimp.labs.catalogue import LabFolder, lab_named
from minimp.labs.cells import cells_of, cells_of_notebook, notebook_of
from minimp.labs.grading import grade, start, to_csv
from minimp.labs.running import Limits, Outcome, cleaned, run_submission
from minimp.labs.session import Verdict, judge, run_cells
from minimp.labs.stripping import exercises_in, fill, strip

SOURCE = """# %% [markdown]
# # Lab 42: doubling
# ### Exercise 1a (2 minutes)

# %%
def double(x):
    # BEGIN SOLUTION
    return 2 * x
    # END SOLUTION

# %% [markdown]
# ### Exercise 1b (2 minutes)

# %%
# BEGIN SOLUTION
size = 3
# END SOLUTION

# %% [markdown]
# ### Exercise 1c (2 minutes)

# %%
def triple(x):
    # BEGIN SOLUTION
    return 3 * x
    # END SOLUTION

# %% [markdown]
# ### Exercise 2 (open)
# BEGIN SOLUTION
# What a good answer contains: a word.
# END SOLUTION
"""
CHECKS = """
import math

from minimp.labs import exercise


@exercise("1a", points=2, hints=("add", "add x to x"))
def check_1a(lab):
    for x in (1.0, 2.5):
        got = math.floor(lab.double(x))
        assert got == math.floor(2 * x), f"double({x}): expected {2 * x}, got {got}"


@exercise("1b")
def check_1b(lab):
    assert lab.size + 0 == 3, f"size: expected 3, got {lab.size}"


@exercise("1c")
def check_1c(lab):
    assert lab.triple(2) == 6, f"triple(2): expected 6, got {lab.triple(2)}"
"""
LATE = "\n# %%\n"
ALL = ["passed"] * 3


@pytest.fixture
def lab(tmp_path: Path) -> LabFolder:
    """A small lab of three exercises, four points."""
    place = tmp_path / "lab42_doubling"
    place.mkdir()
    (place / "lab.py").write_text(SOURCE)
    (place / "lab42_checks.py").write_text(CHECKS)
    return LabFolder(42, place.name, place)


def written(lab: LabFolder, text: str | bytes, name: str = "mine.py") -> Path:
    """Return a submission with this text."""
    path = lab.path.parent / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def words(outcome: Outcome) -> list[str]:
    """Return the verdicts' words."""
    return [each.word for each in outcome.verdicts]


def judged(check: Callable[[Any], Any], text: str) -> Verdict:
    """Run cells and one check in this process."""
    lab, _ = run_cells(cells_of(text), "mine.py")
    return next(judge([Exercise("1a", 1, (), check)], lab, "mine.py", lambda _: None))


@pytest.fixture(autouse=True)
def _same_main(monkeypatch: pytest.MonkeyPatch) -> None:
    """Running cells takes the place of __main__ and of argv: put both back."""
    import sys

    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])
    monkeypatch.setattr(sys, "argv", sys.argv)


def test_a_wrong_type_is_named() -> None:
    """Oracle: what the student's function got and gave stands in the message."""
    verdict = judged(lambda lab: float(lab.f(2)), "# %%\ndef f(x):\n    return None\n")
    assert verdict.word == "error"
    assert verdict.message.startswith("TypeError: ")
    assert verdict.message.endswith("your f(x=2) returned None, of type NoneType")


def test_a_value_of_a_wrong_type_is_named() -> None:
    """Oracle: the name that the check looked at last, its value and its type."""
    verdict = judged(lambda lab: lab.size + 1, "# %%\nsize = 'three'\n")
    assert verdict.message.endswith("size is 'three', of type str")


def test_an_error_inside_the_answer_shows_its_line() -> None:
    """Oracle: the student's own line."""
    verdict = judged(lambda lab: lab.f(), "# %%\nx = 1\ndef f():\n    return x / 0\n")
    assert (
        verdict.message
        == "ZeroDivisionError: division by zero (in 'return x / 0': line 3 of the cell at line 2 of mine.py)"
    )


@pytest.mark.parametrize(
    ("body", "part"),
    [
        ("raise SystemExit(3)", "left the program (SystemExit: 3)"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("return f()", "RecursionError"),
        ("return [0][9]", "IndexError"),
        (
            "raise type('Odd', (BaseException,), {'__str__': lambda s: 1 / 0})",
            "its text raises ZeroDivisionError",
        ),
    ],
)
def test_whatever_an_answer_raises_is_a_verdict(body: str, part: str) -> None:
    """Oracle: the verdict "error" with the error's name."""
    verdict = judged(lambda lab: lab.f(), f"# %%\ndef f():\n    {body}\n")
    assert verdict.word == "error"
    assert part in verdict.message


def test_a_cell_that_broke_is_named_before_one_that_is_unanswered() -> None:
    """Oracle: a student who answered, wrongly, is not told that there is no answer."""
    broken: list[BaseException] = [NotAnswered("1a"), ZeroDivisionError("by zero")]
    made = Lab({}, broken, ["raise NotAnswered('1a')", "size = 1 / 0"])
    with pytest.raises(AssertionError, match="ZeroDivisionError: by zero"):
        _ = made.size
    with pytest.raises(NotAnswered):
        _ = made.double


@pytest.mark.parametrize(
    "text", ["y = f(size)", "y = size == 3", "f(size=1 / 0)", "# size = 3", "resize = 1 / 0"]
)
def test_a_cell_that_only_uses_a_name_is_not_to_blame(text: str) -> None:
    """Oracle: "not answered yet" stays the reason; of a NameError too, which unanswered cells bring about."""
    for fault, source in ((ZeroDivisionError(), text), (NameError("x"), "size = x + 1")):
        made = Lab({}, [NotAnswered("1a"), fault], ["raise NotAnswered('1a')", source])
        with pytest.raises(NotAnswered):
            _ = made.size


@pytest.mark.parametrize(
    "text", ["size, b = 1 / 0", "a, size = 1 / 0", "def size(x:\n", "  size: int = 1 / 0", "size = ="]
)
def test_a_cell_that_would_define_a_name_is(text: str) -> None:
    """Oracle: its error, in each way to define a name, even where the cell does not parse."""
    made = Lab({}, [NotAnswered("1a"), ZeroDivisionError("here")], ["raise NotAnswered('1a')", text])
    with pytest.raises(AssertionError, match="here"):
        _ = made.size


def test_what_cells_do_to_modules_is_put_back() -> None:
    """Oracle: json, os and math afterwards."""
    import math

    was = (json.dumps, os.getpid, math.floor)
    text = "# %%\nimport json, os, math\njson.dumps = os.getpid = math.floor = None\n"
    run_cells(cells_of(text), "mine.py")
    assert was == (json.dumps, os.getpid, math.floor)


@pytest.mark.parametrize(
    ("name", "data", "part"),
    [
        ("a.ipynb", b"{", "no notebook that can be read"),
        ("a.ipynb", b"[]", "no notebook that can be read"),
        ("a.ipynb", b"{}", "no notebook that can be read"),
        ("a.ipynb", b"", "no notebook that can be read"),
        ("a.py", "# é".encode("utf-16"), "UnicodeDecodeError"),
        ("a.py", None, "no such file"),
        ("a.ipynb", None, "no such file"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, name: str, data: bytes | None, part: str) -> None:
    """Oracle: a DataError that says so."""
    pytest.importorskip("jupytext")
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=part):
        cells_of_notebook(tmp_path / name)


@pytest.mark.parametrize("text", ["x = 1 /", "import nothing_such_as_this", None])
def test_checks_that_cannot_be_read(lab: LabFolder, text: str | None) -> None:
    """Oracle: a teacher's mistake is told as one, before any submission runs."""
    lab.checks.unlink() if text is None else lab.checks.write_text(text)
    with pytest.raises(DataError, match=r"the checks in .*lab42_checks"):
        grade(lab, [lab.script])


def test_a_folder_and_a_mark_of_byte_order(tmp_path: Path) -> None:
    """Oracle: a folder is refused; what Windows' editors write first is no part of the first cell."""
    with pytest.raises(DataError, match="folder"):
        cells_of_notebook(tmp_path)
    (tmp_path / "a.py").write_bytes(b"\xef\xbb\xbf# %%\nx = 1\n")
    assert [each.text for each in cells_of_notebook(tmp_path / "a.py")] == ["x = 1"]


def test_stripping_is_the_same_each_time() -> None:
    """Oracle: equal texts and bytes; no solution; an exercise raises; a copy of a copy is the same."""
    pytest.importorskip("jupytext")
    copy = strip(SOURCE)
    assert copy == strip(SOURCE) == strip(copy)
    assert notebook_of(copy).encode() == notebook_of(copy).encode()
    assert copy.count("raise mp.labs.NotAnswered(") == 3
    assert "SOLUTION" not in copy
    assert "2 * x" not in copy
    assert exercises_in(SOURCE) == ["1a", "1b", "1c"]


@pytest.mark.parametrize(
    "text",
    [
        "# ### Exercise 1a\n# %%\n# BEGIN SOLUTION\nx = 1\n",
        "# ### Exercise 1a\n# %%\n# END SOLUTION\n",
        "# %%\n# BEGIN SOLUTION\n# END SOLUTION\n",
        "# ### Exercise 1a\n# %%\n# BEGIN SOLUTION\n# BEGIN SOLUTION\n# END SOLUTION\n",
    ],
)
def test_markers_that_do_not_fit(text: str) -> None:
    """Oracle: nothing is stripped by guess."""
    with pytest.raises(DataError):
        strip(text)


def test_fill_refuses_an_exercise_that_is_not_there() -> None:
    """Oracle: DataError with its name."""
    with pytest.raises(DataError, match="9z"):
        fill(SOURCE, {"9z": "pass"})


def test_start_overwrites_nothing(lab: LabFolder, tmp_path: Path) -> None:
    """Oracle: a refusal, and the answers as they were; a lab named twice is written once."""
    place = tmp_path / "course"
    (path,) = start([lab, lab], place, notebooks=False)
    path.write_text("my answers")
    with pytest.raises(DataError, match="there already"):
        start([lab], place, notebooks=False)
    assert path.read_text() == "my answers"


def test_start_leaves_nothing_half_done(
    lab: LabFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: a disk that is full at the second copy; the first is gone again. A file is no folder."""
    import minimp.labs.grading as module

    wrote, other = [], LabFolder(43, "lab43_other", lab.path)

    def full(path: Path, data: bytes, **_: Any) -> None:
        wrote.append(path)
        if len(wrote) == 2:
            raise DataError("no room")
        path.write_bytes(data)

    monkeypatch.setattr(module, "write_whole", full)
    with pytest.raises(DataError, match="no room"):
        start([lab, other], tmp_path / "course", notebooks=False)
    assert list((tmp_path / "course").iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be made"):
        start([lab], tmp_path / "file", notebooks=False)


@pytest.mark.parametrize(
    "limits",
    [
        {"seconds": 0}, {"seconds": -1}, {"seconds": float("nan")}, {"seconds": float("inf")},
        {"megabytes": -1}, {"megabytes": 10}, {"printed": 0},
    ],
)  # fmt: skip
def test_limits_that_cannot_act(limits: dict[str, Any]) -> None:
    """Oracle: SettingError."""
    with pytest.raises(SettingError):
        Limits(**limits)


@pytest.mark.parametrize("given", [{"points": 0}, {"points": 1.5}, {"points": "2"}, {"hints": "one"}])
def test_exercises_that_cannot_be(given: dict[str, Any]) -> None:
    """Oracle: SettingError."""
    with pytest.raises(SettingError):
        exercise("1a", **given)


def test_an_unknown_lab_is_refused() -> None:
    """Oracle: SettingError; each way to name a lab finds the same one."""
    with pytest.raises(SettingError, match="nothing_such"):
        lab_named("nothing_such")
    assert {lab_named(each).name for each in ("0", "00", "lab00", "bits", "lab00_bits")} == {"lab00_bits"}


@pytest.mark.parametrize("name", ["=1+1.py", "+1.py", "-1.py", "@SUM.py", "\t=1.py"])
def test_no_formula_in_a_table(name: str) -> None:
    """Oracle: an apostrophe first; the same name in two folders is two rows."""
    verdicts = (Verdict("1a", 1, "passed"),)
    made = [Outcome(Path(name), verdicts, "", (), ""), Outcome(Path("b") / name, verdicts, "=x", (), "")]
    rows = list(csv.reader(io.StringIO(to_csv(made))))
    assert rows[0] == ["file", "1a", "points", "of", "reason"]
    assert rows[1][0][0] == "'"
    assert rows[1][0] != rows[2][0]
    assert rows[2][-1] == "'=x"


@pytest.mark.parametrize(
    ("broken", "reason", "why"),
    [
        ((), "", ""),
        (("NotAnswered: 1a", "NameError: name 'x' is not defined"), "", ""),
        (
            ("SyntaxError: '(' was never closed\nline 3",),
            "",
            "a cell ended with SyntaxError: '(' was never closed",
        ),
        (
            ("NotAnswered: 1a", "SystemExit: 3", "ValueError: no"),
            "",
            "a cell ended with SystemExit: 3 (and 1 more)",
        ),
        (("NameError: name 'y' is not defined",), "", "a cell ended with NameError: name 'y' is not defined"),
        (("ValueError: no",), "it took longer than 4 seconds", "it took longer than 4 seconds"),
    ],
)
def test_a_table_says_why_points_are_missing(broken: tuple[str, ...], reason: str, why: str) -> None:
    """Oracle: by hand: the reason, else a cell's error; open exercises are none, nor what they cause."""
    made = Outcome(Path("a.py"), (Verdict("1a", 1, "failed"),), reason, broken, "")
    assert made.why == why
    assert list(csv.reader(io.StringIO(to_csv([made]))))[1][-1] == why


def test_nothing_steers_the_terminal() -> None:
    """Oracle: escape codes, lone surrogates and bells as text; it can be written as UTF-8."""
    assert cleaned("\x1b[31mred\x07\ud800 é\n") == "\\x1b[31mred\\x07\\ud800 é\n"


LATER = {
    "builtins": "import builtins as b, json\nb.len = b.open = b.print = json.dumps = None\n",
    "stdout": "import os, sys\nsys.stdout.close()\nos.closerange(3, 60)\n",
    "folder": "import os, tempfile\nos.chdir(tempfile.gettempdir())\n",
    "stdin": "input()\n",
    "exit": "import sys\nsys.exit(3)\n",
    "thread": "import threading, time\nthreading.Thread(target=time.sleep, args=(500,)).start()\n",
    "codes": "raise ValueError('\\x1b[31m')\n",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LATER)
def test_accidents_that_cost_nothing(lab: LabFolder, name: str) -> None:
    """Oracle: all answers stand before the accident: they pass, and nothing hangs."""
    started = time.monotonic()
    outcome = run_submission(lab, written(lab, SOURCE + LATE + LATER[name]), Limits(seconds=60))
    assert time.monotonic() - started < 50
    assert (words(outcome), outcome.reason) == (ALL, "")
    assert "\x1b" not in json.dumps(outcome.to_json(), ensure_ascii=False)


FATAL = {
    "endless": ("import time\ntime.sleep(500)", "longer than 8 seconds"),
    "leaves": ("import os\nos._exit(0)", "ended the interpreter"),
    "prints": ("while True: print('x' * 10000)", "printed more than"),
    "crashes": ("import ctypes\nctypes.string_at(0)", "SIGSEGV"),
}


@pytest.mark.slow
def test_a_batch_goes_on(lab: LabFolder) -> None:
    """Oracle: each is graded as what it is, and a good one after all of them has its points."""
    files = [written(lab, f"# %%\n{code}\n\n{SOURCE}", f"{name}.py") for name, (code, _) in FATAL.items()]
    files += [written(lab, "", "empty.py"), written(lab, "# %% [markdown]\n# hi\n", "prose.py")]
    files += [lab.path.parent / "missing.py", lab.path, written(lab, SOURCE, "good.py")]
    outcomes = grade(lab, files, Limits(seconds=8))
    assert [each.file for each in outcomes] == files
    parts = [part for _, part in FATAL.values()]
    for outcome, part in zip(outcomes, [*parts, "no cells of code", "no cells of code", "no such", "folder"],
                             strict=False):  # fmt: skip
        assert part in outcome.reason
        assert words(outcome) == ["not run"] * 3
        assert (outcome.points, outcome.most) == (0, 4)
    assert (words(outcomes[-1]), outcomes[-1].reason) == (ALL, "")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "seconds"),
    [("import os; os._exit(0)", 60), ("while True: pass", 8), ("import ctypes; ctypes.string_at(0)", 60)],
)
def test_an_answer_that_ends_the_run_costs_no_other(lab: LabFolder, body: str, seconds: int) -> None:
    """Oracle: the first of three exercises ends the interpreter, or never ends; the others pass."""
    outcome = run_submission(lab, written(lab, fill(SOURCE, {"1a": body})), Limits(seconds=seconds))
    assert words(outcome) == ["error", "passed", "passed"]
    assert "did not come to an end" in outcome.verdicts[0].message
    assert outcome.points == 2


@pytest.mark.slow
def test_a_submission_that_spoils_the_checks(lab: LabFolder) -> None:
    """Oracle: the checks' bytes afterwards, the reason, and the next submission's verdicts."""
    before = lab.checks.read_bytes()
    spoil = f"open({str(lab.checks)!r}, 'w').write('')\nimport shutil\nshutil.rmtree({str(lab.path)!r})\n"
    wrong = fill(SOURCE, {"1b": "size = 4"})
    outcomes = grade(lab, [written(lab, wrong + LATE + spoil, "a.py"), written(lab, wrong, "b.py")])
    assert lab.checks.read_bytes() == before
    assert "put back: lab.py (removed), lab42_checks.py (removed)" in outcomes[0].reason
    assert [words(each) for each in outcomes] == [["passed", "failed", "passed"]] * 2


@pytest.mark.slow
@pytest.mark.skipif(
    not Path("/proc/self/environ").exists(), reason="only Linux tells whose child a process is"
)
def test_children_do_not_outlive_a_submission(lab: LabFolder, tmp_path: Path) -> None:
    """Oracle: neither a fork nor a session of its own is alive afterwards; no verdict is said twice."""
    pids = tmp_path / "pids"
    code = f"""import os, subprocess, sys, time
made = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"], start_new_session=True)
forked = os.fork()
if forked:
    open({str(pids)!r}, "w").write(f"{{made.pid}} {{forked}}")
else:
    time.sleep(300)
"""
    started = time.monotonic()
    outcome = run_submission(lab, written(lab, SOURCE + LATE + code), Limits(seconds=60))
    assert words(outcome) == ALL
    assert time.monotonic() - started < 50
    for pid in pids.read_text().split():
        while is_alive(pid):  # what is killed takes a moment to go
            assert time.monotonic() - started < 60
            time.sleep(0.02)


def is_alive(pid: str) -> bool:
    """Return whether a process runs; one that only waits to be asked for its exit code does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="only there a process can be forked")
def test_a_fork_does_not_speak_for_its_parent(lab: LabFolder) -> None:
    """Oracle: the process that was started left; the copy it made of itself goes on, and gets no verdict."""
    code = "import os, time\nif os.fork():\n    time.sleep(1)\n    os._exit(0)\n"
    outcome = run_submission(lab, written(lab, SOURCE + LATE + code), Limits(seconds=30))
    assert words(outcome) == ["not run"] * 3
    assert "ended the interpreter" in outcome.reason


@pytest.mark.slow
def test_memory_is_limited(lab: LabFolder) -> None:
    """Oracle: MemoryError in the cell, at 1024 MB; the answers before it keep their points."""
    code = "import mmap\nheld = []\nwhile True: held.append(mmap.mmap(-1, 2**27))\n"
    outcome = run_submission(lab, written(lab, SOURCE + LATE + code), Limits(seconds=30, megabytes=1024))
    assert words(outcome) == ALL
    assert outcome.broken
    assert "memory" in outcome.broken[0].lower()
