"""Borders around the last axes: pad."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import numpy as np

from minimp import ops
from minimp.errors import SettingError, ShapeError
from minimp.ops.resampling import MOVING, Plan
from minimp.tape import Value
from minimp.tensors import Tensor

__all__ = ["pad"]

Array = np.ndarray[Any, Any]


def pad(
    input: Any, pad: Sequence[int], mode: str = "constant", value: float | None = None
) -> Tensor:  # fmt: skip
    """Borders around the last axes; negative lengths crop (torch.nn.functional.pad).

    Args:
        input: a tensor; all modes but "constant" pad the last one, two or three axes of one that has one or
            two axes more, as torch does.
        pad: (before, after) of the last axis, then of the one before it, and so on.
        mode: "constant" (any axes, any format); "reflect": the mirror image, the border element once, shorter
            than the axis; "replicate": the border element; "circular": the other side, at most once around.
        value: of a constant border (0), rounded to the input's format.

    Raises:
        SettingError: the mode is unknown, or takes no value.
        ShapeError: the mode cannot pad that many axes, or that far.
    """
    x = input if isinstance(input, Value) else Value.lift(input, None)
    lengths = tuple(int(n) for n in pad)
    if mode == "constant":
        return ops.constant_pad_nd(x, pad=lengths, value=0.0 if value is None else value)
    if mode not in INDICES:
        raise SettingError(f"pad: unknown mode {mode!r}", help=f"use constant, {', '.join(INDICES)}")
    if value is not None and value != 0:
        raise SettingError(f"pad: mode {mode!r} takes no value", help="leave `value` out")
    axes = len(lengths) // 2
    if len(lengths) % 2 or axes not in (1, 2, 3) or x.array.ndim not in (axes + 1, axes + 2):
        raise ShapeError(
            f"mode {mode!r} pads the last 1, 2 or 3 axes of a tensor with one or two more; "
            f"got {lengths} for {x.shape}",
            op="pad", shapes=[x.shape], help="add an axis in front with x[None]",
        )  # fmt: skip
    plan = _plan(mode, x.shape[-axes:], lengths)
    name = NAMES[mode]
    return MOVING[f"{name}{axes}d" if mode != "circular" else name](x, plan=plan)


@lru_cache(maxsize=64)
def _plan(mode: str, sizes: tuple[int, ...], lengths: tuple[int, ...]) -> Plan:
    """Which element each place of the result has, axis by axis."""
    sides = [(lengths[2 * i], lengths[2 * i + 1]) for i in reversed(range(len(sizes)))]
    return Plan((INDICES[mode](n, *side)[None], None) for n, side in zip(sizes, sides, strict=True))


def _reflect(size: int, before: int, after: int) -> Array:
    if max(before, after) >= size:
        raise _too_long("reflect", size, before, after, "shorter than the axis")
    places = np.abs(_places("reflect", size, before, after))
    return np.where(places >= size, 2 * (size - 1) - places, places)


def _replicate(size: int, before: int, after: int) -> Array:
    return np.clip(_places("replicate", size, before, after), 0, size - 1)


def _circular(size: int, before: int, after: int) -> Array:
    first, stop = max(0, -before), size - max(0, -after)
    if max(before, after) > stop - first:
        raise _too_long("circular", size, before, after, "at most once around what is kept of the axis")
    length = stop - first
    return first + np.arange(-max(before, 0), length + max(after, 0)) % length


def _places(mode: str, size: int, before: int, after: int) -> Array:
    if size < 1 or size + before + after < 1:
        raise _too_long(mode, size, before, after, "no crop of the whole axis")
    return np.arange(-before, size + after)


def _too_long(mode: str, size: int, before: int, after: int, what: str) -> ShapeError:
    return ShapeError(f"mode {mode!r} cannot pad an axis of {size} by ({before}, {after}): {what}", op="pad")


INDICES: MappingProxyType[str, Callable[[int, int, int], Array]] = MappingProxyType(
    {"reflect": _reflect, "replicate": _replicate, "circular": _circular}
)
NAMES = {"reflect": "reflection_pad", "replicate": "replication_pad", "circular": "_pad_circular"}
