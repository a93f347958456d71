"""What a scaler remembers of each optimizer between two updates, and what it tells about a step."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

from minimp.scaler.naming import listing

__all__ = ["Record", "ScalerStep", "Stage"]


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
