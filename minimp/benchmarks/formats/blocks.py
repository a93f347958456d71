"""Who takes part with blocks of values that share a scale."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from minimp.benchmarks.formats.kernels import OURS, Kernel
from minimp.formats import rounding
from minimp.formats.blocks.arrays import dequantize, quantize
from minimp.formats.blocks.table import BlockFormat, block_format

__all__ = ["BLOCKS", "block_kernels"]

Array = npt.NDArray[Any]
BLOCKS = ("mxfp8", "nvfp4")


def block_kernels(x: npt.NDArray[np.float32]) -> list[Kernel]:
    """Return a kernel for each block format: quantised by its own rule, and read back; of every 8th value."""
    few = x[: max(1, x.size // 8)]  # enough to tell its rate
    return [_there_and_back(few, name) for name in BLOCKS]


def _there_and_back(x: Array, name: str) -> Kernel:
    fmt = block_format(name)
    largest = float(np.abs(x).max())

    def run(part: Array, *_: int) -> Array:
        return dequantize(quantize(part, fmt))

    return Kernel(
        "blocks", name, OURS, x, run, lambda part, _: _reference(part, fmt, largest), block=fmt.block[0]
    )


def _reference(part: Array, fmt: BlockFormat, largest: float) -> Array:
    """Whole blocks, none of zeros, each with its scale; the tensor scale is made of `largest`."""
    short = -part.size % fmt.block[0]
    blocks = np.pad(part.astype(np.float64), (0, short)).reshape(-1, fmt.block[0])
    amax = np.abs(blocks).max(axis=1, keepdims=True)
    tensor = float(np.float32(largest / (fmt.element.max * fmt.scale.max))) if fmt.tensor_scale else 1.0
    if fmt.scale_rule == "floor":
        scale = 2.0 ** (np.floor(np.log2(amax)) - fmt.element.emax)
    else:
        scale = rounding.round_to(amax / (fmt.element.max * tensor), fmt.scale, overflow="saturate")
    divisors = np.where(scale > 0, tensor * scale, np.inf)  # a scale that rounds to 0 leaves zeros
    elements = rounding.round_to(blocks / divisors, fmt.element, overflow="saturate")
    values: Array = (tensor * scale * elements).reshape(-1)
    return values[: part.size].astype(np.float32)
