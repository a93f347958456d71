"""Products of FP8 numbers: by NVIDIA's nvmath-python over cuBLASLt, beside `torch._scaled_mm`.

CuPy has no FP8 dtype and no call of cuBLASLt, so that ours multiplies FP8 as codes that are widened first.
nvmath-python does multiply it, and takes FP8 tensors of PyTorch's: what it gains is measured here, before it
is an engine of ours. The second factor lies by columns, as cuBLASLt wants it of FP8 (cuBLAS 12.9,
cublasLtMatmul, "FP8 kernels"), all sizes are multiples of 16, and scales are one number a matrix.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from typing import Any

from minimp.benchmarks.gpu.jobs import OURS, TORCH, Aim, Bench, Job

__all__ = ["eights"]

FRONT, ADVANCED = "nvmath", "nvmath.linalg.advanced"
NEEDED = "pip install 'nvmath-python[cu12]'"
ENOUGH = 0.9
"""Of the speed of `torch._scaled_mm`, which is cuBLASLt as well."""
MULTIPLE = 16
"""Of which cuBLASLt wants the sizes of FP8 matrices to be multiples."""
SCALE = 0.5


def eights(bench: Bench, load: Callable[[str], Any] = importlib.import_module) -> Iterator[Job]:
    """C = (s A) (s B) of E4M3 numbers, rounded to fp16; left out, saying why, where nvmath or torch is not.

    Args:
        bench: what to measure with.
        load: imports a module by name.
    """
    n = -(-bench.sizes.squares[-2] // MULTIPLE) * MULTIPLE
    what, amount, aims = f"{n}^3 e4m3 to fp16", 2.0 * n**3, (Aim(TORCH, ENOUGH),)
    if bench.torch is None:
        why = "nvmath takes FP8 numbers of torch's alone, and torch is not beside"
        yield Job(what, {}, amount, "FLOP", aims, {OURS: why})
        return
    torch, factors = bench.torch, bench.torch.eights(n)
    contenders: dict[str, Callable[[], object]] = {TORCH: torch.scaled_mm(*factors, SCALE)}
    try:
        front, advanced = load(FRONT), load(ADVANCED)
    except (ImportError, OSError, RuntimeError) as fault:
        why = f"nvmath-python does not load ({fault}): {NEEDED}"
        yield Job(what, contenders, amount, "FLOP", aims, {OURS: why})
        return
    with advanced.Matmul(
        *factors, quantization_scales={"a": SCALE, "b": SCALE},
        options={"result_type": front.CudaDataType.CUDA_R_16F},
    ) as product:  # fmt: skip
        product.plan()  # once, as torch keeps what cuBLASLt chose
        yield Job(what, {OURS: product.execute, **contenders}, amount, "FLOP", aims)
