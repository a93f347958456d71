"""The kernels of casts and of a training step's end, called with what the engine's methods have at hand.

Each function takes `kernels`, which runs a kernel by name (:class:`minimp_backends.gpu.Kernels`), and `xp`,
the namespace of the arrays. Nothing here waits for the device: what the host need not know, a verdict or a
count of steps, comes as an array without axes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from types import MappingProxyType
from typing import Any

import numpy as np

from minimp.formats import Counter, Format
from minimp_backends.kernels.families.casts import fixed
from minimp_backends.kernels.families.unscaling import TENSORS
from minimp_backends.kernels.families.updates import PAIRS
from minimp_backends.kernels.references.formats import MODES, needs_64_bits, pack, rule_of
from minimp_backends.kernels.references.updates import FIRST, MAXIMIZES, NESTEROV, ON_GRID
from minimp_backends.updates_blocks import Room

__all__ = ["Update", "adam", "cast", "serves", "sgd", "unscale_all", "update_scale"]

Array = Any
Kernels = Callable[..., None]
SPELLINGS: Mapping[str, str] = MappingProxyType(
    {"float32": "float", "float64": "double", "float16": "half", "bfloat16": "bfloat16"}
)
"""dtype -> how the kernels' names spell it."""


@dataclass(frozen=True, slots=True)
class Update:
    """One tensor to update.

    Attributes:
        room: for the results.
        weight, grad: of one shape; left as they are.
        kept: what the rule carries from step to step, contiguous, changed in place: (buffer,) for SGD, (mean,
            square, peak) for Adam; None for what is not there.
    """

    room: Room
    weight: Array
    grad: Array
    kept: tuple[Array | None, ...]

    @property
    def pair(self) -> tuple[str, str]:
        """How a kernel's name spells the gradient and the low copy; any copy's where there is none."""
        low = self.room.compensation if self.room.low is None else self.room.low
        return _spelling(self.grad), "half" if low is None else _spelling(low)


def serves(update: Update) -> bool:
    """Tell whether the kernels take a tensor: FP32 weights, and gradients that they have."""
    return update.weight.dtype == np.float32 and update.pair in PAIRS


def sgd(
    kernels: Kernels, xp: Any, updates: Sequence[Update], *, lr: float, momentum: float, dampening: float,
    weight_decay: float, nesterov: bool, maximize: bool, first: Any, factor: Array | None = None,
) -> None:  # fmt: skip
    """Fill the rooms; arguments as of :meth:`minimp_backends.updates.Updates.sgd`.

    Args:
        updates: tensors that :func:`serves` takes, with the same dtypes, things asked for and verdict.
        factor: 1/S, a float64 array without axes, where the gradients are still scaled.
    """
    options = MAXIMIZES * bool(maximize) | NESTEROV * bool(nesterov) | FIRST * (first is True)
    for name, tables in _launches(xp, "sgd", updates, ("buffers",), factor):
        kernels(
            name, **tables, first=[_byte(first)] if hasattr(first, "dtype") else [], lr=lr, momentum=momentum,
            dampening=dampening, weight_decay=weight_decay, options=options | _grid(updates[0].room),
        )  # fmt: skip
    _spread_grids(updates)


def adam(
    kernels: Kernels, xp: Any, updates: Sequence[Update], *, lr: float, beta1: float, beta2: float,
    eps: float, weight_decay: float, decoupled: bool, maximize: bool, step: Any,
    factor: Array | None = None,
) -> None:  # fmt: skip
    """Fill the rooms; arguments as of :meth:`minimp_backends.updates.Updates.adam` and of :func:`sgd`."""
    numbers, size, correction = [], 0.0, 0.0
    if hasattr(step, "dtype"):
        numbers = [xp.empty(2, np.float32)]
        kernels(
            "adam_advance", step=step.reshape(1), numbers=numbers[0], found=[], by=0, lr=lr, beta1=beta1,
            beta2=beta2,
        )  # fmt: skip
    else:
        size, correction = -lr / (1 - beta1**step), (1 - beta2**step) ** 0.5
    for name, tables in _launches(xp, "adam", updates, ("means", "squares", "peaks"), factor):
        kernels(
            name, **tables, numbers=numbers, size=size, correction=correction, beta1=beta1, beta2=beta2,
            eps=eps, weight_decay=0.0 if decoupled else weight_decay,
            shrink=lr * weight_decay if decoupled else 0.0,
            options=MAXIMIZES * bool(maximize) | _grid(updates[0].room),
        )  # fmt: skip
    _spread_grids(updates)


