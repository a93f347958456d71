"""What a recording costs: whole mixed-fp16 steps of an MLP, recorded, beside the same as they are."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from types import FunctionType
from typing import Any

from minimp.benchmarks.figure import Figure
from minimp.benchmarks.listening import deaf_codes, running
from minimp.benchmarks.timing import Clock, interleave, processor_time
from minimp.benchmarks.workloads import WORKLOADS, minimp_step
from minimp.step import TrainStep
from minimp.trace import record

__all__ = ["AIMS", "trace_contenders", "trace_figures"]

WORKLOAD, RECIPE = "mlp", "mixed-fp16"
HOOKLESS, HOOKLESS_AGAIN, OFF, OFF_AGAIN = "hookless", "hookless again", "off", "off again"
PLAIN, STATISTICS, SHADOW = "plain", "statistics", "shadow"
STEPS = 4
"""Steps that are timed together, where 2 % are looked for."""
Contenders = dict[str, Callable[[], object]]
AIMS: Mapping[str, tuple[str, float]] = {
    OFF: ("trace: a step that is not recorded / the same without hooks", 1.02),
    STATISTICS: ("trace: a step recorded with statistics / not recorded", 3.0),
    SHADOW: ("trace: a step recorded with the float64 shadow / not recorded", 8.0),
}
"""Contender -> the figure's name, and its aim."""


def trace_contenders() -> tuple[Contenders, Contenders]:
    """Return name -> what is timed: what is compared at 2 % (each stands once before and once after the
    other), and the recordings beside a step as it is.

    The step has recorded before, so that "off" is what stays behind after a recording. Its copy without hooks
    neither asks for listeners at its ops, nor for watchers at its stages.
    """
    run = minimp_step(WORKLOADS[WORKLOAD], RECIPE)
    deaf = deaf_codes()
    deaf[_function(TrainStep._run)] = _function(TrainStep._carry_out).__code__

    def hookless() -> None:
        with running(deaf):
            for _ in range(STEPS):
                run()

    def off() -> None:
        for _ in range(STEPS):
            run()

    def recorded(**settings: Any) -> Callable[[], None]:
        def call() -> None:
            with record(**settings):
                run()

        return call

    with record():
        run()
    return (
        {OFF: off, HOOKLESS: hookless, HOOKLESS_AGAIN: hookless, OFF_AGAIN: off},
        {PLAIN: run, STATISTICS: recorded(), SHADOW: recorded(shadow=True)},
    )


def _function(method: Any) -> FunctionType:
    """Return a method of a class as what it is, a function."""
    assert isinstance(method, FunctionType)
    return method


def trace_figures(rounds: int, *, clock: Clock = processor_time) -> list[Figure]:
    """Time every contender in turn; return the ratios, each the median over the rounds."""
    small, large = (interleave(each, rounds, clock=clock) for each in trace_contenders())
    ratios = {
        OFF: _ratio([small[OFF], small[OFF_AGAIN]], [small[HOOKLESS], small[HOOKLESS_AGAIN]]),
        STATISTICS: _ratio([large[STATISTICS]], [large[PLAIN]]),
        SHADOW: _ratio([large[SHADOW]], [large[PLAIN]]),
    }
    return [Figure(name, ratios[key], aim) for key, (name, aim) in AIMS.items()]


def _ratio(ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]]) -> float:
    """Return the median over the rounds of the one's sum over the other's."""
    sums = ([sum(parts) for parts in zip(*each, strict=True)] for each in (ours, theirs))
    ratios = [one / other for one, other in zip(*sums, strict=True)]
    return float(statistics.median(ratios))
