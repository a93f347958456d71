"""What statistics.cu must give: counts by binade, the ends as ordered integers, the sum block by block."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

__all__ = ["CUTS", "GROUP", "MOST_PARTS", "RANGES", "ends_of", "place_of", "slots", "table_size", "tally"]

GROUP, THREADS, MOST_PARTS = 8, 256, 1024
"""Neighbours that a thread takes, threads of a block, and blocks at most: they fill the largest GPUs."""
RANGES: Mapping[str, tuple[int, int]] = MappingProxyType(
    {"float16": (-24, 40), "bfloat16": (-133, 261), "float32": (-149, 277)}
)
"""dtype -> (exponent of its smallest subnormal number, binades from there on)."""
ZEROS, NANS, INFINITE, BINADE = range(4)
"""Places of the table: three counts, then one for each binade; then the ends, then the cuts."""
CUTS = (0, 7, 8, 10, 11)
"""n of each cut: at or above 2 - 2^-n in units of the binade, and below the next; 0: exactly at 1."""


def slots(dtype: str) -> int:
    """Return how many counts stand before the ends."""
    return BINADE + RANGES[dtype][1]


def table_size(dtype: str, *, with_cuts: bool) -> int:
    """Return the elements of a table."""
    return slots(dtype) + 2 + with_cuts * len(CUTS) * RANGES[dtype][1]


def place_of(numbers: Any) -> Any:
    """Return float32 numbers as unsigned integers in the same order, -0 before 0."""
    bits = np.ascontiguousarray(numbers, np.float32).view(np.uint32)
    return np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))


def ends_of(least: int, most: int) -> tuple[float, float] | None:
    """Return the ends as numbers, from what a table has of them; None where nothing was finite."""
    if not most:
        return None
    places = np.array([~np.uint32(least), most], np.uint32)
    bits = np.where(places >> 31, places & np.uint32(0x7FFF_FFFF), ~places)
    low, high = bits.astype(np.uint32).view(np.float32).tolist()
    return low, high


def tally(values: Any, table: Any, sums: Any, with_cuts: int, count: int) -> None:
    """Add the counts of the first `count` values to a table, raise its ends, and write the parts of the sum.

    Args:
        values: float16, bfloat16 or float32.
        table: :func:`table_size` counts; of several launches with one table, the counts add up. Its ends are
            the complement of the least finite number's place in order, and the place of the most; 0: none.
            A number is counted in the highest cut that it reaches, if it reaches one.
        sums: for each block the float64 sum of its finite values: each thread of its own in their order, then
            the upper half of the threads onto the lower, until one is left.
        with_cuts: whether there are cuts.
        count: elements.
    """
    dtype = values.dtype.name
    lowest, binades = RANGES[dtype]
    wide = values.reshape(-1)[:count].astype(np.float64)
    finite = np.isfinite(wide)
    known = wide[finite]
    part, exponent = np.frexp(np.abs(known[known != 0]))
    binade = exponent - 1 - lowest
    table[ZEROS] += np.uint32((known == 0).sum())
    table[NANS] += np.uint32(np.isnan(wide).sum())
    table[INFINITE] += np.uint32(np.isinf(wide).sum())
    table[BINADE : slots(dtype)] += np.bincount(binade, minlength=binades).astype(np.uint32)
    if known.size:
        places = place_of(known)
        ends = table[slots(dtype) : slots(dtype) + 2]
        np.maximum(ends, [(~places).max(), places.max()], out=ends)
    if with_cuts:
        reached = np.where(part == 0.5, 0, -1)
        for kind, n in enumerate(CUTS[1:], start=1):
            reached[2 * part >= 2 - 2.0**-n] = kind
        met = (reached * binades + binade)[reached >= 0]
        table[slots(dtype) + 2 :] += np.bincount(met, minlength=len(CUTS) * binades).astype(np.uint32)
    sums[:] = _block_sums(np.where(finite, wide, 0.0), sums.size)


def _block_sums(terms: Any, blocks: int) -> Any:
    """Return the sums of all blocks; adding 0 for what is not there changes none."""
    turn = blocks * THREADS * GROUP  # elements that the grid takes before a thread comes to its next group
    padded = np.zeros(max(-(-terms.size // turn), 1) * turn)
    padded[: terms.size] = terms
    threads = np.zeros((blocks, THREADS))
    for each in padded.reshape(-1, blocks, THREADS, GROUP):
        for k in range(GROUP):
            threads = threads + each[:, :, k]
    while threads.shape[1] > 1:
        half = threads.shape[1] // 2
        threads = threads[:, :half] + threads[:, half:]
    return threads[:, 0]
