"""A real step beside the forecast: the ledger, and what NumPy, or a GPU's memory pool, says that it holds."""

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
    with _witness() as witness:
        before = witness.used() - witness.kept()
        model = subject.make()
        scaler = GradScaler(init_scale=1024.0) if recipes[recipe].loss_scale == "dynamic" else None
        step = TrainStep(model, subject.kind.loss_fn, optimizer(model.parameters()), recipe, scaler=scaler)
        for _ in range(TRIES):
            if not step(inputs, targets).skipped:
                break
        else:
            raise SettingError(f"{recipe}: {TRIES} steps were skipped, so nothing can be measured")

        def note(moment: str) -> None:
            traced[moment] = witness.used() - before

        at_start = witness.used() - before
        rise = witness.rise(lambda: step(inputs, targets))
        held = memory.measure(step, inputs, targets, on_moment=note)
    return Measured(held, traced, at_start + rise, witness.name)


class _NumpyWitness:
    """What NumPy holds, by tracemalloc; the strict device's arrays are NumPy's, too."""

    name = "tracemalloc"

    def used(self) -> int:
        """Return the bytes that NumPy holds."""
        numpys = [tracemalloc.DomainFilter(True, np.lib.tracemalloc_domain)]
        return sum(trace.size for trace in tracemalloc.take_snapshot().filter_traces(numpys).traces)

    def kept(self) -> int:
        """Return the scratch that is there before anything is made, and that the ledger counts."""
        return memory.scratch_bytes(default_backend())

    def rise(self, call: Callable[[], object]) -> int:
        """Return how far the bytes rise above their start during a call."""
        tracemalloc.reset_peak()
        start, _ = tracemalloc.get_traced_memory()
        call()
        return tracemalloc.get_traced_memory()[1] - start


class _PoolWitness:
    """What arrays hold of a GPU's memory pool; it rounds each up to a multiple of 512 bytes."""

    name = "memory pool"

    def __init__(self, pool: Any) -> None:
        self.pool = pool

    def used(self) -> int:
        """Return the bytes that arrays hold."""
        return int(self.pool.figures().used)

    def kept(self) -> int:
        """Return 0: what the pool keeps free is in no array."""
        return 0

    def rise(self, call: Callable[[], object]) -> int:
        """Return how far the bytes rise above their start during a call."""
        self.pool.reset_peak()
        start = self.used()
        call()
        return int(self.pool.figures().peak) - start


@contextmanager
def _witness() -> Iterator[_NumpyWitness | _PoolWitness]:
    """Give who is asked for bytes; NumPy's allocations are traced, unless somebody does already."""
    pool = getattr(default_backend(), "memory", None)
    if pool is not None:
        yield _PoolWitness(pool)
        return
    own = not tracemalloc.is_tracing()
    if own:
        tracemalloc.start()
    try:
        yield _NumpyWitness()
    finally:
        if own:
            tracemalloc.stop()
