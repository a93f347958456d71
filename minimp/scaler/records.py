"""What a scaler remembers of each optimizer between two updates, and what it tells about a step."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from minimp.scaler.naming import listing
from minimp.scaler.telling import tell_step

__all__ = ["Record", "ScalerStep", "Stage", "WithReports"]

REPORTS_KEPT = 100
"""As many steps as :attr:`WithReports.reports` goes back."""


class Stage(Enum):
    """How far an optimizer has come since the last update."""

    READY = "ready"
    UNSCALED = "unscaled"
    STEPPED = "stepped"


@dataclass(slots=True)
class Record:
    """What happened to one optimizer since the last update.

    Attributes:
        optimizer: the optimizer; held so that its id stays its own.
        stage: how far it has come.
        place: how many optimizers came before it.
        checked: how many gradients were looked at.
        nonfinite: the names of the parameters with an infinite or NaN gradient.
        report: what became of its step.
    """

    optimizer: Any
    place: int = 0
    stage: Stage = Stage.READY
    checked: int = 0
    nonfinite: tuple[str, ...] = ()
    report: ScalerStep | None = None


@dataclass(frozen=True, slots=True)
class ScalerStep:
    """What became of one :meth:`minimp.GradScaler.step`.

    Attributes:
        skipped: whether the step was left out.
        nonfinite: the parameters whose gradient was infinite or NaN: by name where names are known
            (:meth:`minimp.GradScaler.name_parameters`), else by place.
        consecutive_skips: how many steps in a row have been skipped, this one included.
        scale: the loss scale of the step.
        checked: how many gradients were looked at; 0 where scaling is disabled.
        optimizer: the class of the optimizer.
        place: which optimizer it was since the last update: 0 for the first.
        returned: what `optimizer.step` returned (in PyTorch `GradScaler.step` returns just this); None if it
            was not run.
    """

    skipped: bool
    nonfinite: tuple[str, ...]
    consecutive_skips: int
    scale: float
    checked: int = 0
    optimizer: str = "optimizer"
    place: int = 0
    returned: Any = None

    def __str__(self) -> str:
        """Say it in one line."""
        who = self.optimizer + (f" (number {self.place + 1})" if self.place else "")
        if not self.skipped:
            return f"{who} stepped at loss scale {self.scale:g}: {self.checked} gradients checked"
        bad = f"{len(self.nonfinite)} of {self.checked} gradients not finite: {listing(self.nonfinite)}"
        return f"{who} skipped ({self.consecutive_skips} in a row) at loss scale {self.scale:g}: {bad}"


class WithReports:
    """What a scaler remembers of its optimizers since the last update, and of its last steps.

    Attributes:
        last_step: the report of the last step, None before the first.
    """

    last_step: ScalerStep | None
    _reports: deque[ScalerStep]
    _records: dict[int, Record]

    def _forget_steps(self) -> None:
        self.last_step, self._reports, self._records = None, deque(maxlen=REPORTS_KEPT), {}

    @property
    def reports(self) -> tuple[ScalerStep, ...]:
        """The last 100 steps, the oldest first, without what was returned; several optimizers one by one."""
        return tuple(self._reports)

    def report_of(self, optimizer: Any) -> ScalerStep | None:
        """Return the report of the optimizer's step since the last update, None if there was no step."""
        record = self._records.get(id(optimizer))
        return None if record is None else record.report

    def _record(self, optimizer: Any) -> Record:
        return self._records.setdefault(id(optimizer), Record(optimizer, place=len(self._records)))

    def _report(self, record: Record, scale: float, skips: int, returned: Any) -> ScalerStep:
        """Make and keep the report of a step; `skips`: how many in a row were skipped before it."""
        bad = bool(record.nonfinite)
        told = ScalerStep(
            bad, record.nonfinite, skips + 1 if bad else 0, scale, record.checked,
            type(record.optimizer).__name__, record.place, returned,
        )  # fmt: skip
        self.last_step = record.report = told
        self._reports.append(replace(told, returned=None))  # what was returned may hold a whole tape
        tell_step(self, record.optimizer, told)
        return told