def unscale_all(
    kernels: Kernels, xp: Any, grads: Sequence[Array], factor: Array, *, of_products: bool = True
) -> tuple[list[Array], Array]:
    """Return (each gradient times float32(factor), wide; for each, whether it is not finite).

    Args:
        kernels, xp: as everywhere here.
        grads: storage arrays.
        factor: n / S, a float64 array without axes.
        of_products: whether finiteness is asked of the products, as of
            :meth:`minimp_backends.array_backend.ArrayBackend.unscale_all`, or of the gradients.
    """
    found, found_any = xp.zeros(len(grads), np.int32), xp.zeros(1, np.int32)
    outs = [xp.empty(each.shape, np.float64 if each.dtype == np.float64 else np.float32) for each in grads]
    for spelling, run in groupby(range(len(grads)), key=lambda at: _spelling(grads[at])):
        for some in _portions(list(run)):
            part = slice(some[0], some[-1] + 1)
            kernels(
                f"unscale_{spelling}", grads=[xp.ascontiguousarray(each) for each in grads[part]],
                outs=outs[part], counts=[each.size for each in outs[part]], factor=factor.reshape(1),
                of_products=int(of_products), found=found[part], found_any=found_any,
            )  # fmt: skip
    return outs, found != 0


def update_scale(
    kernels: Kernels, xp: Any, rule: Any, state: tuple[Array, ...], found: Array
) -> tuple[Array, ...]:
    """Return the state of a loss scale after a step, as ``minimp.scaler.next_state`` does.

    Args:
        kernels, xp: as everywhere here.
        rule: a ``minimp.scaler.ScaleRule``; its `max_consecutive_skips` is not counted.
        state: (scale, growth tracker, skips, whether there was a bad step): arrays without axes of float64,
            int64, int64 and bool; left as they are.
        found: a bool array without axes: whether a gradient was infinite or NaN.
    """
    names = ("scale", "growth_tracker", "skips", "met_bad")
    made = tuple(xp.empty_like(each) for each in state)
    switches = (
        rule.refill_on_backoff, rule.stays_finite, rule.smooth, rule.until_first_bad is not None,
        rule.precision == "float32",
    )  # fmt: skip
    kernels(
        "update_scale",
        **{name: _cell(each) for name, each in zip(names, state, strict=True)},
        **{f"new_{name}": _cell(each) for name, each in zip(names, made, strict=True)},
        found=_byte(found),
        growth=rule.growth_factor ** (1.0 / rule.growth_interval) if rule.smooth else rule.growth_factor,
        backoff=rule.backoff_factor, early=rule.until_first_bad or 0.0,
        lowest=-math.inf if rule.min_scale is None else rule.min_scale,
        highest=math.inf if rule.max_scale is None else rule.max_scale,
        interval=rule.growth_interval + rule.grows_late, hysteresis=rule.hysteresis,
        options=sum(1 << bit for bit, on in enumerate(switches) if on),
    )  # fmt: skip
    return made


