"""Matrix products: fp16 in with fp32 or fp16 out, batched, and of int8."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from minimp import formats
from minimp.benchmarks.gpu.jobs import OURS, ROOF, TORCH, Aim, Bench, Job

__all__ = ["batched", "codes", "gemm"]

NAMES = {"float16": "fp16", "bfloat16": "bf16", "float32": "fp32"}
PLAIN = "array library"
"""The array library's own matmul, without our types spelled out."""
HALF = "minimp fp16"
MOST_ROWS = 1 << 12
"""Random rows are drawn once and repeated: times do not depend on the numbers."""


def random_array(bench: Bench, shape: tuple[int, ...], name: str, seed: int = 0) -> Any:
    """Return normal numbers of a format on the device, few of them drawn and then repeated."""
    count = int(np.prod(shape))
    drawn = np.random.default_rng(seed).standard_normal(min(count, MOST_ROWS * 256), np.float32)
    return bench.backend.from_host(np.resize(drawn.astype(formats.get(name).dtype), shape))


def product(bench: Bench, a: Any, b: Any, output: str) -> Callable[[], Any]:
    """Return the product with float32 sums: cuBLAS's with this output, else rounded in a step of its own."""
    backend: Any = bench.backend
    if hasattr(backend, "gpu"):
        return lambda: backend.gpu.cublas.matmul(a, b, output=output, compute="float32")
    form = formats.get(output)
    return lambda: backend.narrow(backend.matmul(a, b, accumulate="float32"), form)


def gemm(bench: Bench) -> Iterator[Job]:
    """C = A B over squares, and once with sizes that are no multiples of 8 and each transposition."""
    for n in bench.sizes.squares:
        aims = (Aim(TORCH, 0.95),)
        for output in ("float32", "float16"):
            yield _product_job(bench, (n, n, n), "nn", "float16", output, aims if output == "float16" else ())
    n = bench.sizes.squares[-2]
    yield _product_job(bench, (n, n, n), "nn", "bfloat16", "bfloat16", (Aim(TORCH, 0.95),))
    for layout in ("nt", "tn"):
        yield _product_job(bench, (n, n, n), layout, "float16", "float16", (Aim(TORCH, 0.95),))
    yield _product_job(bench, bench.sizes.odd, "nn", "float16", "float16", (Aim(TORCH, 0.95),))


def _product_job(
    bench: Bench, sizes: tuple[int, int, int], layout: str, name: str, output: str, aims: tuple[Aim, ...]
) -> Job:
    m, n, k = sizes
    a = random_array(bench, (m, k) if layout[0] == "n" else (k, m), name, 1)
    b = random_array(bench, (k, n) if layout[1] == "n" else (n, k), name, 2)
    a, b = (a if layout[0] == "n" else a.T), (b if layout[1] == "n" else b.T)
    contenders: dict[str, Callable[[], object]] = {OURS: product(bench, a, b, output)}
    if bench.torch is not None and name == output:
        contenders[TORCH] = bench.torch.matmul(sizes, layout, name)
    shape = f"{n}^3" if m == n == k else f"{m}x{n}x{k}"
    transposed = "" if layout == "nn" else f", {layout.upper()}"
    what = f"{shape} {NAMES[name]} to {NAMES[output]}{transposed}"
    return Job(what, contenders, 2.0 * m * n * k, "FLOP", aims)


def batched(bench: Bench) -> Iterator[Job]:
    """The two products of attention, in both 16-bit formats, beside the array library's own matmul."""
    for matrices, m, n, k in bench.sizes.batches:
        for name in ("float16", "bfloat16"):
            a = random_array(bench, (matrices, m, k), name, 1)
            b = random_array(bench, (matrices, k, n), name, 2)
            contenders: dict[str, Callable[[], object]] = {OURS: product(bench, a, b, name)}
            aims: tuple[Aim, ...] = (Aim(TORCH, 0.9),)
            if name == "float16":  # of bfloat16 there is none (cupy 14)
                contenders[PLAIN] = _plain(bench, a, b)
                aims += (Aim(PLAIN, 4.0),)
            if bench.torch is not None:
                contenders[TORCH] = bench.torch.bmm((matrices, m, n, k), name)
            what = f"{matrices} x {m}x{n}x{k} {NAMES[name]}"
            yield Job(what, contenders, 2.0 * matrices * m * n * k, "FLOP", aims)


def _plain(bench: Bench, a: Any, b: Any) -> Callable[[], Any]:
    xp: Any = bench.backend.xp
    return lambda: xp.matmul(a, b)


def codes(bench: Bench) -> Iterator[Job]:
    """int8 by int8 with int32 sums, beside our own product of fp16 numbers of the same sizes."""
    n, backend = bench.sizes.integers, bench.backend
    rng = np.random.default_rng(0)
    a, b = (backend.from_host(rng.integers(-128, 128, (n, n)).astype(np.int8)) for _ in range(2))
    x, y = random_array(bench, (n, n), "float16", 1), random_array(bench, (n, n), "float16", 2)
    contenders: dict[str, Callable[[], object]] = {
        OURS: lambda: backend.integer_matmul(a, b),
        HALF: product(bench, x, y, "float16"),
    }
    if bench.torch is not None:
        contenders[TORCH] = bench.torch.int_mm(n)
    aims = (Aim(TORCH, 0.8), Aim(HALF, 1.3))
    yield Job(f"{n}^3 int8 to int32", contenders, 2.0 * n**3, "OP", aims)


def roof_product(bench: Bench) -> Job:
    """Return the largest product, whose best rate is the roof of all others."""
    n = bench.sizes.squares[-2]
    job = _product_job(bench, (n, n, n), "nn", "float16", "float16", ())
    return Job(f"{job.what}: the roof of products", job.contenders, job.amount, job.unit, (Aim(ROOF, 0.95),))
