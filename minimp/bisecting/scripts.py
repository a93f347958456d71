"""A user's script, run as `python script.py` runs it, and left where its training begins.

Both who searches a script's first step (`minimp bisect`) and who goes through it (`minimp step`) begin here.
"""

from __future__ import annotations

import runpy
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minimp.modes import watch

if TYPE_CHECKING:
    from minimp.step import TrainStep

__all__ = ["FirstStep", "Left", "as_python_does", "run_up_to"]


class Left(BaseException):
    """Leaves a script where it is: no `except Exception` of the script's own is in its way."""


class FirstStep:
    """A watcher that leaves a script before the first stage of its first TrainStep, also in a Trainer.

    Attributes:
        step, batch: the TrainStep and (inputs, targets); None and (None, None) before one has begun.
    """

    def __init__(self) -> None:
        self.step: TrainStep | None = None
        self.batch: tuple[Any, Any] = (None, None)

    def begin_stage(self, step: Any, name: str, state: Any) -> None:  # noqa: ARG002 - a watcher's signature
        """Leave the script with a TrainStep and its batch.

        Raises:
            Left: always.
        """
        self.step, self.batch = step, (state.inputs, state.targets)
        raise Left

    def end_stage(self, step: Any, name: str, state: Any, tensors: Any) -> None:
        """Nothing: the first stage did not run."""


@contextmanager
def as_python_does(script: str, arguments: Sequence[str], folder: Path) -> Iterator[None]:
    """Give the process the arguments and the import path that Python gives a script in a folder."""
    before = sys.argv, sys.path[:]
    sys.argv = [script, *arguments]
    sys.path.insert(0, str(folder.resolve()))
    try:
        yield
    finally:
        sys.argv, sys.path[:] = before


def run_up_to(file: Path, watcher: FirstStep) -> dict[str, Any]:
    """Run a script as `__main__` until a watcher leaves it; return what it has defined, {} if it was left.

    Raises:
        BaseException: whatever the script raises, SystemExit among it.
    """
    try:
        with watch(watcher):
            return runpy.run_path(str(file), run_name="__main__")
    except Left:
        return {}
