"""A run that is made to be killed: it says where it is, on a disk that takes its time.

``python -m tests.checkpoint.killed_run FOLDER`` waits for lines. At each it begins a life, and says its
number: a copy of the process begins the run of that folder, or goes on with it, until it is killed. Then it
says the exit code. So the lives share nothing but the files, and save the time of the imports.
"""

from __future__ import annotations

import mmap
import os
import stat
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from minimp import optim
from minimp.trainer import Trainer
from tests.trainer.runs import make_trainer

LOG, CHECKPOINT, STATUS = "log.jsonl", "run.safetensors", "status"
PHASES = ("begin", "step", "log", "open", "write", "fsync", "name", "folder")
"""Where a run may be: from "open" on in the writing of a checkpoint."""
WRITING = PHASES[3:]
ENDLESS = 1_000_000
SLICE, PAUSE = 8192, 0.0004
"""A write is taken in slices of so many bytes, with a pause of so many seconds before each."""


def make_run(folder: Path, checkpoint_every: int = 1, **options: Any) -> Trainer:
    """Return the trainer: dropout, shuffled batches, a lively loss scale, Adam and a cosine."""
    return make_trainer(
        "mixed-fp16",
        "adam",
        scheduler=lambda optimizer: optim.CosineAnnealingLR(optimizer, 40, 1e-4),
        log=folder / LOG,
        checkpoint=folder / CHECKPOINT,
        checkpoint_every=checkpoint_every,
        **options,
    )


class Status:
    """A page that two processes share, and that outlives the one that writes: the phase, and a step."""

    def __init__(self, folder: Path) -> None:
        path = folder / STATUS
        if not path.exists():
            path.write_bytes(bytes(16))
        with path.open("r+b") as file:
            self.page = mmap.mmap(file.fileno(), 16)

    @property
    def phase(self) -> str:
        """Where the run is, or was when it was killed."""
        return PHASES[self.page[0]]

    @phase.setter
    def phase(self, name: str) -> None:
        self.page[0] = PHASES.index(name)

    @property
    def saved(self) -> int:
        """The last step whose checkpoint was reported to be complete."""
        return int.from_bytes(self.page[8:16], "little")

    @saved.setter
    def saved(self, step: int) -> None:
        self.page[8:16] = step.to_bytes(8, "little")


def slow_down_and_tell(status: Status) -> None:
    """Let the calls to the system tell the phase, and let writes come in slices, with pauses between."""
    real_open, real_write = os.open, os.write
    real: dict[str, Callable[..., Any]] = {"fsync": os.fsync, "replace": os.replace}
    new_files: set[int] = set()

    def open_slowly(path: Any, *given: Any, **named: Any) -> int:
        handle = real_open(path, *given, **named)
        if str(path).endswith(".minimp-tmp"):
            status.phase = "open"
            new_files.add(handle)
            time.sleep(PAUSE)
        else:
            new_files.discard(handle)
        return handle

    def write_slowly(handle: int, data: Any) -> int:
        status.phase = "write" if handle in new_files else "log"
        time.sleep(PAUSE)
        view = memoryview(data)
        return real_write(handle, view[: SLICE if handle in new_files else max(1, len(view) // 2)])

    def what_is_synced(handle: int) -> str:
        if handle in new_files:
            return "fsync"
        return "folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "log"

    def told(name: str, phase: Callable[[Any], str]) -> Callable[..., Any]:
        def call(first: Any, *rest: Any) -> Any:
            status.phase = phase(first)
            time.sleep(PAUSE)
            return real[name](first, *rest)

        return call

    os.open, os.write = open_slowly, write_slowly
    os.fsync = told("fsync", what_is_synced)
    os.replace = told("replace", lambda _: "name")


def live(folder: Path) -> None:
    """Begin or go on, and report each checkpoint that is complete."""
    status = Status(folder)
    status.phase = "begin"
    trainer = make_run(folder)
    if trainer.checkpoint is not None and trainer.checkpoint.exists():
        trainer.resume()
    save = trainer.save

    def save_and_tell(*given: Any) -> Path:
        path = save(*given)
        status.saved = trainer.done
        status.phase = "step"
        return path

    trainer.save = save_and_tell  # type: ignore[method-assign, assignment]  # the one place that knows when it is complete
    slow_down_and_tell(status)
    trainer.run(ENDLESS)


def serve(folder: Path) -> None:
    """Begin a life at each line of the input, and tell its number and its end."""
    for _ in sys.stdin:
        child = os.fork()
        if child == 0:
            try:
                live(folder)
            finally:
                traceback.print_exc()
                os._exit(1)
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
