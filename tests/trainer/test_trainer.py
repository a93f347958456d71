"""The loop and its state; oracles: a loop written out, the settings that were given, the files before."""

from __future__ import annotations

import errno
import json
import math
import os
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minimp as mp
from minimp import checkpoint
from minimp.errors import CheckpointError, DataError, MinimpError, SettingError
from minimp.recipe import recipes
from minimp.runlog import StepRecord, read_log
from minimp.trainer import Trainer
from tests.trainer.runs import bits, make_trainer, records_of, timeless


def diverge(trainer: Trainer) -> Trainer:
    """Make the losses of a run infinite or NaN from its next step on."""
    weight = next(trainer.step.model.parameters())
    weight.array = weight.backend.xp.full_like(weight.array, np.inf)
    return trainer


def test_a_run_is_steps_over_batches(tmp_path: Path) -> None:
    """Oracle: the same steps in a loop written out; 1,400 rows in batches of 64 are 22 batches an epoch."""
    trainer = make_trainer("mixed-fp16", log=tmp_path / "log.jsonl")
    result = trainer.run(30)
    other = make_trainer("mixed-fp16")
    batches = other.loader.cycle()
    reports = [other.step(*next(batches)) for _ in range(30)]
    for record, report in zip(result.records, reports, strict=True):
        names = [each.name for each in fields(report)]
        shared, told = ({name: getattr(each, name) for name in names} for each in (record, report))
        assert repr(shared) == repr(told)  # repr: NaN is not equal to itself
    assert [record.step for record in result.records] == list(range(1, 31))
    assert [record.epoch for record in result.records] == [0] * 22 + [1] * 8
    assert repr(read_log(tmp_path / "log.jsonl")) == repr(list(result.records))
    assert result.skipped == sum(report.skipped for report in reports) > 0
    assert (result.step, result.stopped, result.diverged_at) == (30, False, None)
    assert all(record.seconds > 0 for record in result.records)


def test_a_run_in_pieces_is_the_same_run() -> None:
    """Oracle: the run in one piece; an epoch goes on where the call before left it."""
    whole, parts = make_trainer("bf16-stochastic"), None
    wanted = whole.run(40).records
    state = bits(whole.state_dict())
    parts = make_trainer("bf16-stochastic")
    found = records_of(*(parts.run(count) for count in (7, 0, 18, 15)))
    assert timeless(found) == timeless(wanted)
    assert bits(parts.state_dict()) == state


def test_the_test_part_is_judged_in_the_formats_of_the_recipe() -> None:
    """Oracle: `evaluate`; without test data there is nothing to judge by."""
    trainer = make_trainer("bf16")
    trainer.run(5)
    assert trainer.test is not None
    assert trainer.evaluate() == mp.trainer.evaluate(trainer.step.model, trainer.test, "bf16")
    trainer.test = None
    with pytest.raises(SettingError, match="no test data"):
        trainer.evaluate()


def test_a_run_can_be_stopped_by_its_callback(tmp_path: Path) -> None:
    """Oracle: the number of the step; the state is saved, and the next call goes on."""
    trainer = make_trainer("fp32", checkpoint=tmp_path / "run.safetensors", checkpoint_every=100)

    def stop(record: StepRecord) -> None:
        if record.step == 4:
            trainer.stop()

    trainer.on_step = stop
    result = trainer.run(10)
    assert (result.step, result.stopped) == (4, True)
    assert checkpoint.load(tmp_path / "run.safetensors")["step"] == 4
    assert trainer.run(2).step == 6


def test_a_stop_asked_for_before_the_run_is_not_lost() -> None:
    """Oracle: no step; a signal may come before the first one."""
    trainer = make_trainer("fp32")
    trainer.stop()
    assert trainer.run(3).records == ()
    assert trainer.run(3).step == 3


