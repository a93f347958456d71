"""The process in which one submission runs: ``python -m minimp.labs.child``; its parent is :mod:`.running`.

The checks are read before the student's first line runs, from the instructor's folder. Verdicts go to a file
as they are reached, so that what a later one destroys does not take them along.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from minimp.errors import DataError, plain
from minimp.labs.answers import exercises_of
from minimp.labs.cells import cells_of_notebook
from minimp.labs.faults import named, text_of
from minimp.labs.session import judge, run_cells

__all__ = ["load_checks", "main"]


def load_checks(path: Path) -> ModuleType:
    """Return the module of checks at `path`.

    Raises:
        DataError: there is none, or it cannot be run.
    """
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise DataError(f"{path} is no module of checks", op="labs")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as fault:  # whatever a teacher's own checks raise
        raise DataError(
            f"the checks in {path} cannot be read ({type(fault).__name__}: {text_of(fault)})", op="labs"
        ) from fault
    return module


def main(arguments: list[str]) -> int:
    """Run a submission: CHECKS FILE RESULT MEGABYTES, then the names of the exercises to leave out."""
    checks, file, result, megabytes, *skipped = arguments
    exercises = [each for each in exercises_of(load_checks(Path(checks))) if each.name not in skipped]
    say = _teller(result)
    _limit(int(megabytes))
    try:
        cells = cells_of_notebook(Path(file))
    except DataError as fault:
        say(fault=plain(fault))
        return 0
    if not any(not cell.is_markdown for cell in cells):
        say(fault=f"{Path(file).name} has no cells of code")
        return 0
    lab, broken = run_cells(cells, Path(file).name)
    _limit(int(megabytes), more=512)
    say(ran=True, broken=[named(each, Path(file).name) for each in broken])
    for verdict in judge(exercises, lab, Path(file).name, lambda each: say(begun=each.name)):
        say(verdict=verdict.to_json())
    say(ended=True)
    return 0


def _teller(result: str) -> Callable[..., None]:
    """Return what writes a line of the result; nothing that a cell closes or renames stops it.

    A process that a cell has forked ends here: it is not the one that is asked.
    """
    write, dumps, process, leave, here = open, json.dumps, os.getpid, os._exit, os.getpid()

    def say(**what: Any) -> None:
        if process() != here:
            leave(0)
        with write(result, "a", encoding="utf-8") as out:
            out.write(dumps(what) + "\n")

    return say


def _limit(megabytes: int, *, more: int = 0) -> None:
    """Let this process have no more memory than so much, and so much more for the checks; 0: all there is."""
    if megabytes:
        import resource

        most = resource.getrlimit(resource.RLIMIT_AS)[1]
        size = (megabytes + more) * 2**20
        resource.setrlimit(
            resource.RLIMIT_AS, (size if most == resource.RLIM_INFINITY else min(size, most), most)
        )


def _leave(code: int, leave: Callable[[int], NoReturn] = os._exit) -> NoReturn:
    """End without waiting for threads that a submission left running."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    leave(code)


if __name__ == "__main__":
    _leave(main(sys.argv[1:]))
