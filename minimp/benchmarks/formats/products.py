"""Who takes part in the products: every accumulation of `minimp.formats.matmul`, sgemm, and NumPy's own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from minimp.benchmarks.formats.data import factors
from minimp.formats.accumulation.orders import ACCUMULATES, matmul
from minimp.formats.table import Format, get

__all__ = ["NUMPY", "SGEMM", "WIDTH", "Product", "products"]

Array = npt.NDArray[Any]
WIDTH = 256
"""M, K and N."""
SGEMM, NUMPY = "sgemm with rounding", "numpy float16 @"
_SIZES = {":B": ":16", ":S": ":4"}
_NARROW = (("bf16", ("bfloat16", "tensorcore:ampere", "tensorcore:hopper")),
           ("e4m3fn", ("tensorcore:ada", "tensorcore:hopper", "tensorcore:blackwell")))  # fmt: skip
"""Other inputs than fp16, for those who add them in a way of their own."""


@dataclass(frozen=True)
class Product:
    """One contender: C = A B, 256 x 256 x 256.

    Attributes:
        accumulate: the name of the accumulation, or ``SGEMM`` or ``NUMPY``.
        inputs: the factors' format, and the result's.
        a, b: the factors.
        run: gives C. This is timed.
        wide: gives C with the same sums, rounded to float32 alone, for the check: `inputs` would hide how
            they were made. None where it cannot be had.
    """

    accumulate: str
    inputs: Format
    a: Array
    b: Array
    run: Callable[[], Array]
    wide: Callable[[], Array] | None = None

    @property
    def order(self) -> str:
        """What the sum is checked against: sgemm and NumPy sum in float32."""
        return "float32" if self.accumulate in (SGEMM, NUMPY) else self.accumulate


def products() -> list[Product]:
    """Return every contender: fp16 inputs, and bf16 and e4m3fn for those who treat them in another way."""
    half = get("fp16")
    a, b = factors(WIDTH, half.dtype)
    made = [
        Product(SGEMM, half, a, b, lambda: _rounded(_sgemm(a, b)), lambda: _sgemm(a, b)),
        Product(NUMPY, half, a, b, lambda: a @ b),
        *(_ours(name, half, a, b) for name in _names()),
    ]
    for inputs, names in _NARROW:
        fmt = get(inputs)
        a_low, b_low = factors(WIDTH, fmt.dtype)
        made += [_ours(name, fmt, a_low, b_low) for name in names]
    return made


def _names() -> list[str]:
    names = [name for name in ACCUMULATES if name != "exact"]
    for letter, number in _SIZES.items():
        names = [name.replace(letter, number) for name in names]
    return [*names, "exact"]


def _ours(name: str, fmt: Format, a: Array, b: Array) -> Product:
    def run() -> Array:
        return matmul(a, b, fmt=fmt, accumulate=name)

    def wide() -> Array:
        return matmul(a, b, fmt=fmt, accumulate=name, output="float32")

    return Product(name, fmt, a, b, run, wide)


def _sgemm(a: Array, b: Array) -> Array:
    product: Array = a.astype(np.float32) @ b.astype(np.float32)
    return product


def _rounded(x: Array) -> Array:
    """Onto the fp16 grid, by NumPy."""
    return x.astype(np.float16).astype(np.float32)
