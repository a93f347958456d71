"""Arrays as tables of at most some rows and columns."""

from __future__ import annotations

from collections.abc import Callable

from minimp.displays.elements import FAINT, MONO, Html, tag

__all__ = ["Cell", "Place", "grid"]

MOST_ROWS, MOST_COLUMNS = 8, 8
Place = tuple[int, ...]
"""The indices of one element."""
Cell = Callable[[Place], tuple[str, str, str]]
"""From a place to (text, title, colour) of its element."""
GAP = -1


def grid(shape: tuple[int, ...], cell: Cell) -> tuple[Html, str]:
    """Return the last two axes as a table, and what is to be said of the others.

    Of long axes the first and the last places are shown; of further axes the first page.
    """
    if 0 in shape:
        return tag("div", FAINT, "no elements"), ""
    page = (0,) * max(len(shape) - 2, 0)
    height, width = ((1, 1, *shape))[-2:] if len(shape) < 2 else shape[-2:]
    across = _places(width, MOST_COLUMNS)
    lines = []
    for row in _places(height, MOST_ROWS):
        cells = [
            _drawn(cell, (*page, row, column)[-len(shape) or 2 :], row, column, shape) for column in across
        ]
        lines.append(tag("tr", "background:none", *cells))
    table = tag(
        "table", f"border-collapse:separate;border-spacing:2px;font-size:13px;margin:0;{MONO}", *lines
    )
    note = f"page {list(page)} of {list(shape[:-2])}" if page else ""
    return table, note


def _drawn(cell: Cell, place: Place, row: int, column: int, shape: tuple[int, ...]) -> Html:
    style = "padding:1px 6px;border:0;text-align:right;border-radius:3px;"
    if GAP in (row, column):
        return tag("td", style + FAINT, "\N{MIDLINE HORIZONTAL ELLIPSIS}")
    text, title, colour = cell(place if shape else ())
    return tag("td", style + (f"background:rgba({colour},.3)" if colour else ""), text, title=title)


def _places(length: int, most: int) -> list[int]:
    if length <= most:
        return list(range(length))
    ends = most - 1
    first = ends - ends // 3
    return [*range(first), GAP, *range(length - ends // 3, length)]
