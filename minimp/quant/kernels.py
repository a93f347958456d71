"""What quantising does to a block of numbers, a few passes over memory that stays in the cache.

An encoder takes a block x, its scales s and zero points z (arrays that broadcast to the block), and scratch
space, and returns float32 codes before clamping, in the scratch space. NaN stays NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Encoder", "Layout", "Scratch", "fused", "product", "quotient", "quotient_away", "settle"]

Floats = npt.NDArray[np.float32]
BLOCK = 1 << 16
"""Numbers in a block: three float32 buffers of this length lie in a second-level cache."""
NARROW = 64
"""Channels of fewer numbers than this are widened: their scales are written out, one for each number."""
NEAR_TIE = np.float32(0.5 - 2.0**-15)
"""See :func:`fused`."""


class Scratch:
    """Two float32 buffers and one of booleans, given out in the shape of a block."""

    def __init__(self, size: int) -> None:
        size = min(size, BLOCK)
        self._values, self._codes = np.empty(size, np.float32), np.empty(size, np.float32)
        self._flags = np.empty(size, np.bool_)

    def values(self, shape: tuple[int, ...]) -> Floats:
        """Return the first buffer in a shape."""
        return self._values[: math.prod(shape)].reshape(shape)

    def codes(self, shape: tuple[int, ...]) -> Floats:
        """Return the second."""
        return self._codes[: math.prod(shape)].reshape(shape)

    def flags(self, shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
        """Return the booleans."""
        return self._flags[: math.prod(shape)].reshape(shape)


Encoder = Callable[[Floats, Floats, Floats, Scratch], Floats]


@dataclass(frozen=True, slots=True)
class Layout:
    """An array seen as a matrix, its scales and zero points beside it.

    The matrix is one row for a whole tensor; a row for each channel where channels are wide; and else a row
    for all that follows the axes before that of the channels, each column with its own scale.

    Attributes:
        shape: of the matrix.
        scale, zero: float32, that broadcast to it.
    """

    shape: tuple[int, int]
    scale: Floats
    zero: Floats

    @classmethod
    def of(
        cls, shape: tuple[int, ...], scale: Floats, zero: npt.NDArray[np.int32], axis: int | None
    ) -> Layout:
        """Return the layout of an array of `shape`, (..., C, ...), with scales () or, on an axis, (C,)."""
        pair = scale, zero.astype(np.float32)
        if axis is None:
            return cls((1, math.prod(shape)), *(each.reshape(1, 1) for each in pair))
        before, channels, inner = math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :])
        if inner >= NARROW:
            return cls((before * channels, inner), *(np.tile(each, before).reshape(-1, 1) for each in pair))
        return cls((before, channels * inner), *(np.repeat(each, inner).reshape(1, -1) for each in pair))

    def blocks(self) -> Iterator[tuple[tuple[slice, slice], Floats, Floats]]:
        """Yield (place in the matrix, scales, zero points) of blocks of at most BLOCK numbers."""
        columns = max(min(self.shape[1], BLOCK), 1)
        rows = BLOCK // columns
        for top in range(0, self.shape[0], rows):
            for left in range(0, self.shape[1], columns):
                place = slice(top, top + rows), slice(left, left + columns)
                fit = tuple(
                    slice(None) if length == 1 else part
                    for part, length in zip(place, self.scale.shape, strict=True)
                )
                yield place, self.scale[fit], self.zero[fit]


def fused(x: Floats, scale: Floats, zero: Floats, scratch: Scratch) -> Floats:
    """rint(r), r = x (1/s) + z rounded once to float32, as a fused multiply-add rounds it.

    Computed with two roundings, p = x (1/s), then p + z, and again in exact arithmetic where that could make
    another code. Codes that survive clamping have |r| <= 255.5, so |p| < 512: p is off by at most 2^-16,
    half a unit of float32, and both sums by at most 2^-17. Within 2^-15 of a half, then, the two may differ;
    nowhere else. With z = 0 there is one rounding, and nothing to repeat.
    """
    values = scratch.values(x.shape)
    inverse = np.float32(1) / scale
    np.multiply(x, inverse, out=values)
    if not zero.any():
        return np.rint(values, out=values)
    codes, flags = scratch.codes(x.shape), scratch.flags(x.shape)
    np.add(values, zero, out=values)
    np.rint(values, out=codes)
    np.subtract(values, codes, out=values)
    np.abs(values, out=values)
    np.greater_equal(values, NEAR_TIE, out=flags)
    if flags.any():
        at = np.divmod(np.flatnonzero(flags), x.shape[1])
        codes[at] = np.rint(_multiply_add(x[at], _taken(inverse, at), _taken(zero, at)))
    return codes


def _taken(each: Floats, at: tuple[npt.NDArray[np.intp], ...]) -> Floats:
    """The elements in these places of an array that broadcasts to a matrix."""
    found: Floats = each[tuple(0 if n == 1 else place for n, place in zip(each.shape, at, strict=True))]
    return found


def _multiply_add(x: Floats, y: Floats, z: Floats) -> Floats:
    """x y + z rounded once to float32.

    The product of two float32 numbers is exact in float64. The sum is rounded to odd: where it is inexact,
    and the float64 number beside it even, the odd neighbour on the side of what was lost is taken; 53 bits
    rounded so and rounded again to 24 are the exact sum rounded once (Boldo and Melquiond 2008, "Emulation
    of a FMA and correctly rounded sums", IEEE Transactions on Computers 57(4), theorem 1).
    """
    a, b = x.astype(np.float64) * y, z.astype(np.float64)
    total = a + b
    back = total - a
    lost = (a - (total - back)) + (b - back)
    even = (total.view(np.int64) & 1) == 0
    odd = np.nextafter(total, np.copysign(np.inf, lost))
    return np.where((lost != 0) & even, odd, total).astype(np.float32)


def product(x: Floats, scale: Floats, zero: Floats, scratch: Scratch) -> Floats:
    """rint(x (1/s)) + z."""
    values = scratch.values(x.shape)
    np.multiply(x, np.float32(1) / scale, out=values)
    np.rint(values, out=values)
    return np.add(values, zero, out=values)


def quotient(x: Floats, scale: Floats, zero: Floats, scratch: Scratch) -> Floats:
    """rint(x / s) + z."""
    values = scratch.values(x.shape)
    np.divide(x, scale, out=values)
    np.rint(values, out=values)
    return np.add(values, zero, out=values)


def quotient_away(x: Floats, scale: Floats, zero: Floats, scratch: Scratch) -> Floats:
    """trunc(v) + trunc(2 (v - trunc(v))) + z, v = x / s: halves away from zero; the division alone rounds."""
    values, codes = scratch.values(x.shape), scratch.codes(x.shape)
    np.divide(x, scale, out=values)
    np.trunc(values, out=codes)
    np.subtract(values, codes, out=values)
    np.add(values, values, out=values)
    np.trunc(values, out=values)
    whole = np.isinf(codes)  # inf - inf is no fraction
    if whole.any():
        values[whole] = 0
    np.add(codes, values, out=codes)
    return np.add(codes, zero, out=codes)


def settle(codes: Floats, quant_min: int, quant_max: int, nan: int) -> Floats:
    """Clamp codes where they lie, NaN to the code `nan`."""
    if codes.size and np.isnan(codes.max()):
        codes[np.isnan(codes)] = nan
    return np.clip(codes, quant_min, quant_max, out=codes)
