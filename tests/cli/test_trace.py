"""`minimp trace` and `minimp train --trace`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from minimp import trace
from minimp.cli import main
from minimp.cli.trace import FILES, NEEDS, QUESTIONS
from tests.trace.cases import batch, grown, make_step

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two steps with everything, one of them with an overflow in layer 2."""
    path = tmp_path_factory.mktemp("traces") / "planted"
    with trace.record(shadow=True, values="all", spill=path):
        make_step()(*batch())
        make_step(change=grown(2, 1.5e5))(*batch())
    return path


def asked(capsys: Capture, *arguments: Any) -> str:
    """What the command prints."""
    assert main(["trace", *map(str, arguments)]) == 0
    return capsys.readouterr().out


# ---- questions ---------------------------------------------------------------------------------------------

METHODS: dict[str, Any] = {
    "summary": str,
    "nonfinite": lambda t: t.first_nonfinite(),
    "underflow": lambda t: t.underflow(),
    "overflow": lambda t: t.overflow(),
    "scales": lambda t: t.gradients_at_scales(),
    "swallowed": lambda t: t.swallowed(),
    "errors": lambda t: t.errors(),
    "amplifiers": lambda t: t.amplifiers(),
    "counts": lambda t: t.counts(),
}


@pytest.mark.parametrize("question", METHODS)
def test_a_question_is_answered_as_by_its_method(question: str, folder: Path, capsys: Capture) -> None:
    """Oracle: the method's own text; 100 columns."""
    printed = asked(capsys, folder, question)
    assert printed == f"{METHODS[question](trace.load(folder))}\n"
    assert max(map(len, printed.splitlines())) <= 100
    made = json.loads(asked(capsys, folder, question, "--json"))
    assert made


def test_the_planted_overflow_is_named(folder: Path, capsys: Capture) -> None:
    """Oracle: the layer that was grown by hand."""
    assert "linear in 2" in asked(capsys, folder, "nonfinite").splitlines()[0]
    made = json.loads(asked(capsys, folder, "nonfinite", "--json"))
    assert (made["event"]["op"], made["event"]["module"], made["event"]["step"]) == ("linear", "2", 2)
    (row,) = [row for row in json.loads(asked(capsys, folder, "overflow", "--by", "module", "--json"))["rows"]
              if row["phase"] == "forward"]  # fmt: skip
    assert row["module"] == "2"
    assert row["overflowed"] == made["event"]["outputs"][0]["overflowed"]


def test_events_are_found_by_a_condition(folder: Path, capsys: Capture) -> None:
    """Oracle: `Trace.select` with the same condition as a function."""
    made = json.loads(
        asked(capsys, folder, "events", "--where", "overflow > 0 and phase == forward", "--json")
    )
    wanted = trace.load(folder).select(phase="forward", condition=lambda event: event.overflowed)
    assert [each["number"] for each in made] == [event.number for event in wanted]
    shown = asked(capsys, folder, "events", "--limit", "3").splitlines()
    assert len(shown) == 4
    assert shown[0].startswith("#0 ")
    assert "more" in shown[-1]
    assert "no events" in asked(capsys, folder, "events", "--where", "op == nothing")


def test_two_traces_are_put_side_by_side(folder: Path, tmp_path: Path, capsys: Capture) -> None:
    """Oracle: `Trace.diff`: of a trace with itself, and with one that parts at the grown layer."""
    assert json.loads(asked(capsys, folder, "diff", folder, "--json"))["same"] is True
    with trace.record(values="all", spill=tmp_path / "other"):
        make_step()(*batch())
        make_step()(*batch())
    printed = asked(capsys, folder, "diff", tmp_path / "other", "--ulps", "1")
    assert printed == f"{trace.load(folder).diff(trace.load(tmp_path / 'other'), ulps=1.0)}\n"
    first = json.loads(asked(capsys, folder, "diff", tmp_path / "other", "--json"))["first"]
    assert first["title"] == "cast"


def test_options_of_scales_act(folder: Path, capsys: Capture) -> None:
    """Oracle: `Trace.gradients_at_scales` with the same arguments."""
    made = trace.load(folder).gradients_at_scales(by="parameter", into="bfloat16", source="shadow")
    printed = asked(capsys, folder, "scales", "--by", "parameter", "--into", "bfloat16", "--source", "shadow")
    assert printed == f"{made}\n"


