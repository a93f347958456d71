"""A real step beside the forecast: the ledger, and what NumPy itself says that it holds."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from minimp import memory
from minimp.backend import default_backend
from minimp.errors import SettingError
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
        traced: moment -> what NumPy held then, by tracemalloc, above what it held before the model was made,
            with the scratch that was there already.
        peak: the most that NumPy held during the step: what kernels need on the way is in it.
    """

    ledger: memory.Ledger
    traced: Mapping[str, int]
    peak: int

    def details(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {**self.ledger.details(), "traced": dict(self.traced), "traced_peak": self.peak}


def measured(subject: Subject, recipe: str, optimizer: Callable[[Any], Optimizer]) -> Measured:
    """Train on one batch until the optimizer has its state, then measure a step.

    Raises:
        SettingError: no step that is not skipped.
    """
    inputs, targets = subject.real_batch()
    there = memory.scratch_bytes(default_backend())
    traced: dict[str, int] = {}
    with _tracing():
        before = _traced() - there
        model = subject.make()
        scaler = GradScaler(init_scale=1024.0) if recipes[recipe].loss_scale == "dynamic" else None
        step = TrainStep(model, subject.kind.loss_fn, optimizer(model.parameters()), recipe, scaler=scaler)
        for _ in range(TRIES):
            if not step(inputs, targets).skipped:
                break
        else:
            raise SettingError(f"{recipe}: {TRIES} steps were skipped, so nothing can be measured")

        def note(moment: str) -> None:
            traced[moment] = _traced() - before

        tracemalloc.reset_peak()
        start, _ = tracemalloc.get_traced_memory()
        at_start = _traced() - before
        step(inputs, targets)
        _, most = tracemalloc.get_traced_memory()
        held = memory.measure(step, inputs, targets, on_moment=note)
    return Measured(held, traced, at_start + most - start)


@contextmanager
def _tracing() -> Iterator[None]:
    """Trace allocations, unless somebody does already."""
    own = not tracemalloc.is_tracing()
    if own:
        tracemalloc.start()
    try:
        yield
    finally:
        if own:
            tracemalloc.stop()


def _traced() -> int:
    """Return the bytes that NumPy holds."""
    numpys = [tracemalloc.DomainFilter(True, np.lib.tracemalloc_domain)]
    return sum(trace.size for trace in tracemalloc.take_snapshot().filter_traces(numpys).traces)
