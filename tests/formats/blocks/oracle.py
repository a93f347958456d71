"""Block formats once more, as dull as can be: one block at a time, in fractions.

Nothing here shares code with ``minimp.formats.block*``: the element formats are listed values, the scale
rules are written from their definitions, and every division is exact.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from minimp import formats
from tests.formats.oracle import round_exactly

ELEMENTS = {  # the elements' format, its largest value, the exponent of that, bits after the point
    "mxfp8_e4m3": ("float8_e4m3fn", Fraction(448), 8, 3),
    "mxfp8_e5m2": ("float8_e5m2", Fraction(57344), 15, 2),
    "mxfp6_e2m3": ("float6_e2m3fn", Fraction(15, 2), 2, 3),
    "mxfp6_e3m2": ("float6_e3m2fn", Fraction(28), 4, 2),
    "mxfp4": ("float4_e2m1fn", Fraction(6), 2, 1),
    "mxint8": ("int8", Fraction(127, 64), 0, 6),
}
MX_RULES = ("floor", "ceil", "even", "rceil")


def floor_log2(x: Fraction) -> int:
    """The largest k with 2^k <= x, found by stepping."""
    k = 0
    while Fraction(2) ** k > x:
        k -= 1
    while Fraction(2) ** (k + 1) <= x:
        k += 1
    return k


def mx_exponent(amax: Fraction, name: str, rule: str) -> int:
    """The exponent of a block's scale before e8m0's range is looked at."""
    _, largest, emax, bits = ELEMENTS[name]
    low = floor_log2(amax)
    if rule == "floor":
        return low - emax
    if rule == "ceil":
        return low - emax + (amax != Fraction(2) ** low)
    if rule == "even":
        step = Fraction(2) ** (low - bits)
        return floor_log2((amax / step + Fraction(1, 2)).__floor__() * step) - emax
    ratio = amax / largest
    return floor_log2(ratio) + (ratio != Fraction(2) ** floor_log2(ratio))


def mx_block(x: list[float], name: str, rule: str, mode: str = "nearest_even") -> tuple[int, list[float]]:
    """The scale's code and what a block of finite numbers reads back as."""
    element, largest, _, _ = ELEMENTS[name]
    unit = Fraction(1, 64) if element == "int8" else Fraction(1)
    amax = max(abs(Fraction(each)) for each in x)
    exponent = -127 if amax == 0 else min(max(mx_exponent(amax, name, rule), -127), 127)
    scale = Fraction(2) ** exponent
    values = []
    for each in x:
        ratio = max(min(Fraction(each) / scale, largest), -largest)
        values.append(float(Fraction(element_value(ratio / unit, element, mode)) * unit * scale))
    return exponent + 127, values


def element_value(ratio: Fraction, element: str, mode: str) -> float:
    """A clamped quotient rounded to the elements."""
    return round_exactly(ratio, formats.get(element), mode, "saturate")


def torchao_exponent(amax: np.ndarray, name: str, rule: str) -> np.ndarray:
    """The biased exponents that torchao's ``to_mx`` (2026) computes from float32 patterns, amax finite."""
    _, largest, emax, bits = ELEMENTS[name]
    amax = amax.astype(np.float32)
    if rule == "rceil":
        pattern = (amax * np.float32(1 / float(largest))).view(np.int32)
        exponent, mantissa = pattern >> 23 & 0xFF, pattern & 0x7FFFFF
        return exponent + np.where(exponent == 0, mantissa > 0x400000, mantissa != 0)
    pattern = amax.view(np.int32)
    if rule == "even":
        pattern = (pattern + (1 << (23 - bits - 1))) & 0x7F800000
    exponent = (pattern >> 23 & 0xFF) - 127
    if rule == "ceil":
        exponent = exponent + ((pattern & 0x7FFFFF) > 0)
    return np.clip(exponent - emax, -127, 128) + 127
