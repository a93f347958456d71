"""Error-free transformations: a float64 operation together with what its rounding lost, exactly.

Sources: Knuth, TAOCP 2, 4.2.2 (two_sum); Dekker 1971 and Veltkamp 1968 (two_product); Boldo and Melquiond
2008, "Emulation of a FMA and correctly rounded sums: proved algorithms using rounding to odd" (to_odd). All
of them hold while nothing overflows and no product's error underflows; the callers see to that.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["to_odd", "two_product", "two_sum"]

Float64s = npt.NDArray[np.float64]

_SPLITTER = 2.0**27 + 1  # cuts 53 bits into two halves of at most 26


def two_sum(a: Float64s, b: Float64s) -> tuple[Float64s, Float64s]:
    """(s, e) with s = fl(a + b) and s + e = a + b exactly."""
    s = a + b
    shadow = s - a
    return s, (a - (s - shadow)) + (b - shadow)


def two_product(a: Float64s, b: Float64s) -> tuple[Float64s, Float64s]:
    """(p, e) with p = fl(a b) and p + e = a b exactly."""
    p = a * b
    a_high, a_low = _halves(a)
    b_high, b_low = _halves(b)
    return p, a_low * b_low - (((p - a_high * b_high) - a_low * b_high) - a_high * b_low)


def to_odd(nearest: Float64s, residue: npt.NDArray[Any]) -> Float64s:
    """Turn a sum rounded to nearest into the same sum rounded to odd.

    Args:
        nearest: fl(x) of an exact x.
        residue: anything of the sign of x - nearest; 0 or NaN where x = nearest (or is not finite).

    Rounding the result again to any format of at most 51 bits, in any mode, is as good as rounding x once.
    """
    inexact = (residue > 0) | (residue < 0)
    too_far = inexact & ((residue < 0) != (nearest < 0))  # nearest lies beyond x, seen from zero
    bits = (
        nearest.view(np.int64) - too_far
    )  # the next float64 toward zero: sign and magnitude bits count down
    return np.asarray((bits | inexact).view(np.float64))


def _halves(a: Float64s) -> tuple[Float64s, Float64s]:
    scaled = _SPLITTER * a
    high = scaled - (scaled - a)
    return high, a - high
