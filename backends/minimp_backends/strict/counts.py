"""What a device does that costs time behind one's back: waits, transfers, allocations; and its queue.

There is one device, :data:`DEVICE`, as there is one host.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

__all__ = ["DEVICE", "Counts", "Device", "Options"]


@dataclass(slots=True)
class Counts:
    """What happened in a block, see :meth:`Device.counting`.

    Attributes:
        syncs: how often the host waited for the device: a value was read, or the size of a result.
        to_device, to_device_bytes: copies from the host to the device, and their bytes.
        to_host, to_host_bytes: copies from the device to the host, and their bytes.
        allocations, allocated_bytes: arrays with memory of their own, and their bytes.
    """

    syncs: int = 0
    to_device: int = 0
    to_device_bytes: int = 0
    to_host: int = 0
    to_host_bytes: int = 0
    allocations: int = 0
    allocated_bytes: int = 0

    def add(self, **more: int) -> None:
        """Count."""
        for name, number in more.items():
            setattr(self, name, getattr(self, name) + number)


@dataclass(frozen=True, slots=True)
class Options:
    """How far the device behaves as GPUs do where NumPy is kinder.

    Attributes:
        wrap_index: indices that are out of range wrap around, and raise nothing.
        undefined_duplicates: where several values are put in one place, chance says which stays.
        half_cub_sum: float16 is summed in float16 unless a dtype is said.
        ftz: float32 results below 2^-126 are flushed to zero.
        poison_empty: memory that was not written yet holds NaN, and 0xAA in integers.
        queue: a fault in a kernel is raised only when the host next waits; until then its results are NaN.
    """

    wrap_index: bool = False
    undefined_duplicates: bool = False
    half_cub_sum: bool = True
    ftz: bool = False
    poison_empty: bool = True
    queue: bool = False


@dataclass(slots=True)
class Device:
    """The state of the device: options, who counts, and what has gone wrong unseen."""

    options: Options = field(default_factory=Options)
    counters: list[Counts] = field(default_factory=list)
    faults: list[Exception] = field(default_factory=list)
    dice: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    @contextmanager
    def counting(self) -> Iterator[Counts]:
        """Count what happens in a `with` block."""
        counts = Counts()
        self.counters.append(counts)
        try:
            yield counts
        finally:
            self.counters[:] = [each for each in self.counters if each is not counts]

    @contextmanager
    def behaving(self, **options: bool) -> Iterator[Options]:
        """Change options for a `with` block."""
        before, self.options = self.options, replace(self.options, **options)
        try:
            yield self.options
        finally:
            self.options = before

    def count(self, **more: int) -> None:
        """Tell all who count."""
        for each in self.counters:
            each.add(**more)

    def wait(self) -> None:
        """Let the host wait for the device: a fault in the queue comes out now."""
        self.count(syncs=1)
        if self.faults:
            fault, self.faults[:] = self.faults[0], []
            raise fault

    def read(self, held: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Copy to the host, which waits."""
        self.wait()
        self.count(to_host=1, to_host_bytes=held.nbytes)
        return held.copy()

    def launch(self, kernel: Callable[[], Any]) -> Any:
        """Run what would run on the device; in queue mode, keep its fault and return None."""
        try:
            return kernel()
        except Exception as fault:  # whatever a kernel raises is its fault
            if not self.options.queue:
                raise
            self.faults.append(fault)
            return None

    def allocated(self, held: np.ndarray[Any, Any]) -> None:
        """Count an array with memory of its own."""
        if self.counters:
            self.count(allocations=1, allocated_bytes=held.nbytes)


DEVICE = Device()
"""The device."""
