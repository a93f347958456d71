"""Samples of sums of rows: every kind of team, sums whose order shows, odd numbers."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from minimp_backends.kernels.families.sums import KERNELS, KINDS_SERVED
from tests.kernels.samples.base import Arguments, Bug
from tests.kernels.samples.rows import numbers, odd, shapes, sizes


def rows_of(kind: str) -> Iterator[Arguments]:
    """Yield rows of every length, odd ones, subnormal ones and one of zeros that are negative."""
    made = [numbers(shape, kind, seed) for seed, shape in enumerate(shapes(kind, "bfloat16"))]
    tiny = np.full((2, 9), 2.0**-140, np.float32).astype(made[0].dtype)
    for x in (*made, odd((8, 6), kind, 1), tiny, np.full((1, 3), -0.0, made[0].dtype)):
        yield {"x": x, "y": np.full(len(x), 7, np.float32), **sizes(*x.shape)}


SAMPLES = {f"row_sum_{kind}": partial(rows_of, kind) for kind in KINDS_SERVED}
assert set(SAMPLES) == {kernel.name for kernel in KERNELS}

SMALL = {f"row_sum_{kind}": 530 for kind in KINDS_SERVED}
"""Enough for a row of four warps, which meet at barriers."""

BUGS = (
    Bug("the first row of a block alone", "row_sum_float", "team.thread == 0", "threadIdx.x == 0"),
    Bug("what lies behind the end counts", "row_sum_half", "length, whole, 0.0f", "length, whole, 1.0f"),
    Bug("the last stretch alone", "row_sum_bfloat16",
        "        read_stretch", "        sum = 0.0f;\n        read_stretch"),
    Bug("a warp's sum for the row's", "row_sum_float", "over_team<Sum>(team, sum)", "over_warp<Sum>(sum)"),
)  # fmt: skip
