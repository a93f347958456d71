"""Statistics of arrays on the GPU: a kernel counts, and one copy brings the counts of many arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import fsum
from typing import Any

import numpy as np

from minimp_backends.array_backend import FLOAT32, LOW, Array
from minimp_backends.cupy_casts import CupyCasts
from minimp_backends.gpu import Kernels
from minimp_backends.kernels.calls import SPELLINGS
from minimp_backends.kernels.families.statistics import parts
from minimp_backends.kernels.references import statistics as tables
from minimp_backends.tallies import Tally

__all__ = ["CupyStatistics"]

HostArray = np.ndarray[Any, Any]
COUNTED = frozenset({FLOAT32, *LOW})
MOST = 1 << 32
"""Elements from which on a count could wrap."""
WORD = 8
"""Bytes: what is brought begins at a multiple of it."""


@dataclass(frozen=True, slots=True)
class _Part:
    """What is brought of one array: `sums` float64 and `table` counts, or, without, its own bytes."""

    array: Array
    start: int
    sums: int
    table: int

    @property
    def end(self) -> int:
        """The word behind the last."""
        nbytes = 4 * self.table if self.table else self.array.nbytes
        return self.start + self.sums - (-nbytes // WORD)


class CupyStatistics(CupyCasts):
    """The kernel of statistics."""

    def tallies(self) -> bool:
        """Tell whether the kernel runs here."""
        return self.kernels_in_force() is not None

    def tally(self, arrays: Sequence[Array], *, with_cuts: bool = False) -> list[Tally | HostArray]:
        """Count on the GPU, array by array, and wait for it once."""
        kernels = self.kernels_in_force()
        if kernels is None:
            return super().tally(arrays, with_cuts=with_cuts)
        parts_of: dict[int, _Part] = {}
        end = 0
        for at, array in enumerate(arrays):
            if isinstance(array, self.xp.ndarray) and array.size:
                part = _planned(array, end, with_cuts)
                if part.table or part.end - part.start <= _most_words(with_cuts):
                    parts_of[at], end = part, part.end
        words = self._brought(kernels, list(parts_of.values()), end, with_cuts)
        return [
            _read(parts_of[at], words) if at in parts_of else self.to_host(array)
            for at, array in enumerate(arrays)
        ]

    def _brought(self, kernels: Kernels, planned: list[_Part], end: int, with_cuts: bool) -> HostArray:
        """Return the words of all parts."""
        if not planned:
            return np.empty(0, np.uint64)
        words = self.xp.zeros(end, np.uint64)
        for part in planned:
            room = words[part.start : part.end]
            flat = self.xp.ascontiguousarray(part.array).reshape(-1)
            if part.table:
                kernels(
                    f"tally_{SPELLINGS[flat.dtype.name]}", values=flat,
                    table=room[part.sums :].view(np.uint32)[: part.table],
                    sums=room[: part.sums].view(np.float64), with_cuts=int(with_cuts), count=flat.size,
                )  # fmt: skip
            else:
                room.view(np.uint8)[: flat.nbytes] = flat.view(np.uint8)
        return self.to_host(words)


def _most_words(with_cuts: bool) -> int:
    """Return what an array that is not counted may take: as much as the largest table."""
    return tables.table_size("float32", with_cuts=with_cuts) * 4 // WORD


def _planned(array: Array, start: int, with_cuts: bool) -> _Part:
    """Return how an array is brought: counted, where that is less than the array."""
    if array.dtype in COUNTED and array.size < MOST:
        counted = _Part(
            array, start, parts(array.size), tables.table_size(array.dtype.name, with_cuts=with_cuts)
        )
        if WORD * (counted.end - start) < array.nbytes:
            return counted
    return _Part(array, start, 0, 0)


def _read(part: _Part, words: HostArray) -> Tally | HostArray:
    """Return what was brought of an array."""
    room, dtype = words[part.start : part.end], part.array.dtype
    if not part.table:
        values: HostArray = room.view(np.uint8)[: part.array.nbytes].view(dtype)
        return values.reshape(part.array.shape)
    table = room[part.sums :].view(np.uint32)[: part.table]
    (lowest, binades), ends = tables.RANGES[dtype.name], tables.slots(dtype.name)
    rows = table[ends + 2 :].reshape(-1, binades)
    return Tally(
        zeros=int(table[tables.ZEROS]), nan=int(table[tables.NANS]), inf=int(table[tables.INFINITE]),
        ends=tables.ends_of(int(table[ends]), int(table[ends + 1])),
        total=fsum(room[: part.sums].view(np.float64).tolist()),
        binades=_by_exponent(table[tables.BINADE:ends], lowest),
        cuts={n: _by_exponent(row, lowest) for n, row in zip(tables.CUTS, _reached(rows), strict=True)}
        if rows.size else {},
    )  # fmt: skip


def _reached(rows: HostArray) -> HostArray:
    """Return how many numbers reach each cut: those in a higher one do, but for powers of two."""
    above = np.cumsum(rows[:0:-1], axis=0, dtype=np.int64)[::-1]
    return np.concatenate([rows[:1].astype(np.int64), above]) if rows.size else rows


def _by_exponent(counts: HostArray, lowest: int) -> dict[int, int]:
    places = np.flatnonzero(counts)
    return dict(zip((places + lowest).tolist(), counts[places].tolist(), strict=True))
