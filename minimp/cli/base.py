"""What the commands share: the screens, examples in help texts, JSON, and an early look at output files."""

from __future__ import annotations

import json
import math
import os
import shutil
import textwrap
from typing import Any, NoReturn

import numpy as np
from rich.console import Console

__all__ = [
    "MOST_COLUMNS",
    "TIED",
    "columns",
    "console",
    "examples",
    "json_text",
    "print_line",
    "print_wrapped",
    "progress_console",
]

MOST_COLUMNS = 100
TIED = "\xa0"
"""A space at which :func:`print_wrapped` breaks no line."""


class _Screen(Console):
    def on_broken_pipe(self) -> NoReturn:
        """Let the command end as it would without rich, which has an exit code of its own for this."""
        raise BrokenPipeError


def console() -> Console:
    """Return the screen for results (stdout): at most 100 columns, no colour where it is no terminal.

    Into a file or pipe it writes 100 columns, or what COLUMNS says. NO_COLOR and TERM=dumb are respected.
    """
    return _screen(stderr=False)


def progress_console() -> Console:
    """Return the screen for progress and for what went wrong (stderr), like :func:`console`."""
    return _screen(stderr=True)


def _screen(*, stderr: bool) -> Console:
    screen = _Screen(stderr=stderr, highlight=False, emoji=False)
    known = screen.is_terminal or "COLUMNS" in os.environ
    screen.width = min(screen.width, MOST_COLUMNS) if known else MOST_COLUMNS
    return screen


def print_wrapped(out: Console, text: str) -> None:
    """Print a text in lines that fit."""
    for line in textwrap.wrap(text, out.width, break_on_hyphens=False):
        print_line(out, line.replace(TIED, " "))


def print_line(out: Console, text: str) -> None:
    """Print one line as it is, however long."""
    out.print(text, soft_wrap=True, highlight=False, markup=False)


def columns() -> int:
    """Return how many columns a help text may take."""
    return min(shutil.get_terminal_size((MOST_COLUMNS, 24)).columns, MOST_COLUMNS)


def examples(*commands: str) -> str:
    """Return the end of a command's help text.

    >>> print(examples("minimp inspect 0.1"))
    example:
      minimp inspect 0.1
    """
    return "\n".join(("examples:" if len(commands) > 1 else "example:", *(f"  {each}" for each in commands)))


def json_text(value: Any) -> str:
    """Return a value as JSON that every reader takes, ending with a newline.

    JSON has no NaN and no infinities: they stand as the strings "nan", "inf" and "-inf". NumPy scalars become
    numbers, and paths strings.
    """
    return json.dumps(_plain(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return os.fspath(value) if isinstance(value, os.PathLike) else value
