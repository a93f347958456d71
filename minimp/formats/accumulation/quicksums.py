"""Faster forms of the slow orders of ``summation``, equal to them bit for bit.

They work on blocks of some k at a time, (k, T, M, N), and look at each block's largest factors first: where
these rule out overflow, every rounding is ``Grid.round``, five passes in place; a block with larger numbers,
infinities or NaN takes the readable steps. Signs of zeros need a thought each; it is given where they arise.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from minimp.formats.accumulation import summation
from minimp.formats.accumulation.operands import Factors, quantum
from minimp.formats.accumulation.ordered import Ordered, ordered_product
from minimp.formats.accumulation.quickround import grid, nearest_even
from minimp.formats.accumulation.workspace import space
from minimp.formats.rounding import Float64s
from minimp.formats.table import Format

__all__ = ["LONGEST_CHUNK", "chunked", "pairwise", "running", "running_fma"]

Reals = npt.NDArray[Any]
_TERMS = 8  # k at a time
_ROOM = 1 + 2.0**-4  # more than some dozen roundings of 2^-8 can add to a sum


def running(factors: Factors, fmt: Format) -> Float64s:
    """``summation.running``, faster.

    The sum starts from +0 or another number than -0; then no sum is ever -0 (a sum of two values of a format
    is a multiple of its smallest, so it cannot underflow), and the sign of a product that is zero says
    nothing.
    """
    if (np.signbit(factors.start) & (factors.start == 0)).any():
        return summation.running(factors, fmt)
    if factors.start.size <= summation.FEW:
        total = factors.start
        for few in summation.products_of(factors, np.float64):
            total = _native(total, nearest_even(few, fmt), fmt)
        return total
    total, reach, block = factors.start, _largest(factors.start), (_TERMS, *factors.start.shape)
    for part in summation.parts(factors, _TERMS):
        dtype = np.float32 if _float32_serves(part, fmt) else np.float64
        numbers, (a, b) = grid(fmt, dtype), next(part.blocks(_TERMS, dtype))
        reach = _reach(reach, total, a, b, numbers.edge)
        if not reach < numbers.edge:
            total = summation.running(replace(part, start=total.astype(np.float64)), fmt)
            continue
        total = total.astype(dtype, copy=False)
        products, spare = (space(name, block, dtype)[: part.length] for name in ("products", "spare"))
        np.multiply(np.moveaxis(a, -1, 0)[..., None], np.moveaxis(b, 1, 0)[:, :, None, :], out=products)
        numbers.round(products, spare)
        for product in products:
            total = np.add(total, product, out=space("sums", total.shape, dtype))
            numbers.round(total, spare[0])
    return total.astype(np.float64)


def running_fma(factors: Factors, fmt: Format) -> Float64s:
    """``summation.running_fma``, faster.

    A float64 sum of a p-bit number and a product of w bits may be rounded again without harm where
    w + p <= 51: it is inexact only where the product is less than 2^-(p + 2) of the sum, too little to carry
    the sum from a value of the format to near a tie. (The number's own bits are never lost: all of float16
    spans 40.) A sum may round to -0, which a later product of -0 keeps, so signs are kept.
    """
    if factors.start.size <= summation.FEW:
        total = factors.start
        for few in summation.products_of(factors, np.float64):
            total = _chain(total, few, fmt, 2 * factors.fmt.precision)
        return total
    if 2 * factors.fmt.precision + fmt.precision > _LONGEST:
        return summation.running_fma(factors, fmt)
    total, numbers, reach = factors.start, grid(fmt, np.float64), _largest(factors.start)
    product, spare, sums = (space(name, total.shape, np.float64) for name in ("products", "spare", "sums"))
    for part in summation.parts(factors, _TERMS):
        a, b = next(part.blocks(_TERMS, np.float64))
        reach = _reach(reach, total, a, b, numbers.edge)
        if not reach < numbers.edge:
            total = summation.running_fma(replace(part, start=total), fmt)
            continue
        for k in range(part.length):
            np.multiply(a[..., k, None], b[..., k, None, :], out=product)
            total = np.add(total, product, out=sums)
            numbers.round_signed(total, spare)
    return np.array(total)


_LONGEST = 51


def chunked(factors: Factors, fmt: Format) -> Float64s:
    """``summation.chunked``, faster.

    A chunk has 24 bits, so that the float64 sum may be rounded again, as in ``running_fma``. A chunk's sum
    starts from +0, so it is never -0: a start of -0 is as good as +0, only the last chunk can leave -0
    behind, and where the sum before it is not -0 a chunk of -0 does what +0 does.
    """
    if factors.start.size <= summation.FEW and factors.start.size * factors.size <= _CHUNKED:
        return _few_chunks(factors, fmt)
    total, numbers = factors.start + 0.0, grid(fmt, np.float64)
    spare, chunk = space("spare", total.shape, np.float64), space("products", total.shape, np.float32)
    ahead, reach, by_blas = factors.length, _largest(total), _blas_for(factors)
    for part, most in _chunks(factors):
        chunk = _running32(part, most, chunk, by_blas.get(part.length))
        ahead, reach = ahead - part.length, (reach + most) * _ROOM
        if not reach < numbers.edge:
            reach = (_largest(total) + _largest(chunk)) * _ROOM
        if reach < numbers.edge:
            np.add(total, chunk, out=total)
            (numbers.round if ahead else numbers.round_signed)(total, spare)
        else:
            total = summation.add_exactly(total, chunk.astype(np.float64), fmt) + (0.0 if ahead else -0.0)
    return total


def _few_chunks(factors: Factors, fmt: Format) -> Float64s:
    """All chunks of some thousand terms at once, each a running sum; then the sum of the chunks."""
    total, size = factors.start, factors.size
    many = size * max(1, _CHUNKED // (size * max(1, total.size)))
    for part in summation.parts(factors, many):
        whole = part.length // size * size
        products = np.concatenate(list(summation.products_of(part, np.float32)))
        products[::size] += np.float32(0)  # a chunk starts from +0
        chunks = np.add.accumulate(products[:whole].reshape(-1, size, *total.shape), axis=1)[:, -1]
        last = np.add.accumulate(products[whole:])[-1:]
        total = _chain(total, np.concatenate([chunks, last]).astype(np.float64), fmt, _P32)
    return total


_CHUNKED = 1 << 16


def _chain(total: Float64s, terms: Float64s, fmt: Format, bits: int) -> Float64s:
    """s <- fl(s + t) to float16, the terms in turn: (k, T, M, N), of so many bits each."""
    if (nearest_even(terms, fmt) == terms).all():
        return _native(total, terms, fmt)
    for term in terms:
        if bits + fmt.precision > _LONGEST:
            total = summation.add_exactly(total, term, fmt)
        else:
            total = (total + term).astype(fmt.dtype).astype(np.float64)
    return total


def _native(total: Float64s, terms: Float64s, fmt: Format) -> Float64s:
    """s <- fl(s + t) for terms of the format itself, by the running sum of its dtype.

    NumPy's float16 and ml_dtypes' bfloat16 add in float32 and round: as good as once (Figueroa 1995).
    """
    numbers = np.concatenate([total[None], terms]).astype(fmt.dtype)
    return np.asarray(np.add.accumulate(numbers)[-1], np.float64)


def pairwise(factors: Factors) -> Float64s:
    """``summation.pairwise``, faster: the tree over 2^i terms is built a level at a time.

    Sums of equal size are added as soon as there are two, so complete trees may enter in place of terms; what
    is left over at the end enters as trees of falling sizes, the powers of two in its length.
    """
    if factors.start.size > _PAIRED // 16:
        return summation.pairwise(factors)
    waiting: list[tuple[int, Reals]] = []
    for products in _powers(factors):
        size, level = len(products), products
        while len(level) > 1:
            level = level[::2] + level[1::2]
        tree = level[0]
        while waiting and waiting[-1][0] == size:
            tree = waiting.pop()[1] + tree
            size *= 2
        waiting.append((size, tree))
    result: Reals = waiting.pop()[1] if waiting else np.zeros((), np.float32)
    while waiting:
        result = waiting.pop()[1] + result
    return np.asarray(result + factors.start.astype(np.float32), np.float64)


def _powers(factors: Factors) -> Iterator[Reals]:
    """The products in float32, k ascending, in runs whose lengths are powers of two and never rise."""
    most = 1 << max(1, _PAIRED // max(1, factors.start.size)).bit_length() - 1
    rest = factors.length
    while rest:
        length = min(most, 1 << rest.bit_length() - 1)
        part = slice(factors.length - rest, factors.length - rest + length)
        yield from summation.products_of(
            replace(factors, a=factors.a[..., part], b=factors.b[..., part, :]), np.float32
        )
        rest -= length


_PAIRED = 1 << 16


def _chunks(factors: Factors) -> Iterator[tuple[Factors, float]]:
    """The chunks, and a limit to the magnitudes in each; widened to float32 unless they are long."""
    size = factors.size
    if size > LONGEST_CHUNK:
        for part in summation.parts(factors, size):
            yield part, math.inf
        return
    for a, b in factors.blocks(size * max(1, _WIDENED // size), np.float32):
        most = size * _largest(a) * _largest(b) * _ROOM
        for part in summation.parts(replace(factors, a=a, b=b), size):
            yield part, most


_WIDENED, LONGEST_CHUNK = 64, 1024


def _blas_for(factors: Factors) -> dict[int, Ordered]:
    """By the length of a chunk: BLAS where it has just been seen to sum such chunks with k ascending."""
    (_, height, width), size, known = factors.start.shape, factors.size, {}
    for length in {min(size, factors.length), factors.length % size} - {0}:
        found = ordered_product(height, length, width) if size <= LONGEST_CHUNK else None
        if found is not None:
            known[length] = found
    return known


def _running32(factors: Factors, most: float, out: Reals, blas: Ordered | None = None) -> Reals:
    """The float32 running sum of the products, k ascending, in ``out``, work space or an array of its own.

    It starts from +0, but a sum that is zero may be -0.

    Where the products are exact in float32, BLAS serves if it has been seen to keep the order; else
    ``einsum`` (its own loops, not BLAS) multiplies and adds in one pass. Its innermost loop runs along the
    last axis of the result, so that every element of the result meets its terms one by one, k ascending; that
    holds for at least two columns.
    """
    a, b, (height, width) = factors.a, factors.b, factors.start.shape[-2:]
    if max(height, width) < 2 or not (most < _FAR and _exact_in_float32(factors)):
        return summation.running32(factors, np.zeros(factors.start.shape, np.float32))
    if blas is not None:
        if len(a) == 1:
            return blas.product(a[0], b[0])[None]
        for a_t, b_t, out_t in zip(a, b, out, strict=True):
            np.copyto(out_t, blas.product(a_t, b_t))
        return out
    if width >= min(height, _NARROW):
        return np.asarray(np.einsum("tmk,tkn->tmn", a, b, out=out))
    a, b = np.ascontiguousarray(a.swapaxes(1, 2)), np.ascontiguousarray(b.swapaxes(1, 2))
    return np.asarray(np.einsum("tnk,tkm->tnm", b, a)).swapaxes(1, 2)


_FAR = 2.0**127
_NARROW = 16


def _reach(reach: float, total: Reals, a: Reals, b: Reals, edge: float) -> float:
    """How large a sum may get in the next block: by what is known, or else by a look at the sums.

    A sum that has overflowed to infinity, or is NaN, gives infinity or NaN.
    """
    more = a.shape[-1] * _largest(a) * _largest(b)
    known: float = (reach + more) * _ROOM
    return known if known < edge else (_largest(total) + more) * _ROOM


def _largest(x: Reals) -> float:
    """The largest magnitude; NaN where there is one."""
    return max(float(x.max(initial=0.0)), -float(x.min(initial=0.0)))


def _exact_in_float32(factors: Factors) -> bool:
    """Whether float32 holds every product, none of them being too long, too large or too small."""
    fmt = factors.fmt
    if 2 * fmt.precision > _P32:
        return False
    if fmt.emax < 63 and 2 * (fmt.emin - fmt.mantissa_bits) >= -149:
        return True
    a, b = (np.asarray(each).astype(np.float64) for each in (factors.a, factors.b))
    return _largest(a) * _largest(b) < 2.0**127 and quantum(a, fmt) * quantum(b, fmt) >= 2.0**-149


def _float32_serves(factors: Factors, fmt: Format) -> bool:
    """Whether float32 holds every product, and the detour of every sum (2p + 2 bits, Figueroa 1995)."""
    return 2 * fmt.precision + 2 <= _P32 and _exact_in_float32(factors)


_P32 = 24
