"""The loop: steps over batches, a log line each, checkpoints from which a run goes on bit for bit."""

from __future__ import annotations

import math
import operator
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from inspect import signature
from pathlib import Path
from typing import Any

from minimp import checkpoint as files
from minimp import fp8
from minimp.data import AnyDataset, DataLoader
from minimp.errors import CheckpointError, MinimpError, SettingError
from minimp.evaluation import evaluate
from minimp.files import AnyPath, check_writable
from minimp.optim import LRScheduler
from minimp.recipe import Recipe
from minimp.rng import get_rng_state, set_rng_state
from minimp.runlog import RunLog, StepRecord
from minimp.step import TrainStep

__all__ = ["RunResult", "Trainer", "evaluate"]

SCHEMA = 1
PARTS = frozenset(
    {"schema", "step", "skipped", "nonfinite_since", "settings", "notes"}
    | {"model", "optimizer", "scheduler", "scaler", "rng", "loader"}
)
"""What the state of a run has."""


@dataclass(frozen=True)
class RunResult:
    """What a call of `Trainer.run` did.

    Attributes:
        records: its steps.
        step: the steps done in all, those before a resume included.
        skipped: the steps in all whose update was skipped.
        stopped: whether it ended before the last step, by `Trainer.stop` or a divergence.
        diverged_at: the step from which on no loss was finite, or None while the last one was.
    """

    records: tuple[StepRecord, ...]
    step: int
    skipped: int
    stopped: bool
    diverged_at: int | None


