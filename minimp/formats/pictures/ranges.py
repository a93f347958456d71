"""Where the values of a format lie, and where the numbers of a tensor lie: both by binades.

A binade is the numbers with one exponent: 2^e <= |x| < 2^(e+1). A format with m mantissa bits has 2^m values
in each binade of its normal range, half as many in each one further down among the subnormals, and none
beyond its ends. A tensor is counted in blocks: the extra memory does not grow with it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from minimp.errors import DataError
from minimp.formats.rounding import Float64s, widen64
from minimp.formats.table import get

__all__ = [
    "EXPONENTS",
    "Counts",
    "Extent",
    "binades",
    "by_exponent",
    "exponent_of",
    "extent",
    "filled",
    "total",
    "values_in_binade",
    "weighed_blocks",
]

Counts = npt.NDArray[np.float64]
"""How many, as float64: dot products and bincount are fast in it, and sums below 2^53 exact."""

# ---- where values lie --------------------------------------------------------------------------------------


def exponent_of(x: float) -> int:
    """floor(log2 |x|) of a finite number other than 0: the binade that it lies in."""
    return math.frexp(x)[1] - 1


def binades(fmt: Any) -> range:
    """The exponents of the binades that hold positive values of ``fmt``, ascending.

    >>> binades("fp16")
    range(-24, 16)
    """
    fmt = get(fmt)
    return range(exponent_of(fmt.smallest_subnormal), exponent_of(fmt.max) + 1)


def values_in_binade(fmt: Any, exponent: int) -> int:
    """How many values v of ``fmt`` have 2^exponent <= v < 2^(exponent+1).

    2^m in the normal range, less in the last binade where NaN takes some codes; 2^(exponent - emin + m) among
    the subnormals and in integer formats.
    """
    fmt = get(fmt)
    if exponent not in binades(fmt):
        return 0
    step = Fraction(2) ** (max(exponent, fmt.emin) - fmt.mantissa_bits)
    first = Fraction(2) ** exponent
    return min(int(first / step), int((Fraction(fmt.max) - first) / step) + 1)


# ---- the tensor itself -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Extent:
    """Where the numbers of a tensor lie.

    Attributes:
        count: all elements.
        zeros, infinite, nan: how many are 0, are infinite, are NaN.
        smallest, largest: the extreme magnitudes other than 0 and inf; None where there are no such numbers.
        binades: exponent -> how many elements have 2^exponent <= |x| < 2^(exponent+1); no entry is 0.
    """

    count: int
    zeros: int
    infinite: int
    nan: int
    smallest: float | None
    largest: float | None
    binades: Mapping[int, int] = field(repr=False)


def extent(x: npt.ArrayLike) -> Extent:
    """Count where the numbers of x lie, by binades.

    Raises:
        DataError: x is empty or not real numbers, or holds integers that float64 cannot hold.
    """
    zeros = infinite = nan = 0
    smallest, largest = math.inf, 0.0
    seen = np.zeros(EXPONENTS)
    for values, weights in weighed_blocks(x):
        magnitude = np.abs(values)
        nans, infs = np.isnan(values), np.isinf(values)
        nan, infinite = nan + total(nans, weights), infinite + total(infs, weights)
        zeros += total(magnitude == 0, weights)
        solid = ~nans & ~infs & (magnitude > 0)
        seen += by_exponent(magnitude[solid], weights[solid])
        smallest = min(smallest, float(np.min(magnitude, initial=math.inf, where=solid)))
        largest = max(largest, float(np.max(magnitude, initial=0.0, where=solid)))
    return Extent(
        count=int(np.size(x)),
        zeros=zeros,
        infinite=infinite,
        nan=nan,
        smallest=smallest if largest else None,
        largest=largest or None,
        binades=filled(seen),
    )


_BLOCK = 1 << 16  # elements: their temporaries stay in a core's own cache
_LEAST = -1074  # the exponent of float64's smallest number
EXPONENTS = 1024 - _LEAST


def weighed_blocks(x: npt.ArrayLike) -> Iterator[tuple[Float64s, Counts]]:
    """Walk through x in any order: float64 values, and how often each of them occurs.

    Of at most 16 bits there are but 65,536 different numbers: those are counted first.

    Raises:
        DataError: x is empty or not real numbers, or holds integers that float64 cannot hold.
    """
    x = np.asarray(x)
    widen64(x[:0] if x.ndim else x)  # what is no real number is refused before anything is counted
    if x.size == 0:
        raise DataError(
            "expected at least one number, got an empty array",
            op="losses",
            shapes=(x.shape,),
            help="give it the tensor that is to be stored",
        )
    flat = x.ravel(order="K")  # a view, but for what is strided
    if x.dtype.itemsize <= 2 and x.size > _BLOCK:
        yield _distinct(flat)
        return
    for first in range(0, flat.size, _BLOCK):
        values = widen64(flat[first : first + _BLOCK])
        yield values, np.ones(values.size)


def _distinct(flat: npt.NDArray[Any]) -> tuple[Float64s, Counts]:
    unsigned = np.dtype(f"u{flat.dtype.itemsize}")
    patterns = flat.view(unsigned)
    counts = np.zeros(1 << (8 * unsigned.itemsize), np.int64)
    for first in range(0, flat.size, _BLOCK):
        counts += np.bincount(patterns[first : first + _BLOCK], minlength=counts.size)
    found = np.flatnonzero(counts)
    return widen64(found.astype(unsigned).view(flat.dtype)), counts[found].astype(np.float64)


def total(chosen: npt.NDArray[np.bool_], weights: Counts) -> int:
    """How many elements are chosen."""
    return int(weights @ chosen)


def by_exponent(magnitudes: Float64s, weights: Counts) -> Counts:
    """Count by exponent (EXPONENTS,), from float64's lowest; magnitudes are finite and not 0."""
    _, exponents = np.frexp(magnitudes)
    exponents -= 1 + _LEAST
    return np.asarray(np.bincount(exponents, weights, minlength=EXPONENTS), dtype=np.float64)


def filled(counts: Counts) -> Mapping[int, int]:
    """What ``by_exponent`` counted, as exponent -> count, without the zeros."""
    return MappingProxyType({int(at) + _LEAST: int(counts[at]) for at in np.flatnonzero(counts)})
