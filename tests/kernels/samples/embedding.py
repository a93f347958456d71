"""Samples of embedding.cu: places that meet, that nobody looks up, and sums whose order can be seen."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from minimp_backends.kernels.declaring import KINDS
from minimp_backends.kernels.families.embedding import KERNELS
from tests.kernels.samples.base import Arguments, Bug


def lookups(kind: str, places: list[int], vocabulary: int, width: int, seed: int = 0) -> Arguments:
    """Return the arguments for places in some order; magnitudes differ, so that another order differs."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((len(places), width)) * 10.0 ** rng.integers(-3, 4, (len(places), width))
    order = np.argsort(np.array(places, np.int64), kind="stable").astype(np.int64)
    starts = np.searchsorted(np.array(places, np.int64)[order], np.arange(vocabulary + 1)).astype(np.int64)
    dtype = KINDS[kind].dtype
    return {
        "rows": rows.astype(dtype), "order": order, "starts": starts,
        "table": np.full((vocabulary, width), 7, dtype), "vocabulary": vocabulary, "width": width,
    }  # fmt: skip


def samples(kind: str) -> Iterator[Arguments]:
    """Yield few and many that meet, none at all, odd values, and sums that leave the format."""
    yield lookups(kind, [3, 0, 3, 1, 3, 0], 5, 7)
    yield lookups(kind, [], 3, 4)
    yield lookups(kind, [2], 3, 1)
    odd = lookups(kind, [1, 1, 0, 2, 2, 1], 4, 6)
    odd["rows"][0] = [np.nan, np.inf, -np.inf, 1, -0.0, 0]
    odd["rows"][1] = [1, -np.inf, -np.inf, -1, -0.0, -0.0]
    odd["rows"][5] = [2, 1, 1, 0, -0.0, 0]
    odd["rows"][2] = -0.0  # the only row of its place: 0 + -0 is 0
    odd["rows"][3:5] = 60000
    yield odd
    small = lookups(kind, [0] * 16, 1, 3)
    small["rows"][:] = 2.0**-9  # too small to move 1 in bfloat16, one at a time
    small["rows"][0] = 1
    yield small
    many = np.random.default_rng(5).integers(0, 40, 300)
    yield lookups(kind, many.tolist(), 41, 33, seed=6)


SAMPLES = {kernel.name: partial(samples, kernel.parameters[0].kind) for kernel in KERNELS}

BUGS = (
    Bug("the last row of a place is lost", "sum_segments_float",
        "k < starts[place + 1]", "k + 1 < starts[place + 1]"),
    Bug("rows in the order of memory", "sum_segments_half", "rows[order[k] * width", "rows[k * width"),
    Bug("rounded at every addition", "sum_segments_bfloat16",
        "sum = __fadd_rn(sum, widen(rows[order[k] * width + column]));",
        "sum = widen(narrow(__fadd_rn(sum, widen(rows[order[k] * width + column])), Element()));"),
    Bug("the sum begins at -0", "sum_segments_float", "float sum = 0.0f;", "float sum = -0.0f;"),
    Bug("rows counted in 32 bits", "sum_segments_half",
        "rows[order[k] * width + column]", "rows[static_cast<int>(order[k] * width) + column]"),
    Bug("threads counted in 32 bits", "sum_segments_float",
        "static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x",
        "blockIdx.x * blockDim.x + threadIdx.x"),
    Bug("the last place is left", "sum_segments_half",
        "i < vocabulary * width;", "i < (vocabulary - 1) * width;"),
)  # fmt: skip