class Trainer:
    """Runs training steps over a loader, and can be stopped and resumed without a bit of difference.

    The state of a run is: weights and buffers, optimizer state with its masters, the scheduler, the loss
    scaler, FP8 scales with their histories, the random generator (dropout, stochastic rounding), the position
    in the data, the number of the step, and the settings it must be resumed with.

    A run may be killed at any instant. There is always one checkpoint, the last that was complete; a script
    that makes its trainer, resumes where there is a file, and runs the steps that are left, can be started
    again and again:

    >>> trainer = Trainer(step, loader, log="log.jsonl", checkpoint="run.safetensors",
    ...                   checkpoint_every=100)  # doctest: +SKIP
    >>> if trainer.checkpoint.exists():  # doctest: +SKIP
    ...     trainer.resume()
    >>> trainer.run(1000 - trainer.done)  # doctest: +SKIP

    Args:
        step: the step.
        loader: gives (inputs, targets); its own seed orders the batches.
        scheduler: of the step's optimizer; it moves on after each step whose update was not skipped.
        test: a data set to judge by, see `evaluate`.
        log: a file that gets one line of JSON a step (:mod:`minimp.runlog`).
        checkpoint: a file for the state of the run, replaced as a whole when a new one is complete.
        checkpoint_every: save it after each so many steps; 0: only when `run` ends.
        on_step: called with the StepRecord of each step, after it was logged.
        stop_on_divergence: end the run at the first step whose loss is not finite.
        settings: name -> number, string, bool or None: further settings that a resumed run must share.
        notes: plain values that are saved with the state, and that a resumed run need not share.

    Attributes:
        done: the steps done so far.
        skipped: those of them whose update was skipped.

    Raises:
        SettingError: `checkpoint_every` is negative, or given without a file; the scheduler is of another
            optimizer, or wants to be told a metric.
        DataError, CheckpointError: `log` or `checkpoint` cannot be written.
    """

    def __init__(
        self,
        step: TrainStep,
        loader: DataLoader,
        *,
        scheduler: LRScheduler | None = None,
        test: AnyDataset | None = None,
        log: AnyPath | None = None,
        checkpoint: AnyPath | None = None,
        checkpoint_every: int = 0,
        on_step: Callable[[StepRecord], object] | None = None,
        stop_on_divergence: bool = False,
        settings: Mapping[str, Any] | None = None,
        notes: Mapping[str, Any] | None = None,
    ) -> None:
        self.checkpoint_every = _whole("checkpoint_every", checkpoint_every)
        if checkpoint_every and checkpoint is None:
            raise SettingError("checkpoint_every cannot act without a file: give checkpoint=PATH")
        self.step, self.loader, self.test = step, loader, test
        self.scheduler = _checked_scheduler(scheduler, step)
        self.log = None if log is None else RunLog(log)
        self.checkpoint = None if checkpoint is None else Path(checkpoint)
        self.on_step, self.stop_on_divergence = on_step, stop_on_divergence
        named = {"scheduler": None if scheduler is None else type(scheduler).__name__}
        self.settings, self.notes = {**_settings_of(step), **named, **(settings or {})}, dict(notes or {})
        self.done = self.skipped = 0
        self._nonfinite_since: int | None = None
        self._saved: int | None = None
        self._stopping = self._resumed = False
        self._batches = loader.cycle()
        if log is not None:
            check_writable(log)
        if checkpoint is not None:
            check_writable(checkpoint, error=CheckpointError)

    def run(self, steps: int) -> RunResult:
        """Do so many more steps, fewer if stopped.

        Where there is a file for it, the state is saved at the end, and at the beginning if it was not saved
        yet: from then on the run can be resumed, whatever happens.

        A loss that is not finite is a result like any other: it is recorded, and the run goes on unless
        `stop_on_divergence` was asked for.

        Raises:
            SettingError: `steps` is no whole number; or a new run would write into the log of another one.
            DataError, CheckpointError: the log or the checkpoint cannot be written.
        """
        records: list[StepRecord] = []
        wanted = _whole("steps", steps)
        if self.log is not None:
            self.log.begin(self.done, resumed=self._resumed)
        try:
            self._save_if_new()
            while len(records) < wanted and not self._stopping:
                records.append(self._advance())
            self._save_if_new()
        finally:
            self._stopping = False
            if self.log is not None:
                self.log.close()
        stopped = len(records) < wanted
        return RunResult(tuple(records), self.done, self.skipped, stopped, self._nonfinite_since)

    def stop(self) -> None:
        """Let `run` end after the step that is being done; also from a signal handler."""
        self._stopping = True

    def _advance(self) -> StepRecord:
        """Do one step, and tell everyone."""
        start = time.perf_counter()
        inputs, targets = next(self._batches)
        epoch = self.loader.epoch
        report = self.step(inputs, targets)
        self.done += 1
        record = StepRecord(
            self.done, epoch, report.loss, report.loss_scale, report.skipped, report.nonfinite,
            report.grad_norm, round(time.perf_counter() - start, 6),
        )  # fmt: skip
        self.skipped += report.skipped
        if self.scheduler is not None and not report.skipped:
            self.scheduler.step()
        finite = math.isfinite(report.loss)
        self._nonfinite_since = None if finite else self._nonfinite_since or self.done
        if self.log is not None:
            self.log.append(record)
        if self.on_step is not None:
            self.on_step(record)
        if self.checkpoint_every and self.done % self.checkpoint_every == 0:
            self.save()
        self._stopping |= self.stop_on_divergence and not finite
        return record

    def evaluate(self) -> dict[str, float]:
        """Judge the model on the test data, see :func:`evaluate`.

        Raises:
            SettingError: the trainer was given no test data.
        """
        if self.test is None:
            raise SettingError("there is no test data to judge by: make the Trainer with test=...")
        step = self.step
        layers = step.fp8_layers.values() if step.fp8_layers else None
        return evaluate(step.model, self.test, step.recipe, loss_fn=step.loss_fn, fp8_layers=layers)

    # ---- state ------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the run, as `mp.save` takes it."""
        return {
            "schema": SCHEMA,
            "step": self.done,
            "skipped": self.skipped,
            "nonfinite_since": self._nonfinite_since,
            "settings": dict(self.settings),
            "notes": dict(self.notes),
            "model": self.step.model.state_dict(),
            "optimizer": self.step.optimizer.state_dict(),
            "scheduler": None if self.scheduler is None else self.scheduler.state_dict(),
            "scaler": self.step.scaler.state_dict(),
            "rng": get_rng_state(),
            "loader": self.loader.state_dict(),
            **({"fp8": fp8.state_dict(self.step.model)} if self._scales_last else {}),
        }

    @property
    def _scales_last(self) -> bool:
        """Whether FP8 scales are carried from step to step."""
        rule = self.step.recipe.fp8
        return rule is not None and rule.has_history

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state; nothing has changed if it is refused.

        Raises:
            CheckpointError: it is no state of a run, or was saved with other settings or data; the message
                names the first that differs.
            MinimpError: a part of it does not fit the model, the optimizer or the scaler.
        """
        _check_parts(state)
        _check_settings(state["settings"], self.settings)
        if self._scales_last != ("fp8" in state):
            raise CheckpointError("its FP8 scales are missing, or of another run", op="Trainer")
        before = self.state_dict()
        try:
            self._take(state)
        except MinimpError:
            self._take(before)
            raise
        self._resumed = True

    def _take(self, state: Mapping[str, Any]) -> None:
        self.loader.load_state_dict(state["loader"])
        self.step.model.load_state_dict(state["model"])
        self.step.optimizer.load_state_dict(state["optimizer"])
        if self.scheduler is not None:
            self.scheduler.load_state_dict(state["scheduler"])
        self.step.scaler.load_state_dict(state["scaler"])
        if self._scales_last:
            fp8.load_state_dict(self.step.model, state["fp8"])
        set_rng_state(state["rng"])
        self.done, self.skipped = state["step"], state["skipped"]
        self._nonfinite_since = state["nonfinite_since"]
        self._saved = None
        self._batches = self.loader.cycle()

    def save(self, path: AnyPath | None = None) -> Path:
        """Write the state to a file, whole or not at all, and return its path.

        Args:
            path: None takes the trainer's `checkpoint`.

        Raises:
            SettingError: there is no path.
            CheckpointError: the file cannot be written; what was there before is untouched.
        """
        target = self._path(path)
        if self.log is not None:
            self.log.sync()  # the checkpoint counts on the lines before it
        files.save(target, self.state_dict(), meta={"minimp_kind": "run", "step": str(self.done)})
        if path is None:
            self._saved = self.done
        return target

    def _save_if_new(self) -> None:
        if self.checkpoint is not None and self._saved != self.done:
            self.save()

    def resume(self, path: AnyPath | None = None) -> None:
        """Go on from a checkpoint that :meth:`save` wrote; `run` then cuts the log back to its step.

        Args:
            path: None takes the trainer's `checkpoint`.

        Raises:
            SettingError: there is no path.
            CheckpointError: the file is missing, damaged or of another run; nothing has changed then.
        """
        source = self._path(path)
        self.load_state_dict(files.load(source, require_checksum=True))
        if path is None:
            self._saved = self.done

    def _path(self, path: AnyPath | None) -> Path:
        chosen = self.checkpoint if path is None else Path(path)
        if chosen is None:
            raise SettingError("there is no file: give a path, or make the Trainer with checkpoint=...")
        return chosen


def _whole(name: str, value: object) -> int:
    """Return a whole number of 0 or more."""
    try:
        number = -1 if isinstance(value, bool) else operator.index(value)  # type: ignore[arg-type]  # what is no integer raises TypeError here
    except TypeError:
        number = -1
    if number < 0:
        raise SettingError(f"{name} must be a whole number of 0 or more, got {value!r}", op="Trainer")
    return number


def _checked_scheduler(scheduler: LRScheduler | None, step: TrainStep) -> LRScheduler | None:
    """Return a scheduler that can be stepped after each update of the step's optimizer."""
    if scheduler is None:
        return None
    if getattr(scheduler, "optimizer", None) is not step.optimizer:
        raise SettingError(
            "the scheduler is not one of the step's optimizer",
            op="Trainer", help="make it from the optimizer that TrainStep was given",
        )  # fmt: skip
    wanted = [each for each in signature(scheduler.step).parameters.values() if each.default is each.empty]
    if wanted:
        raise SettingError(
            f"{type(scheduler).__name__}.step needs {wanted[0].name!r}, which the Trainer does not have",
            op="Trainer", help="call its step yourself, in on_step or between calls of run",
        )  # fmt: skip
    return scheduler


