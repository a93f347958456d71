"""What a sample of an op is, and numbers of every kind to call it with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

import minimp as mp
from minimp import ops
from minimp.frameworks.cases.numbers import numbers
from minimp.modes import listen
from minimp.tape import Event

FLOATS = ("float64", "float32", "float16", "bfloat16")
S = (7, 5)
LABELS = np.array([0, 3, 4, -100, 1, 2, 2])
WEIGHTS = np.array([0.5, 1.0, 2.0, 1.25, 0.1])


@dataclass(frozen=True)
class Sample:
    """One way to call an op.

    Attributes:
        op: the op's name.
        call: from tensors of the shapes to the result.
        shapes: of the inputs.
        options: what sets this call apart, for people.
        tie_free: the gradient needs inputs without zeros and equal elements.
    """

    op: str
    call: Callable[..., mp.Tensor]
    shapes: tuple[tuple[int, ...], ...] = (S,)
    options: str = ""
    tie_free: bool = field(default=False)

    def __str__(self) -> str:
        shapes = "x".join("".join(map(str, shape)) or "scalar" for shape in self.shapes)
        return "-".join(part for part in (self.op, shapes, self.options) if part)


def by_name(name: str) -> Callable[..., mp.Tensor]:
    """Return the op of that name."""
    return ops.OPS[name]


def leaves(
    sample: Sample, fmt: str, kind: str, random: np.random.Generator, *, requires_grad: bool = True
) -> list[mp.Tensor]:
    """Return inputs for a sample."""
    arrays = [numbers(random, shape, fmt, kind) for shape in sample.shapes]
    return [mp.tensor(x, dtype=fmt, requires_grad=requires_grad) for x in arrays]


def run(sample: Sample, fmt: str, kind: str, seed: int = 0) -> list[Event]:
    """Run a sample forward and backward; return the events."""
    random = np.random.default_rng(seed)
    events: list[Event] = []
    inputs = leaves(sample, fmt, kind, random)
    with listen(events.append):
        y = sample.call(*inputs)
    if y.requires_grad:
        kinds = ["normal"] if kind in ("normal", "positive") else ["normal", "wide", "special"]
        grad = numbers(random, y.shape, y.format.name, str(random.choice(kinds)))
        start = mp.tensor(grad, dtype=y.format)
        with listen(events.append):
            y.backward(start)
    return events
