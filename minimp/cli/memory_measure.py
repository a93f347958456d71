"""A real step beside the forecast: the ledger, and what NumPy, or a GPU's memory pool, says that it holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from minimp import memory
from minimp.errors import SettingError
from minimp.memory.witnesses import witness
from minimp.optim import Optimizer
from minimp.recipe import recipes
from minimp.scaler import GradScaler
from minimp.step import TrainStep

if TYPE_CHECKING:
    from minimp.cli.memory import Subject

__all__ = ["Measured", "measured"]

TRIES = 20
"""Steps in which a dynamic loss scale is to find a scale that overflows nowhere."""


@dataclass(frozen=True)
class Measured:
    """What a real step held.

    Attributes:
        ledger: the ledger, measured.
        traced: moment -> what the witness held then, above what it held before the model was made, with the
            scratch that was there already.
        peak: the most that it held during the step: what kernels need on the way is in it.
        witness: who says so: tracemalloc of NumPy's arrays, or the GPU's memory pool.
    """

    ledger: memory.Ledger
    traced: Mapping[str, int]
    peak: int
    witness: str = "tracemalloc"

    def details(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            **self.ledger.details(), "traced": dict(self.traced), "traced_peak": self.peak,
            "witness": self.witness,
        }  # fmt: skip


def measured(subject: Subject, recipe: str, optimizer: Callable[[Any], Optimizer]) -> Measured:
    """Train on one batch until the optimizer has its state, then measure a step.

    Raises:
        SettingError: no step that is not skipped.
    """
    inputs, targets = subject.real_batch()
    traced: dict[str, int] = {}
    with witness() as asked:
        before = asked.used() - asked.kept()
        model = subject.make()
        scaler = GradScaler(init_scale=1024.0) if recipes[recipe].loss_scale == "dynamic" else None
        step = TrainStep(model, subject.kind.loss_fn, optimizer(model.parameters()), recipe, scaler=scaler)
        for _ in range(TRIES):
            if not step(inputs, targets).skipped:
                break
        else:
            raise SettingError(f"{recipe}: {TRIES} steps were skipped, so nothing can be measured")

        def note(moment: str) -> None:
            traced[moment] = asked.used() - before

        at_start = asked.used() - before
        rise = asked.rise(lambda: step(inputs, targets))
        held = memory.measure(step, inputs, targets, on_moment=note)
    return Measured(held, traced, at_start + rise, asked.name)
