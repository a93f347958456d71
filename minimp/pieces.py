"""Gradients of slices, kept as slices until somebody needs them whole.

The gradient of x[index] is as large as x, and zero but for the slice. Where a tensor is cut in many parts, by
`chunk` or step by step through time, adding up as many arrays of its full size would cost their number times
its size; put into one array of zeros, they cost one.
"""

from __future__ import annotations

from typing import Any

__all__ = ["Pieces", "as_array", "join"]

Array = Any
Box = list[tuple[int, int]]
"""From where to where, along each axis."""


class Pieces:
    """The sum of arrays of one shape that are zero outside a slice each.

    Args:
        shape: of the whole.
        parts: (basic index, array) in the order in which they came.
    """

    __slots__ = ("parts", "shape")

    def __init__(self, shape: tuple[int, ...], parts: list[tuple[Any, Array]]) -> None:
        self.shape = shape
        self.parts = parts

    def whole(self, backend: Any) -> Array:
        """Return the sum as an array: slices that may overlap are added in their order, the others put."""
        out = backend.xp.zeros(self.shape, self.parts[0][1].dtype)
        filled: Box = [(n, 0) for n in self.shape]  # nothing yet
        for index, part in self.parts:
            box = box_of(index, self.shape)
            apart = any(a[1] <= b[0] or b[1] <= a[0] for a, b in zip(box, filled, strict=True))
            out[index] = part if apart else backend.add(out[index], part)
            filled = [(min(a[0], b[0]), max(a[1], b[1])) for a, b in zip(box, filled, strict=True)]
        return out


def as_array(grad: Any, backend: Any) -> Any:
    """Return a gradient whole; one that is no pieces as it is."""
    return grad.whole(backend) if grad.__class__ is Pieces else grad


def join(held: Any, part: Any, backend: Any) -> Any:
    """Return the sum of two gradients, one of which is in pieces."""
    if isinstance(held, Pieces) and isinstance(part, Pieces):
        return Pieces(held.shape, [*held.parts, *part.parts])
    return backend.add(as_array(held, backend), as_array(part, backend))


def box_of(index: Any, shape: tuple[int, ...]) -> Box:
    """Return from where to where a basic index takes elements along each axis."""
    given = index if isinstance(index, tuple) else (index,)
    named = [each for each in given if each is not None]
    at = next((i for i, each in enumerate(named) if each is ...), len(named))
    rest = len(shape) - len(named) + (at < len(named))
    full = [*named[:at], *[slice(None)] * rest, *named[at + 1 :]]
    return [_bounds(each, length) for each, length in zip(full, shape, strict=True)]


def _bounds(taken: slice | int, length: int) -> tuple[int, int]:
    if isinstance(taken, slice):
        run = range(*taken.indices(length))
        return (min(run[0], run[-1]), max(run[0], run[-1]) + 1) if run else (0, 0)
    start = taken + length if taken < 0 else taken
    return start, start + 1
