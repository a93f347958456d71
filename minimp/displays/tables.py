"""Answers in rows, such as those to questions about a trace."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from minimp.displays.elements import Html, box, clipped, head, paragraph, rows

__all__ = ["table_html"]

MOST_ROWS = 20


def table_html(
    title: str, columns: Sequence[str], cells: Sequence[Sequence[Any]], notes: Sequence[str] = (),
    *, text: Callable[[Any], str] = str,
) -> Html:  # fmt: skip
    """Return a table of its first rows.

    Args:
        title: what was asked.
        columns: the names of the columns.
        cells: rows of plain values.
        notes: what to know when reading it.
        text: how a value is written.
    """
    numeric = [
        i
        for i in range(len(columns))
        if all(row[i] is None or isinstance(row[i], int | float) for row in cells)
    ]
    shown = [[clipped(text(value), 60) for value in row] for row in cells[:MOST_ROWS]]
    parts = [head(title, f"{len(cells):,} rows" if cells else "nothing")]
    if cells:
        parts.append(rows([clipped(each, 40) for each in columns], shown, right=numeric))
    if len(cells) > MOST_ROWS:
        parts.append(paragraph(f"and {len(cells) - MOST_ROWS:,} more rows"))
    return box(title, *parts, *map(paragraph, notes))