@pytest.mark.parametrize("word", FILES)
def test_files_are_written(word: str, folder: Path, tmp_path: Path, capsys: Capture) -> None:
    """Oracle: the file, or the folder's files, are there and not empty."""
    pytest.importorskip({"tensorboard": "tensorboardX", "report": "jinja2"}.get(word, "json"))
    out = tmp_path / "out"
    assert f"wrote {out}" in asked(capsys, folder, word, out)
    written = [out] if out.is_file() else list(out.iterdir())
    assert written
    assert all(path.stat().st_size > 1000 for path in written)


def test_names_that_a_terminal_would_act_on_are_shown_as_text(tmp_path: Path, capsys: Capture) -> None:
    """Oracle: the escape character of a planted module name, as Python writes it."""
    import minimp as mp

    model = mp.nn.Sequential()
    model.add_module("red\x1b[31m", mp.nn.Linear(2, 2))
    with trace.record(spill=tmp_path / "t"):
        model(mp.tensor([[1.0, 2.0]]))
    printed = asked(capsys, tmp_path / "t", "events")
    assert "\x1b" not in printed
    assert r"red\x1b[31m" in printed


def test_help_names_every_question(capsys: Capture) -> None:
    """Oracle: the table of questions; 100 columns."""
    assert main(["trace", "--help"]) == 0
    shown = capsys.readouterr().out
    for name in (*QUESTIONS, *FILES):
        usage = f"{name} {NEEDS[name]}" if name in NEEDS else name
        assert f"\n  {usage} " in shown
    assert max(map(len, shown.splitlines())) <= 100


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["underflo"], "unknown question 'underflo'; did you mean 'underflow'?"),
        (["diff"], "the question diff needs OTHER"),
        (["chrome"], "the question chrome needs OUT"),
        (["counts", "more"], "the question counts takes nothing more, got 'more'"),
        (["counts", "--by", "op"], "--by cannot act on the question counts"),
        (["underflow", "--by", "colour"], "unknown grouping 'colour'"),
        (["errors", "--by", "colour"], "unknown grouping 'colour'"),
        (["events", "--where", "overflo > 1"], "unknown word 'overflo'; did you mean 'overflow'?"),
        (["events", "--limit", "0"], "--limit must be at least 1, got 0"),
        (["chrome", "x.json", "--json"], "--json cannot act on chrome"),
        (["scales", "--into", "float33"], "float33"),
        (["diff", "missing"], "there is no such folder"),
    ],
)
def test_what_cannot_be_asked_is_refused(
    arguments: list[str], said: str, folder: Path, capsys: Capture
) -> None:
    """Oracle: by hand: the exit code, and what the error names."""
    assert main(["trace", str(folder), *arguments]) == 2
    assert said in capsys.readouterr().err


# ---- train --trace -----------------------------------------------------------------------------------------

SMALL = ("train", "--model", "mlp", "--batch", "8", "--quiet", "--checkpoint-every", "0")


def test_a_run_is_recorded_at_the_steps_that_were_named(tmp_path: Path, capsys: Capture) -> None:
    """Oracle: the same run without a recording: its log; and the numbers of the steps."""
    runs = [tmp_path / "plain", tmp_path / "traced"]
    extra = ["--trace", str(tmp_path / "t"), "--trace-steps", "2-3,5", "--values", "4", "--shadow"]
    for out, more in zip(runs, ([], extra), strict=True):
        assert main([*SMALL, "--steps", "6", "--out", str(out), *more]) == 0
    assert f"recorded 3 steps; ask them: minimp trace {tmp_path / 't'}" in capsys.readouterr().err
    logs = [[{key: value for key, value in json.loads(line).items() if key != "seconds"}
             for line in (out / "log.jsonl").read_text().splitlines()] for out in runs]  # fmt: skip
    assert logs[0] == logs[1]
    made = trace.load(tmp_path / "t")
    assert sorted({event.step for event in made.events}) == [2, 3, 5]
    assert made.info["steps"] == 3
    (event,) = made.select(op="loss", phase="stage", step=5)
    scale = json.loads((runs[1] / "log.jsonl").read_text().splitlines()[4])
    assert event.outputs[0].stats.max == pytest.approx(scale["loss"], rel=0, abs=0)
    assert made.select(condition=lambda e: e.errors)
    assert all(array.size <= 4 for e in made.events for array in made.values(e).values())
    assert all(event.start <= event.end for event in made.events)


