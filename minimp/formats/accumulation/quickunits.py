"""``tensorcore.tensor_core``, some ten times faster and equal bit for bit.

A block of L terms is a few passes over arrays (L, T, M, N): the exponents' sums in int16, their maximum, the
products in float32 (exact), times the power of two that brings the last place kept to 1, and a conversion to
int32, which is the cut; integers add without rounding in any order. That needs factors whose products float32
holds, at heights from -100 to 120, where neither products nor sums can leave float32's range; all else takes
the readable way.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from minimp.formats.accumulation import tensorcore
from minimp.formats.accumulation.operands import Factors
from minimp.formats.accumulation.tensorcore import Unit
from minimp.formats.accumulation.workspace import space
from minimp.formats.rounding import Float64s
from minimp.formats.table import FORMATS

__all__ = ["tensor_core"]

Reals = npt.NDArray[Any]
_HIGHEST, _LOWEST = 120, -100
_NO_HEIGHT = -12_000  # of a zero; twice that is an int16


def tensor_core(factors: Factors, unit: Unit) -> Float64s:
    """A B + start as the unit adds it; see ``tensorcore.tensor_core``."""
    if not _within(factors):
        return tensorcore.tensor_core(factors, unit)
    total = np.array(factors.start)
    work = _Work.of(unit, factors)
    for a, b in factors.blocks(unit.terms, np.float32):
        _step(a, b, total, unit, work)
    return total


def _within(factors: Factors) -> bool:
    """Whether all products, sums and starts are finite and at heights that float32 can serve."""
    lowest, highest = [0, 0], [0, 0]
    for pair in factors.blocks(_BLOCK, np.float32):
        for side, numbers in enumerate(pair):
            magnitude = np.abs(numbers)
            largest = float(magnitude.max(initial=0.0))
            if not largest < np.inf:
                return False
            smallest = float(magnitude.min(where=magnitude > 0, initial=1.0))
            lowest[side] = min(lowest[side], max(_exponent(smallest), factors.fmt.emin))
            highest[side] = max(highest[side], _exponent(largest))
    if not np.abs(factors.start).max(initial=0.0) < 2.0**_HIGHEST:
        return False
    return sum(lowest) >= _LOWEST and sum(highest) + 2 + factors.length.bit_length() <= _HIGHEST


_BLOCK = 64  # terms looked at at a time


def _exponent(x: float) -> int:
    return math.frexp(x)[1] - 1 if x else 0


@dataclass(frozen=True)
class _Work:
    """The inputs' emin, and what every step of a tile uses again: arrays with a number for each product."""

    emin: int
    heights: npt.NDArray[np.int16]
    products: npt.NDArray[np.float32]
    wholes: npt.NDArray[np.int32]

    @staticmethod
    def of(unit: Unit, factors: Factors) -> _Work:
        shape = (unit.terms, *factors.start.shape)
        return _Work(
            factors.fmt.emin,
            space("heights", shape, np.int16),
            space("products", shape, np.float32),
            space("wholes", shape, np.int32),
        )


def _step(a: Reals, b: Reals, total: Float64s, unit: Unit, work: _Work) -> None:
    """Add one block of products to ``total``, in place.  (T, M, k), (T, k, N) -> (T, M, N)"""
    left = np.ascontiguousarray(np.moveaxis(a, -1, 0))[..., None]  # (k, T, M, 1)
    right = np.moveaxis(b, 1, 0)[:, :, None, :]  # (k, T, 1, N)
    heights, products, wholes = (each[: len(left)] for each in (work.heights, work.products, work.wholes))

    np.add(_heights(left, work.emin), _heights(right, work.emin), out=heights)
    scale = _scale(np.maximum.reduce(heights, axis=0), total, unit)
    small = np.minimum(scale, 2.0**127).astype(np.float32)  # more only where all products are zero
    np.multiply(left, right, out=products)
    np.multiply(products, small, out=products)
    np.copyto(wholes, products, casting="unsafe")  # toward zero

    np.multiply(total, scale, out=total)
    np.trunc(total, out=total)
    group = 1 << (29 - unit.fraction_bits)  # a cut product is below 2^(F + 2)
    for first in range(0, len(wholes), group):  # at least once: adding the whole number 0 makes -0 +0
        total += np.add.reduce(wholes[first : first + group], axis=0, dtype=np.int32)
    np.divide(total, scale, out=total)
    dropped = 52 - unit.result.mantissa_bits
    total.view(np.int64)[...] &= np.int64(-1 << dropped)


def _scale(top: npt.NDArray[np.int16], total: Float64s, unit: Unit) -> Float64s:
    """2^(F - emax), emax over the products' heights and the accumulator's exponent.

    A subnormal accumulator has float32's smallest exponent; the unit's floor, below that, is for steps in
    which all is zero, where any scale will do.
    """
    fields = (total.view(np.int64) >> 52) & 0x7FF
    fields = np.maximum(fields, np.maximum(top, _FLOAT32.emin).astype(np.int64) + 1023)
    return np.asarray(((2046 + unit.fraction_bits - fields) << 52).view(np.float64))


_FLOAT32 = FORMATS["float32"]


def _heights(x: Reals, emin: int) -> npt.NDArray[np.int16]:
    """The exponent of each number, at least emin; of a zero, one so small that it never leads."""
    exponents = np.maximum(((x.view(np.int32) >> 23) & 0xFF) - 127, emin)
    return np.where(x == 0, _NO_HEIGHT, exponents).astype(np.int16)
