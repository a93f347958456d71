"""How answers look: a title, columns and rows within 100 columns of a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from minimp.displays.tables import table_html

__all__ = ["Table", "number", "share"]

WIDTH = 100
SHOWN = 20


@dataclass(frozen=True)
class Table:
    """An answer in rows; it is false if there are none.

    Attributes:
        title: what was asked.
        columns: the names of the columns.
        rows: a tuple of plain values for each row.
        notes: what to know when reading it.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    notes: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield each row as column -> value."""
        return (dict(zip(self.columns, row, strict=True)) for row in self.rows)

    def __getitem__(self, row: int) -> dict[str, Any]:
        """Return one row as column -> value; -1 is the last.

        Raises:
            IndexError: there are fewer rows.
        """
        return dict(zip(self.columns, self.rows[row], strict=True))

    def column(self, name: str) -> list[Any]:
        """Return the values of one column."""
        place = self.columns.index(name)
        return [row[place] for row in self.rows]

    def _repr_html_(self) -> str:
        return table_html(self.title, self.columns, self.rows, self.notes, text=_text)

    def __str__(self) -> str:
        if not self.rows:
            return "\n".join([f"{self.title}: nothing", *self.notes])
        cells = [[_text(value) for value in row] for row in self.rows[:SHOWN]]
        right = [all(_is_number(row[i]) for row in self.rows) for i in range(len(self.columns))]
        lines = [self.title, *_aligned([list(self.columns), *cells], right)]
        if len(self.rows) > SHOWN:
            lines.append(f"... and {len(self.rows) - SHOWN:,} rows more")
        return "\n".join([*lines, *self.notes])


def _aligned(cells: Sequence[list[str]], right: Sequence[bool]) -> list[str]:
    """Return lines of cells; the widest column of words gives way where they do not fit."""
    widths = [max(len(row[i]) for row in cells) for i in range(len(right))]
    spare = WIDTH - 2 * (len(widths) - 1) - sum(widths)
    while spare < 0 and max(widths) > 8:
        widest = max(range(len(widths)), key=lambda i: (not right[i], widths[i]))
        cut = min(-spare, widths[widest] - 8)
        if cut <= 0:
            widest = max(range(len(widths)), key=lambda i: widths[i])
            cut = min(-spare, widths[widest] - 8)
        widths[widest] -= cut
        spare += cut
    return ["  ".join(_fit(cell, width, just) for cell, width, just in zip(row, widths, right, strict=True))
            .rstrip() for row in cells]  # fmt: skip


def _fit(cell: str, width: int, right: bool) -> str:
    cell = cell if len(cell) <= width else ".." + cell[2 - width :]
    return cell.rjust(width) if right else cell.ljust(width)


def _is_number(value: Any) -> bool:
    return value is None or isinstance(value, int | float)


def _text(value: Any) -> str:
    return number(value) if _is_number(value) else str(value)


def number(value: float | None) -> str:
    """Return a number as it is shown: 12,345, 0.000123, 6.1e-05, - for None."""
    if value is None:
        return "-"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}"


def share(part: int, whole: int) -> float:
    """Return part / whole, 0 if there is nothing."""
    return part / whole if whole else 0.0
