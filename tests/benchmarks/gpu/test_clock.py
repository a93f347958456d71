"""Clocks of devices; oracles: a device whose time is counted by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from minimp.backend import get_backend
from minimp.benchmarks.gpu import EventClock, HostClock, clock_of


class Gpu:
    """A GPU that does what it was given when somebody waits: a call takes 2 ms of it, none of the host."""

    def __init__(self) -> None:
        self.queue: list[Any] = []
        self.done_at = 5.0  # ms; something ran before
        self.waits = 0

    def launch(self) -> None:
        """Give it work."""
        self.queue.append(None)

    def wait(self) -> None:
        """Let it do its work, in order."""
        self.waits += 1
        for event in self.queue:
            if event is None:
                self.done_at += 2.0
            else:
                event.stamp = self.done_at
        self.queue.clear()


def cuda_of(gpu: Gpu) -> Any:
    """Return what stands for `cupy.cuda`, with the names and units of its events (milliseconds)."""

    class Event:
        stamp: float | None = None

        def record(self) -> None:
            gpu.queue.append(self)

        def synchronize(self) -> None:
            gpu.wait()

    return SimpleNamespace(Event=Event, get_elapsed_time=lambda begin, end: end.stamp - begin.stamp)


@pytest.mark.parametrize("repeats", [1, 7])
def test_events_time_what_the_gpu_does(repeats: int) -> None:
    """Oracle: 2 ms a call, whatever was done before, and one wait of the host."""
    gpu = Gpu()
    gpu.launch()
    assert EventClock(cuda_of(gpu)).seconds(gpu.launch, repeats) == pytest.approx(2e-3)
    assert gpu.waits == 1


def test_the_hosts_clock_waits_before_and_after() -> None:
    """Oracle: work that was there before is not timed, work of the calls is."""
    gpu = Gpu()
    clock = HostClock(gpu.wait, now=lambda: gpu.done_at / 1e3)
    gpu.launch()
    assert clock.seconds(gpu.launch, 4) == pytest.approx(2e-3)
    assert gpu.waits == 2


def test_the_clock_of_a_backend() -> None:
    """Oracle: events where the namespace has CUDA's; elsewhere the backend's own wait."""
    strict = get_backend("strict")
    found = clock_of(strict)
    assert isinstance(found, HostClock)
    with strict.counting() as counts:  # type: ignore[attr-defined]  # the strict backend has it
        assert found.seconds(lambda: None, 1) >= 0
    assert counts.syncs == 2
    cupy: Any = SimpleNamespace(xp=SimpleNamespace(cuda=cuda_of(Gpu())))
    assert isinstance(clock_of(cupy), EventClock)