def test_a_run_that_goes_on_is_recorded_by_its_own_numbers(tmp_path: Path, capsys: Capture) -> None:
    """Oracle: by hand: four steps, then the fifth and the sixth."""
    out = str(tmp_path / "run")
    assert main([*SMALL, "--steps", "4", "--out", out, "--trace", str(tmp_path / "a")]) == 0
    assert main(["train", "--quiet", "--resume", out, "--steps", "6", "--trace", str(tmp_path / "b"),
                 "--no-statistics"]) == 0  # fmt: skip
    capsys.readouterr()
    first, second = trace.load(tmp_path / "a"), trace.load(tmp_path / "b")
    assert sorted({event.step for event in first.events}) == [1, 2, 3, 4]
    assert sorted({event.step for event in second.events}) == [5, 6]
    assert all(side.stats is None for event in second.events for side in event.outputs if side)
    assert [e.title for e in first.select(step=4)] == [e.title for e in second.select(step=5)]


def test_ctrl_c_leaves_a_trace_that_can_be_read(tmp_path: Path) -> None:
    """Oracle: the trace's own checks on loading, after SIGINT in the middle of a run."""
    command = [sys.executable, "-m", "minimp", *SMALL, "--steps", "100000", "--out", str(tmp_path / "run"),
               "--trace", str(tmp_path / "t"), "--trace-steps", "1-100000"]  # fmt: skip
    with subprocess.Popen(command, env=dict(os.environ), stderr=subprocess.PIPE, text=True) as run:
        events = tmp_path / "t" / "events.jsonl"
        end = time.monotonic() + 60
        while not (events.exists() and events.stat().st_size > 100_000) and time.monotonic() < end:
            time.sleep(0.05)
        run.send_signal(signal.SIGINT)
        _, said = run.communicate(timeout=60)
    assert run.returncode == 130
    assert "stopped after step" in said
    made = trace.load(tmp_path / "t")
    done = len((tmp_path / "run" / "log.jsonl").read_text().splitlines())
    assert made.info["steps"] == done
    assert f"recorded {done} steps" in said
    assert len(made.select(phase="stage", op="update_scale")) == done


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--trace-steps", "1"], "--trace-steps cannot act without --trace DIR"),
        (["--shadow"], "--shadow cannot act without --trace DIR"),
        (["--no-statistics"], "--no-statistics cannot act without --trace DIR"),
        (["--values", "3"], "--values cannot act without --trace DIR"),
        (["--trace", "T", "--trace-steps", "0-3"], "--trace-steps takes numbers from 1 and ranges"),
        (["--trace", "T", "--trace-steps", "3-1"], "--trace-steps takes numbers from 1 and ranges"),
        (["--trace", "T", "--trace-steps", "1,,2"], "--trace-steps takes numbers from 1 and ranges"),
        (["--trace", "T", "--trace-steps", "9"], "names no step that will be done: those are 1 to 4"),
        (["--trace", "T", "--values", "some"], "--values takes a number of elements, or all; got 'some'"),
        (["--trace", "T", "--values", "1"], "expected at least 2 elements"),
        (["--trace", "T", "--shadow", "--no-statistics"], "cannot act without statistics"),
        (["--trace", "full"], "full: there is something there already"),
        (["--trace", "no/T"], "its folder does not exist"),
    ],
)
def test_options_of_recording_that_cannot_act_are_refused(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """Oracle: by hand: what the error names; nothing has been made."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("kept")
    assert main([*SMALL, "--steps", "4", "--out", "run", *arguments]) == 2
    assert said in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


def test_a_diff_takes_its_ulps_where_it_is_told(tmp_path: Path, folder: Path, capsys: Capture) -> None:
    """Oracle: the method's own text."""
    with trace.record(values="all", spill=tmp_path / "t"):
        make_step(change=grown(2, 1.5))(*batch())
    ours, theirs = trace.load(folder), trace.load(tmp_path / "t")
    printed = asked(capsys, folder, "diff", tmp_path / "t", "--at", "largest")
    assert printed == f"{ours.diff(theirs, at='largest')}\n"
    assert main(["trace", str(folder), "counts", "--at", "largest"]) == 2
    assert "--at cannot act on the question counts" in capsys.readouterr().err
