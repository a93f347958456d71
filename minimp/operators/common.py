"""What the methods share: reading formats, shapes, axes and indices."""

from __future__ import annotations

from operator import index as whole
from typing import Any

from minimp import formats
from minimp.errors import SettingError, ShapeError
from minimp.formats import Format
from minimp.tape import Value

__all__ = ["along", "axis_of", "dims_of", "format_of", "plain_index", "shape_of"]


def format_of(dtype: Any) -> Format | None:
    """Return the format that `dtype` spells, None for None."""
    return None if dtype is None else formats.get(dtype)


def dims_of(dim: Any) -> Any:
    """Return several axes as a tuple."""
    return tuple(dim) if isinstance(dim, list) else dim


def shape_of(shape: tuple[Any, ...]) -> tuple[int, ...]:
    """Return a shape that was given as numbers or as one sequence."""
    return tuple(shape[0]) if len(shape) == 1 and isinstance(shape[0], tuple | list) else shape


def axis_of(op: str, shape: tuple[int, ...], dim: int, more: int = 0) -> int:
    """Return an axis counted from 0; `more` axes will be added. A scalar counts as having one axis.

    Raises:
        ShapeError: the tensor has no such axis. SettingError: not a whole number.
    """
    try:
        dim = whole(dim)
    except TypeError as fault:
        raise SettingError(f"expected a whole number as dim, got {dim!r}", op=op) from fault
    count = max(len(shape) + more, 1)
    if not -count <= dim < count:
        raise ShapeError(
            f"dim {dim} is out of range for shape {shape}", op=op, shapes=[shape],
            help=f"use -{count} to {count - 1}",
        )  # fmt: skip
    return dim % count


def plain_index(index: Any) -> Any:
    """Turn tensors inside an index into raw arrays."""
    if isinstance(index, tuple):
        return tuple(plain_index(part) for part in index)
    return index.array if isinstance(index, Value) else index


def along(xp: Any, indices: Any, dim: int) -> tuple[Any, ...]:
    """Return the index that takes, in each row along `dim`, the elements at `indices`."""
    index = []
    for axis, length in enumerate(indices.shape):
        grid = [1] * indices.ndim
        grid[axis] = length
        index.append(indices if axis == dim else xp.arange(length).reshape(grid))
    return tuple(index)
