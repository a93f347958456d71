"""`minimp train --trace DIR`: recording some steps of a run."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from minimp.cli.train_settings import TrainSettings
from minimp.errors import DataError, SettingError
from minimp.runlog import StepRecord
from minimp.trace import record, sampled
from minimp.trace.values import Values
from minimp.trainer import Trainer

__all__ = ["Tracing", "add_trace_options", "step_numbers"]

FIRST = 10
"""So many steps are recorded where --trace-steps does not say which."""
OPTIONS = ("trace_steps", "shadow", "values", "no_statistics")
OnStep = Callable[[StepRecord], object]


def add_trace_options(add: Callable[..., object]) -> None:
    """Add the options of recording."""
    add(
        "--trace",
        type=Path,
        metavar="DIR",
        help="record steps into the new folder DIR; read it by minimp trace",
    )
    add("--trace-steps", metavar="LIST",
        help=f"the steps to record, as 1-10,100 (default: the first {FIRST} of this command)")  # fmt: skip
    add("--shadow", action="store_true", default=None, help="with --trace: compute each op in float64 too")
    add("--values", metavar="N", help="with --trace: keep N elements of each array, or all")
    add("--no-statistics", action="store_true", default=None, help="with --trace: names and times alone")


class Tracing:
    """The options of recording, looked at before the training begins.

    Args:
        args: the command's options.
        settings: of the run.
        state: what a checkpoint holds of a run that is resumed, or None.

    Raises:
        SettingError: options that cannot act, or that cannot be read.
        DataError: the folder holds something, or cannot be made.
    """

    def __init__(
        self, args: argparse.Namespace, settings: TrainSettings, state: Mapping[str, Any] | None
    ) -> None:
        self.folder: Path | None = args.trace
        self.recorded = 0
        if self.folder is None:
            for name in OPTIONS:
                if getattr(args, name) is not None:
                    option = f"--{name.replace('_', '-')}"
                    raise SettingError(f"{option} cannot act without --trace DIR", help="name the folder")
            return
        first = 1 if state is None else int(state["step"]) + 1
        self.steps = range(first, first + FIRST)
        self._chosen = None if args.trace_steps is None else step_numbers(args.trace_steps)
        if self._chosen is not None and not any(first <= step <= settings.steps for step in self._chosen):
            raise SettingError(
                f"--trace-steps {args.trace_steps} names no step that will be done: "
                f"those are {first} to {settings.steps}"
            )
        self._options: dict[str, Any] = {
            "statistics": not args.no_statistics, "shadow": bool(args.shadow), "values": _values(args.values)
        }  # fmt: skip
        record(**self._options)  # options that contradict each other are refused now
        _check_folder(self.folder)

    def wants(self, step: int) -> bool:
        """Tell whether a step is recorded."""
        return step in (self.steps if self._chosen is None else self._chosen)

    @contextmanager
    def of(self, trainer: Trainer, show: OnStep) -> Iterator[OnStep]:
        """Record the steps of a trainer in the block; yield what it is to call after each step."""
        if self.folder is None:
            yield show
            return
        recording = record(spill=self.folder, model=trainer.step.model, **self._options)
        with recording:

            def prepare(step: int) -> None:
                if self.wants(step):
                    recording.go_on(step)
                else:
                    recording.pause()

            def on_step(done: StepRecord) -> None:
                self.recorded += self.wants(done.step)
                prepare(done.step + 1)
                show(done)

            prepare(trainer.done + 1)
            yield on_step

    def say(self, screen: Console) -> None:
        """Say where the trace is."""
        if self.folder is not None:
            text = f"recorded {self.recorded:,} steps; ask them: minimp trace {self.folder}"
            screen.print(text, soft_wrap=True, highlight=False, markup=False)


def step_numbers(text: str) -> frozenset[int]:
    """Return the steps that a list names.

    >>> sorted(step_numbers("1-3,10"))
    [1, 2, 3, 10]

    Raises:
        SettingError: it is no list of whole numbers from 1 and ranges.
    """
    found: set[int] = set()
    for part in text.split(","):
        low, dash, high = part.strip().partition("-")
        ends = [low, high if dash else low]
        if not all(end.isascii() and end.isdigit() for end in ends) or not 1 <= int(low) <= int(ends[1]):
            raise SettingError(f"--trace-steps takes numbers from 1 and ranges, as 1-10,100; got {text!r}")
        if int(ends[1]) - int(low) > 1_000_000:
            raise SettingError(f"--trace-steps {text} names more than a million steps")
        found |= set(range(int(low), int(ends[1]) + 1))
    return frozenset(found)


def _values(text: str | None) -> str | Values:
    if text is None or text == "all":
        return "none" if text is None else "all"
    if not (text.isascii() and text.isdigit()):
        raise SettingError(f"--values takes a number of elements, or all; got {text!r}")
    return sampled(int(text))


def _check_folder(path: Path) -> None:
    """Refuse a folder that a recording cannot be written to, before anything is made."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise DataError(f"{path}: there is something there already", op="--trace", help="name a new folder")
    if not path.parent.is_dir():
        raise DataError(f"{path}: its folder does not exist", op="--trace", help="name one that exists")
