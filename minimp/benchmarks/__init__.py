"""Benchmarks: ratios from one interleaved run, medians of processor time, one BLAS thread."""

from minimp.benchmarks.figure import Figure
from minimp.benchmarks.machine import describe_machine
from minimp.benchmarks.overhead import tape_figures
from minimp.benchmarks.suite import StepTimes, step_times, trajectory_gap
from minimp.benchmarks.timing import interleave

__all__ = [
    "Figure", "StepTimes", "describe_machine", "interleave", "step_times", "tape_figures", "trajectory_gap",
]  # fmt: skip
