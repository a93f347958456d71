"""Which trick rounds to which format, and the constants that it needs.

For numbers of w stored bits (23 in float32, 52 in float64) and a format of m, with s = w - m:

* **Shift.** Let e be the exponent of x, at least emin, and M = 1.5 · 2^(e + s). Then x + M lies in the binade
  of M, whose ulp is 2^(e - m), the ulp of the format at x: the addition itself rounds, and subtracting M
  again is exact. Ties go to even because M is an even multiple of that ulp; the factor 1.5 keeps x + M in the
  binade for negative x too. It is right when s >= 2 (|x| < 2^(e + 1) is at most half of 2^(e + s)), when
  emin >= the machine format's own, and when M is finite up to one binade beyond ``max``.
* **Pattern.** Where emin is the machine format's own, the format's values are the patterns whose last s bits
  are zero, subnormals included, and rounding is integer arithmetic on the pattern.
* **Table.** A format of at most 5 mantissa bits has its values and the midpoints between them among the
  float32 numbers of 6 mantissa bits. So the top 16 bits of a float32, the last of them set where anything
  below is not 0 (round to odd), tell everything: 65,536 answers of the readable rounding serve any mode.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from minimp.formats.fast.lanes import DOUBLE, SINGLE, Array, Width
from minimp.formats.overflows import overflow_named
from minimp.formats.rounding import beyond, flushes, max_is_odd
from minimp.formats.roundings import Situation, mode_named
from minimp.formats.table import Format

__all__ = ["Plan", "RefusedError", "plan_for", "table_serves"]


class RefusedError(Exception):
    """A block holds what is refused, NaN or a strange code: the readable form has the words for it."""


@dataclass(frozen=True, eq=False)
class Plan:
    """How numbers of one width are rounded to one format.

    Attributes:
        fmt, rounding, width: what to round to, how, and where the arithmetic is done.
        by_pattern: whether by integer arithmetic on patterns, or else by a shift.
        dropped: s, the bits that rounding takes away. kept: the mask of the others.
        floor: the pattern of 2^emin. cap: of the exponent beyond which M stops growing.
        lift: what makes M of an exponent field.
        ground: the exponent field of the smallest value, below which a number may round to 0.
        seldom_zero: whether it is a normal number, and so small that looking for smaller ones mostly pays.
        fence: the exponent field from which on a block is looked at for overflow and NaN.
        ends: ``fmt.lowest`` and ``fmt.max``.
        clips: whether numbers beyond the ends become the ends.
        past: what numbers beyond the ends become otherwise: positive, negative, +inf, -inf.
        one_past: whether these four differ in sign only.
        infinite: whether the pattern after that of ``max``, the machine format's infinity, is what they are.
        flush: whether subnormal results become zeros.
    """

    fmt: Format
    rounding: str
    width: Width
    by_pattern: bool
    dropped: int
    kept: Array
    floor: int
    cap: int
    lift: Array
    ground: int
    seldom_zero: bool
    fence: int
    ends: tuple[float, float]
    clips: bool
    past: Array
    one_past: bool
    infinite: bool
    flush: bool


@lru_cache(maxsize=256)
def plan_for(
    fmt: Format, rounding: str, overflow: str | None, subnormals: str, dtype: np.dtype[Any]
) -> Plan | None:
    """Find the plan for float32 or float64 numbers; None where the readable rounding has to serve.

    Raises:
        SettingError: as the readable rounding.
    """
    mode_named(rounding)
    rule, flush = overflow_named(overflow, fmt), flushes(subnormals)
    plain = (fmt.signed or fmt.is_integer) and fmt.is_gradual and (fmt.has_nan or not rule.takes_nan)
    width = _width_for(fmt, rounding, dtype) if plain else None
    if width is None:
        return None
    dropped, lowest = width.stored - fmt.mantissa_bits, fmt.emin - fmt.mantissa_bits
    past, clips = _past(fmt, rounding), rule.saturates(fmt) or not (fmt.has_inf or fmt.has_nan)
    one_past = len(set(map(str, map(abs, past)))) == 1
    return Plan(
        fmt=fmt,
        rounding=rounding,
        width=width,
        by_pattern=_pattern_serves(fmt, width),
        dropped=dropped,
        kept=width.constant((1 << (8 * width.word.itemsize)) - (1 << dropped)),
        floor=width.field(fmt.emin),
        cap=width.field(min(fmt.emax + 1, width.bias)),
        lift=width.constant((dropped << width.stored) + (1 << (width.stored - 1))),
        ground=width.field(lowest),
        seldom_zero=-width.bias < lowest <= -20,
        fence=width.field(fmt.emax) if fmt.signed else 0,
        ends=(fmt.lowest, fmt.max),
        clips=clips,
        past=np.array(past, width.real),
        one_past=one_past,
        infinite=one_past and fmt.has_inf and not clips and fmt.emax == width.bias,
        flush=flush,
    )


def _past(fmt: Format, rounding: str) -> list[float]:
    """What a finite number beyond max becomes, then one below -max, inf and -inf."""
    mode, far = mode_named(rounding), float(beyond(fmt, fmt.max, False))
    sides = [Situation(0.0, np.bool_(False), np.bool_(each), None, max_is_odd(fmt)) for each in (0, 1)]
    above, below = (fmt.max if mode.keeps_max(each) else far for each in sides)
    return [above, float(np.copysign(below, -1)), far, float(np.copysign(far, -1))]


def _pattern_serves(fmt: Format, width: Width) -> bool:
    return fmt.emin == 1 - width.bias and fmt.mantissa_bits <= width.stored


def _shift_serves(fmt: Format, rounding: str, width: Width) -> bool:
    dropped = width.stored - fmt.mantissa_bits
    # to nearest, away from zero, compares with half an ulp, which must be a normal number
    lowest = fmt.emin - (fmt.mantissa_bits + 1 if rounding == "nearest_away" else 0)
    return dropped >= 2 and lowest > -width.bias and fmt.emax + 1 + dropped < width.bias


def _width_for(fmt: Format, rounding: str, dtype: np.dtype[Any]) -> Width | None:
    """The narrowest width that holds the numbers and serves."""
    if rounding == "stochastic":
        return SINGLE if dtype == SINGLE.real and _dice_serve(fmt) else None
    for width in (SINGLE, DOUBLE):
        within = (fmt.within_float32 or width is DOUBLE) and width.real.itemsize >= dtype.itemsize
        if within and (_pattern_serves(fmt, width) or _shift_serves(fmt, rounding, width)):
            return width
    return None


def _dice_serve(fmt: Format) -> bool:
    """Whether stochastic rounding fits the 23 stored bits of float32.

    With fewer than 8 dropped bits too many of the subnormal results would be in doubt.
    """
    return SINGLE.stored - fmt.mantissa_bits >= 8 and -SINGLE.bias < fmt.emin and fmt.within_float32


def table_serves(fmt: Format) -> bool:
    """Whether 16 bits of a float32, the last one sticky, decide every rounding to the format."""
    short = fmt.mantissa_bits <= 5 and fmt.bits <= 8 and not fmt.is_integer
    return short and fmt.emin - fmt.mantissa_bits >= -131 and fmt.within_float32
