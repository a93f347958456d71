"""One training run, the same in both libraries: weights, batches, optimizer, autocast and loss scaling."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np

from minimp.data import digits
from minimp.frameworks.sides import Side, Torch
from minimp.frameworks.training.models import Task

__all__ = ["FAULTS", "STEPS", "Run", "State", "apart", "begin", "moved", "nudged", "train"]

STEPS, BATCH = 100, 32
GROWTH_INTERVAL = 20
FAULTS = (20, 21, 22, 50, 75, 76)
"""After which steps a gradient is made infinite. It keeps the scale well below what gradients overflow at,
once it has come down to that: near the edge two runs that differ by a rounding skip different steps."""

State = Mapping[str, np.ndarray[Any, Any]]


@dataclass(frozen=True)
class Run:
    """What came of a run.

    Attributes:
        losses: of each step, before its update.
        scales: the loss scale of each step.
        skipped: the steps that were skipped, from 0.
        weights: the state of the model at the end, in float64.
    """

    losses: np.ndarray[Any, Any]
    scales: tuple[float, ...]
    skipped: tuple[int, ...]
    weights: State


def begin(task: Task, side: Torch, seed: int) -> State:
    """Return the state in which all runs begin: torch's own draw. Torch's generator is left as it was."""
    with side.torch.random.fork_rng(devices=[]):
        side.torch.manual_seed(seed)
        return {name: value.numpy().copy() for name, value in task.model(side).state_dict().items()}


def nudged(state: State, unit: float, rng: np.random.Generator) -> State:
    """Return the state with every number moved by at most `unit` of itself, evenly."""
    return {
        name: (value * (1 + unit * rng.uniform(-1, 1, value.shape))).astype(value.dtype)
        if value.dtype == np.float32 else value
        for name, value in state.items()
    }  # fmt: skip


def train(side: Side, task: Task, state: State, low: str | None, seed: int) -> Run:
    """Train from `state` for :data:`STEPS` steps.

    Args:
        side: the library.
        task: what is trained.
        state: what to begin with.
        low: the format of autocast; float16 comes with a GradScaler and with faults; None: float32.
        seed: of the batches.
    """
    rows = digits(shape="image")
    rng = np.random.default_rng(seed)
    model = task.model(side)
    model.load_state_dict({name: side.tensor(v, str(v.dtype)) for name, v in state.items()})
    optimizer = getattr(side.optim, task.optimizer)(model.parameters(), **task.options)
    scaler = side.scaler(
        init_scale=task.init_scale, growth_interval=GROWTH_INTERVAL, enabled=low == "float16"
    )
    losses, scales, skipped = [], [], []
    for step in range(STEPS):
        picked = rng.integers(0, len(rows), BATCH)
        images, labels = rows.inputs[picked], rows.targets[picked]
        optimizer.zero_grad()
        with nullcontext() if low is None else side.region(low):
            scores = model(side.tensor(images))
            loss = side.functional.cross_entropy(scores, side.labels(labels))
        losses.append(float(loss.detach()))
        scales.append(scaler.get_scale())
        scaler.scale(loss).backward()
        if low == "float16" and step in FAULTS:
            first = next(iter(model.parameters()))
            first.grad = side.tensor(np.full(tuple(first.shape), np.inf))
        scaler.step(optimizer)
        scaler.update()
        if scaler.get_scale() < scales[-1]:
            skipped.append(step)
    weights = {name: side.wide(value) for name, value in model.state_dict().items()}
    return Run(np.array(losses), tuple(scales), tuple(skipped), weights)


def apart(a: Run, b: Run) -> float:
    """Return the distance of two paths: the root of the mean square of the differences of their losses."""
    return float(np.sqrt(np.mean((a.losses - b.losses) ** 2)))


def moved(a: State, b: State) -> float:
    """Return the distance of two states, over all floating numbers: the root of the sum of squares."""
    each = [np.asarray(a[name], np.float64) - b[name] for name in a if b[name].dtype.kind == "f"]
    return float(np.sqrt(sum((part**2).sum() for part in each)))