def _settings_of(step: TrainStep) -> dict[str, Any]:
    """Return the settings of a step by name, as plain values."""
    return {
        **recipe_settings(step.recipe),
        "optimizer": type(step.optimizer).__name__,
        "max_norm": step.max_norm,
        "micro_batches": step.micro_batches,
        **({"fp8_layers": ", ".join(step.fp8_layers)} if step.fp8_layers else {}),
    }


def recipe_settings(recipe: Recipe) -> dict[str, Any]:
    """Return the choices of a recipe as plain values; its name comes first."""
    policy = recipe.policy
    if policy is not None and not isinstance(policy, str):
        rules = sorted((op, kind.value) for op, kind in policy.rules.items())
        policy = f"{policy.name} (sha256 of its rules: {sha256(repr(rules).encode()).hexdigest()[:16]})"
    return {
        "recipe": recipe.name,
        "recipe.param_dtype": recipe.param_dtype.name,
        "recipe.compute_dtype": recipe.compute_dtype.name,
        "recipe.master_weights": recipe.master_weights,
        "recipe.loss_scale": recipe.loss_scale,
        "recipe.accumulate": recipe.accumulate,
        "recipe.policy": policy,
        "recipe.update": recipe.update,
        "recipe.fp8": None if recipe.fp8 is None else repr(recipe.fp8),
    }


def _check_parts(state: Any) -> None:
    """Refuse what is not the state of a run; one with FP8 scales has a part more."""
    if not isinstance(state, Mapping) or set(state) - {"fp8"} != PARTS:
        raise CheckpointError(
            "it does not hold the state of a run",
            op="Trainer", help="give the file that Trainer.save wrote; weights alone cannot be resumed from",
        )  # fmt: skip
    if state["schema"] != SCHEMA or any(type(state[name]) is not int for name in ("step", "skipped")):
        raise CheckpointError(
            f"the state has schema {state['schema']!r}, this minimp reads {SCHEMA}",
            op="Trainer", help="resume with the minimp that wrote it",
        )  # fmt: skip


def _check_settings(saved: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
    """Refuse a state that was saved with other settings, naming the first that differs."""
    for name in [*ours, *saved]:
        was, now = saved.get(name), ours.get(name)
        if was != now or type(was) is not type(now):
            raise CheckpointError(
                f"the run was saved with {name}={was!r}, and is to be resumed with {name}={now!r}",
                op="Trainer", help="resume with the settings of the saved run, or begin a new one",
            )  # fmt: skip
