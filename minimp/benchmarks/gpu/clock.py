"""Clocks for work that a device does behind the host's back."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from minimp_backends.array_backend import ArrayBackend as Backend

__all__ = ["DeviceClock", "EventClock", "HostClock", "clock_of"]

Call = Callable[[], object]


class DeviceClock(Protocol):
    """Tells how long a device takes for calls."""

    name: str

    def seconds(self, call: Call, repeats: int) -> float:
        """Return the seconds of one call, the mean of `repeats` that follow each other without a wait."""


class EventClock:
    """Events that the GPU itself stamps, before and after the calls; the host waits for the second alone.

    They go into CuPy's current stream. That is the legacy default stream unless somebody chose another, and
    PyTorch's default stream is the same one (torch 2.13, CUDA semantics), so torch is timed by them as well.
    Where the host takes longer to launch than the GPU to compute, the host's time is seen, as a user sees it.

    Args:
        cuda: the module `cupy.cuda`.
    """

    name = "CUDA events"

    def __init__(self, cuda: Any) -> None:
        self.cuda = cuda

    def seconds(self, call: Call, repeats: int) -> float:
        """Return the seconds of one call, the mean of `repeats` that follow each other without a wait."""
        begin, end = self.cuda.Event(), self.cuda.Event()
        begin.record()
        for _ in range(repeats):
            call()
        end.record()
        end.synchronize()
        return float(self.cuda.get_elapsed_time(begin, end)) / 1e3 / repeats


class HostClock:
    """The host's clock, with a wait for the device before and after: for devices without events.

    Args:
        wait: waits until the device has done what it was given.
        now: returns seconds.
    """

    name = "the host's clock"

    def __init__(self, wait: Call, now: Callable[[], float] = time.perf_counter) -> None:
        self.wait, self.now = wait, now

    def seconds(self, call: Call, repeats: int) -> float:
        """Return the seconds of one call, the mean of `repeats` that follow each other without a wait."""
        self.wait()
        start = self.now()
        for _ in range(repeats):
            call()
        self.wait()
        return (self.now() - start) / repeats


def clock_of(backend: Backend) -> DeviceClock:
    """Return the clock of a backend: events where its arrays are CuPy's own."""
    xp: Any = backend.xp
    return EventClock(xp.cuda) if hasattr(xp, "cuda") else HostClock(backend.synchronize)
