"""Numbers as people read them: exactly where that is short, with the digits that matter elsewhere."""

from __future__ import annotations

import decimal
import math
from decimal import Decimal
from fractions import Fraction

__all__ = [
    "as_float",
    "clipped",
    "exact_text",
    "finite",
    "lost_text",
    "number",
    "power_of_two",
    "share",
    "signed",
]

MOST_CHARACTERS = 24
"""Of a number on the screen: as many as float64 needs at its longest, -1.7976931348623157e+308."""


def _wide(digits: int, rounding: str = decimal.ROUND_HALF_EVEN) -> decimal.Context:
    return decimal.Context(digits, rounding, decimal.MIN_EMIN, decimal.MAX_EMAX)


def as_float(x: Fraction | float) -> float:
    """Return the nearest float64, an infinity where there is none."""
    try:
        return float(x)
    except OverflowError:
        return math.inf if x > 0 else -math.inf


def finite(x: Fraction | float) -> bool:
    """Whether a number is neither infinite nor NaN; a fraction may be beyond float64."""
    return isinstance(x, Fraction) or math.isfinite(x)


def number(value: float | None, most: int = MOST_CHARACTERS) -> str:
    """Return a float exactly, in decimal, where that is short; else the digits that tell it from others.

    >>> number(2.0**-14), number(0.1), number(None)
    ('0.00006103515625', '0.1', 'none')
    """
    if value is None:
        return "none"
    exact = f"{Decimal(value):g}" if math.isfinite(value) else ""
    return exact if 0 < len(exact) <= most else repr(value)


def exact_text(x: Fraction | float, digits: int = 21) -> str:
    """Return a number in decimal, all of it or its first digits and three dots.

    >>> exact_text(Fraction(1, 8)), exact_text(Fraction(2, 3), digits=5), exact_text(Fraction(500))
    ('0.125', '0.66666...', '500')
    """
    if not isinstance(x, Fraction):
        return str(x)
    context = _wide(digits, decimal.ROUND_DOWN)
    first = context.divide(Decimal(x.numerator), Decimal(x.denominator))
    whole = x.denominator == 1 and first.adjusted() < digits
    shown = f"{first:f}" if whole else f"{first.normalize(context):g}"
    digits_only, e, exponent = shown.partition("e")
    return f"{digits_only}...{e}{exponent}" if context.flags[decimal.Inexact] else shown


def signed(error: Fraction | float, none: str = "none") -> str:
    """Return an error in at most three digits and with its sign, however small or large it is.

    >>> signed(Fraction(-1, 3)), signed(Fraction(0)), signed(Fraction(1, 10**400))
    ('-0.333', 'none', '+1e-400')
    """
    if not isinstance(error, Fraction):
        return "-" if math.isnan(error) else f"{error:+g}"
    if not error:
        return none
    rounded = _wide(20).divide(Decimal(error.numerator), Decimal(error.denominator))
    digits, e, exponent = f"{rounded:+.3g}".partition("e")
    return f"{digits.rstrip('0').rstrip('.') if '.' in digits else digits}{e}{exponent}"


def lost_text(lost: Fraction | float, ulp: float) -> str:
    """Return an error, and in brackets how many ulps that is.

    >>> lost_text(Fraction(-1), 2.0), lost_text(Fraction(0), 2.0)
    ('-1 (-0.5 ulp)', 'nothing')
    """
    if not isinstance(lost, Fraction) or math.isnan(ulp):
        return "nothing" if lost == 0 else "no number" if math.isnan(lost) else signed(lost)
    return f"{signed(lost)} ({signed(lost / Fraction(ulp))} ulp)" if lost else "nothing"


def power_of_two(x: float) -> str:
    """Return a power of two as ``2^-14``; ``none`` for NaN."""
    return "none" if math.isnan(x) else f"2^{math.frexp(x)[1] - 1}"


def share(part: Fraction) -> str:
    """Return a part of the whole, 0 <= part <= 1, in per cent; what is not 0, 50 or 100 % never says so.

    >>> [share(Fraction(each)) for each in ("0.614", "0.5", "0.50001", "0.0001", "0.99999")]
    ['61 %', '50 %', 'just over 50 %', 'under 1 %', 'over 99 %']
    """
    percent = round(100 * part)
    if percent == 100 * part or percent not in (0, 50, 100):
        return f"{percent} %"
    near = {0: "under 1 %", 100: "over 99 %"}
    return near.get(percent) or f"just {'over' if part > Fraction(1, 2) else 'under'} 50 %"


def clipped(text: str, most: int) -> str:
    """Return a text with its middle left out where it is too long."""
    return text if len(text) <= most else f"{text[: most - most // 2 - 3]}...{text[len(text) - most // 2 :]}"
