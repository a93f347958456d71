"""Before the clock: each contender's result beside the readable reference, on a sample."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from minimp.benchmarks.formats.dots import allowed_error, dot
from minimp.benchmarks.formats.kernels import Kernel
from minimp.benchmarks.formats.products import Product
from minimp.errors import MinimpError
from minimp.formats.exact import round_fraction
from minimp.formats.table import FORMATS, Format

__all__ = ["verify_kernel", "verify_product"]

Array = npt.NDArray[Any]
_PIECES, _LONGEST = 16, 1 << 10
_PLACES = 6


def verify_kernel(kernel: Kernel, result: Array) -> None:
    """Compare 16 pieces of a whole result, of whole blocks, spread evenly and with both ends, bit by bit.

    Raises:
        MinimpError: the result has another shape or dtype than the reference, or other bits.
    """
    size = kernel.source.size
    length = max(kernel.block, min(_LONGEST, size) // kernel.block * kernel.block)
    for start in np.linspace(0, max(0, size - length), _PIECES).astype(int):
        first = start // kernel.block * kernel.block
        piece = slice(first, size if start + length >= size else first + length)
        want = kernel.expected(kernel.source[piece], int(first))
        if result.shape != kernel.source.shape or result.dtype != want.dtype:
            _refuse(
                kernel.name,
                f"expected {want.dtype} of shape {kernel.source.shape}, got {result.dtype} of {result.shape}",
            )
        wrong = _bits(result[piece]) != _bits(want)
        if wrong.any():
            at = int(np.argmax(wrong))
            _refuse(
                kernel.name,
                f"{int(wrong.sum())} of the {wrong.size} elements from {first} on are not the reference's;"
                f" element {first + at}, made from {kernel.source[piece][at]!r}, is {result[piece][at]!r},"
                f" not {want[at]!r}",
            )


def verify_product(product: Product, result: Array) -> None:
    """Compare 6 elements of a product, both corners among them, with one dot product each.

    They are compared in the format that is timed, and, where that can be had, in float32.

    Raises:
        MinimpError: the result has another shape, or is further away than its accumulation allows.
    """
    _verify_elements(product, result, product.inputs)
    if product.wide is not None:
        _verify_elements(product, product.wide(), FORMATS["float32"])


def _verify_elements(product: Product, result: Array, output: Format) -> None:
    name, fmt = f"matmul {product.accumulate}, {product.inputs.name} to {output.name}", product.inputs
    shape = (product.a.shape[0], product.b.shape[1])
    if result.shape != shape:
        _refuse(name, f"expected shape {shape}, got {result.shape}")
    for m, n in zip(*(np.linspace(0, length - 1, _PLACES).astype(int) for length in shape), strict=True):
        row, column = (each.astype(np.float64).tolist() for each in (product.a[m], product.b[:, n]))
        want = round_fraction(dot(row, column, product.order, fmt), output)
        got = float(result[m, n])
        allowed = allowed_error(row, column, product.order, output)
        if not (np.isfinite(got) and abs(Fraction(got) - Fraction(want)) <= allowed):
            _refuse(name, f"element ({m}, {n}) is {got!r}, not {want!r}")


def _bits(x: Array) -> Array:
    return np.ascontiguousarray(x).view(f"u{x.dtype.itemsize}")


def _refuse(name: str, problem: str) -> None:
    raise MinimpError(
        f"{name}: {problem}",
        op="bench formats",
        help="a wrong kernel is not worth timing; the tests in tests/formats say which rule it breaks",
    )
