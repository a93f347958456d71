"""Running the cells of a lab, then its checks, in this process; :mod:`minimp.labs.running` gives it one."""

from __future__ import annotations

import linecache
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from types import ModuleType
from typing import Any

from minimp.labs.answers import Exercise, Lab, NotAnswered
from minimp.labs.cells import Cell
from minimp.labs.faults import said_of, text_of

__all__ = ["VERDICTS", "Verdict", "judge", "run_cells"]

VERDICTS = ("passed", "failed", "unanswered", "error", "not run")
LONGEST = 2000
"""Characters of a message that are kept."""
GUARDED = ("builtins", "io", "json", "math", "os", "sys", "time", "numpy", "minimp")
"""Modules whose names are put back before the checks, whatever the cells made of them."""


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

    Afterwards what they changed in Python's own modules, in NumPy's and minimp's is put back.

    Returns:
        What they defined, and the errors of those that raised.
    """
    module = ModuleType("__main__")
    module.__dict__["__file__"] = file
    sys.modules["__main__"], sys.argv = module, [file]
    broken: list[BaseException] = []
    sources: list[str] = []
    put_back = _guard()
    for cell in cells:
        if not cell.is_markdown:
            fault = _run(cell, file, module.__dict__)
            if fault is not None:
                broken.append(fault)
                sources.append(cell.text)
    put_back()
    return Lab(module.__dict__, broken, sources), broken


def _guard() -> Callable[[], None]:
    """Remember what some modules hold; return what puts it back."""
    modules = [vars(sys.modules[name]) for name in GUARDED if name in sys.modules]
    before = [(names, dict(names)) for names in modules]

    def put_back() -> None:
        for names, were in before:
            for name, value in were.items():
                if names.get(name) is not value:
                    names[name] = value
        for stream in ("stdout", "stderr"):
            if getattr(sys, stream).closed:
                setattr(sys, stream, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - to the end

    return put_back


def _run(cell: Cell, file: str, names: dict[str, Any]) -> BaseException | None:
    title = f"{cell.place} of {file}"
    linecache.cache[title] = (len(cell.text), None, [each + "\n" for each in cell.text.splitlines()], title)
    try:
        exec(compile(cell.text, title, "exec"), names)
    except SystemExit as fault:
        return RuntimeError(f"{cell.place} left the program (SystemExit: {text_of(fault)})")
    except BaseException as fault:  # noqa: BLE001 - whatever a student's cell raises, KeyboardInterrupt too
        return fault
    return None


def judge(
    exercises: Iterable[Exercise], lab: Lab, file: str, begin: Callable[[Exercise], object]
) -> Iterator[Verdict]:
    """Check every exercise; an answer that raises is one more verdict.

    Args:
        exercises: which.
        lab: what the cells defined.
        file: the name under which the cells ran.
        begin: called before each check.
    """
    for each in exercises:
        begin(each)
        word, message = _verdict(each, lab, file)
        yield Verdict(each.name, each.points, word, message[:LONGEST])


def _verdict(each: Exercise, lab: Lab, file: str) -> tuple[str, str]:
    put_back = _guard()
    try:
        each(lab)
    except NotAnswered:
        return "unanswered", "not answered yet"
    except AssertionError as fault:
        return "failed", text_of(fault) or "the check failed, and says no more"
    except SystemExit as fault:
        return "error", f"the answer left the program (SystemExit: {text_of(fault)})"
    except BaseException as fault:  # noqa: BLE001 - whatever a student's answer raises
        put_back()
        return "error", said_of(fault, lambda: each(lab), lab, file)
    finally:
        put_back()
    return "passed", ""
