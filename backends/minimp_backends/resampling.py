"""Linear maps along the last axes of an array: what padding, interpolation and adaptive means are made of.

A *plan* has one entry an axis, ``(index, weight)``, both of shape (taps, out)::

    y[..., i] = sum over taps t of weight[t, i] x[..., index[t, i]]

A weight of None is 1. The axes are worked on one after the other, the last one first, so that a map over two
axes costs the sum of its taps and not their product. All sums are in the dtype of the array.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Plan", "resample_backward", "resample_forward"]

Array = NDArray[Any]
Plan = Sequence[tuple[Array, Array | None]]
SHORT = 128
"""Up to this length, a product with a matrix that is mostly zeros is faster than sums of runs."""
FEW_RUNS = 8
"""Up to so many runs of neighbours are moved slice by slice."""


def resample_forward(x: Array, plan: Plan) -> Array:
    """Apply a plan to the last axes of x, float32 or float64; the result shares no memory with x."""
    y = x
    for axis in range(-1, -1 - len(plan), -1):
        y = _along(y, axis, *plan[axis])
    return y if y is not x else x.copy()


def resample_backward(grad: Array, shape: tuple[int, ...], plan: Plan) -> Array:
    """Give each tap its share of the gradient: the adjoint of :func:`resample_forward`.  -> `shape`."""
    g = grad
    for axis in range(-len(plan), 0):
        g = _back_along(g, axis, shape[axis], *plan[axis])
    return g if g is not grad else grad.copy()


def _along(x: Array, axis: int, index: Array, weight: Array | None) -> Array:
    total: Array = np.empty(0)
    for tap, places in enumerate(index):
        part = np.take(x, places, axis=axis)
        if weight is not None:
            part *= _across(weight[tap], axis, x.dtype)
        total = np.add(total, part, out=total) if tap else part
    return total


def _back_along(g: Array, axis: int, length: int, index: Array, weight: Array | None) -> Array:
    regular = weight is None and all(_is_regular(places, length) for places in index)
    if not regular and 0 < length <= SHORT and math.isfinite(g.sum()):
        return _through_matrix(g, axis, length, index, weight)
    total = np.zeros((*g.shape[:axis], length, *g.shape[axis:][1:]), g.dtype)
    for tap, places in enumerate(index):
        part = g if weight is None else g * _across(weight[tap], axis, g.dtype)
        _collect(total, part, axis, places)
    return total


def _through_matrix(g: Array, axis: int, length: int, index: Array, weight: Array | None) -> Array:
    """The same by one product; the zeros of the matrix would make NaN of an infinity."""
    matrix = np.zeros((index.shape[1], length), g.dtype)
    for tap, places in enumerate(index):
        values = 1 if weight is None else weight[tap]
        np.add.at(matrix, (np.arange(len(places)), places), values)
    if axis == -1:
        rows = g.reshape(math.prod(g.shape[:-1]), g.shape[-1])
        return np.asarray(rows @ matrix).reshape(*g.shape[:-1], length)
    lead, after = g.shape[:axis], g.shape[axis:][1:]
    product = np.matmul(matrix.T, g.reshape(*lead, g.shape[axis], math.prod(after)))
    return np.asarray(product).reshape(*lead, length, *after)


def _is_regular(places: Array, length: int) -> bool:
    """Tell whether elements are moved by a few slices, or repeated a few times in a row."""
    factor = len(places) // length if length else 0
    if factor <= FEW_RUNS and len(places) == factor * length and _repeats(places, factor):
        return True
    return len(_run_starts(places)) <= FEW_RUNS


def _across(values: Array, axis: int, dtype: np.dtype[Any]) -> Array:
    """Lay numbers along an axis."""
    return values.astype(dtype).reshape(-1, *(1,) * (-axis - 1))


def _collect(total: Array, part: Array, axis: int, places: Array) -> None:
    """total[..., places[i]] += part[..., i] for each i, along an axis."""
    if not places.size or not total.size:
        return
    factor = len(places) // total.shape[axis]
    if len(places) == factor * total.shape[axis] and _repeats(places, factor):
        split = part.reshape(*part.shape[:axis], total.shape[axis], factor, *part.shape[axis:][1:])
        for step in range(factor):
            total += split[_at(axis, step)]
        return
    starts = _run_starts(places)
    if len(starts) <= FEW_RUNS:
        _collect_runs(total, part, axis, places, [*starts.tolist(), len(places)])
        return
    order = np.argsort(places, kind="stable")
    if not (order[1:] > order[:-1]).all():
        part, places = np.take(part, order, axis=axis), places[order]
    first = np.flatnonzero(np.concatenate(([True], places[1:] != places[:-1])))
    sums = np.add.reduceat(part, first, axis=axis)
    where = _at(axis, places[first])
    total[where] += sums


def _repeats(places: Array, factor: int) -> bool:
    """Tell whether each element is read `factor` times in a row, in order."""
    return factor > 0 and bool((places == np.arange(len(places)) // factor).all())


def _run_starts(places: Array) -> Array:
    """Where runs of one step (1, 0 or -1) begin."""
    step = np.diff(places)
    if not len(step):
        return np.zeros(1, np.int64)
    before = np.concatenate((step[:1], step[:-1]))
    return np.concatenate(([0], np.flatnonzero((step != before) | (abs(step) > 1)) + 1)).astype(np.int64)


def _collect_runs(total: Array, part: Array, axis: int, places: Array, bounds: list[int]) -> None:
    """Add run after run: neighbours as one slice, one element read again and again as a sum."""
    for start, stop in itertools.pairwise(bounds):
        seen, first, last = part[_at(axis, slice(start, stop))], int(places[start]), int(places[stop - 1])
        if first == last and stop - start > 1:
            total[_at(axis, slice(first, first + 1))] += seen.sum(axis=axis, keepdims=True)
            continue
        if last < first:
            seen, first, last = np.flip(seen, axis), last, first
        total[_at(axis, slice(first, last + 1))] += seen


def _at(axis: int, where: Any) -> tuple[Any, ...]:
    """The index that selects along an axis counted from the end."""
    return (..., where, *(slice(None),) * (-axis - 1))
