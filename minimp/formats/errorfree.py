"""Float64 sums with nothing lost: the residue of a rounding, and rounding to odd.

Sources: Knuth, TAOCP 2, 4.2.2 (two_sum); Boldo and Melquiond 2008, "Emulation of a FMA and correctly rounded
sums: proved algorithms using rounding to odd" (to_odd). They hold while nothing overflows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["to_odd", "two_sum"]

Float64s = npt.NDArray[np.float64]


def two_sum(a: Float64s, b: Float64s) -> tuple[Float64s, Float64s]:
    """(s, e) with s = fl(a + b) and s + e = a + b exactly."""
    s = a + b
    shadow = s - a
    return s, (a - (s - shadow)) + (b - shadow)


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
