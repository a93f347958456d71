"""What is said of an answer at which a check itself came to grief: where, and what the answer gave."""

from __future__ import annotations

import reprlib
import sys
import traceback
from collections.abc import Callable
from types import FrameType
from typing import Any

from minimp.labs.answers import Lab

__all__ = ["named", "said_of", "text_of"]

SHORT = reprlib.Repr()
SHORT.maxother = SHORT.maxstring = 120


def text_of(fault: BaseException) -> str:
    """Return an error's text, even of one that cannot be put into words."""
    try:
        return str(fault)
    except BaseException as other:  # noqa: BLE001 - a student's own class
        return f"(its text raises {type(other).__name__})"


def named(fault: BaseException, file: str) -> str:
    """Return the error of a cell: its kind and its text; or, if it has none, the line that raised it.

    An ``assert`` of a lab's own has none.
    """
    text, inner = text_of(fault), _lines(fault, file)
    if not text and inner:
        text = f"in {inner[-1].line!r}, line {inner[-1].lineno} of {inner[-1].filename}"
    return f"{type(fault).__name__}: {text}"[:500]


def said_of(fault: BaseException, check: Callable[[], object], lab: Lab, file: str) -> str:
    """Return the error with the student's own line; or, if it arose in the check, with what the answer gave.

    In the second case the check runs once more, under a profiler that keeps the last call of the student's.

    Args:
        fault: what the check raised.
        check: runs it again.
        lab: what the cells defined.
        file: the name under which the cells ran: ``"the cell at line 3 of FILE"`` stands in their frames.
    """
    head = f"{type(fault).__name__}: {text_of(fault)}"
    inner = _lines(fault, file)
    if inner:
        return f"{head} (in {inner[-1].line!r}: line {inner[-1].lineno} of {inner[-1].filename})"
    given = _last_call(check, file) or _last_value(lab)
    return f"{head}; {given}" if given else f"{head} (in the check)"


def _is_cell(name: str, file: str) -> bool:
    return name.startswith(("the cell at line ", "code cell ")) and name.endswith(f" of {file}")


def _lines(fault: BaseException, file: str) -> list[traceback.FrameSummary]:
    """Return where in the student's cells an error arose, the innermost place last."""
    return [each for each in traceback.extract_tb(fault.__traceback__) if _is_cell(each.filename, file)]


def _last_value(lab: Lab) -> str:
    name = lab.__dict__["_asked"]
    if not name or name not in lab.__dict__["_names"]:
        return ""
    value = lab.__dict__["_names"][name]
    return f"{name} is {_shown(value)}, of type {type(value).__name__}"


def _last_call(check: Callable[[], object], file: str) -> str:
    """Return what the student's function that was called last got and gave; empty if none was."""
    found: list[str] = []

    def watch(frame: FrameType, event: str, value: Any) -> None:
        code, caller = frame.f_code, frame.f_back
        if event != "return" or not _is_cell(code.co_filename, file):
            return
        if caller is not None and _is_cell(caller.f_code.co_filename, file):
            return  # the student's own call of it
        names = code.co_varnames[: code.co_argcount]
        took = ", ".join(f"{name}={_shown(frame.f_locals[name])}" for name in names if name in frame.f_locals)
        kind = type(value).__name__
        found[:] = [f"your {code.co_name}({took}) returned {_shown(value)}, of type {kind}"]

    before = sys.getprofile()
    sys.setprofile(watch)
    try:
        check()
    except BaseException:  # noqa: BLE001 - it raised before
        pass
    finally:
        sys.setprofile(before)
    return found[0] if found else ""


def _shown(value: Any) -> str:
    try:
        return SHORT.repr(value)
    except BaseException:  # noqa: BLE001 - a student's own class
        return "something that cannot be shown"
