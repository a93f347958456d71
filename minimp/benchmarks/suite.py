"""The figures of `minimp bench`, each with the ratio it is meant to reach."""

from __future__ import annotations

import gc
import importlib.util
import statistics
import time
import timeit
import tracemalloc
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import numpy as np

from minimp import tensor
from minimp.backend import default_backend
from minimp.benchmarks.figure import Figure
from minimp.benchmarks.mygrad_steps import mygrad_is_there, mygrad_step
from minimp.benchmarks.timing import interleave, medians
from minimp.benchmarks.workloads import WORKLOADS, Workload, minimp_step, torch_step

__all__ = [
    "StepTimes", "add_overhead", "mygrad_is_there", "step_peak", "step_times", "torch_is_there",
    "trajectory_gap",
]  # fmt: skip


@dataclass(frozen=True)
class StepTimes:
    """Median processor seconds of one training step, contender by contender, and the memory of ours.

    Attributes:
        workload: the workload.
        seconds: contender -> seconds.
        rounds: interleaved rounds that the medians are of.
        peaks: contender -> bytes at the peak of a step above those at its start, as tracemalloc sees them.
    """

    workload: str
    seconds: dict[str, float]
    rounds: int
    peaks: dict[str, int] = field(default_factory=dict)

    def figures(self) -> list[Figure]:
        """Return the ratios, and the peaks in MiB, that have a target."""
        found = []
        for (numerator, denominator), (at_most, targets) in TARGETS.items():
            both = numerator in self.seconds and denominator in self.seconds
            if both and self.workload in targets:
                ratio = self.seconds[numerator] / self.seconds[denominator]
                name = f"{self.workload}: {numerator} / {denominator}"
                found.append(Figure(name, ratio, targets[self.workload], at_most))
        for name, most in PEAKS.get(self.workload, {}).items():
            if name in self.peaks:
                found.append(
                    Figure(f"{self.workload}: {name}, MiB at a step's peak", self.peaks[name] / 2**20, most)
                )
        return found


OWN, PURE, FAST, BRAIN = "minimp fp32", "minimp mixed-fp16", "minimp mixed-fp16 numkong", "minimp mixed-bf16"
TORCH, TORCH_HALF, TORCH_BRAIN = "torch fp32", "torch autocast fp16", "torch autocast bf16"
MYGRAD = "mygrad fp32"

TARGETS: Mapping[tuple[str, str], tuple[bool, Mapping[str, float]]] = {
    (OWN, TORCH): (True, {"mlp": 1.4, "cnn": 1.5, "gpt": 1.4}),
    (PURE, OWN): (True, {"mlp": 2.2, "cnn": 1.6, "gpt": 1.8}),
    (FAST, OWN): (True, {"mlp": 1.4, "cnn": 1.4, "gpt": 1.4}),
    (TORCH_HALF, PURE): (False, {"mlp": 5.0, "cnn": 5.0, "gpt": 5.0}),
    (TORCH_HALF, FAST): (False, {"mlp": 7.0, "cnn": 7.0, "gpt": 7.0}),
    (MYGRAD, OWN): (False, {"cnn": 2.5, "gpt": 1.0}),
}
"""(numerator, denominator) -> whether it is an upper bound; workload -> target."""
PEAKS: Mapping[str, Mapping[str, float]] = {"gpt": {OWN: 180.0, PURE: 120.0}}
"""Workload -> contender -> the most MiB at the peak of a step."""


def torch_is_there() -> bool:
    """Tell whether PyTorch is installed, without importing it."""
    return importlib.util.find_spec("torch") is not None


def step_times(
    name: str, rounds: int, *, with_torch: bool, with_mygrad: bool = False,
    on_round: Callable[[int], None] | None = None,
) -> StepTimes:  # fmt: skip
    """Time one training step of a workload, ours and, if asked for, PyTorch's and mygrad's, in turn.

    mygrad has no step of the MLP here: it has no figure. After the rounds, the memory of ours is weighed.
    """
    workload = WORKLOADS[name]
    contenders = {OWN: minimp_step(workload, "fp32"), BRAIN: minimp_step(workload, "mixed-bf16")}
    for route in default_backend().routes():
        label = PURE if route == "blocks" else f"{PURE} {route}"
        contenders[label] = _routed(minimp_step(workload, "mixed-fp16"), route)
    own = dict(contenders)
    if with_torch:
        contenders[TORCH] = torch_step(workload, None)
        contenders[TORCH_HALF] = torch_step(workload, "float16")
        contenders[TORCH_BRAIN] = torch_step(workload, "bfloat16")
    if with_mygrad and name in TARGETS[MYGRAD, OWN][1]:
        contenders[MYGRAD] = mygrad_step(workload)
    seconds = medians(interleave(contenders, rounds, on_round=on_round))
    return StepTimes(name, seconds, rounds, {label: step_peak(call) for label, call in own.items()})


def step_peak(call: Callable[[], object]) -> int:
    """Return the bytes at the peak of a call above those at its start, as tracemalloc sees them.

    The call has run before; what it keeps from then on (weights, caches) is there at the start.
    """
    tracemalloc.start()
    try:
        call()  # once more, so that what it frees in the next call was traced
        gc.collect()
        tracemalloc.reset_peak()
        start, _ = tracemalloc.get_traced_memory()
        call()
        return tracemalloc.get_traced_memory()[1] - start
    finally:
        tracemalloc.stop()


def _routed(call: Callable[[], float], route: str) -> Callable[[], float]:
    def run() -> float:
        scope: AbstractContextManager[object] = default_backend().use_route(route) if route else nullcontext()
        with scope:
            return call()

    return run


def add_overhead(rounds: int = 31) -> Figure:
    """Return the time of a recorded add of four float32 numbers over that of a bare `np.add`."""
    a, b = tensor(np.ones(4, np.float32), requires_grad=True), tensor(np.ones(4, np.float32))
    names = {"a": a, "b": b, "x": a.array, "y": b.array, "np": np}
    recorded, bare = (
        timeit.Timer(statement, timer=time.process_time, globals=names)
        for statement in ("a + b", "np.add(x, y)")
    )
    ratios = [recorded.timeit(5000) / bare.timeit(5000) for _ in range(rounds)]
    return Figure("recorded add of 4 elements / np.add", statistics.median(ratios), 6.0)


def trajectory_gap(name: str, steps: int = 60) -> list[Figure]:
    """Return how far our fp32 losses are from PyTorch's, relatively: the first, and the worst of `steps`."""
    workload: Workload = WORKLOADS[name]
    ours, theirs = minimp_step(workload, "fp32"), torch_step(workload, None)
    gaps = []
    for _ in range(steps):
        mine, other = ours(), theirs()
        gaps.append(abs(mine - other) / abs(other))
    worst = float(np.max(gaps))  # NaN, if one is: max() would pass over it
    return [
        Figure(f"{name}: first fp32 loss, relative gap to torch", gaps[0], 1e-4),
        Figure(f"{name}: {steps} fp32 losses, largest relative gap to torch", worst, 1e-4),
    ]
