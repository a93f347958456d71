"""Dot products summed in a stated order and precision, one whole (..., M, N) plane a step over k.

Every function takes a (..., M, K) and b (..., K, N) in float64, start (the plane c, or 0.0) and gives the sum
in float64. Where a step rounds to float32, it is NumPy's own float32 arithmetic; where it rounds to a
narrower format, the exact result (or the exact result rounded to odd) is formed in float64 and rounded once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from minimp.formats.errorfree import to_odd, two_sum
from minimp.formats.rounding import Float64s, round_to
from minimp.formats.table import Format

__all__ = [
    "any_order",
    "chunked",
    "kahan",
    "nearest_even",
    "pairwise",
    "running",
    "running_fma",
    "sequential",
    "splitk",
]

Float32s = npt.NDArray[np.float32]
Reals = npt.NDArray[Any]  # float32 or float64


def any_order(a: Float64s, b: Float64s, start: Float64s, dtype: Any) -> Float64s:
    """Sum in ``dtype`` as BLAS pleases: each product and sum within one rounding, in no stated order."""
    total = a.astype(dtype) @ b.astype(dtype)
    return np.asarray(total + start.astype(dtype), np.float64)


def sequential(a: Float64s, b: Float64s, start: Float64s) -> Float64s:
    """s <- fl32(s + fl32(a_k b_k)), k ascending."""
    return _sequential32(a, b, start.astype(np.float32)).astype(np.float64)


def running(a: Float64s, b: Float64s, start: Float64s, fmt: Format, inputs: Format) -> Float64s:
    """s <- fl(s + fl(a_k b_k)) with fl to ``fmt``, k ascending.

    The product is exact in float64 (24 + 24 bits), and in float32 where the inputs are small. A sum of two
    numbers of p bits may be rounded to q bits on the way: q >= 2p + 2 makes the second rounding innocuous
    (Figueroa 1995).
    """
    work = np.float32 if _float32_serves(fmt, inputs) else np.float64
    total: Reals = start.astype(work)
    for a_k, b_k in _terms(a.astype(work), b.astype(work)):
        total = nearest_even(total + nearest_even(a_k * b_k, fmt), fmt)
    return total.astype(np.float64)


def running_fma(a: Float64s, b: Float64s, start: Float64s, fmt: Format) -> Float64s:
    """s <- fl(s + a_k b_k) with fl to ``fmt``, k ascending: the product is not rounded."""
    total = start
    for a_k, b_k in _terms(a, b):
        total = _add_exactly(total, a_k * b_k, fmt)
    return total


def chunked(a: Float64s, b: Float64s, start: Float64s, size: int, fmt: Format) -> Float64s:
    """A float32 running sum from +0 inside ``size`` terms, then s <- fl(s + chunk) with fl to ``fmt``.

    Wang et al. 2018, "Training Deep Neural Networks with 8-bit Floating Point Numbers", section 3.1, with the
    wider format inside the chunk.
    """
    total = start
    for first in range(0, a.shape[-1], size):
        part = slice(first, first + size)
        chunk = _sequential32(a[..., part], b[..., part, :], np.zeros((), np.float32))
        total = _add_exactly(total, chunk.astype(np.float64), fmt)
    return total


def splitk(a: Float64s, b: Float64s, start: Float64s, parts: int) -> Float64s:
    """K in ``parts`` runs of ceil(K / parts) terms; each a float32 running sum; then the runs' sums, first to
    last.

    ``start`` begins the first run. This is what split-K GEMM kernels do; parts beyond K are empty.
    """
    size = max(1, -(-a.shape[-1] // parts))
    total = _sequential32(a[..., :size], b[..., :size, :], start.astype(np.float32))
    for first in range(size, a.shape[-1], size):
        part = slice(first, first + size)
        total = total + _sequential32(a[..., part], b[..., part, :], np.zeros((), np.float32))
    return total.astype(np.float64)


def pairwise(a: Float64s, b: Float64s, start: Float64s) -> Float64s:
    """A balanced float32 tree: neighbours are added, then neighbouring sums, ...; ``start`` joins at the end.

    Built as a binary counter, so that only log2 K planes are alive: two sums of equal size are added at once.
    """
    waiting: list[tuple[int, Float32s]] = []  # (terms, their sum), sizes falling
    for product in _products32(a, b):
        size, total = 1, product
        while waiting and waiting[-1][0] == size:
            total = waiting.pop()[1] + total
            size *= 2
        waiting.append((size, total))
    result: Float32s = waiting.pop()[1] if waiting else np.zeros((), np.float32)
    while waiting:
        result = waiting.pop()[1] + result
    return (result + start.astype(np.float32)).astype(np.float64)


def kahan(a: Float64s, b: Float64s, start: Float64s) -> Float64s:
    """Kahan's compensated sum in float32 (1965): what each addition loses is taken off the next product."""
    total: Float32s = start.astype(np.float32)
    lost: Float32s = np.zeros((), np.float32)
    for product in _products32(a, b):
        term = product - lost
        bigger = total + term
        lost = (bigger - total) - term
        lost = np.where(np.isfinite(lost), lost, np.float32(0))  # an infinite sum has nothing to compensate
        total = bigger
    return total.astype(np.float64)


