"""Running the cells of a lab, then its checks, in this process; :mod:`minimp.labs.running` gives it one."""

from __future__ import annotations

import linecache
import sys
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from types import ModuleType
from typing import Any

from minimp.labs.answers import Exercise, Lab, NotAnswered
from minimp.labs.cells import Cell

__all__ = ["VERDICTS", "Verdict", "judge", "run_cells"]

VERDICTS = ("passed", "failed", "unanswered", "error", "not run")
LONGEST = 2000
"""Characters of a message that are kept."""


@dataclass(frozen=True)
class Verdict:
    """What a check said of one exercise.

    Attributes:
        name, points: the exercise.
        word: one of :data:`VERDICTS`.
        message: what was expected and what came; empty where it passed.
    """

    name: str
    points: int
    word: str
    message: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)


def run_cells(cells: Iterable[Cell], file: str) -> tuple[Lab, list[BaseException]]:
    """Run the code cells one after the other as ``__main__``; one that raises does not keep the others back.

    Returns:
        What they defined, and the errors of those that raised.
    """
    module = ModuleType("__main__")
    module.__dict__["__file__"] = file
    sys.modules["__main__"] = module
    broken: list[BaseException] = []
    for cell in cells:
        if not cell.is_markdown:
            fault = _run(cell, file, module.__dict__)
            if fault is not None:
                broken.append(fault)
    return Lab(module.__dict__, broken), broken


def _run(cell: Cell, file: str, names: dict[str, Any]) -> BaseException | None:
    title = f"{file}, cell at line {cell.line}"
    linecache.cache[title] = (len(cell.text), None, [each + "\n" for each in cell.text.splitlines()], title)
    try:
        exec(compile(cell.text, title, "exec"), names)
    except SystemExit as fault:
        return RuntimeError(f"the cell at line {cell.line} left the program (SystemExit: {fault})")
    except Exception as fault:  # noqa: BLE001 - whatever a student's cell raises
        return fault
    return None


def judge(exercises: Iterable[Exercise], lab: Lab) -> Iterator[Verdict]:
    """Check every exercise; an answer that raises is one more verdict."""
    for each in exercises:
        word, message = _verdict(each, lab)
        yield Verdict(each.name, each.points, word, message[:LONGEST])


def _verdict(each: Exercise, lab: Lab) -> tuple[str, str]:
    try:
        each(lab)
    except NotAnswered:
        return "unanswered", "not answered yet"
    except AssertionError as fault:
        return "failed", str(fault) or "the check failed, and says no more"
    except SystemExit as fault:
        return "error", f"the answer left the program (SystemExit: {fault})"
    except Exception as fault:  # noqa: BLE001 - whatever a student's answer raises
        where = traceback.extract_tb(fault.__traceback__)[-1]
        return "error", f"{type(fault).__name__}: {fault} (line {where.lineno} of {where.filename})"
    return "passed", ""
