"""Rounding one exact number: the scalar twin of ``rounding.round_to``, for what float64 cannot hold."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np

from minimp.formats.dice import Dice, Source
from minimp.formats.overflows import overflow_named
from minimp.formats.rounding import beyond, dice_for, flushes, homeless, max_is_odd
from minimp.formats.roundings import Situation, mode_named
from minimp.formats.table import Format, get

__all__ = ["floor_log2", "round_fraction"]


def round_fraction(
    value: Fraction,
    fmt: Any,
    rounding: str = "nearest_even",
    overflow: str | None = None,
    rng: Source = None,
    *,
    subnormals: str = "keep",
    dice: Dice | None = None,
) -> float:
    """Round an exact rational number to ``fmt``, once. Zero, and what rounds to it, keeps the number's sign.

    Args and errors are those of ``minimp.formats.round``; ``dice``, already thrown, stands in for ``rng``.
    """
    fmt, mode = get(fmt), mode_named(rounding)
    rule, flush = overflow_named(overflow, fmt), flushes(subnormals)
    dice = dice_for(rounding, (), rng, None) if dice is None else dice
    negative, magnitude = value < 0 and (fmt.signed or not rule.drops_sign), abs(value)
    q = _quantum(magnitude, fmt)
    scaled = magnitude / Fraction(2) ** q
    low = scaled.numerator // scaled.denominator
    at = Situation(scaled - low, np.bool_(low % 2), np.bool_(negative), dice, max_is_odd(fmt))
    rounded = (low + bool(mode.goes_up(at))) * Fraction(2) ** q

    limit = abs(fmt.lowest) if negative else fmt.max
    if rounded > Fraction(limit) or (negative and homeless(rounded, fmt)):
        kept = rule.saturates(fmt) or bool(mode.keeps_max(at))
        result = limit if kept else float(beyond(fmt, limit, negative))
    else:
        result = float(rounded)  # exact: a value of the format
    if not fmt.has_zero and result < fmt.smallest_normal:
        result = fmt.smallest_normal if magnitude or rule.keeps_zero else math.nan
    if rule.lifts_lowest and not fmt.has_zero and result == fmt.smallest_normal < magnitude:
        result *= 2
    if flush and abs(result) < fmt.smallest_normal:
        result = 0.0
    return -result if negative and fmt.signed and (result != 0 or fmt.has_negative_zero) else result


def floor_log2(magnitude: Fraction) -> int:
    """floor(log2 x) of a positive rational number."""
    guess = magnitude.numerator.bit_length() - magnitude.denominator.bit_length()
    return guess if magnitude >= Fraction(2) ** guess else guess - 1


def _quantum(magnitude: Fraction, fmt: Format) -> int:
    exponent = floor_log2(magnitude) if magnitude else fmt.emin - 1
    if exponent < fmt.emin and not fmt.is_gradual:
        return fmt.emin
    return max(exponent, fmt.emin) - fmt.mantissa_bits
