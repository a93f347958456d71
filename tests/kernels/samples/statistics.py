"""Samples of statistics.cu: every kind of number at every place of a group, sums whose order can be seen."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from minimp_backends.kernels.declaring import KINDS
from minimp_backends.kernels.families.statistics import KERNELS, parts
from minimp_backends.kernels.references.statistics import table_size
from tests.kernels.samples.base import Arguments, Bug

SMALL = {kernel.name: 1800 for kernel in KERNELS}
"""A table is written to where there is something to count alone, and so costs the interpreter nothing."""


def numbers(values: np.ndarray, count: int, with_cuts: int, *, used: bool = False) -> Arguments:
    """Return the arguments for an array; `used`: the table holds the counts of another one already."""
    table = np.zeros(table_size(values.dtype.name, with_cuts=bool(with_cuts)), np.uint32)
    if used:
        table[:] = 1 + np.arange(table.size) % 7
    sums = np.full(parts(count), np.nan)
    return {"values": values, "table": table, "sums": sums, "with_cuts": with_cuts, "count": count}


def near_powers(kind: str) -> np.ndarray:
    """Return powers of two of a format, what stands 7 to 12 ones close below the next, and their halves."""
    sizes = 2.0 ** np.array([-149, -140, -133, -127, -126, -24, -20, -15, -14, -1, 0, 9, 15, 127])
    fractions = [1.0, 1.5, *(2 - 2.0**-n for n in (6, 7, 8, 9, 10, 11, 12, 23))]
    with np.errstate(all="ignore"):
        grid = np.outer(sizes, fractions)
        return np.concatenate([grid.ravel(), -grid.ravel()]).astype(KINDS[kind].dtype)


def odd(kind: str) -> np.ndarray:
    """Return zeros of both signs, infinities, NaNs, and the ends of a format."""
    dtype = KINDS[kind].dtype
    bits = np.dtype(f"u{dtype.itemsize}")
    top = 8 * dtype.itemsize - 1
    infinity = int(np.array([np.inf], dtype).view(bits)[0])
    codes = [0, 1, infinity - 1, infinity, infinity + 1, (1 << top) - 1]
    return np.array([*codes, *(each | 1 << top for each in codes)], bits).view(dtype)


def samples(kind: str) -> Iterator[Arguments]:
    """Yield few and many, groups that are cut short, tables that are not empty, and bit patterns."""
    dtype, rng = KINDS[kind].dtype, np.random.default_rng(11)
    mixed = np.concatenate([odd(kind), near_powers(kind)[::5], np.full(3, -0.0, dtype)])
    yield numbers(mixed[:29].copy(), 29, 1)
    yield numbers(np.concatenate([odd(kind), odd(kind)[:7]]), 19, 0, used=True)
    yield numbers(rng.permutation(mixed)[:83].copy(), 61, 1, used=True)
    for nothing in (np.nan, -np.inf):
        yield numbers(np.full(9, nothing, dtype), 9, 1)
    yield numbers(-np.abs(near_powers(kind)[:40].astype(np.float32)).astype(dtype), 40, 0)
    yield numbers(mixed, 0, 1)
    for count in (1, 7, 8, 9):
        yield numbers(np.full(11, 0.75, dtype), count, 1)
    spread = rng.standard_normal(5003) * 10.0 ** rng.integers(-4, 4, 5003)
    yield numbers(spread.astype(dtype), 5003, 1)
    yield numbers(near_powers(kind), near_powers(kind).size, 1)
    patterns = rng.integers(0, 1 << 8 * dtype.itemsize, 20_000, np.uint64)
    yield numbers(patterns.astype(f"u{dtype.itemsize}").view(dtype), 20_000, 1)


SAMPLES = {kernel.name: partial(samples, kernel.parameters[0].kind) for kernel in KERNELS}

BUGS = (
    Bug("counts are overwritten", "tally_half", "atomicAdd(counts + slot * COPIES, 1u);",
        "counts[slot * COPIES] += 1u;"),
    Bug("shared counts are not cleared", "tally_float", "counts[at] = 0u;", "counts[at] += 0u;"),
    Bug("one copy of the counts is lost", "tally_bfloat16", "copy < COPIES", "copy < COPIES - 1"),
    Bug("the table is overwritten", "tally_half", "atomicAdd(table + slot, met);", "table[slot] = met;"),
    Bug("an infinity is a NaN", "tally_float", "magnitude > 0x7F800000u ? NANS",
        "magnitude > 0x7F7FFFFFu ? NANS"),
    Bug("subnormals are zeros", "tally_float", "magnitude == 0u ? ZEROS", "magnitude < 0x00800000u ? ZEROS"),
    Bug("subnormals share a binade", "tally_bfloat16", "exponent = -126 - places;", "exponent = -127;"),
    Bug("a subnormal's fraction stays where it was", "tally_float", "magnitude <<= places;",
        "magnitude <<= 0;"),
    Bug("powers of two are no cut", "tally_half", "if (fraction == 0u) {", "if (fraction == 1u) {"),
    Bug("nine ones are ten", "tally_float", "ones < 10 ? 2", "ones < 9 ? 2"),
    Bug("negative numbers the wrong way round", "tally_float", "? ~bits :", "? bits ^ 0x7FFFFFFFu :"),
    Bug("the least is not turned", "tally_half", "~place > seen.least ? ~place",
        "place > seen.least ? place"),
    Bug("the sum has the infinities", "tally_float", "if (magnitude < 0x7F800000u) {",
        "if (magnitude < 0x7F800001u) {"),
    Bug("the sum in single precision", "tally_float", "__dadd_rn(seen.sum, static_cast<double>(x))",
        "static_cast<double>(__fadd_rn(static_cast<float>(seen.sum), x))"),
    Bug("the tree without a barrier", "tally_float", "width /= 2) {\n        __syncthreads();",
        "width /= 2) {"),
    Bug("runs wherever the values begin", "tally_half", "const bool whole = aligned(values);",
        "const bool whole = true;"),
    Bug("groups begin at 32 bits", "tally_bfloat16", "const long long begin = GROUP * group;",
        "const long long begin = static_cast<int>(GROUP * group);"),
    Bug("the tree ends too early", "tally_half", "width > 0;", "width > 1;"),
    Bug("the rest of a group is lost", "tally_bfloat16", "GROUP * group < count;",
        "GROUP * group + GROUP <= count;"),
    Bug("the rest of a group is too long", "tally_half", "if (full || begin + k < count)",
        "if (full || begin + k <= count)"),
    Bug("handed in before all have counted", "tally_half",
        "sum_block(sums, seen.sum);  // behind its barriers all have counted\n",
        "hand_in<Element>(table, counts, cuts, ends, with_cuts);\n"
        "    sum_block(sums, seen.sum);\n    return;\n"),
    Bug("cuts lie in the next row", "tally_half", "cuts + cut * Range", "cuts + (cut + 1) % CUTS * Range"),
)  # fmt: skip
