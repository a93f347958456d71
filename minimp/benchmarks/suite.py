"""The figures of `minimp bench`, each with the ratio it is meant to reach."""

from __future__ import annotations

import importlib.util
import statistics
import time
import timeit
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np

from minimp import tensor
from minimp.backend import default_backend
from minimp.benchmarks.figure import Figure
from minimp.benchmarks.timing import interleave, medians
from minimp.benchmarks.workloads import WORKLOADS, Workload, minimp_step, torch_step

__all__ = ["StepTimes", "add_overhead", "step_times", "torch_is_there", "trajectory_gap"]


@dataclass(frozen=True)
class StepTimes:
    """Median processor seconds of one training step, contender by contender.

    Attributes:
        workload: the workload.
        seconds: contender -> seconds.
        rounds: interleaved rounds that the medians are of.
    """

    workload: str
    seconds: dict[str, float]
    rounds: int

    def figures(self) -> list[Figure]:
        """Return the ratios that have a target."""
        found = []
        for (numerator, denominator), (mlp, cnn, at_most) in TARGETS.items():
            if numerator in self.seconds and denominator in self.seconds:
                ratio = self.seconds[numerator] / self.seconds[denominator]
                target = mlp if self.workload == "mlp" else cnn
                name = f"{self.workload}: {numerator} / {denominator}"
                found.append(Figure(name, ratio, target, at_most))
        return found


OWN, PURE, FAST, BRAIN = "minimp fp32", "minimp mixed-fp16", "minimp mixed-fp16 numkong", "minimp mixed-bf16"
TORCH, TORCH_HALF, TORCH_BRAIN = "torch fp32", "torch autocast fp16", "torch autocast bf16"

TARGETS = {
    (OWN, TORCH): (1.4, 1.5, True),
    (PURE, OWN): (2.2, 1.6, True),
    (FAST, OWN): (1.4, 1.4, True),
    (TORCH_HALF, PURE): (5.0, 5.0, False),
    (TORCH_HALF, FAST): (7.0, 7.0, False),
}
"""(numerator, denominator) -> target for the MLP, for the CNN, whether it is an upper bound."""


def torch_is_there() -> bool:
    """Tell whether PyTorch is installed, without importing it."""
    return importlib.util.find_spec("torch") is not None


def step_times(
    name: str, rounds: int, *, with_torch: bool, on_round: Callable[[int], None] | None = None
) -> StepTimes:
    """Time one training step of a workload, ours and, if asked for, PyTorch's, in interleaved rounds."""
    workload = WORKLOADS[name]
    contenders = {OWN: minimp_step(workload, "fp32"), BRAIN: minimp_step(workload, "mixed-bf16")}
    for route in default_backend().routes():
        label = PURE if route == "blocks" else f"{PURE} {route}"
        contenders[label] = _routed(minimp_step(workload, "mixed-fp16"), route)
    if with_torch:
        contenders[TORCH] = torch_step(workload, None)
        contenders[TORCH_HALF] = torch_step(workload, "float16")
        contenders[TORCH_BRAIN] = torch_step(workload, "bfloat16")
    return StepTimes(name, medians(interleave(contenders, rounds, on_round=on_round)), rounds)


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
