"""Samples of `checking.cu`: finite arrays, and one odd value at each place that matters."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from minimp_backends.kernels.declaring import KINDS
from minimp_backends.kernels.families.checking import KERNELS
from tests.kernels.samples.base import Arguments, Bug

PLACES = (0, 31, 32, 199)  # the ends of warps, and the last element


def samples(kind: str) -> Iterator[Arguments]:
    """Yield finite values, then an infinity or NaN at each place; a flag that is already set stays set."""
    dtype = KINDS[kind].dtype
    largest = np.array([0x7BFF], "u2").view("f2")[0] if kind == "half" else 3.0e38
    finite = np.linspace(-1, 1, 200).astype(dtype)
    finite[:4] = [largest, -largest, 0.0, -0.0]
    for flag in (0, 1):
        yield {"values": finite.copy(), "found": np.array([flag], "i4"), "count": finite.size}
    for place in PLACES:
        for odd in (np.inf, -np.inf, np.nan):
            values = finite.copy()
            values[place] = odd
            yield {"values": values, "found": np.zeros(1, "i4"), "count": values.size}
    beyond = finite.copy()
    beyond[150:] = np.nan
    yield {"values": beyond, "found": np.zeros(1, "i4"), "count": 150}
    yield {"values": beyond, "found": np.zeros(1, "i4"), "count": 0}
    long = np.ones(5000, dtype)
    long[4999] = -np.inf
    yield {"values": long, "found": np.zeros(1, "i4"), "count": 5000}
    yield {"values": long, "found": np.zeros(1, "i4"), "count": 4999}


SAMPLES = {kernel.name: partial(samples, kernel.parameters[0].kind) for kernel in KERNELS}

BUGS = (
    Bug("found is overwritten", "find_nonfinite_float", "atomicOr(found, 1);", "*found = bad;"),
    Bug(
        "the stride ends at half the grid",
        "find_nonfinite_half",
        "i < count; i += element_stride()",
        "i < count / 2; i += element_stride()",
    ),
    Bug("NaN counts as finite", "find_nonfinite_float", "!= 0x7F800000u", "!= 0xFF800000u"),
    Bug("a thread asks alone", "find_nonfinite_bfloat16", "__syncthreads_or(bad)", "bad"),
    Bug("infinity of half is missed", "find_nonfinite_half", "!= 0x7C00u", "!= 0x7E00u"),
    Bug("elements counted in 32 bits", "find_nonfinite_double", "values[i]", "values[static_cast<int>(i)]"),
    Bug("double as float", "find_nonfinite_double", "0x7FF0000000000000ull", "0x7FF8000000000000ull"),
)
