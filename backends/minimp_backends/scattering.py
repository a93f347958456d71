"""Adding at places that may meet, on NumPy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

__all__ = ["FlatScatter", "add_rows"]

Array = np.ndarray[Any, Any]
FEW = 8
"""How many times as many places as values there may be: numbering the places must not cost more."""
MEETING = 8
"""From how many rows a place on, on average, all that meet are summed at once."""


class FlatScatter:
    """`np.add.at` by one index into the flat array, for which alone NumPy has a loop that is fast."""

    def _add_at(self, out: Array, index: Any, values: Array) -> None:
        """Add in place, in the C order of the values."""
        if values.size * FEW < out.size or not out.flags.c_contiguous:
            np.add.at(out, index, values)
            return
        places = _numbers(out.shape, index)
        np.add.at(out.reshape(-1), places.reshape(-1), np.broadcast_to(values, places.shape).reshape(-1))


def _numbers(shape: tuple[int, ...], index: Any) -> Array:
    """Return the places of an index by their numbers in C order."""
    parts = index if isinstance(index, tuple) else (index,)
    if len(parts) == len(shape) and all(_is_whole(part) for part in parts):
        total: Array = np.zeros((), np.int64)
        for part, length in zip(parts, shape, strict=True):
            total = total * length + (
                part if part.min(initial=0) >= 0 else np.where(part < 0, part + length, part)
            )
        return total
    return np.asarray(np.arange(math.prod(shape)).reshape(shape)[index])


def _is_whole(part: Any) -> bool:
    return isinstance(part, np.ndarray) and part.dtype == np.int64


def add_rows(out: Array, places: Array, rows: Array) -> None:
    """Put the sums of the rows that share a place, (K,) of the rows (K, D), into `out`, (V, D), zeros.

    Where few meet, one pass adds all the first of their places, one all the second, and so on: in the order
    of the rows, and faster than `np.add.reduceat`, whose order is its own.
    """
    order = np.argsort(places, kind="stable")
    places = places[order]
    starts = np.flatnonzero(np.diff(places, prepend=-1))
    if len(places) >= MEETING * len(starts):
        out[places[starts]] = np.add.reduceat(rows[order], starts, axis=0)
        return
    counts = np.diff(starts, append=len(places))
    out[places[starts]] = rows[order[starts]]
    for rank in range(1, int(counts.max(initial=0))):
        starts = starts[counts > rank]
        counts = counts[counts > rank]
        out[places[starts + rank]] += rows[order[starts + rank]]
