"""Timing that ratios can be taken from: all contenders in turn, round after round, medians."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping

__all__ = ["interleave"]


def interleave(
    contenders: Mapping[str, Callable[[], object]], rounds: int, *, warm_up: int = 2,
    on_round: Callable[[int], None] | None = None,
) -> dict[str, list[float]]:  # fmt: skip
    """Run every contender once a round; return the processor seconds of each call, warm-up left out.

    Processor time counts what the process did, not what else the machine was doing. The garbage collector
    runs between calls, not inside them.

    Args:
        contenders: name -> what to time.
        rounds: calls of each that count.
        warm_up: rounds before those.
        on_round: called after each round with its number from 1, warm-up included.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(1, rounds + warm_up + 1):
        for name, call in contenders.items():
            spent = _seconds(call)
            if number > warm_up:
                seconds[name].append(spent)
        if on_round is not None:
            on_round(number)
    return seconds


def _seconds(call: Callable[[], object]) -> float:
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        start = time.process_time()
        call()
        return time.process_time() - start
    finally:
        if collecting:
            gc.enable()


def medians(seconds: Mapping[str, list[float]]) -> dict[str, float]:
    """Return the median of each contender's times."""
    return {name: statistics.median(times) for name, times in seconds.items()}
