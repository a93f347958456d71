"""Names, numbers and tables as the page shows them: bounded and printable."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import isfinite
from typing import Any

from minimp.displays.elements import counted
from minimp.pages.charts import power_text
from minimp.trace.questions.tables import Table

__all__ = ["NAME", "count", "counted", "grid", "percent", "power", "printable", "relative", "size", "table"]

NAME, SENTENCE = 120, 600
"""Characters of a name and of a sentence at most; the middle of longer ones is left out."""


def printable(text: object, most: int = NAME) -> str:
    """Return text in one line, with what cannot be seen written as its escape, of bounded length.

    Marks that turn the direction of writing are among the unseen: a name cannot rearrange the page.
    """
    given = str(text)
    if len(given) > most:
        half = most // 2 - 1
        given = f"{given[:half]} … {given[-half:]}"
    if given.isprintable():
        return given
    return "".join(
        c if c.isprintable() else " " if c.isspace() else c.encode("unicode_escape").decode() for c in given
    )


def count(number: float) -> str:
    """Return a count with commas."""
    return f"{number:,}"


def percent(part: float, whole: float) -> str:
    """Return a share in percent: 0 and 100 only where they are meant exactly."""
    if not part or not whole:
        return "0 %"
    if part == whole:
        return "100 %"
    share = 100 * part / whole
    if share < 0.01:
        return "below 0.01 %"
    return f"{min(share, 99.99):.2f} %" if share < 1 or share > 99 else f"{share:.1f} %"


def power(number: float) -> str:
    """Return a loss scale: 2¹⁰ = 1,024; numbers that are no power of two as they are."""
    mantissa, exponent = number.hex().split("p") if isfinite(number) and number > 0 else ("", "0")
    if mantissa not in ("0x1.0000000000000", "0x1.0"):
        return f"{number:.6g}"
    raised = f"2{power_text(int(exponent))}"
    return f"{raised} = {number:,.0f}" if 1 <= number < 2**24 else raised


def relative(value: float) -> str:
    """Return a relative error: two digits, or words where it has none."""
    return "0" if value == 0 else f"{value:.2g}" if isfinite(value) else "not finite"


def size(number: float) -> str:
    """Return bytes in the unit that fits: 512 B, 1.5 KiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(number) < 1024:
            return f"{number:,.0f} {unit}" if unit == "B" else f"{number:,.1f} {unit}"
        number /= 1024
    return f"{number:,.1f} TiB"


def grid(
    title: str, heads: Sequence[str], rows: Iterable[Sequence[Any]], *, most: int,
    code: Iterable[str] = (), notes: Sequence[str] = (),
) -> dict[str, Any]:  # fmt: skip
    """Return a table for the template: numbers to the right, those of `code` in even letters."""
    held = list(rows)
    right = [bool(held) and all(isinstance(row[i], int | float) or row[i] is None for row in held)
             for i in range(len(heads))]  # fmt: skip
    return {
        "title": printable(title, SENTENCE), "heads": [*map(printable, heads)], "right": right,
        "code": [head in code for head in heads], "more": max(len(held) - most, 0),
        "rows": [[_cell(value) for value in row] for row in held[:most]],
        "notes": [printable(note, SENTENCE) for note in notes],
    }  # fmt: skip


def table(found: Table, *, most: int) -> dict[str, Any]:
    """Return an answer of a trace as a table for the template; shares in percent."""
    shares = [name == "share" for name in found.columns]
    rows = ([percent(value, 1.0) if is_share else value for value, is_share in zip(row, shares, strict=True)]
            for row in found.rows)  # fmt: skip
    made = grid(
        found.title,
        found.columns,
        rows,
        most=most,
        code=("op", "module", "where", "parameter"),
        notes=found.notes,
    )
    made["right"] = [right or is_share for right, is_share in zip(made["right"], shares, strict=True)]
    return made


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return printable(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.3g}"
