"""Products of int8 and uint8 codes, summed in integers: exactly, or as a CPU without VNNI does it.

Codes are what they are here; zero points are :mod:`minimp_backends.integers`'s business.

**The exact product** runs on SGEMM and cannot round. uint8 codes are shifted by 128 first, so that every
factor lies in [-128, 127] and every product within 2^14 of zero. A sum of up to 1024 = 2^24 / 2^14 of
them, and every partial sum on the way, in any order, with or without fused multiply-add, is then an integer
of magnitude 2^24 at most, and float32 has all of those (p = 24). Longer sums are cut into blocks of 1024
terms, whose results are added as integers. A BLAS that rounds its inputs to TF32 or bfloat16 leaves these as
they are: they have 8 bits. float64 would need no blocks (2^53 / 2^14 terms) and takes twice the time.

**The saturating product** is what x86 processors with AVX2 but no VNNI compute: VPMADDUBSW multiplies
unsigned bytes by signed ones and adds neighbours in pairs to int16, where 255 * 127 + 255 * 127 does not
fit: what is beyond -32768 and 32767 is cut off. The pairs are then added to int32 (Intel 64 and IA-32
Architectures Software Developer's Manual, volume 2; microsoft/onnxruntime#12088). So do FBGEMM's linear
layers, plain and depthwise convolutions in torch 2.13, code for code.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "BLOCK", "PAIR_BLOCK", "exact_product", "exact_product_reference", "saturating_product",
    "saturating_product_reference", "shift_of",
]  # fmt: skip

Array = NDArray[Any]
BLOCK = 1024
"""Products of two numbers in [-128, 127] that float32 adds exactly: 2^24 / 2^14."""
PAIR_BLOCK = 512
"""Pairs cut off at int16 that float32 adds exactly: 2^24 / 2^15."""
LEAST, MOST = -32768.0, 32767.0
ROWS = 128
"""Output rows worked on at a time, at least."""
TILE = 1 << 17
"""Elements of a tile's longer side times its rows: what stays in a level-2 cache while it is cast."""
TOGETHER = 1 << 19
"""Elements of a stack of matrices worked on together: beyond, fresh memory costs page faults (measured)."""
UINT8 = np.dtype(np.uint8)


def shift_of(codes: Array) -> int:
    """Return what centres codes on 0: 128 for uint8, 0 for int8."""
    return 128 if codes.dtype == UINT8 else 0


def exact_product_reference(a: Array, b: Array) -> Array:
    """(..., M, K) @ (..., K, N) -> (..., M, N) in int64: the definition."""
    sums: Array = np.matmul(a.astype(np.int64), b.astype(np.int64))
    return sums


def exact_product(a: Array, b: Array, dtype: type[np.signedinteger[Any]]) -> Array:
    """Return (a - shift_of(a)) @ (b - shift_of(b)), exactly, up to multiples of 2^32 if `dtype` is int32.

    (..., M, K) @ (..., K, N) -> (..., M, N). The result of one block of K is exact in float32 (see above);
    the blocks are added in `dtype`, which wraps around. Extra memory: float32 copies of a block of b and of
    some rows of a.
    """
    lead = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    made = np.empty((*lead, a.shape[-2], b.shape[-1]), dtype)
    if b.ndim == 2:  # one matrix for all: the rows of a follow each other
        rows = a.reshape(math.prod(a.shape[:-1]), a.shape[-1])
        _add_blocks(rows, b, made.reshape(len(rows), b.shape[-1]), _rows_at_once(a, b))
    else:
        left, right = (np.broadcast_to(each, (*lead, *each.shape[-2:])) for each in (a, b))
        _fill(left, right, made)
    return made


def _fill(a: Array, b: Array, made: Array) -> None:
    """Fill `made` with a @ b of equal leading axes, so many matrices at a time as are small together."""
    if made.ndim == 2:
        _add_blocks(a, b, made, _rows_at_once(a, b))
    elif max(a.size, b.size, made.size) <= TOGETHER:
        _add_blocks(a, b, made, max(1, made.shape[-2]))
    else:
        for one, other, target in zip(a, b, made, strict=True):
            _fill(one, other, target)


def _rows_at_once(a: Array, b: Array) -> int:
    longer: int = max(1, min(a.shape[-1], BLOCK), b.shape[-1])
    return max(ROWS, TILE // longer)


def _add_blocks(a: Array, b: Array, made: Array, step: int) -> None:
    """Fill `made` with a @ b, some rows and up to BLOCK terms at a time."""
    depth = a.shape[-1]
    if not depth:
        made.fill(0)
    for first in range(0, depth, BLOCK):
        terms = slice(first, min(first + BLOCK, depth))
        right = _centred(b[..., terms, :])
        for top in range(0, made.shape[-2], step):
            rows = (..., slice(top, top + step), slice(None))
            part = np.matmul(_centred(a[rows][..., terms]), right)
            if first:
                made[rows] += part.astype(made.dtype)
            else:
                made[rows] = part


def _centred(codes: Array) -> Array:
    """Return codes - shift_of(codes) in float32; all of them lie in [-128, 127]."""
    wide = codes.astype(np.float32)
    return np.subtract(wide, np.float32(128), out=wide) if codes.dtype == UINT8 else wide


def saturating_product_reference(a: Array, b: Array) -> Array:
    """(..., M, K) @ (..., K, N) -> (..., M, N) in int64: all products, pairs cut off at int16, their sum.

    Term 2 j and term 2 j + 1 are a pair; a last term without a neighbour is one alone.
    """
    products = a[..., :, :, np.newaxis].astype(np.int64) * b[..., np.newaxis, :, :].astype(np.int64)
    pairs = [products[..., k : k + 2, :].sum(axis=-2) for k in range(0, a.shape[-1], 2)]
    total: Array = np.zeros(products.shape[:-2] + products.shape[-1:], np.int64)
    for pair in pairs:
        total += np.clip(pair, -32768, 32767)
    return total


def saturating_product(a: Array, b: Array, dtype: type[np.signedinteger[Any]]) -> Array:
    """Return what :func:`saturating_product_reference` does, in `dtype`, which wraps around.

    A pair is a product of depth 2 in float32, exact as are its cut and the sum of up to 512 pairs: |sum| <=
    512 * 2^15 = 2^24. Each pair takes three passes over the output: K/2 pairs, 8 times the time of an SGEMM.
    """
    lead = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    made = np.zeros((*lead, a.shape[-2], b.shape[-1]), dtype)
    right = b.astype(np.float32)
    step = max(1, TILE // max(1, b.shape[-1] * math.prod(lead)))
    for top in range(0, made.shape[-2], step):
        rows = (..., slice(top, top + step), slice(None))
        left = a[rows].astype(np.float32)
        for total in _sums_of_pairs(left, right, made[rows].shape):
            made[rows] += total.astype(dtype)
    return made


def _sums_of_pairs(left: Array, right: Array, shape: tuple[int, ...]) -> Iterator[Array]:
    """Yield the sum of each run of PAIR_BLOCK pairs, float32; it lasts until the next one."""
    total, pair = np.empty(shape, np.float32), np.empty(shape, np.float32)
    for first in range(0, left.shape[-1], 2 * PAIR_BLOCK):
        total.fill(0)
        for k in range(first, min(first + 2 * PAIR_BLOCK, left.shape[-1]), 2):
            np.matmul(left[..., k : k + 2], right[..., k : k + 2, :], out=pair)
            np.clip(pair, LEAST, MOST, out=pair)
            np.add(total, pair, out=total)
        yield total
