"""How far results are from float64 ones, in ulps and as norms; block by block, which stays in cache."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np
import numpy.typing as npt

from minimp.formats import Format
from minimp.trace.events import Error

__all__ = ["Distances", "distances", "jumps", "relative", "ulp_of"]

Array = npt.NDArray[Any]
BLOCK = 32768
POWER = np.uint64(0x7FF0_0000_0000_0000)
"""The bits of a float64's exponent."""
TWICE_THE_BIAS = np.uint64(2046 << 52)
NOTHING = (0.0, 0.0, 0.0, 0.0, 0)


@dataclass(frozen=True, slots=True)
class Distances:
    """The errors of a result, and what its rounding made zero or infinite.

    Attributes:
        made: the result against `exact`.
        inherited: `exact` against `pure`.
        total: the result against `pure`.
        flushed: zeros where `exact` is not 0.
        overflowed: infinities where `exact` is finite.
    """

    made: Error
    inherited: Error
    total: Error
    flushed: int
    overflowed: int


_Part = tuple[float, float, float, float, int]


class _Sum:
    """The errors of one kind, added up over blocks."""

    def __init__(self) -> None:
        self.most = self.total = self.squares = self.norm = 0.0
        self.count = 0

    def add(self, part: _Part) -> None:
        """Add what :func:`_part` found in a block."""
        most, total, squares, norm, count = part
        self.most = max(self.most, most)
        self.total += total
        self.squares += squares
        self.norm += norm
        self.count += count

    def error(self, form: Format) -> Error:
        """Return the error in ulps of `form`; a relative error that is no number counts as nothing."""
        digits = 2.0**form.mantissa_bits
        part = relative_of(self.squares, self.norm)
        return Error(self.most * digits, self.total * digits / max(self.count, 1), part)


def distances(
    got: Array, exact: Array, pure: Array, form: Format, *, unrounded: bool = False
) -> Distances:  # fmt: skip
    """Return the errors of a result in `form` against float64 results of one shape.

    Args:
        got: the result, in float32 or float64.
        exact: the op in float64 on the same inputs.
        pure: the op in float64 on the shadow's inputs; `exact` itself if they are the same.
        form: its format; ulps are those at `exact`.
        unrounded: the result is known to be `exact` itself: a cast to a wider format.
    """
    flat, truth, clean = (np.asarray(x).reshape(-1) for x in (got, exact, pure))
    alike = pure is exact
    made, inherited, total = _Sum(), _Sum(), _Sum()
    gap, unit = np.empty(min(BLOCK, flat.size)), np.empty(min(BLOCK, flat.size))
    flushed = overflowed = 0
    lowest = form.smallest_normal
    for start in range(0, flat.size, BLOCK):
        x, e, p = (each[start : start + BLOCK] for each in (flat, truth, clean))
        d, u = gap[: x.size], unit[: x.size]
        scale = _powers_of_two(e, lowest, u, inverse=form.bits < 64)
        here = (0.0, 0.0, 0.0, _squares(e), x.size)
        if not unrounded:
            here = _part(np.subtract(x, e, out=d), scale, here[3], e)
            zeros = x == 0
            flushed += int(np.count_nonzero(e[zeros])) if zeros.any() else 0
            overflowed += 0 if here[-1] == x.size else int(np.count_nonzero(np.isinf(x) & np.isfinite(e)))
        made.add(here)
        if not alike:
            norm = _squares(p)
            before = _part(np.subtract(e, p, out=d), scale, norm, p)
            inherited.add(before)
            exactly = here[0] == 0.0 and here[-1] == x.size  # the op made no error
            total.add(before if exactly else _part(np.subtract(x, p, out=d), scale, norm, p))
    error = made.error(form)
    if alike:
        return Distances(error, Error(), error, flushed, overflowed)
    return Distances(error, inherited.error(form), total.error(form), flushed, overflowed)


_Scale = tuple[Any, Array]
"""What a gap is to be multiplied with, or divided by, to be in units: the ufunc, and its second argument."""


def _squares(array: Array) -> float:
    return float(np.dot(array, array))


def _part(gap: Array, scale: _Scale, norm: float, against: Array) -> _Part:
    """Return the largest error in units, their sum, the squares of errors and of values, the finite ones.

    `gap` is taken over; `norm` are the squares of `against`.
    """
    squares = _squares(gap)
    if squares == 0.0 and not gap.any():
        return 0.0, 0.0, 0.0, norm, gap.size
    turn, unit = scale
    if not squares < np.inf:
        known = np.isfinite(gap)
        if not known.all():
            some = against[known]
            found = bool(known.any())
            return _part(gap[known], (turn, unit[known]), _squares(some), some) if found else NOTHING
    np.abs(gap, out=gap)
    turn(gap, unit, out=gap)
    return float(gap.max()), float(gap.sum()), squares, norm, gap.size


def _powers_of_two(exact: Array, lowest: float, out: Array, *, inverse: bool = False) -> _Scale:
    """Write the largest power of two that is no larger than each number, and at least `lowest`; or 1 over it.

    In formats narrower than float64 the inverse is a number, too, and multiplying is quicker than dividing.
    Numbers of 2^1023 and more have no inverse: there, it is 0; nor has infinity, whose gap is none either.
    """
    bits = out.view(np.uint64)
    np.bitwise_and(exact.view(np.uint64), POWER, out=bits)
    np.maximum(bits, np.float64(lowest).view(np.uint64), out=bits)  # of integers, which is quicker
    if not inverse:
        return np.divide, out
    np.subtract(TWICE_THE_BIAS, bits, out=bits)
    return np.multiply, out


def ulp_of(exact: Any, form: Format) -> Any:
    """Return one unit in the last place at each float64 number; subnormal ones have the same."""
    found = np.empty(np.shape(exact))
    _powers_of_two(np.asarray(exact, np.float64), form.smallest_normal, found)
    return found * 2.0**-form.mantissa_bits


def jumps(exact: Array, pure: Array) -> tuple[int, float]:
    """Return how many elements lie on two sides of a jump, and the relative error of the others, as a norm.

    Two numbers do that are further apart than half of the larger one (than a third of the size of their sum,
    which is the same): 0 and anything, x and -x.
    """
    one, two = exact.reshape(-1), pure.reshape(-1)
    gap, whole = np.empty(min(BLOCK, one.size)), np.empty(min(BLOCK, one.size))
    count, squares = 0, 0.0
    for start in range(0, one.size, BLOCK):
        e, p = one[start : start + BLOCK], two[start : start + BLOCK]
        d, s = gap[: e.size], whole[: e.size]
        np.abs(np.subtract(e, p, out=d), out=d)
        np.abs(np.add(e, p, out=s), out=s)
        s /= 3.0
        far = d > s
        here = int(np.count_nonzero(far))
        if here:
            d[far] = 0.0
        count, squares = count + here, squares + _squares(d)
    return count, relative_of(squares, _squares(two)) if count else 0.0


def relative(got: Any, exact: Any) -> float:
    """Return |got - exact| / |exact| by norms."""
    gap, truth = (np.asarray(x).reshape(-1) for x in (got - exact, exact))
    return relative_of(float(np.dot(gap, gap)), float(np.dot(truth, truth)))


def relative_of(squares: float, norm: float) -> float:
    """Return the root of the quotient: 0 of 0 / 0 and of what is not finite."""
    if not (squares < np.inf and norm < np.inf):
        return 0.0
    return sqrt(squares / norm) if norm else (0.0 if not squares else float("inf"))
