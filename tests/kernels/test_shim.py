"""Every kernel, compiled by g++ and run on this processor, gives the bits of its NumPy reference."""

from __future__ import annotations

import re

import numpy as np
import pytest

from minimp_backends.kernels import sources
from minimp_backends.kernels.registry import KERNELS
from minimp_backends.kernels.sources import Source
from tests.kernels.agreement import launched
from tests.kernels.families import NAMES
from tests.kernels.rungs import shim_faults
from tests.kernels.shim.building import Build, build
from tests.kernels.small_kernels import ANSWERS, BODIES, FAULTS, NEIGHBOUR, SOURCE, TRIED, UNGUARDED

FEW = 12


@pytest.mark.parametrize("name", NAMES)
def test_the_same_source_gives_the_bits_of_the_reference(host_compiler: str, name: str) -> None:
    """Oracle: the kernel's NumPy reference; both orders of threads; the bytes around each array.

    Some samples; the slow test below takes them all.
    """
    kernel = KERNELS[name]
    assert list(shim_faults(sources.read(kernel.source), kernel, most=FEW)) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_nothing_undefined_happens(host_compiler: str, capfd: pytest.CaptureFixture[str], name: str) -> None:
    """Oracle: the reference on every sample, and g++'s sanitizer, which writes to the standard error."""
    kernel = KERNELS[name]
    assert list(shim_faults(sources.read(kernel.source), kernel, sanitize=True)) == []
    assert capfd.readouterr().err == ""


# ---- the shim itself: kernels of a few lines, right and wrong


@pytest.fixture(scope="module")
def tried(host_compiler: str) -> Build:
    """Every small kernel, built."""
    return build(SOURCE, TRIED, optimize="-O1")


def run(tried: Build, body: str, *, backwards: bool) -> tuple[str, list[int]]:
    """Run a body on 0, 1, 2..., 63; return the fault and the array."""
    kernel = TRIED[BODIES.index(body)]
    launch = launched(kernel, {"x": np.arange(64, dtype=np.int32)})
    told = tried.launch(kernel, launch.shape, launch.addresses, backwards=backwards)
    return told, launch.copies["x"].tolist()


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("body", ANSWERS)
def test_warp_and_block_functions(tried: Build, body: str, backwards: bool) -> None:
    """Oracle: what the CUDA C++ Programming Guide says of each, written down thread by thread."""
    assert run(tried, body, backwards=backwards) == ("", [ANSWERS[body](t) for t in range(64)])


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("body", FAULTS)
def test_what_would_hang_is_a_fault_in_words(tried: Build, body: str, backwards: bool) -> None:
    """Oracle: CUDA C++ Programming Guide, synchronization and warp shuffle functions: undefined behaviour."""
    told, _ = run(tried, body, backwards=backwards)
    assert re.search(FAULTS[body], told), told


def test_a_missing_barrier_shows(tried: Build) -> None:
    """Oracle: each thread's neighbour, which neither order finds, and they differ from one another."""
    right = [*range(1, 64), 0]
    run(tried, NEIGHBOUR.format("__syncthreads();"), backwards=False)
    wrong = [run(tried, UNGUARDED, backwards=order)[1] for order in (False, True)]
    assert right not in wrong
    assert wrong[0] != wrong[1]


def test_shared_memory_is_declared_one_by_one(host_compiler: str) -> None:
    """Oracle: two variables in one declaration, of which the shim would watch one."""
    text = 'extern "C" __global__ void two(int* x) { __shared__ int a[4], b[4]; }'
    with pytest.raises(ValueError, match="in a declaration of its own"):
        build(Source("two.cu", text, {}), TRIED[:1])


def test_bytes_outside_an_array_are_watched(host_compiler: str) -> None:
    """Oracle: a kernel that writes one element too far."""
    text = 'extern "C" __global__ void tried_0(int* x) { x[64] = 1; }'
    launch = launched(TRIED[0], {"x": np.zeros(64, np.int32)})
    built = build(Source("over.cu", text, {}), TRIED[:1])
    assert built.launch(TRIED[0], launch.shape, launch.addresses, backwards=False) == ""
    assert list(launch.overruns()) == ["x: written outside its 256 bytes"]
