"""The log of a run; oracles: Python's strict JSON reader, and the lines that were written."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimp.errors import DataError, SettingError
from minimp.runlog import RunLog, StepRecord, read_log
from tests.files.power import Recorder

RECORDS = st.builds(
    StepRecord,
    step=st.integers(1, 2**40),
    epoch=st.integers(0, 2**40),
    loss=st.floats(),
    loss_scale=st.floats(),
    skipped=st.booleans(),
    nonfinite=st.lists(st.text(), max_size=3).map(tuple),
    grad_norm=st.floats(),
    seconds=st.floats(0.0, 1e9),
)


def record(step: int, loss: float = 0.1) -> StepRecord:
    """Make the record of a step."""
    return StepRecord(step, step // 7, loss, 65536.0, False, (), 2.0 / 3.0, 0.25)


def write(path: Path, first: int, last: int) -> bytes:
    """Write a log of some steps; return its bytes."""
    path.write_bytes(b"".join(record(step).to_line() for step in range(first, last + 1)))
    return path.read_bytes()


def refuse_constant(word: str) -> None:
    """Fail on the NaN and Infinity that Python's reader takes and JSON does not have."""
    pytest.fail(f"{word} is no JSON")


@given(each=RECORDS)
def test_a_line_is_json_and_gives_the_record_back(each: StepRecord) -> None:
    """Oracle: a reader of strict JSON; every figure comes back to the bit, NaN and infinities as strings."""
    line = each.to_line()
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    found = json.loads(line, parse_constant=refuse_constant)
    names = ["schema", "step", "epoch", "loss", "loss_scale", "skipped", "nonfinite", "grad_norm", "seconds"]
    assert list(found) == names
    assert isinstance(found["loss"], float) == math.isfinite(each.loss)
    assert repr(StepRecord.from_line(line)) == repr(each)  # repr: NaN is not equal to itself


def test_steps_are_appended(tmp_path: Path) -> None:
    """Oracle: the records that were given; closing and beginning again goes on."""
    path = tmp_path / "log.jsonl"
    log = RunLog(path)
    log.begin(0)
    for step in (1, 2, 3):
        log.append(record(step, loss=math.inf))
    log.close()
    log.begin(3)
    log.append(record(4))
    log.sync()
    log.close()
    assert read_log(path) == [record(step, loss=math.inf) for step in (1, 2, 3)] + [record(4)]


@pytest.mark.parametrize("torn", [b"", b'{"schema": 1, "step": 21, "epo'])
@pytest.mark.parametrize("after", [13, 20])
def test_a_resumed_run_removes_the_steps_it_will_do_again(tmp_path: Path, after: int, torn: bytes) -> None:
    """Oracle: the first lines, byte for byte; what a crash cut off is removed too."""
    path = tmp_path / "log.jsonl"
    whole = write(path, 1, 20)
    path.write_bytes(whole + torn)
    log = RunLog(path)
    log.begin(after)
    log.append(record(after + 1))
    log.close()
    lines = whole.splitlines(keepends=True)
    assert path.read_bytes() == b"".join(lines[:after]) + record(after + 1).to_line()


def test_a_run_goes_on_without_its_old_log(tmp_path: Path) -> None:
    """Oracle: the records; a log that was moved away is begun anew at the step that comes next."""
    log = RunLog(tmp_path / "log.jsonl")
    log.begin(40)
    log.append(record(41))
    log.close()
    assert [each.step for each in read_log(log.path)] == [41]


LINE = record(1).to_line()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"step,loss\n1,2\n", "line 1: it is not the record of a step"),
        (LINE + LINE, "line 2: step 1 follows step 1"),
        (LINE + record(3).to_line(), "line 2: step 3 follows step 1"),
        (LINE.replace(b'"schema": 1', b'"schema": 2'), "line 1"),
        (LINE.replace(b'"step": 1', b'"step": 1.0'), "line 1"),
        (LINE.replace(b'"skipped": false', b'"skipped": 0'), "line 1"),
        (LINE.replace(b'"loss": 0.1', b'"loss": "much"'), "line 1"),
        (b"[1, 2]\n", "line 1"),
        (b"\xff\xfe\n", "line 1"),
    ],
)
def test_a_file_that_is_no_log_is_refused_and_left_alone(tmp_path: Path, text: bytes, words: str) -> None:
    """Oracle: the place and the reason in the message; the bytes before."""
    path = tmp_path / "log.jsonl"
    path.write_bytes(text)
    with pytest.raises(DataError, match=words):
        read_log(path)
    with pytest.raises(DataError, match=words):
        RunLog(path).begin(5)
    assert path.read_bytes() == text


def test_a_log_with_a_gap_before_the_checkpoint_is_refused(tmp_path: Path) -> None:
    """Oracle: the message; a log to step 20 cannot be that of a run at step 25."""
    whole = write(tmp_path / "log.jsonl", 1, 20)
    with pytest.raises(DataError, match="ends at step 20, and the run goes on after step 25"):
        RunLog(tmp_path / "log.jsonl").begin(25)
    assert (tmp_path / "log.jsonl").read_bytes() == whole


def test_a_new_run_does_not_write_into_an_old_log(tmp_path: Path) -> None:
    """Oracle: the kind of error; the bytes before."""
    whole = write(tmp_path / "log.jsonl", 1, 2)
    with pytest.raises(SettingError, match="already holds the log of a run"):
        RunLog(tmp_path / "log.jsonl").begin(0)
    assert (tmp_path / "log.jsonl").read_bytes() == whole


def test_a_new_log_is_there_after_a_power_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: all cuts that POSIX allows after `begin`: a checkpoint counts on its name."""
    with monkeypatch.context() as patch:
        recorder = Recorder(tmp_path, patch)
        log = RunLog(tmp_path / "log.jsonl")
        log.begin(0)
        log.close()
    assert list(recorder.after(len(recorder.events))) == [{"log.jsonl": b""}]
    recorder.close()


def test_two_runs_cannot_share_a_log(tmp_path: Path) -> None:
    """Oracle: the lock; it is free again when the first has closed it."""
    first, second = RunLog(tmp_path / "log.jsonl"), RunLog(tmp_path / "log.jsonl")
    first.begin(0)
    with pytest.raises(SettingError, match="being written by another run"):
        second.begin(0)
    first.close()
    second.begin(0)
    second.close()


@pytest.mark.parametrize("where", ["missing/log.jsonl", "."])
def test_a_log_that_cannot_be_opened(tmp_path: Path, where: str) -> None:
    """Oracle: the kind of error, which names the path."""
    with pytest.raises(DataError, match="cannot write"):
        RunLog(tmp_path / where).begin(0)


def test_a_full_disk_is_one_clear_error() -> None:
    """Oracle: /dev/full, where Linux answers every write as a full disk does."""
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    log: Any = RunLog("/dev/full")
    log.begin(0)
    with pytest.raises(DataError, match="cannot write /dev/full: No space left on device"):
        log.append(record(1))
    log.close()
