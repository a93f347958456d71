"""Kernels of one line, right and wrong, that both ways of running CUDA without a GPU are tried on.

Each runs in one block of 64 threads over an array of 64 ints that begins as 0, 1, 2... `t` is the thread.
"""

from __future__ import annotations

from collections.abc import Callable

from minimp_backends.kernels.declaring import Kernel, Launch, Parameter
from minimp_backends.kernels.sources import Source

__all__ = ["ANSWERS", "BODIES", "DYNAMIC", "FAULTS", "NEIGHBOUR", "SOURCE", "TRIED", "UNGUARDED"]

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
    "x[t] = __shfl_up_sync(~0u, t, 3, 8);": lambda t: t - 3 if t % 8 > 2 else t,
    "x[t] = __shfl_xor_sync(~0u, t, 4, 4);": lambda t: t ^ 4 if t & 4 else t,
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
    "if (t < 40) __syncthreads();": "waits at a barrier.* which not every thread reaches",
    "if (t == 3) return; __syncthreads();": "waits at a barrier.* which not every thread reaches",
    "for (int k = 0; k < t; ++k) __syncthreads();": "waits at a barrier.* which not every thread reaches",
    "if (t < 40) {\n __syncthreads();\n } else {\n __syncthreads();\n }": "wait at different barriers",
    "if (t < 7) x[t] = __shfl_xor_sync(~0u, t, 1); __syncthreads();": "waits at a warp function",
    "if (t & 8) {\n x[t] = __shfl_xor_sync(~0u, t, 1);\n } else {\n x[t] = __shfl_xor_sync(~0u, t, 2);\n }": (
        "waits at a warp function"
    ),
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
SOURCE = Source(
    "tried.cu",
    "".join(
        f'extern "C" __global__ void {kernel.name}(int* x) {{ const int t = threadIdx.x; {body} }}\n'
        for kernel, body in zip(TRIED, BODIES, strict=True)
    ),
    {},
)
