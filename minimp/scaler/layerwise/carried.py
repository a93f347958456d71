"""Gradients times a power of two: scaling them further, and bringing two that meet to one scale."""

from __future__ import annotations

import math
from typing import Any

from minimp.pieces import Pieces, as_array, join
from minimp.policy import format_of
from minimp.tape import Array, Parts

__all__ = ["shifted", "together"]

STEP = 126
"""2^126 and 2^-126 are normal numbers of float32; a longer way is gone in steps."""


def shifted(grad: Any, exponent: int, backend: Any) -> Any:
    """Return grad * 2^exponent in its own format, rounded once.

    It is exact unless it leaves the format's range: upward to infinity, downward into the subnormals.
    """
    if not exponent:
        return grad
    if isinstance(grad, Pieces):
        return Pieces(grad.shape, [(index, shifted(part, exponent, backend)) for index, part in grad.parts])
    if isinstance(grad, Parts):
        return Parts({index: shifted(part, exponent, backend) for index, part in grad.by_index.items()})
    return backend.narrow(_wide_times(grad, exponent, backend), format_of(grad.dtype))


def _wide_times(array: Array, exponent: int, backend: Any) -> Array:
    """Return a fresh wide array of the elements times 2^exponent."""
    wide = backend.wide(array)
    while True:
        step = max(-STEP, min(STEP, exponent))
        wide = wide * wide.dtype.type(2.0**step)
        exponent -= step
        if not exponent:
            return wide


def together(held: Any, held_exponent: int, part: Any, exponent: int, backend: Any) -> tuple[Any, int]:
    """Return the sum of held / 2^held_exponent and part / 2^exponent, times a power of two; and its exponent.

    The common scale is the larger of the two, so that the smaller gradient is lifted and nothing is flushed;
    only where that could overflow is it as much lower as the sum needs. The sum is taken in the wide format
    and rounded once, as it is where gradients of one scale meet.
    """
    if isinstance(held, Parts):
        return _parts_together(held, held_exponent, part, exponent, backend)
    if held_exponent == exponent:
        if isinstance(held, Pieces) or isinstance(part, Pieces):
            return join(held, part, backend), exponent
        return backend.add(held, part), exponent
    held, part = as_array(held, backend), as_array(part, backend)
    common = _common(held, held_exponent, part, exponent, backend)
    total = _wide_times(held, common - held_exponent, backend) + _wide_times(part, common - exponent, backend)
    return backend.narrow(total, format_of(held.dtype)), common


def _common(held: Array, held_exponent: int, part: Array, exponent: int, backend: Any) -> int:
    """Return the exponent of the scale at which two gradients can be added."""
    common = max(held_exponent, exponent)
    largest = math.ldexp(_largest(held, backend), common - held_exponent) + math.ldexp(
        _largest(part, backend), common - exponent
    )
    form = format_of(held.dtype)
    assert form is not None  # integers have no gradient
    if not math.isfinite(largest) or largest <= form.max:
        return common
    return common - math.ceil(math.log2(largest / form.max))


def _largest(array: Array, backend: Any) -> float:
    return float(backend.largest(backend.wide(array)))


def _parts_together(
    held: Parts, held_exponent: int, part: Parts, exponent: int, backend: Any
) -> tuple[Parts, int]:
    """The same for gradients of several results, which stay at one scale."""
    ours, theirs = held.by_index, part.by_index
    met: dict[int, tuple[Any, int]] = {index: (grad, held_exponent) for index, grad in ours.items()}
    for index, grad in theirs.items():
        met[index] = (
            together(ours[index], held_exponent, grad, exponent, backend)
            if index in ours
            else (grad, exponent)
        )
    common = max(at for _, at in met.values())
    return Parts({index: shifted(grad, common - at, backend) for index, (grad, at) in met.items()}), common
