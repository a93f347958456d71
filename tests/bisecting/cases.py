"""Planted faults: code that is right in FP32, and rules under which it is not in float16."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import minimp as mp
from minimp import nn
from minimp.policy import Policy

CUDA = mp.policies["torch-cuda"]


@dataclass(frozen=True)
class Fault:
    """A fault: how to make the code, its rules, and what is to blame: ops, and (op, call, module)."""

    make: Callable[[], Callable[[], Any]]
    policy: Policy
    ops: set[str]
    calls: set[tuple[str, int, str]]


def two_heads() -> Callable[[], Any]:
    """Two softmaxes; the second one's logits are far apart, so that a probability is below 2^-25."""
    x = mp.tensor(np.float32([[0.0, 1.0, 2.0], [1.0, 0.0, 1.0]]), requires_grad=True)

    def run() -> Any:
        calm = x.softmax(1).log()
        return calm.sum() + (x * 30.0).softmax(1).log().mean()

    return run


def large_sum() -> Callable[[], Any]:
    """A sum of 100 times 2000, beside one of ones."""
    x = mp.tensor(np.full((100,), 2000.0, np.float32))
    return lambda: (x * 0.0 + 1.0).sum() / x.sum()


class Norms(nn.Module):
    """Two layer norms; what comes into the second is beyond the range of float16."""

    def __init__(self) -> None:
        super().__init__()
        self.calm, self.loud = nn.LayerNorm(8), nn.LayerNorm(8)

    def forward(self, x: Any) -> Any:
        """(N, 8) -> (N, 8)."""
        return self.loud(self.calm(x).float() * 1e5)


def two_norms() -> Callable[[], Any]:
    """One of two layer norms overflows."""
    model = Norms()
    x = mp.tensor(np.random.default_rng(0).standard_normal((4, 8)).astype(np.float32))
    return lambda: model(x).mean(0)


def two_faults() -> Callable[[], Any]:
    """Two branches, each with a fault of its own."""
    x = mp.tensor(np.float32([12.0, 1.0]))
    y = mp.tensor(np.full((100,), 2000.0, np.float32))
    return lambda: {"exp": x.exp() / 1e5, "sum": y.sum() / 1e5}


def one_after_the_other() -> Callable[[], Any]:
    """A result of 90,000 that overflows where it is made, and again in the op that takes it."""
    x, w = mp.tensor(np.float32([[300.0]])), mp.tensor(np.float32([[300.0]]))
    return lambda: mp.functional.linear(x @ w, mp.tensor(np.float32([[0.5]]))) / 1e5


FAULTS = {
    "a softmax in float16": Fault(two_heads, CUDA.with_(softmax="lower"), {"softmax"}, {("softmax", 2, "")}),
    "a sum that overflows": Fault(large_sum, CUDA.with_(sum="lower"), {"sum"}, {("sum", 2, "")}),
    "one of two layer norms": Fault(
        two_norms, CUDA.with_(layer_norm="lower"), {"layer_norm"}, {("layer_norm", 2, "loud")}
    ),
    "two faults at once": Fault(
        two_faults, CUDA.with_(exp="lower", sum="lower"), {"exp", "sum"}, {("exp", 1, ""), ("sum", 1, "")}
    ),
    "one needs the other": Fault(
        one_after_the_other, CUDA, {"matmul", "linear"}, {("matmul", 1, ""), ("linear", 1, "")}
    ),
}
