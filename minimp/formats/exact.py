"""Rounding one exact number: the scalar twin of ``rounding.round_to``, for what float64 cannot hold."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np

from minimp.formats.rounding import Situation, beyond, mode_named, saturates
from minimp.formats.table import Format, get

__all__ = ["floor_log2", "round_fraction"]


def round_fraction(
    value: Fraction,
    fmt: Any,
    rounding: str = "nearest_even",
    overflow: str | None = None,
    rng: np.random.Generator | int | None = None,
) -> float:
    """Round an exact rational number to ``fmt``, once. Zero, and what rounds to it, keeps the number's sign.

    Args and errors are those of ``minimp.formats.round``.
    """
    fmt, mode, saturate = get(fmt), mode_named(rounding), saturates(overflow)
    negative, magnitude = value < 0, abs(value)
    q = _quantum(magnitude, fmt)
    scaled = magnitude / Fraction(2) ** q
    low = scaled.numerator // scaled.denominator
    dice = np.random.default_rng(rng).random() if rounding == "stochastic" else None
    at = Situation(scaled - low, np.bool_(low % 2), np.bool_(negative), dice, fmt.max_code % 2 == 1)
    rounded = (low + bool(mode.goes_up(at))) * Fraction(2) ** q

    limit = -fmt.lowest if negative else fmt.max
    if rounded > Fraction(limit):
        kept = saturate or bool(mode.keeps_max(at))
        result = limit if kept else float(beyond(fmt, limit))
    else:
        result = float(rounded)  # exact: a value of the format
    return -result if negative and (result != 0 or fmt.has_negative_zero) else result


def floor_log2(magnitude: Fraction) -> int:
    """floor(log2 x) of a positive rational number."""
    guess = magnitude.numerator.bit_length() - magnitude.denominator.bit_length()
    return guess if magnitude >= Fraction(2) ** guess else guess - 1


def _quantum(magnitude: Fraction, fmt: Format) -> int:
    exponent = floor_log2(magnitude) if magnitude else fmt.emin
    return max(exponent, fmt.emin) - fmt.mantissa_bits
