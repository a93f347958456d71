"""What a sample of an op is, and numbers of every kind to call it with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

import minimp as mp
from minimp import ops
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


KINDS = ("normal", "wide", "subnormal", "large", "special", "ties", "moderate")


def numbers(
    random: np.random.Generator, shape: Sequence[int], fmt: str, kind: str = "normal"
) -> npt.NDArray[np.float64]:
    """Return values of a format: float64 holding them.

    Args:
        random: the generator.
        shape: of the result.
        fmt: the format's name.
        kind: "normal"; "wide": all exponents; "subnormal": around the smallest normal; "large": up to the
            largest; "special": zeros, infinities, NaN and ends of the range; "ties": few whole numbers;
            "moderate": -12 to 12, where functions bend; "positive": away from 0.
    """
    f = mp.formats.get(fmt)
    lowest, highest = max(-300, f.emin - f.mantissa_bits), min(300, f.emax + 1)
    ends = [f.max, -f.max, f.smallest_subnormal, f.smallest_normal]
    special = [0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 0.5, 88.0, -88.0, 11.0, *ends]
    x = {
        "normal": lambda: random.standard_normal(shape),
        "positive": lambda: np.abs(random.standard_normal(shape)) + 0.05,
        "wide": lambda: random.standard_normal(shape) * 2.0 ** random.integers(lowest, highest, shape),
        "subnormal": lambda: (
            random.standard_normal(shape) * f.smallest_normal * 2.0 ** random.integers(-3, 3, shape)
        ),
        "large": lambda: random.uniform(-1, 1, shape) * f.max,
        "special": lambda: random.choice(special, shape),
        "ties": lambda: random.integers(-2, 3, shape).astype(np.float64),
        "moderate": lambda: random.uniform(-12, 12, shape),
    }[kind]()
    with np.errstate(all="ignore"):
        return mp.formats.round(np.asarray(x, np.float64), f)


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