def test_a_divergence_is_a_result(tmp_path: Path) -> None:
    """Oracle: the step from which no loss is finite; the log holds it as JSON."""
    trainer = make_trainer("fp32", log=tmp_path / "log.jsonl")
    trainer.run(3)
    result = diverge(trainer).run(4)
    assert (result.step, result.stopped, result.diverged_at) == (7, False, 4)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_bytes().splitlines()]
    assert [line["loss"] for line in lines[3:]] == ["nan"] * 4
    assert lines[6]["nonfinite"]
    state = trainer.state_dict()
    again = make_trainer("fp32")
    again.load_state_dict(state)
    assert again.run(1).diverged_at == 4


def test_a_loss_that_recovers_is_no_divergence() -> None:
    """Oracle: the last loss; a scaled step that is skipped leaves the weights whole."""
    trainer = make_trainer("mixed-fp16")
    before = next(trainer.step.model.parameters()).array
    assert diverge(trainer).run(2).diverged_at == 1
    next(trainer.step.model.parameters()).array = before
    result = trainer.run(2)
    assert result.diverged_at is None
    assert all(math.isfinite(record.loss) for record in result.records)


def test_a_run_may_end_at_a_divergence() -> None:
    """Oracle: the step whose loss is the first that is not finite."""
    trainer = make_trainer("fp32", stop_on_divergence=True)
    trainer.run(2)
    result = diverge(trainer).run(9)
    assert (result.step, result.stopped, result.diverged_at) == (3, True, 3)


# ---- checkpoints ----------------------------------------------------------------------------------------


def test_checkpoints_are_written_as_often_as_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the steps; the state the run begins from, every 4th, and the last."""
    saved = []
    real = Trainer.save
    monkeypatch.setattr(
        Trainer, "save", lambda self, path=None: (saved.append(self.done), real(self, path))[1]
    )
    trainer = make_trainer("fp32", checkpoint=tmp_path / "run.safetensors", checkpoint_every=4)
    trainer.run(8)
    trainer.run(2)
    assert saved == [0, 4, 8, 10]


def test_the_log_is_on_the_disk_before_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: the order of the calls of fsync; after a power cut no step may be missing in the log."""
    log, done = tmp_path / "log.jsonl", []
    real = os.fsync

    def note(handle: int) -> None:
        done.append("log" if os.path.samestat(os.fstat(handle), log.stat()) else "other")
        real(handle)

    trainer = make_trainer("fp32", checkpoint=tmp_path / "run.safetensors", log=log)
    trainer.run(1)
    monkeypatch.setattr(os, "fsync", note)
    trainer.run(1)
    assert done[0] == "log"
    assert "other" in done[1:]


