"""The range of gradients beside a format's (Micikevicius et al. 2018, arXiv 1710.03740, figure 3)."""

from __future__ import annotations

from math import frexp, log2
from typing import Any

from minimp.errors import SettingError, plain
from minimp.formats import Format
from minimp.pages.charts import bars, power_text
from minimp.trace.questions.gradient_scales import Fate, GradientScales
from minimp.trace.reporting.texts import count, grid, percent, power, printable

__all__ = ["gradient_picture", "gradients_or_reason", "range_words"]

MOST_POWERS = 96
NARROW = 10.0
"""Percent of the picture's width in which the name of a region fits; else they are named below it."""
FATES = ("become 0", "are subnormal (fewer digits)", "overflow")
BELOW, ABOVE = 12, 6
"""So many binades are shown beside the format's own, at most."""


def gradient_picture(found: GradientScales, *, rows: int, last: float | None = None) -> dict[str, Any]:
    """Return the histogram, the slider's table and the ranges of single gradients for the template.

    Args:
        found: the answer of the trace.
        rows: so many single gradients at most.
        last: the loss scale of the last step, where the slider stands first.
    """
    whole = found.total
    bottom, normal, top = _limits(whole.format)
    low, high = bottom - BELOW, top + ABOVE
    start = _start(found, last)
    chart = bars(
        {e: n for e, n in whole.binades.items() if n}, low, high,
        label=f"Histogram of {count(whole.nonzero)} gradients by power of two, beside the limits of "
        f"{whole.format.name}. {range_words(found)}",
        y_label="Gradients in each binade (logarithmic)",
        x_label=f"magnitude, scaled; {whole.format.name}: 2{power_text(bottom)} to 2{power_text(top)}",
    )  # fmt: skip
    unit, regions = 1000 / (high - low), _regions(low, bottom, normal, top, high)
    chart["crowded"] = any(float(region["share"]) < NARROW for region in regions)
    table = _powers(found, start)
    return {
        "chart": chart, "start": start, "table": table, "format": whole.format.name,
        "total": count(whole.nonzero),
        "lowest": table[0]["power"], "highest": table[-1]["power"],
        "shift": f"{start * unit:.1f}", "regions": regions,
        "now": next(row["words"] for row in table if row["power"] == start), "range": range_words(found),
        "rows": _ranges(found, rows),
    }  # fmt: skip


def range_words(found: GradientScales) -> str:
    """Say which loss scales lose nothing, and how much was lost before it could be counted."""
    free, normal, lost = found.powers(), found.powers(normal=True), found.total.lost
    if free is None:
        told = "No loss scale keeps every gradient: the range is wider than the format's."
    else:
        told = f"{_scales(free)} no {'more gradients' if lost else 'gradient'}"
        if normal is None:
            told += "; none keeps all their digits."
        elif normal == free:
            told += ", and keep all their digits."
        else:
            told += f"; {_between(normal)} keep all their digits too."
    if not lost:
        return told
    return f"{told} {count(lost)} had become 0 or infinite by a rounding before they could be counted."


def _scales(ends: tuple[int, int]) -> str:
    return f"Loss scales {_between(ends)} lose" if ends[0] != ends[1] else f"Only {_between(ends)} loses"


def _limits(fmt: Format) -> tuple[int, int, int]:
    """Return the exponents at which subnormal numbers, normal numbers, and overflow begin."""
    return round(log2(fmt.smallest_subnormal)), round(log2(fmt.smallest_normal)), frexp(fmt.max)[1]


def _start(found: GradientScales, last: float | None) -> int:
    """Return the power at which the slider stands first: that of the last step, where there are steps."""
    scale = last or (found.used[-1] if found.used else 1.0)
    return frexp(scale)[1] - 1


def _powers(found: GradientScales, start: int) -> list[dict[str, Any]]:
    """Return one row for each power of two, around the one in use where there are too many."""
    whole = found.total
    low, high = whole.span
    low, high = min(low, start), max(high, start)
    if high - low >= MOST_POWERS:
        low = max(low, min(start - MOST_POWERS // 2, high - MOST_POWERS + 1))
        high = low + MOST_POWERS - 1
    made = []
    for k in range(low, high + 1):
        fate = whole.at(k)
        shares = [percent(n, whole.nonzero) for n in (fate.flushed, fate.subnormal, fate.overflowed)]
        made.append({"power": k, "scale": power(2.0**k), "shares": shares, "words": _words(k, fate, shares),
                     "used": 2.0**k in found.used})  # fmt: skip
    return made


def _words(k: int, fate: Fate, shares: list[str]) -> str:
    told = []
    counts = (fate.flushed, fate.subnormal, fate.overflowed)
    for n, share, what in zip(counts, shares, FATES, strict=True):
        if n:
            told.append(f"{share} ({count(n)}) {what}")
    return f"At loss scale {power(2.0**k)}: {', '.join(told) or 'every gradient keeps all its digits'}."


def _regions(low: int, bottom: int, normal: int, top: int, high: int) -> list[dict[str, str]]:
    """Return the parts of the axis: what becomes of numbers there."""
    ends = (
        ("zero", "becomes 0", low, bottom), ("low", "subnormal", bottom, normal),
        ("", "normal", normal, top), ("high", "overflow", top, high),
    )  # fmt: skip
    unit = 1000 / (high - low)
    return [
        {"kind": kind, "name": name, "x": f"{(a - low) * unit:.1f}", "width": f"{(b - a) * unit:.1f}",
         "left": f"{100 * (a - low) / (high - low):.2f}", "share": f"{100 * (b - a) / (high - low):.2f}"}
        for kind, name, a, b in ends if b > a
    ]  # fmt: skip


def _ranges(found: GradientScales, most: int) -> dict[str, Any]:
    rows = [
        (printable(row.name), row.format.name, row.nonzero,
         "no scale" if (free := row.powers()) is None else _between(free), row.lost)
        for row in found.rows
    ]  # fmt: skip
    return grid("Loss scales that lose nothing, gradient by gradient; the most demanding first",
                ("gradient", "format", "not 0", "scales", "lost before"), rows, most=most,
                code=("gradient",))  # fmt: skip


def _between(ends: tuple[int, int]) -> str:
    return (
        f"2{power_text(ends[0])} to 2{power_text(ends[1])}"
        if ends[0] != ends[1]
        else f"2{power_text(ends[0])}"
    )


def gradients_or_reason(trace: Any, *, rows: int, last: float | None) -> tuple[dict[str, Any] | None, str]:
    """Return the picture, or why there is none."""
    try:
        found = trace.gradients_at_scales()
    except SettingError as fault:
        return None, printable(plain(fault), 300)
    if not found.total.nonzero:
        return None, "no recorded gradient was finite and other than 0"
    return gradient_picture(found, rows=rows, last=last), ""
