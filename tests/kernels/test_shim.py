"""Every kernel, compiled by g++ and run on this processor, gives the bits of its NumPy reference."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from minimp_backends.kernels import sources
from minimp_backends.kernels.declaring import Kernel, Launch, Parameter
from minimp_backends.kernels.registry import KERNELS
from minimp_backends.kernels.sources import Source
from tests.kernels.agreement import expected, launched, mismatches
from tests.kernels.families import NAMES, kernels_of
from tests.kernels.samples import SAMPLES, Arguments
from tests.kernels.shim.building import Build, build


def faults(built: Build, kernel: Kernel, arguments: Arguments, *, backwards: bool) -> Iterator[str]:
    """Yield what is wrong with one launch."""
    launch = launched(kernel, arguments)
    told = built.launch(kernel, launch.shape, launch.addresses, backwards=backwards)
    if told:
        yield told
    yield from launch.overruns()
    yield from mismatches(kernel, arguments, launch.copies, expected(kernel, arguments))


def all_faults(built: Build, kernel: Kernel) -> Iterator[str]:
    """Yield what is wrong with a kernel over all of its samples, in both orders of threads."""
    for place, arguments in enumerate(SAMPLES[kernel.name]()):
        for backwards in (False, True):
            order = "last to first" if backwards else "first to last"
            for fault in faults(built, kernel, arguments, backwards=backwards):
                yield f"sample {place}, threads {order}: {fault}"


@pytest.mark.parametrize("name", NAMES)
def test_the_same_source_gives_the_bits_of_the_reference(host_compiler: str, name: str) -> None:
    """Oracle: the kernel's NumPy reference; both orders of threads; the bytes around each array."""
    kernel = KERNELS[name]
    built = build(sources.read(kernel.source), kernels_of(kernel.source))
    assert list(all_faults(built, kernel)) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_nothing_undefined_happens(host_compiler: str, capfd: pytest.CaptureFixture[str], name: str) -> None:
    """Oracle: g++'s sanitizer of undefined behaviour, which writes to the standard error of the process."""
    kernel = KERNELS[name]
    built = build(sources.read(kernel.source), kernels_of(kernel.source), sanitize=True)
    assert list(all_faults(built, kernel)) == []
    assert capfd.readouterr().err == ""


# ---- the shim itself: kernels of a few lines, right and wrong


NEIGHBOUR = "__shared__ int seen[64]; seen[t] = x[t]; {} x[t] = seen[(t + 1) % 64];"
DYNAMIC = """extern __shared__ int memory[]; const int before = memory[t]; __syncthreads(); memory[t] = x[t];
    __syncthreads(); x[t] = before == 0 ? -1 : memory[63 - t];"""
ANSWERS: dict[str, Callable[[int], int]] = {
    "x[t] = __shfl_down_sync(~0u, t, 3);": lambda t: t + 3 if t % 32 < 29 else t,
    "x[t] = __shfl_up_sync(~0u, t, 3);": lambda t: t - 3 if t % 32 > 2 else t,
    "x[t] = __shfl_xor_sync(~0u, t, 5);": lambda t: t ^ 5,
    "x[t] = __shfl_sync(~0u, t, t + 1);": lambda t: t // 32 * 32 + (t + 1) % 32,
    "x[t] = __shfl_sync(~0u, t, 2, 8);": lambda t: t // 8 * 8 + 2,
    "x[t] = __shfl_down_sync(~0u, t, 3, 8);": lambda t: t + 3 if t % 8 < 5 else t,
    "if (t % 32 < 8) x[t] = __shfl_xor_sync(0xFFu, t, 1);": lambda t: t ^ 1 if t % 32 < 8 else t,
    "x[t] = __ballot_sync(~0u, t % 3 == 0) >> 3 & 0xFF;": lambda t: 0x49 if t < 32 else 0x92,
    "x[t] = __any_sync(~0u, t == 40);": lambda t: int(t > 31),
    "x[t] = __all_sync(~0u, t != 40);": lambda t: int(t < 32),
    "x[t] = __syncthreads_or(t == 9);": lambda _: 1,
    "x[t] = __syncthreads_and(t != 9);": lambda _: 0,
    "x[t] = __syncthreads_count(t > 9);": lambda _: 54,
    "atomicAdd(&x[9], t); __syncthreads(); x[t] = x[9];": lambda _: 9 + 63 * 32,
    "atomicMax(&x[5], t); __syncthreads(); if (t) x[t] = x[5];": lambda t: 63 if t else 0,
    NEIGHBOUR.format("__syncthreads();"): lambda t: (t + 1) % 64,
    DYNAMIC: lambda t: 63 - t,
}
FAULTS = {
    "if (t < 40) __syncthreads();": "waits at a barrier .* which not every thread reaches",
    "if (t == 3) return; __syncthreads();": "waits at a barrier .* which not every thread reaches",
    "for (int k = 0; k < t; ++k) __syncthreads();": "waits at a barrier .* which not every thread reaches",
    "if (t < 40) {\n __syncthreads();\n } else {\n __syncthreads();\n }": "wait at different barriers",
    "if (t < 7) x[t] = __shfl_xor_sync(~0u, t, 1); __syncthreads();": "waits at a warp function",
    "if (t < 7) x[t] = __shfl_down_sync(~0u, t, 1);": "takes a value from lane 7, which gave none",
    "if (t < 7) x[t] = __shfl_down_sync(0x7Fu, t, 1);": "takes a value from lane 7, which gave none",
    "if (t < 7) x[t] = __shfl_down_sync(0x1Fu, t, 1);": "with a mask that leaves it out",
}
UNGUARDED = NEIGHBOUR.format("")
BODIES = [*ANSWERS, *FAULTS, UNGUARDED]
TRIED = [
    Kernel(f"tried_{k}", "tried.cu", (Parameter("x", "int32", "inout"),), lambda _: Launch(1, 64, 256), print)
    for k in range(len(BODIES))
]


@pytest.fixture(scope="module")
def tried(host_compiler: str) -> Build:
    """Every body above as a kernel over an array of one int for each thread."""
    entries = [
        f'extern "C" __global__ void {kernel.name}(int* x) {{ const int t = threadIdx.x; {body} }}\n'
        for kernel, body in zip(TRIED, BODIES, strict=True)
    ]
    return build(Source("tried.cu", "".join(entries), {}), TRIED, optimize="-O1")


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
