"""Answers in rows, such as those to questions about a trace."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from minimp.displays.elements import MONO, Html, box, clipped, counted, head, paragraph, rows, tag

__all__ = ["table_html", "trace_html"]

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
    parts = [head(title, counted(len(cells), "row") if cells else "nothing")]
    if cells:
        parts.append(rows([clipped(each, 40) for each in columns], shown, right=numeric))
    if len(cells) > MOST_ROWS:
        parts.append(paragraph(f"and {len(cells) - MOST_ROWS:,} more rows"))
    return box(title, *parts, *map(paragraph, notes))


def trace_html(trace: Any) -> Html:
    """Return a trace: what it says of itself, and how many events there are of each op in each format."""
    first, *rest = str(trace).splitlines()
    counts = trace.counts()
    if not counts:
        return box(
            first, head("trace", first.removeprefix("trace of ")), paragraph("no op ran while it was open")
        )
    table = rows(counts.columns, [[clipped(v, 40) for v in row] for row in counts.rows[:MOST_ROWS]], (3,))
    told = [tag("div", f"white-space:pre-wrap;font-size:13px;{MONO}", clipped(line, 200)) for line in rest]
    more = len(counts.rows) - MOST_ROWS
    return box(
        first, head("trace", first.removeprefix("trace of ")), *told, table,
        paragraph(f"and {more:,} more kinds, see .counts()" if more > 0 else "questions: .underflow(), "
                  ".overflow(), .first_nonfinite(), .gradients_at_scales(), .report(path)"),
    )  # fmt: skip