def cast(
    kernels: Kernels, xp: Any, array: Array, source: Format, target: Format,
    rounding: str = "nearest_even", overflow: str | None = None, counter: Counter | None = None,
) -> tuple[Array, Array | None]:  # fmt: skip
    """Round each element once, as `minimp.formats.encode` does; a NaN becomes the quiet one of its sign.

    Args:
        kernels, xp: as everywhere here.
        array: numbers in the dtype of `source`, or its codes as unsigned integers; left as it is.
        source, target: the formats.
        rounding, overflow: keys of ``minimp.formats.ROUNDINGS`` and ``OVERFLOWS`` that serve the target.
        counter: throws the dice of ``stochastic``.

    Returns:
        The array, one-byte formats as codes in uint8; and where the target has no NaN, an int32 array of one
        element that is 1 if there was a NaN, which is a zero now: the host, where it has time, should refuse.
    """
    made = xp.empty(array.shape, np.uint8 if target.dtype.itemsize == 1 else target.dtype)
    met_nan = None if target.has_nan else xp.zeros(1, np.int32)
    given, rule = xp.ascontiguousarray(array), rule_of(overflow, target)
    name, saturates = fixed(source, target, rounding), rule & 1
    dice = {"seed": counter.seed, "start": counter.start} if counter else {"seed": 0, "start": 0}
    chooses = target.dtype.itemsize == 1 or rounding == "stochastic"
    if name is not None and (chooses or not saturates):
        more = {"saturates": saturates} if chooses else {}
        more |= dice if rounding == "stochastic" else {}
        kernels(name, source=given, target=made, count=made.size, **more)
    else:
        kernels(
            f"cast_codes_{64 if needs_64_bits(source, target) else 32}",
            source=given.reshape(-1).view(np.uint8), target=made.reshape(-1).view(np.uint8),
            source_format=pack(source), target_format=pack(target), rounding=MODES.index(rounding), rule=rule,
            **dice, met_nan=xp.zeros(1, np.int32) if met_nan is None else met_nan, count=made.size,
        )  # fmt: skip
    return made, met_nan


# ---- tables of tensors ----------------------------------------------------------------------------------


def _launches(
    xp: Any, rule: str, updates: Sequence[Update], kept: tuple[str, ...], factor: Array | None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (kernel, its tables) for as many tensors as a launch takes, and again for the next ones."""
    for some in _portions(updates):
        rooms = [each.room for each in some]
        tables = {name: _there(each.kept[at] for each in some) for at, name in enumerate(kept)}
        unless = rooms[0].unless
        yield (
            "_".join((rule, *some[0].pair)),
            {
                **tables,
                "weights": [xp.ascontiguousarray(each.weight) for each in some],
                "grads": [xp.ascontiguousarray(each.grad) for each in some],
                "news": [room.new for room in rooms],
                "changes": _there(room.change for room in rooms),
                "lows": _there(room.low for room in rooms),
                "compensations": _there(room.compensation for room in rooms),
                "counts": [room.new.size for room in rooms],
                "factor": [] if factor is None else [factor.reshape(1)],
                "found": [] if unless is None else [_byte(unless)],
            },
        )


def _portions(things: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(things), TENSORS):
        yield things[start : start + TENSORS]


def _there(arrays: Iterator[Array | None]) -> list[Array]:
    """Return the arrays, or nothing if they are not asked for."""
    return [each for each in arrays if each is not None]


def _grid(room: Room) -> int:
    return ON_GRID if room.grid is room.new else 0


def _spread_grids(updates: Sequence[Update]) -> None:
    """Write the values of low copies where they are wanted apart from the new weights."""
    for room in (each.room for each in updates):
        if room.grid is not None and room.grid is not room.new:
            room.grid[...] = room.low


def _spelling(array: Array) -> str:
    return SPELLINGS.get(array.dtype.name, "")


def _byte(flag: Array) -> Array:
    """Return a bool array without axes as one byte, the same memory."""
    return flag.reshape(1).view(np.uint8)


def _cell(number: Array) -> Array:
    """Return an array without axes as one of one element that kernels take, the same memory."""
    return _byte(number) if number.dtype == bool else number.reshape(1)
