"""Kernels of a grid-stride loop give the same bits whatever the grid, the block, and where arrays begin."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import numpy as np
import pytest

from minimp_backends.kernels import sources
from minimp_backends.kernels.families import (
    activations,
    casts,
    checking,
    embedding,
    statistics,
    unscaling,
    updates,
)
from minimp_backends.kernels.registry import KERNELS
from tests.kernels.agreement import expected, launched, mismatches
from tests.kernels.families import kernels_of
from tests.kernels.samples import SAMPLES, Arguments
from tests.kernels.shim.building import build

FAMILIES = (activations, casts, checking, embedding, unscaling, updates)
NAMES = [*(kernel.name for family in FAMILIES for kernel in family.KERNELS), "sum_parts"]
TALLIES = [kernel.name for kernel in statistics.KERNELS]
SHAPES = ((1, 32), (3, 96), (2, 1))
HALF_A_RUN = 8  # bytes: every element is aligned, no run of 16 bytes is


def some(name: str) -> Iterator[Arguments]:
    """Yield a few of a kernel's samples, spread over all of them."""
    every = list(SAMPLES[name]())
    yield from islice(every, 0, None, max(1, len(every) // 12))


@pytest.mark.parametrize("name", NAMES)
def test_any_grid_and_any_alignment(host_compiler: str, name: str) -> None:
    """Oracle: the NumPy reference; fewer threads than elements, and arrays that are slices of others."""
    kernel = KERNELS[name]
    built = build(sources.read(kernel.source), kernels_of(kernel.source))
    for arguments in some(name):
        wanted = expected(kernel, arguments)
        for grid, block in SHAPES:
            for offset in (0, HALF_A_RUN):
                launch = launched(kernel, arguments, offset=offset)
                assert built.launch(kernel, (grid, block, 0), launch.addresses, backwards=False) == ""
                assert list(launch.overruns()) == []
                assert list(mismatches(kernel, arguments, launch.copies, wanted)) == []


@pytest.mark.parametrize("name", TALLIES)
def test_a_tally_of_fewer_blocks(host_compiler: str, name: str) -> None:
    """Oracle: the NumPy reference, whose sums are of as many blocks as there is room for."""
    kernel = KERNELS[name]
    built = build(sources.read(kernel.source), kernels_of(kernel.source))
    arguments = max(SAMPLES[name](), key=lambda each: each["count"])
    for grid in (1, 3):
        given = {**arguments, "sums": np.full(grid, np.nan)}
        launch = launched(kernel, given, offset=HALF_A_RUN)
        assert built.launch(kernel, (grid, 256, 0), launch.addresses, backwards=False) == ""
        assert list(launch.overruns()) == []
        assert list(mismatches(kernel, given, launch.copies, expected(kernel, given))) == []
