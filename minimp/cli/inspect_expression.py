"""What `minimp inspect` shows of an expression: its steps, and JSON."""

from __future__ import annotations

import math
import re
from fractions import Fraction
from typing import Any

from rich.console import Console
from rich.text import Text

from minimp.cli.inspect_number import STYLES, entry, settings
from minimp.formats import Inspection
from minimp.formats.inspection.calculation import Calculation, Step
from minimp.formats.inspection.reasons import headline, steps_text
from minimp.formats.inspection.wording import as_float, exact_text

__all__ = ["calculation_json", "show_calculation"]

TITLE, FLAGS = r"^ ?\d+  .*?(?=  \[|$)", r"(?<=  )\[.*\]$"
LONGEST_FRACTION = 200
"""Digits of a numerator or denominator that JSON still has in full."""


def show_calculation(out: Console, whole: Calculation) -> None:
    """Print the steps; the layout is that of `str(whole)`, in colours."""
    overflow = None if whole.overflow == "ieee" else whole.overflow
    out.print(Text.assemble((headline(whole), "bold"), f"  {settings(whole.rounding, overflow)}"))
    out.print()
    text = Text("\n".join(steps_text(whole)))
    text.highlight_regex(re.compile(TITLE, re.MULTILINE), "bold")
    text.highlight_regex(re.compile(FLAGS, re.MULTILINE), "yellow")
    for seen in {each.bits: each for step in whole.steps for each in (*step.operands, step.result)}.values():
        _colour(text, seen)
    out.print(text)


def _colour(text: Text, seen: Inspection) -> None:
    """Give the fields of a code their colours, wherever it stands before its hexadecimal form or alone."""
    parts = [(name, bits) for name, bits in zip(STYLES, seen.parts, strict=True) if bits]
    pattern = " ".join(f"(?P<{name}>{bits})" for name, bits in parts)
    for found in re.finditer(rf"(?<=  ){pattern}(?=  {seen.code}$|$)", text.plain, re.MULTILINE):
        for name, _ in parts:
            text.stylize(STYLES[name], *found.span(name))


def calculation_json(whole: Calculation, seed: int | None) -> dict[str, Any]:
    """Return what `--json` prints of an expression; what is beyond float64 is an infinity there."""
    return {
        "expression": whole.text,
        "rounding": whole.rounding,
        "overflow": whole.overflow,
        **({} if seed is None else {"seed": seed}),
        "format": whole.format.name,
        "value": whole.value,
        "exact": None if whole.exact is None else _exact(whole.exact),
        "lost": as_float(whole.lost),
        "lost_ulps": whole.lost_ulps,
        "steps": [_step(each) for each in whole.steps],
    }


def _step(step: Step) -> dict[str, Any]:
    return {
        "expression": step.text,
        "operation": step.operation,
        "implicit": step.implicit,
        "operands": [entry(each) for each in step.operands],
        "exact": _exact(step.exact, irrational=step.irrational),
        "rounded": entry(step.result),
        "lost": as_float(step.lost),
        "lost_ulps": step.lost_ulps,
        "flags": list(step.flags),
        "swallowed": step.swallowed,
        "cancelled": step.cancelled,
        "rounded_once": None if step.single is None else step.single.value,
        "why": step.why,
    }


def _exact(x: Fraction | float, *, irrational: bool = False) -> dict[str, Any]:
    """Return an exact number: the nearest float64, its digits, and where it is short the fraction."""
    short = isinstance(x, Fraction) and not irrational and _digits(x) <= LONGEST_FRACTION
    return {
        "value": as_float(x),
        "digits": exact_text(x, 40),
        "fraction": str(x) if short else None,
        "irrational": irrational,
    }


def _digits(x: Fraction) -> int:
    bits = max(abs(x.numerator), x.denominator).bit_length()
    return math.ceil(bits * math.log10(2))