def test_a_fault_while_saving_leaves_the_checkpoint_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: the bytes before; the log has gone on, and is cut back when the run is resumed."""
    file, log = tmp_path / "run.safetensors", tmp_path / "log.jsonl"
    trainer = make_trainer("mixed-fp16", checkpoint=file, checkpoint_every=5, log=log)
    trainer.run(5)
    before = file.read_bytes()

    def full(*paths: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", full)
        with pytest.raises(CheckpointError, match="disk is full"):
            trainer.run(7)
    assert file.read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"run.safetensors", "log.jsonl"}
    assert len(read_log(log)) == 10
    again = make_trainer("mixed-fp16", checkpoint=file, log=log)
    again.resume()
    again.run(1)
    assert [record.step for record in read_log(log)] == [1, 2, 3, 4, 5, 6]


OTHERS: dict[str, tuple[dict[str, Any], str]] = {
    "recipe": (
        {"recipe": "mixed-bf16"},
        "recipe='mixed-fp16', and is to be resumed with recipe='mixed-b",
    ),
    "a choice of the recipe": (
        {"recipe": recipes["mixed-fp16"].with_(accumulate="float64")},
        "recipe.accumulate='float32'",
    ),
    "the policy": (
        {"recipe": recipes["mixed-fp16"].with_(policy=mp.policies["torch-cuda"].with_(softmax="lower"))},
        "recipe.policy='torch-cuda'",
    ),
    "optimizer": ({"optimizer": "sgd"}, "optimizer='Adam'"),
    "a setting": ({"settings": {"colour": "blue"}}, "colour='red', and is to be resumed with colour='blue'"),
    "a setting's type": ({"settings": {"colour": True}}, "colour=True"),
    "no setting": ({"settings": None}, "colour='red', and is to be resumed with colour=None"),
    "the order of batches": ({"seed": 12}, "seed=11"),
}


@pytest.mark.parametrize("case", OTHERS)
def test_a_run_of_other_settings_is_refused_and_nothing_changes(case: str) -> None:
    """Oracle: the setting and both values in the message; every bit of the state before."""
    saved = make_trainer("mixed-fp16", settings={"colour": "red"}, notes={"free": 1})
    saved.run(3)
    state = saved.state_dict()
    options, words = OTHERS[case]
    other = make_trainer(**{"recipe": "mixed-fp16", "settings": {"colour": "red"}, **options})
    before = bits(other.state_dict())
    with pytest.raises(CheckpointError, match=words):
        other.load_state_dict(state)
    assert bits(other.state_dict()) == before


@pytest.mark.parametrize("part", ["model", "optimizer", "scaler", "rng", "loader"])
def test_a_part_that_does_not_fit_changes_nothing(part: str) -> None:
    """Oracle: every bit of the state before, also of the parts that were taken over first."""
    saved = make_trainer("mixed-fp16")
    saved.run(3)
    state = {**saved.state_dict(), part: {"strange": 1.0}}
    other = make_trainer("mixed-fp16", seed=saved.loader.seed)
    other.run(2)
    before = bits(other.state_dict())
    with pytest.raises(MinimpError):
        other.load_state_dict(state)
    assert bits(other.state_dict()) == before


def test_what_is_no_state_of_a_run_is_refused(tmp_path: Path) -> None:
    """Oracle: the kind of error; weights, a state of another layout, files cut short or changed."""
    trainer = make_trainer("fp32", checkpoint=tmp_path / "run.safetensors")
    trainer.run(1)
    mp.save(tmp_path / "weights.safetensors", trainer.step.model.state_dict())
    with pytest.raises(CheckpointError, match="does not hold the state of a run"):
        trainer.resume(tmp_path / "weights.safetensors")
    for part, value in {"schema": 2, "step": 1.5, "skipped": None}.items():
        with pytest.raises(CheckpointError, match="schema"):
            trainer.load_state_dict({**trainer.state_dict(), part: value})
    whole = (tmp_path / "run.safetensors").read_bytes()
    for name, data in {"cut": whole[:-10], "changed": whole[:-3] + b"abc", "empty": b""}.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(CheckpointError, match=name):
            trainer.resume(tmp_path / name)
    with pytest.raises(CheckpointError, match="there is no such file"):
        trainer.resume(tmp_path / "missing")


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"checkpoint_every": 5}, SettingError, "cannot act without a file"),
        (
            {"checkpoint_every": -1, "checkpoint": "x"},
            SettingError,
            "checkpoint_every must be a whole number",
        ),
        ({"log": "missing/log.jsonl"}, DataError, "its folder does not exist"),
        ({"checkpoint": "missing/run"}, CheckpointError, "its folder does not exist"),
    ],
)
def test_what_cannot_act_or_be_written_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: Any, error: type[Exception], words: str
) -> None:
    """Oracle: the kind of error, before any step; no file is made."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=words):
        make_trainer("fp32", **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("steps", [-1, 2.5, True, "3"])
def test_steps_are_a_whole_number(steps: Any) -> None:
    """Oracle: the kind of error."""
    with pytest.raises(SettingError, match="steps must be a whole number"):
        make_trainer("fp32").run(steps)


def test_without_a_file_there_is_nothing_to_save_to() -> None:
    """Oracle: the kind of error; a path given with the call is enough."""
    for call in (make_trainer("fp32").save, make_trainer("fp32").resume):
        with pytest.raises(SettingError, match="there is no file"):
            call()
