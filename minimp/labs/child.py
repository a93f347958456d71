"""The process in which one submission runs: ``python -m minimp.labs.child``; its parent is :mod:`.running`.

The checks are read before the student's first line runs, from the instructor's folder. Verdicts go to a file
as they are reached, so that what a later one destroys does not take them along.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from minimp.errors import DataError
from minimp.labs.answers import exercises_of
from minimp.labs.cells import cells_of_notebook
from minimp.labs.session import judge, run_cells

__all__ = ["load_checks", "main"]


def load_checks(path: Path) -> ModuleType:
    """Return the module of checks at `path`."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise DataError(f"{path} is no module of checks", op="labs")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main(arguments: list[str]) -> int:
    """Run a submission: CHECKS FILE RESULT MEGABYTES."""
    checks, file, result, megabytes = arguments
    exercises = exercises_of(load_checks(Path(checks)))
    with open(result, "w", encoding="utf-8", buffering=1) as out:

        def say(**what: Any) -> None:
            out.write(json.dumps(what) + "\n")

        try:
            cells = cells_of_notebook(Path(file))
        except DataError as fault:
            say(fault=str(fault))
            return 0
        if not any(not cell.is_markdown for cell in cells):
            say(fault=f"{Path(file).name} has no cells of code")
            return 0
        _limit(int(megabytes))
        lab, broken = run_cells(cells, Path(file).name)
        say(ran=True, broken=[f"{type(each).__name__}: {each}"[:500] for each in broken])
        for verdict in judge(exercises, lab):
            say(verdict=verdict.to_json())
        say(ended=True)
    return 0


def _limit(megabytes: int) -> None:
    """Let this process have no more memory than so much; 0: as much as there is."""
    if megabytes:
        import resource

        size = megabytes * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (size, size))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
