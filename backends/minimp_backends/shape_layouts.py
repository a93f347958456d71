"""How arrays lie in memory, by shape and strides alone: which views there are, and in what order results lie.

NumPy's rules: a reshape is a view where the axes can be regrouped without moving an element, else a copy; the
result of an elementwise operation lies in the order of its inputs' axes (order="K"). Both decide which arrays
a program holds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

__all__ = ["contiguous", "ghost", "in_order_of", "regrouped", "small"]

Shape = Sequence[int]


def contiguous(shape: Shape, itemsize: int) -> tuple[int, ...]:
    """Return the strides of C order, in bytes."""
    strides, step = [], itemsize
    for length in reversed(shape):
        strides.append(step)
        step *= max(length, 1)
    return tuple(reversed(strides))


def ghost(shape: Shape, strides: Shape, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """Return an array of this layout without memory behind it: to be viewed, never to be read or written."""
    return as_strided(np.empty((), dtype), shape, strides, writeable=False)


def regrouped(shape: Shape, strides: Shape, target: Shape, itemsize: int) -> tuple[int, ...] | None:
    """Return the strides of a view of `target` shape, or None where only a copy has it.

    Both shapes have one number of elements. Axes of both are matched in runs of equal products; a run can be
    regrouped where its elements are evenly spaced.
    """
    if math.prod(shape) == 0:
        return contiguous(target, itemsize)
    old = [(length, step) for length, step in zip(shape, strides, strict=True) if length != 1]
    made = [itemsize] * len(target)
    first, start = 0, 0  # of the runs in `old` and in `target`
    while first < len(old):
        last, stop = first + 1, start + 1
        ours, theirs = old[first][0], target[start]
        while ours != theirs:
            if theirs < ours:
                theirs *= target[stop]
                stop += 1
            else:
                ours *= old[last][0]
                last += 1
        if any(old[k][1] != old[k + 1][0] * old[k + 1][1] for k in range(first, last - 1)):
            return None
        step = old[last - 1][1]
        for axis in range(stop - 1, start - 1, -1):
            made[axis] = step
            step *= target[axis]
        first, start = last, stop
    return tuple(made)


def small(shape: Shape, strides: Shape, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """Return ones with axes of at most two elements that lie in the order of the given strides.

    NumPy gives results on it the dtype, and the order of axes, that it gives on the array itself.
    """
    order = sorted(range(len(shape)), key=lambda axis: -abs(strides[axis]))
    repeated = [strides[axis] == 0 and shape[axis] > 1 for axis in range(len(shape))]
    lengths = [1 if repeated[axis] else min(shape[axis], 2) for axis in order]
    plain = np.ones(lengths, dtype).transpose(sorted(range(len(shape)), key=order.__getitem__))
    return np.broadcast_to(plain, [min(length, 2) for length in shape]) if any(repeated) else plain


def in_order_of(found: np.ndarray[Any, Any], shape: Shape) -> tuple[int, ...]:
    """Return strides of `shape`, without gaps, with the axes in the order that `found` has."""
    if found.flags.c_contiguous:
        return contiguous(shape, found.itemsize)
    order = sorted(range(found.ndim), key=lambda axis: (-abs(found.strides[axis]), axis))
    packed = contiguous([shape[axis] for axis in order], found.itemsize)
    strides = [0] * found.ndim
    for axis, step in zip(order, packed, strict=True):
        strides[axis] = step
    return tuple(strides)
