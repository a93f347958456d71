"""Dot products summed in a stated order and precision, one whole plane (T, M, N) a step over k.

These are the definitions, written to be read: ``quicksums`` has faster forms of the slow ones, equal bit for
bit. Every function takes ``Factors`` and gives the sum in float64. Where a step rounds to float32, it is
NumPy's own float32 arithmetic; where it rounds to a narrower format, the exact result (or the exact result
rounded to odd) is formed in float64 and rounded once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from minimp.formats.accumulation.operands import Factors
from minimp.formats.accumulation.quickround import nearest_even
from minimp.formats.errorfree import to_odd, two_sum
from minimp.formats.rounding import Float64s
from minimp.formats.table import Format

__all__ = [
    "BLAS_TERMS",
    "FEW",
    "add_exactly",
    "any_order",
    "chunked",
    "kahan",
    "pairwise",
    "parts",
    "products_of",
    "running",
    "running32",
    "running_fma",
    "sequential",
    "splitk",
]

Float32s = npt.NDArray[np.float32]


def any_order(factors: Factors, dtype: Any) -> Float64s:
    """Sum in ``dtype`` as BLAS pleases: each product and sum within one rounding, in no stated order."""
    total = factors.start.astype(dtype)
    parts = (a @ b for a, b in factors.blocks(BLAS_TERMS, dtype))
    added = sum(parts, start=next(parts, dtype(0)))
    return np.asarray(added + total, np.float64)


BLAS_TERMS = 2048  # the factors are widened that many terms at a time


def sequential(factors: Factors) -> Float64s:
    """s <- fl32(s + fl32(a_k b_k)), k ascending."""
    return running32(factors, factors.start.astype(np.float32)).astype(np.float64)


def running(factors: Factors, fmt: Format) -> Float64s:
    """s <- fl(s + fl(a_k b_k)) with fl to ``fmt``, k ascending.

    The product is exact in float64 (24 + 24 bits). A sum of two numbers of p bits may be rounded to q bits on
    the way: q >= 2p + 2 makes the second rounding innocuous (Figueroa 1995).
    """
    total = factors.start
    for a_k, b_k in factors.terms(np.float64):
        total = nearest_even(total + nearest_even(a_k * b_k, fmt), fmt)
    return total


def running_fma(factors: Factors, fmt: Format) -> Float64s:
    """s <- fl(s + a_k b_k) with fl to ``fmt``, k ascending: the product is not rounded."""
    total = factors.start
    for a_k, b_k in factors.terms(np.float64):
        total = add_exactly(total, a_k * b_k, fmt)
    return total


def chunked(factors: Factors, fmt: Format) -> Float64s:
    """A float32 running sum from +0 inside ``size`` terms, then s <- fl(s + chunk) with fl to ``fmt``.

    Wang et al. 2018, "Training Deep Neural Networks with 8-bit Floating Point Numbers", section 3.1, with the
    wider format inside the chunk.
    """
    total = factors.start
    for part in parts(factors, factors.size):
        total = add_exactly(total, running32(part, _zero(part)).astype(np.float64), fmt)
    return total


def splitk(factors: Factors) -> Float64s:
    """K in ``size`` runs of ceil(K / size) terms; each a float32 running sum; then their sums, first to last.

    ``start`` begins the first run. This is what split-K GEMM kernels do; runs beyond K are empty.
    """
    total = factors.start.astype(np.float32)
    for place, part in enumerate(parts(factors, max(1, -(-factors.length // factors.size)))):
        total = total + running32(part, _zero(part)) if place else running32(part, total)
    return total.astype(np.float64)


def pairwise(factors: Factors) -> Float64s:
    """A balanced float32 tree: neighbours are added, then neighbouring sums, ...; ``start`` joins at the end.

    Built as a binary counter, so that only log2 K planes are alive: two sums of equal size are added at once.
    """
    waiting: list[tuple[int, Float32s]] = []  # (terms, their sum), sizes falling
    for product in _products32(factors):
        size, total = 1, product
        while waiting and waiting[-1][0] == size:
            total = waiting.pop()[1] + total
            size *= 2
        waiting.append((size, total))
    result: Float32s = waiting.pop()[1] if waiting else np.zeros((), np.float32)
    while waiting:
        result = waiting.pop()[1] + result
    return (result + factors.start.astype(np.float32)).astype(np.float64)


def kahan(factors: Factors) -> Float64s:
    """Kahan's compensated sum in float32 (1965): what each addition loses is taken off the next product."""
    total: Float32s = factors.start.astype(np.float32)
    lost: Float32s = np.zeros_like(total)
    for term in _products32(factors):
        np.subtract(term, lost, out=term)
        bigger = total + term
        np.subtract(bigger, total, out=lost)
        np.subtract(lost, term, out=lost)
        if not np.isfinite(lost).all():
            lost[~np.isfinite(lost)] = 0  # an infinite sum has nothing to compensate
        total = bigger
    return total.astype(np.float64)


def add_exactly(total: Float64s, term: Float64s, fmt: Format) -> Float64s:
    """fl(total + term): the float64 sum is turned to odd where it is inexact, then rounded once."""
    nearest, residue = two_sum(total, term)
    return nearest_even(to_odd(nearest, residue), fmt)


def running32(factors: Factors, start: Float32s) -> Float32s:
    """The float32 running sum of the products from ``start``, k ascending."""
    total = np.array(np.broadcast_to(start, factors.start.shape))
    if total.size <= FEW:  # NumPy's own running sum, which has no call to make for each k
        for products in products_of(factors, np.float32):
            total = np.add.accumulate(np.concatenate([total[None], products]))[-1]
        return total
    product = np.empty_like(total)
    for a_k, b_k in factors.terms(np.float32):
        np.multiply(a_k, b_k, out=product)
        np.add(total, product, out=total)
    return total


FEW = 256  # sums; below that, a call for each k takes longer than what it does


def products_of(factors: Factors, dtype: Any) -> Iterator[npt.NDArray[Any]]:
    """The products, some k at a time: (k, T, M, N)."""
    for a, b in factors.blocks(max(1, _PRODUCTS // max(1, factors.start.size)), dtype):
        yield np.multiply(np.moveaxis(a, -1, 0)[..., None], np.moveaxis(b, 1, 0)[:, :, None, :])


_PRODUCTS = 1 << 16


def parts(factors: Factors, size: int) -> Iterator[Factors]:
    """Cut the terms, k ascending, into parts of ``size``; the last may be shorter."""
    for first in range(0, factors.length, size):
        part = slice(first, first + size)
        yield replace(factors, a=factors.a[..., part], b=factors.b[..., part, :])


def _zero(factors: Factors) -> Float32s:
    return np.zeros(factors.start.shape, np.float32)


def _products32(factors: Factors) -> Iterator[Float32s]:
    for a_k, b_k in factors.terms(np.float32):
        yield a_k * b_k
