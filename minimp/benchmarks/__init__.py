"""Benchmarks: ratios from one interleaved run, medians of processor time, one BLAS thread."""

from minimp.benchmarks.figure import Figure
from minimp.benchmarks.machine import describe_machine
from minimp.benchmarks.suite import StepTimes, add_overhead, step_times, trajectory_gap
from minimp.benchmarks.timing import interleave

__all__ = [
    "Figure", "StepTimes", "add_overhead", "describe_machine", "interleave", "step_times", "trajectory_gap",
]  # fmt: skip
