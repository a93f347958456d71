"""Who is asked for the bytes that a process holds, beside the ledger: tracemalloc, or a GPU's memory pool."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from minimp.backend import default_backend, get_backend
from minimp.memory.counting import scratch_bytes

__all__ = ["NumpyWitness", "PoolWitness", "witness"]


class NumpyWitness:
    """What NumPy holds, by tracemalloc; the strict device's arrays are NumPy's, too."""

    name = "tracemalloc"

    def used(self) -> int:
        """Return the bytes that NumPy holds, without scratch that is none of the backend's own."""
        besides = scratch_bytes(get_backend("numpy")) - self.kept()  # asked first: some is made by asking
        numpys = [tracemalloc.DomainFilter(True, np.lib.tracemalloc_domain)]
        held = sum(trace.size for trace in tracemalloc.take_snapshot().filter_traces(numpys).traces)
        return held - besides

    def kept(self) -> int:
        """Return the scratch that is there before anything is made, and that the ledger counts."""
        return scratch_bytes(default_backend())

    def rise(self, call: Callable[[], object]) -> int:
        """Return how far the bytes rise above their start during a call."""
        tracemalloc.reset_peak()
        start, _ = tracemalloc.get_traced_memory()
        call()
        return tracemalloc.get_traced_memory()[1] - start


class PoolWitness:
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
def witness() -> Iterator[NumpyWitness | PoolWitness]:
    """Give who is asked for bytes of the default backend; NumPy's are traced, if nobody does yet."""
    pool = getattr(default_backend(), "memory", None)
    if pool is not None:
        yield PoolWitness(pool)
        return
    own = not tracemalloc.is_tracing()
    if own:
        tracemalloc.start()
    try:
        yield NumpyWitness()
    finally:
        if own:
            tracemalloc.stop()
