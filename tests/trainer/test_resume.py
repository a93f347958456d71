"""Resuming; oracle: an uninterrupted run, every bit of it: arrays, scaler, random state, losses, log."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minimp as mp
from minimp import optim
from minimp.errors import CheckpointError, SettingError
from minimp.recipe import Recipe, recipes
from minimp.runlog import StepRecord, read_log
from minimp.trainer import Trainer
from tests.trainer.runs import bits, make_trainer, records_of, timeless

TORCH = "torch-cuda"
RUNS: dict[str, tuple[Recipe, str]] = {
    "fp32, momentum": (recipes["fp32"], "sgd"),
    "mixed-fp16": (recipes["mixed-fp16"], "adam"),
    "mixed-layerwise": (recipes["mixed-layerwise"], "adam"),
    "mixed-bf16": (recipes["mixed-bf16"], "adamw"),
    "fp16-scaled": (recipes["fp16-scaled"], "sgd"),
    "bf16-stochastic": (recipes["bf16-stochastic"], "adam"),
    "bf16-kahan": (recipes["bf16-kahan"], "adamw"),
    "bf16 weights, the optimizer has the masters": (
        Recipe("bf16-masters", "bfloat16", "bfloat16", master_weights=True, policy=TORCH), "adam",
    ),
    "fp16 weights, the optimizer has the masters": (
        Recipe("fp16-masters", "float16", "float16", True, "dynamic", policy=TORCH), "sgd",
    ),
}  # fmt: skip


def disturb() -> None:
    """Draw from the generator and seed it otherwise, as whatever runs in between may."""
    mp.manual_seed(777)
    mp.rng.generator().random(5)


@pytest.mark.parametrize("name", RUNS)
def test_25_steps_and_35_more_are_60_steps(name: str, tmp_path: Path) -> None:
    """Oracle: 60 steps straight; the 25th is in the middle of the second epoch, and dropout draws in each."""
    recipe, optimizer = RUNS[name]
    straight = make_trainer(recipe, optimizer, log=tmp_path / "straight.jsonl")
    wanted = straight.run(60)
    if recipe.loss_scale == "dynamic":
        assert wanted.skipped > 0
        assert len({record.loss_scale for record in wanted.records[25:]}) > 1  # the scaler's state matters
    state = bits(straight.state_dict())

    files: dict[str, Any] = {"log": tmp_path / "log.jsonl", "checkpoint": tmp_path / "run.safetensors"}
    first = make_trainer(recipe, optimizer, **files).run(25)
    disturb()
    second = make_trainer(recipe, optimizer, lr=0.5, **files)  # the saved learning rate counts
    disturb()
    second.resume()
    rest = second.run(35)
    assert bits(second.state_dict()) == state
    assert timeless(records_of(first, rest)) == timeless(wanted.records)
    assert timeless(read_log(files["log"])) == timeless(read_log(tmp_path / "straight.jsonl"))
    assert (rest.step, rest.skipped) == (60, wanted.skipped)


@cache
def straight_state(name: str) -> Any:
    """Return the state of a run of 50 steps without a break."""
    straight = make_trainer(name)
    straight.run(50)
    return bits(straight.state_dict())


@settings(max_examples=10)
@given(
    cut=st.integers(0, 50), over=st.integers(0, 9), name=st.sampled_from(["mixed-fp16", "bf16-stochastic"])
)
def test_a_run_can_be_cut_anywhere(cut: int, over: int, name: str) -> None:
    """Oracle: 50 steps straight; the state is taken at any step, and the run it was of goes on a little."""
    first = make_trainer(name)
    first.run(cut)
    state = first.state_dict()
    first.run(over)  # must not reach into the state that was taken before
    second = make_trainer(name)
    second.load_state_dict(state)
    second.run(50 - cut)
    assert bits(second.state_dict()) == straight_state(name)


def test_a_file_gives_the_state_back_to_the_bit(tmp_path: Path) -> None:
    """Oracle: the state in memory; whatever JSON and safetensors do to it."""
    trainer = make_trainer("fp16-scaled", "adamw", settings={"x": 0.1, "y": None}, notes={"steps": 9})
    trainer.run(3)
    found = mp.load(trainer.save(tmp_path / "run.safetensors"))
    assert bits(found) == bits(trainer.state_dict())


def test_a_resumed_run_does_no_step_twice_in_its_log(tmp_path: Path) -> None:
    """Oracle: each step once; the run was killed 6 steps after its checkpoint, in the middle of a line."""
    files: dict[str, Any] = {"log": tmp_path / "log.jsonl", "checkpoint": tmp_path / "run.safetensors"}
    killed = make_trainer("mixed-bf16", **files)
    killed.run(10)
    kept = files["checkpoint"].read_bytes()
    killed.run(6)
    files["checkpoint"].write_bytes(kept)
    with files["log"].open("ab") as log:
        log.write(b'{"schema": 1, "step": 17, "ep')
    resumed = make_trainer("mixed-bf16", **files)
    resumed.resume()
    resumed.run(10)
    lines = files["log"].read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(1, 21))
    straight = make_trainer("mixed-bf16")
    assert timeless(read_log(files["log"])) == timeless(straight.run(20).records)


def stop_after(trainer: Trainer, steps: int) -> None:
    """Let a run die after so many steps, without the checkpoint of its end."""

    def die(record: StepRecord) -> None:
        if record.step == steps:
            raise KeyboardInterrupt

    trainer.on_step = die
    with pytest.raises(KeyboardInterrupt):
        trainer.run(steps + 10)


@pytest.mark.parametrize("torn", [b"", b'{"schema": 1, "st', b"\0" * 700, b"\xff\n{}\n\n[1, 2"])
@pytest.mark.parametrize("every", [0, 4])
def test_what_follows_the_checkpoint_in_the_log_may_be_anything(
    tmp_path: Path, every: int, torn: bytes
) -> None:
    """Oracle: 12 steps straight. The run died at step 7, its last checkpoint is of step 0 or 4; what a power
    cut left after that in the log, bytes of nothing among it, goes.
    """
    files: dict[str, Any] = {"log": tmp_path / "log.jsonl", "checkpoint": tmp_path / "run.safetensors"}
    stop_after(make_trainer("mixed-fp16", checkpoint_every=every, **files), 7)
    lines = files["log"].read_bytes().splitlines(keepends=True)
    assert len(lines) == 7
    files["log"].write_bytes(b"".join(lines[: every + 1]) + torn)
    resumed = make_trainer("mixed-fp16", **files)
    resumed.resume()
    assert resumed.done == every
    resumed.run(12 - every)
    straight = make_trainer("mixed-fp16", log=tmp_path / "straight.jsonl")
    straight.run(12)
    assert bits(resumed.state_dict()) == bits(straight.state_dict())
    assert timeless(read_log(files["log"])) == timeless(read_log(tmp_path / "straight.jsonl"))


def test_a_scheduler_goes_on(tmp_path: Path) -> None:
    """Oracle: lr = initial_lr f(n), n the updates that were not skipped, before and after a resume."""

    def make(optimizer: optim.Optimizer) -> optim.LRScheduler:
        return optim.LambdaLR(optimizer, lambda n: 1.0 / (1 + n))

    first = make_trainer("mixed-fp16", scheduler=make, checkpoint=tmp_path / "run.safetensors")
    skipped = first.run(9).skipped
    assert skipped > 0
    second = make_trainer("mixed-fp16", lr=7.0, scheduler=make, checkpoint=tmp_path / "run.safetensors")
    second.resume()
    both = [trainer.step.optimizer.param_groups[0]["lr"] for trainer in (first, second)]
    assert both == [1e-3 / (1 + 9 - skipped)] * 2
    second.run(5)
    state = bits(second.state_dict())
    straight = make_trainer("mixed-fp16", scheduler=make)
    straight.run(14)
    assert bits(straight.state_dict()) == state


def test_a_scheduler_must_be_there_again() -> None:
    """Oracle: what the saved run had, named."""
    state = make_trainer("fp32", scheduler=lambda made: optim.StepLR(made, 3)).state_dict()
    for scheduler, now in ((None, "None"), (optim.LinearLR, "'LinearLR'")):
        with pytest.raises(CheckpointError, match=f"with scheduler='StepLR', .* with scheduler={now}"):
            make_trainer("fp32", scheduler=scheduler).load_state_dict(state)


def test_schedulers_that_cannot_act() -> None:
    """Oracle: one of another optimizer, and one whose step wants a metric."""
    other = make_trainer("fp32").step.optimizer
    with pytest.raises(SettingError, match="not one of the step's optimizer"):
        make_trainer("fp32", scheduler=lambda made: optim.StepLR(other, 3))

    with pytest.raises(SettingError, match=r"ReduceLROnPlateau\.step needs 'metrics'"):
        make_trainer("fp32", scheduler=optim.lr_scheduler.ReduceLROnPlateau)


def test_a_trainer_can_go_back() -> None:
    """Oracle: its own steps; the epoch that it was in is left, and the batches of the state's come again."""
    trainer = make_trainer("bf16-stochastic")
    trainer.run(4)
    state = trainer.state_dict()
    first = trainer.run(9)
    after = bits(trainer.state_dict())
    trainer.load_state_dict(state)
    assert timeless(trainer.run(9).records) == timeless(first.records)
    assert bits(trainer.state_dict()) == after


def test_a_state_that_was_taken_over_is_saved(tmp_path: Path) -> None:
    """Oracle: the file; the trainer had saved another state of the same step before."""
    trainer = make_trainer("bf16-stochastic", checkpoint=tmp_path / "run.safetensors")
    trainer.run(2)
    other = make_trainer("bf16-stochastic", notes={"which": "other"})
    mp.rng.generator().random(3)
    other.run(2)
    trainer.load_state_dict(other.state_dict())
    trainer.run(0)
    assert bits(mp.load(tmp_path / "run.safetensors")["model"]) == bits(other.state_dict()["model"])
