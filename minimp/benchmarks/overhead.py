"""What the tape costs where an op has next to nothing to compute."""

from __future__ import annotations

import operator
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np

from minimp import tensor
from minimp.benchmarks.figure import Figure
from minimp.benchmarks.listening import listening_cost
from minimp.benchmarks.suite import add_overhead
from minimp.benchmarks.timing import Clock, interleave, processor_time, quiet_collector, repeated

__all__ = ["CHAIN", "chain_overhead", "tape_figures"]

CHAIN = 100
"""Ops in a row, so that what a backward costs once is spread over them."""
OPS: dict[str, tuple[Callable[[Any, Any], Any], float]] = {
    "add": (operator.add, 16.0),
    "mul": (operator.mul, 16.0),
}
"""Name -> the op, and the most it may cost."""


def chain_overhead(name: str = "add", rounds: int = 31, *, clock: Clock = processor_time) -> Figure:
    """Return the time of an op on four float32 numbers, forward and backward, over that of a bare `np.add`.

    Both are taken per op: of a chain of :data:`CHAIN`, x -> x + b -> (x + b) + b ..., with its backward to x,
    and of as many calls of `np.add` in a loop. x alone requires a gradient, so that each op has one to
    compute (of a product, one multiplication more).

    Args:
        name: `"add"` or `"mul"`.
        rounds: interleaved rounds; the figure is the median of their ratios.
        clock: what tells the seconds.
    """
    op, most = OPS[name]
    ones = np.ones(4, np.float32)
    x, b, seed = tensor(ones, requires_grad=True), tensor(ones), tensor(ones)
    bare_x, bare_b = x.array, b.array

    def recorded() -> None:
        y = x
        for _ in range(CHAIN):
            y = op(y, b)
        x.grad = None
        y.backward(seed)

    def bare() -> None:
        for _ in range(CHAIN):
            np.add(bare_x, bare_b)

    with quiet_collector():
        contenders = {"recorded": repeated(recorded, 10), "bare": repeated(bare, 100)}
        seconds = interleave(contenders, rounds, clock=clock)
    pairs = zip(seconds["recorded"], seconds["bare"], strict=True)
    ratio = statistics.median(10.0 * ours / theirs for ours, theirs in pairs)
    return Figure(f"forward and backward of a tiny {name} / np.add", ratio, most)


def tape_figures() -> list[Figure]:
    """Return what recording costs: per tiny op, and what asking for listeners adds to a step."""
    return [
        add_overhead(), chain_overhead("add"), chain_overhead("mul"),
        listening_cost("mlp"), listening_cost("gpt", 7, steps=1),
    ]  # fmt: skip
