"""The exact dot product, rounded once.

Each factor is cut into slices of w bits on one fixed grid, x = sum_i X_i 2^(w i) with whole |X_i| < 2^w, so
that a product of slices, summed over K, stays below 2^53 and any float64 matrix product of slices is exact,
whatever the order of its sums. The slices' products are collected by their weight 2^(w (i + j)), carried, and
the long whole number is rounded. (Ozaki, Ogita, Oishi and Rump 2012, "Error-free transformations of matrix
multiplication", with a fixed grid.)
"""

from __future__ import annotations

from collections import defaultdict
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from minimp.formats.errorfree import to_odd, two_sum
from minimp.formats.exact import round_fraction
from minimp.formats.rounding import Float64s, round_to
from minimp.formats.table import FORMATS, Format

__all__ = ["exact_dot", "exact_dot_by_fractions"]

# Weight index s -> whole numbers, to be read as sum_s plane_s 2^(w s).
Planes = dict[int, npt.NDArray[np.int64]]
_TERMS = 1 << 12  # K at a time


def exact_dot(a: npt.NDArray[Any], b: npt.NDArray[Any], c: Float64s, output: Format) -> Float64s:
    """The exact A B + C rounded once to ``output``; an exact zero is +0.

    Args:
        a, b, c: (..., M, K), (..., K, N) and (..., M, N), values of float32; a and b of any dtype, widened a
            part of K at a time.
    """
    length = a.shape[-1]
    width, special = (53 - min(length, _TERMS).bit_length()) // 2, c
    planes: Planes = defaultdict(lambda: np.zeros(c.shape, np.int64))
    for first in range(0, length, _TERMS):
        part = slice(first, first + _TERMS)
        left, right = a[..., part].astype(np.float64), b[..., part, :].astype(np.float64)
        special = special + left @ right  # for infinities and NaN only
        _collect(planes, _finite(left), _finite(right), width)
        _settle(planes, width)
    for s, slice_c in _slices(_finite(c), width).items():
        planes[s] += slice_c.astype(np.int64)
    finite = np.isfinite(special)
    return _rounded(dict(planes), width, np.where(finite, 0.0, special), output)


def _finite(x: Float64s) -> Float64s:
    return np.where(np.isfinite(x), x, 0.0)


def _rounded(planes: Planes, width: int, special: Float64s, output: Format) -> Float64s:
    """The number in the planes, rounded once; ``special`` where that is not 0."""
    negative = _carry({s: plane.copy() for s, plane in planes.items()}, width)
    planes = {s: np.where(negative, -plane, plane) for s, plane in planes.items()}
    _carry(planes, width)  # of the magnitudes: every digit is now in [0, 2^w)
    nearest, residue = _head(planes, width, special.shape)
    magnitude = nearest if output is FORMATS["float64"] else to_odd(nearest, residue)
    result = np.where(special == 0, np.where(negative, -magnitude, magnitude), special)
    return round_to(result, output).astype(np.float64)


def exact_dot_by_fractions(a: Float64s, b: Float64s, c: Float64s, output: Format) -> Float64s:
    """The same for float64 values, by Python's whole numbers: microseconds a product, a reference only."""
    # Finite factors count by sign only: a float64 overflow on the way is no infinity of the inputs.
    signs = [np.where(np.isfinite(each), np.sign(each), each) for each in (a, b, c)]
    special = signs[0] @ signs[1] + signs[2]
    finite = np.isfinite(special)
    wholes = [_wholes(np.where(np.isfinite(each), each, 0.0)) for each in (a, b, c)]
    totals = wholes[0] @ wholes[1] + (wholes[2] << _GRID)
    round_one = np.frompyfunc(lambda total: round_fraction(Fraction(total, 1 << 2 * _GRID), output), 1, 1)
    result = np.asarray(round_one(totals), np.float64)
    return np.where(finite, result + 0.0, round_to(np.where(finite, 0.0, special), output))


_GRID = 1074  # every float64 is a multiple of 2^-1074


def _wholes(x: Float64s) -> npt.NDArray[Any]:
    return np.asarray(np.frompyfunc(lambda each: int(Fraction(each) * 2**_GRID), 1, 1)(x), object)


def _slices(x: Float64s, width: int) -> dict[int, Float64s]:
    """x = sum_i X_i 2^(width i), X_i whole and of x's sign; empty slices left out."""
    rest, slices = x, {}
    largest = float(np.abs(x).max(initial=0.0))
    top = int(np.frexp(largest)[1]) // width
    while largest > 0 and rest.any():
        digits = np.trunc(np.ldexp(rest, -width * top))
        if digits.any():
            slices[top] = digits
            rest = rest - np.ldexp(digits, width * top)
        top -= 1
    return slices


def _collect(planes: Planes, a: Float64s, b: Float64s, width: int) -> None:
    """Add the products of all slices to the planes, by weight.

    A plane meets fewer than 30 products of slices, each below 2^53, so it stays below 2^59 until settled.
    """
    slices_b = _slices(b, width)
    for i, slice_a in _slices(a, width).items():
        for j, slice_b in slices_b.items():
            planes[i + j] += (slice_a @ slice_b).astype(np.int64)


def _settle(planes: Planes, width: int) -> None:
    """Move what is above w bits to the next plane, in place; the topmost plane keeps it, and the sign."""
    for s in range(min(planes, default=0), max(planes, default=0)):
        carry = planes[s] >> width
        planes[s] &= (1 << width) - 1
        planes[s + 1] += carry


def _carry(planes: Planes, width: int) -> npt.NDArray[np.bool_]:
    """Bring every digit into [0, 2^width), in place; what is left above the top, 0 or -1, is the sign."""
    if not planes:
        return np.zeros((), np.bool_)
    carry: npt.NDArray[np.int64] = np.zeros((), np.int64)
    zero = np.zeros_like(next(iter(planes.values())))
    for s in range(min(planes), max(planes) + 64 // width + 2):
        total = planes.get(s, zero) + carry
        carry = total >> width
        planes[s] = total & ((1 << width) - 1)
    return carry < 0


def _head(planes: Planes, width: int, shape: tuple[int, ...]) -> tuple[Float64s, Float64s]:
    """The number's nearest float64 and what is missing from it, in sign.

    Bottom up, ``tail`` is the sum of all digits but the last two seen, rounded to odd. At each non-zero
    digit, it and the one below are the head so far: together at most 53 bits, so exact; and a tail 53 bits
    long below them keeps, by its odd last bit, every sum from looking like a tie that is none.
    """
    nearest, residue = np.zeros(shape), np.zeros(shape)
    tail, below = np.zeros(shape), np.zeros(shape)
    for s in sorted(planes):
        here = np.ldexp(planes[s].astype(np.float64), width * s)
        total, missing = two_sum(here + below, tail)
        leads = here != 0
        nearest, residue = np.where(leads, total, nearest), np.where(leads, missing, residue)
        tail = to_odd(*two_sum(below, tail))
        below = here
    # A number whose digits are all in the lowest plane, or end there, has led at its own turn: nothing is
    # left over.
    return nearest, residue
