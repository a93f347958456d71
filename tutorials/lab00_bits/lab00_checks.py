"""Checks of lab 00; oracles: ml_dtypes and NumPy's own float16, for every code."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import minimp as mp
from minimp.labs import exercise

CODES = range(65536)


@exercise("1a", hints=("code >> 15 is the sign", "5 bits: (code >> 10) & 31; 10 bits: code & 1023"))
def check_1a(lab: Any) -> None:
    """Every code is put together again from its fields."""
    for code in (0x0000, 0x3C00, 0xAFC6, 0x7BFF, 0xFFFF, 0x8001):
        expected = (code >> 15, code >> 10 & 31, code & 1023)
        got = tuple(lab.fields(code))
        hint = "the exponent has 5 bits" if got[1:2] != expected[1:2] else "the fraction has 10 bits"
        hint = "the sign is the first bit alone" if got[:1] != expected[:1] else hint
        assert got == expected, f"fields({code:#06x}): expected {expected}, got {got}; {hint}"


@exercise("1b", hints=("the fraction has 7 bits, so the exponent begins at bit 7",))
def check_1b(lab: Any) -> None:
    """As 1a, with 8 and 7 bits."""
    for code in (0x3F80, 0xC2F7, 0x7F80, 0x0001):
        expected, got = (code >> 15, code >> 7 & 255, code & 127), tuple(lab.bfloat16_fields(code))
        hint = "that is float16's layout" if got == (code >> 15, code >> 10 & 31, code & 1023) else (
            "8 bits of exponent, 7 of fraction"
        )  # fmt: skip
        assert got == expected, f"bfloat16_fields({code:#06x}): expected {expected}, got {got}; {hint}"


@exercise("2a", points=3, hints=(
    "three cases by the exponent field: 31, 0, and the rest",
    "a subnormal is fraction * 2**-24; a normal (1024 + fraction) * 2**(exponent - 25)",
))  # fmt: skip
def check_2a(lab: Any) -> None:
    """All 65536 codes, beside NumPy's float16."""
    wanted = np.arange(65536, dtype=np.uint16).view(np.float16).astype(np.float64)
    for code in CODES:
        expected, got = float(wanted[code]), float(lab.value_of(code))
        same = math.isnan(got) if math.isnan(expected) else (
            got == expected and math.copysign(1, got) == math.copysign(1, expected)
        )  # fmt: skip
        assert same, f"value_of({code:#06x}): expected {expected!r}, got {got!r}; {_hint_2a(code, got)}"


def _hint_2a(code: int, got: float) -> str:
    exponent = code >> 10 & 31
    if exponent == 31:
        return "an exponent of all ones is infinity, or NaN if the fraction is not 0"
    if got == 0 and code == 0x8000:
        return "minus zero keeps its sign"
    if exponent == 0:
        return "an exponent of 0 has no hidden 1, and means 2**-14"
    return "the hidden digit is 1, the bias 15"


@exercise("2b", points=2, hints=("finite: the exponent is not 31", "subnormal: exponent 0, fraction not 0"))
def check_2b(lab: Any) -> None:
    """Counts over all codes."""
    values = np.arange(65536, dtype=np.uint16).view(np.float16).astype(np.float64)
    sizes = np.abs(values)
    for name, expected, hint in (
        ("finite_codes", int(np.isfinite(values).sum()), "both zeros count, infinities do not"),
        ("subnormal_codes", int(((sizes > 0) & (sizes < 2.0**-14)).sum()), "both signs; zero is not counted"),
        ("nan_codes", int(np.isnan(values).sum()), "every fraction but 0, with both signs"),
    ):
        got = getattr(lab, name)
        assert got == expected, f"{name}: expected {expected}, got {got}; {hint}"


@exercise("3a", points=2, hints=("frexp's exponent is one larger than that of 1.xxx * 2**e",
                                 "below 2**-14 the distance is 2**-24"))  # fmt: skip
def check_3a(lab: Any) -> None:
    """NumPy's spacing."""
    for x in (1.0, 1.5, 0.1, 2.0**-14, 2.0**-15, 0.0, 1000.0, 1024.0, 32767.0):
        expected = float(np.spacing(np.float16(np.floor(x * 2**24) / 2**24) if x < 2**-14 else _down(x)))
        got = float(lab.spacing(x))
        hint = "below 2**-14 the distance stays the same" if x < 2.0**-14 else (
            "at a power of two: m of frexp is 0.5, not 1" if got in (expected * 2, expected / 2)
            else "10 bits of fraction: the leading power of two over 1024"
        )  # fmt: skip
        assert got == expected, f"spacing({x!r}): expected {expected!r}, got {got!r}; {hint}"


def _down(x: float) -> np.float16:
    near = np.float16(x)
    return near if float(near) <= x else np.nextafter(near, np.float16(0))


@exercise("3b", hints=("the spacing must be 1, and 2",))
def check_3b(lab: Any) -> None:
    """From the spacing: 2^10 and 2^11."""
    for name, expected, hint in (
        ("whole_from", 1024.0, "below it there are numbers with a half; at 1024 the spacing is 1"),
        ("even_from", 2048.0, "the spacing must be 2"),
    ):
        got = getattr(lab, name)
        assert got == expected, f"{name}: expected {expected}, got {got}; {hint}"


@exercise("4a", points=3, hints=(
    "size / step, rounded by Python's round, times step",
    "for numbers below 2**-14 the step is 2**-24; above 65504 lies infinity",
))  # fmt: skip
def check_4a(lab: Any) -> None:
    """minimp's own rounding, on ties, subnormals, carries and the end of the range."""
    random = np.random.default_rng(0)
    drawn = (random.standard_normal(200) * 10.0 ** random.integers(-9, 5, 200)).tolist()
    for x in (0.1, -0.1, 2049.0, 2051.0, 4095.9, 2.0**-25, 3 * 2.0**-25, 65519.9, 65520.0, -1e6, 0.0, *drawn):
        expected, got = float(mp.formats.round(np.array(x), mp.float16)), float(lab.to_float16(x))
        hint = "the step below 2**-14 is 2**-24" if got % 2.0**-24 else (
            "ties go to the even neighbour" if x in (2049.0, 2051.0, 2.0**-25, 3 * 2.0**-25) else
            "from 65520 on it is infinite" if abs(x) > 65504 else "the nearest neighbour, with its sign"
        )  # fmt: skip
        assert got == expected, f"to_float16({x!r}): expected {expected!r}, got {got!r}; {hint}"
