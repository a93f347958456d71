"""A lab as cells: jupytext's percent format, read and written."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

from minimp.errors import DataError
from minimp.files import read_whole

__all__ = ["Cell", "cells_of", "cells_of_notebook", "notebook_of"]

MARK = re.compile(r"^# %%(?P<rest>.*)$")
NEEDED = "pip install 'minimp[labs]' brings jupytext"


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
        text: its lines, of a markdown cell still behind ``# ``.
        is_markdown: whether it is prose.
        place: ``"the cell at line 3"`` of a script; ``"code cell 2"`` of a notebook, as Jupyter numbers those
            that ran from the top.
    """

    text: str
    is_markdown: bool
    place: str


def cells_of(text: str) -> list[Cell]:
    """Cut a file in percent format into cells; what stands before the first mark is one of code."""
    cells: list[Cell] = []
    lines: list[str] = []
    markdown, start = False, 1
    for number, line in enumerate([*text.splitlines(), "# %%"], 1):
        mark = MARK.match(line)
        if mark is None:
            lines.append(line)
            continue
        body = "\n".join(lines).strip("\n")
        if body.strip():
            cells.append(Cell(body, markdown, f"the cell at line {start}"))
        lines, markdown, start = [], "[markdown]" in mark["rest"], number + 1
    return cells


def cells_of_notebook(path: Path) -> list[Cell]:
    """Return the cells of a student's file: a notebook, or a script in percent format.

    Lines that only a notebook understands (``%magic``, ``!command``) become comments.

    Raises:
        DataError: it cannot be read as either.
    """
    try:
        if path.suffix != ".ipynb":
            return cells_of(read_whole(path).decode("utf-8-sig"))
        jupytext, text = _jupytext(), read_whole(path).decode("utf-8-sig")
        return _numbered(cells_of(jupytext.writes(jupytext.reads(text, fmt="ipynb"), fmt="py:percent")))
    except Exception as fault:  # whatever a reader of notebooks raises at a file that is none
        if isinstance(fault, DataError):
            raise
        raise DataError(
            f"{path.name} is no notebook that can be read ({type(fault).__name__}: {str(fault)[:200]})",
            op="labs", help="save it once more in Jupyter, or hand in the script",
        ) from fault  # fmt: skip


def _numbered(cells: list[Cell]) -> list[Cell]:
    count = accumulate(not cell.is_markdown for cell in cells)
    return [replace(cell, place=f"code cell {number}") for cell, number in zip(cells, count, strict=True)]


def notebook_of(text: str) -> str:
    """Return a lab in percent format as a notebook, without outputs; the same text gives the same bytes.

    Raises:
        DataError: jupytext is not installed.
    """
    jupytext = _jupytext()
    notebook: Any = jupytext.reads(text, fmt="py:percent")
    notebook.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"
    return str(jupytext.writes(notebook, fmt="ipynb"))


def _jupytext() -> Any:
    try:
        import jupytext
    except ImportError as fault:
        raise DataError(
            "jupytext, which reads and writes notebooks, is not installed", help=NEEDED
        ) from fault
    return jupytext
