"""What a scaler remembers of each optimizer between two updates, and what it tells about a step."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

from minimp.scaler.gradients import listing

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
        checked: whether any gradient was looked at.
        nonfinite: the names of the parameters with an infinite or NaN gradient.
    """

    optimizer: Any
    stage: Stage = Stage.READY
    checked: bool = False
    nonfinite: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ScalerStep:
    """What became of the last :meth:`minimp.GradScaler.step`.

    Attributes:
        skipped: whether the optimizer was left out.
        nonfinite: the parameters whose gradient was infinite or NaN: by name where names are known
            (:meth:`minimp.GradScaler.name_parameters`), else by place.
        consecutive_skips: how many steps in a row have been skipped, this one included.
        scale: the loss scale of the step.
    """

    skipped: bool
    nonfinite: tuple[str, ...]
    consecutive_skips: int
    scale: float

    def __str__(self) -> str:
        """Say it in one line."""
        if not self.skipped:
            return f"stepped at loss scale {self.scale:g}"
        where, count = listing(self.nonfinite), self.consecutive_skips
        return f"skipped ({count} in a row) at loss scale {self.scale:g}: not finite in {where}"
