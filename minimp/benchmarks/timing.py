"""Timing that ratios can be taken from: all contenders in turn, round after round, medians."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np

__all__ = [
    "Clock", "interleave", "medians", "processor_time", "quiet_collector", "repeated", "repeats_for",
    "touch_memory", "wall_time",
]  # fmt: skip

Clock = Callable[[], float]
MOST_REPEATS = 1 << 14


def processor_time() -> float:
    """Return the seconds that this process has computed for, all its threads together."""
    return time.process_time()


def wall_time() -> float:
    """Return seconds that pass for everybody: what threads save shows only here."""
    return time.perf_counter()


def interleave(
    contenders: Mapping[str, Callable[[], object]], rounds: int, *, warm_up: int = 2,
    on_round: Callable[[int], None] | None = None, clock: Clock = processor_time,
) -> dict[str, list[float]]:  # fmt: skip
    """Run every contender once a round; return the seconds of each call, warm-up left out.

    Processor time counts what the process did, not what else the machine was doing. The garbage collector
    runs between calls, not inside them.

    Args:
        contenders: name -> what to time.
        rounds: calls of each that count.
        warm_up: rounds before those.
        on_round: called after each round with its number from 1, warm-up included.
        clock: what tells the seconds: processor time, if not said otherwise.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(1, rounds + warm_up + 1):
        for name, call in contenders.items():
            spent = _seconds(call, clock)
            if number > warm_up:
                seconds[name].append(spent)
        if on_round is not None:
            on_round(number)
    return seconds


def _seconds(call: Callable[[], object], clock: Clock) -> float:
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        start = clock()
        call()
        return clock() - start
    finally:
        if collecting:
            gc.enable()


def medians(seconds: Mapping[str, list[float]]) -> dict[str, float]:
    """Return the median of each contender's times."""
    return {name: statistics.median(times) for name, times in seconds.items()}


def repeats_for(call: Callable[[], object], least: float, *, clock: Clock = processor_time) -> int:
    """Return how often a call must be repeated to take `least` seconds, a power of two, by trying.

    The trial warms the call up. A clock of coarse steps is outrun by doubling.
    """
    repeats = 1
    while _seconds(repeated(call, repeats), clock) < least and repeats < MOST_REPEATS:
        repeats *= 2
    return repeats


def repeated(call: Callable[[], object], repeats: int) -> Callable[[], None]:
    """Return a function that makes the call `repeats` times."""

    def run() -> None:
        for _ in range(repeats):
            call()

    return run


def touch_memory(count: int) -> None:
    """Ask for `count` bytes, write to each page of them, and give them back.

    What was freed some seconds ago may be the system's again, and a virtual machine's may be its host's: who
    asks first pays for everybody. Here nobody is timed.
    """
    np.empty(count, np.uint8)[::_PAGE] = 0


_PAGE = 4096


@contextmanager
def quiet_collector() -> Iterator[None]:
    """Spare the collections between calls from looking, each time, at all that was there before.

    Where the program has frozen what it has already, that is left as it is: who unfreezes, unfreezes all.
    """
    gc.collect()
    if gc.get_freeze_count():
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