def nearest_even(x: Reals, fmt: Format) -> Reals:
    """``round_to(x, fmt)``, some ten times faster where x's precision leaves room above the format's.

    Adding 1.5 · 2^(w - m + e), with e the exponent of x (at least emin) and w the stored bits of x's own
    significand, puts the ulp of ``fmt`` at the last bit, so that the addition itself rounds, ties to even;
    subtracting it again is exact. float32 serves float16 and narrower; float64 serves all up to float32.
    """
    if not (x.max(initial=0.0) <= fmt.max and x.min(initial=0.0) >= fmt.lowest):
        return round_to(x, fmt).astype(x.dtype)  # overflow, infinities and NaN are rare here
    stored = np.finfo(x.dtype).nmant
    whole = np.dtype(f"i{x.dtype.itemsize}").type
    patterns = x.view(whole)
    exponent = patterns & whole(np.array(np.inf, x.dtype).view(whole))
    np.maximum(exponent, np.array(fmt.smallest_normal, x.dtype).view(whole), out=exponent)
    exponent += whole(((stored - fmt.mantissa_bits) << stored) + (1 << (stored - 1)))
    shift = exponent.view(x.dtype)
    rounded: Reals = x + shift
    rounded -= shift
    rounded.view(whole)[...] |= patterns & np.iinfo(whole).min  # -0, and what rounds to it
    return rounded


def _add_exactly(total: Float64s, term: Float64s, fmt: Format) -> Float64s:
    """fl(total + term): the float64 sum is turned to odd where it is inexact, then rounded once."""
    nearest, residue = two_sum(total, term)
    return nearest_even(to_odd(nearest, residue), fmt).astype(np.float64)


def _float32_serves(fmt: Format, inputs: Format) -> bool:
    """Whether float32 holds every product, the detour of every sum, and the shift of ``nearest_even``.

    (A product below float32's smallest is lost; it is far below float16's smallest, and so zero anyway.)
    """
    products = 2 * inputs.precision <= _P32 and 2 * (inputs.emax + 1) <= 128
    return products and 2 * fmt.precision + 2 <= _P32 and fmt.emax + _P32 - fmt.mantissa_bits < 127


_P32 = 24


def _terms(a: Reals, b: Reals) -> Iterator[tuple[Reals, Reals]]:
    """The factors of each k: a column (..., M, 1) and a row (..., 1, N)."""
    for k in range(a.shape[-1]):
        yield a[..., k, None], b[..., k, None, :]


def _products32(a: Float64s, b: Float64s) -> Iterator[Float32s]:
    left, right = a.astype(np.float32), b.astype(np.float32)
    for k in range(a.shape[-1]):
        yield left[..., k, None] * right[..., k, None, :]


def _sequential32(a: Float64s, b: Float64s, start: Float32s) -> Float32s:
    total = start
    for product in _products32(a, b):
        total = np.add(total, product, out=product)
    return total
