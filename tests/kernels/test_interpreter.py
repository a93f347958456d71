"""Every kernel as NVRTC compiled it, run by the PTX interpreter, gives the bits of its NumPy reference."""

from __future__ import annotations

import pytest

from minimp_backends.kernels import sources
from minimp_backends.kernels.nvrtc import Compiler
from minimp_backends.kernels.registry import KERNELS
from tests.kernels.compiled import CHIPS
from tests.kernels.families import NAMES
from tests.kernels.rungs import interpreted_faults, moved_faults

FEW = 2


@pytest.mark.parametrize("name", NAMES)
def test_the_compiled_text_gives_the_bits_of_the_reference(compiler: Compiler, name: str) -> None:
    """Oracle: the kernel's NumPy reference, on some small samples, for one chip; no access that is wrong."""
    kernel = KERNELS[name]
    assert list(interpreted_faults(sources.read(kernel.source), kernel, most=FEW)) == []


@pytest.mark.slow
@pytest.mark.parametrize("chip", [CHIPS[0], CHIPS[-1]], ids="sm_{}".format)
@pytest.mark.parametrize("name", NAMES)
def test_every_small_sample_on_the_oldest_and_newest_chip(compiler: Compiler, name: str, chip: int) -> None:
    """Oracle: the kernel's NumPy reference; older chips convert formats in software, newer ones do not."""
    kernel = KERNELS[name]
    most = 40  # of kernels with hundreds: the shim runs them all
    assert list(interpreted_faults(sources.read(kernel.source), kernel, chip=chip, most=most)) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_slices_of_arrays_are_taken(compiler: Compiler, name: str) -> None:
    """Oracle: the NumPy reference; each array in turn begins one element behind a multiple of 16 bytes."""
    kernel = KERNELS[name]
    assert list(moved_faults(sources.read(kernel.source), kernel)) == []
