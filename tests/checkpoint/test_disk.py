"""Checkpoints on a disk that fails; oracle: the old state, whole, alone in its folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minimp.checkpoint import load, save
from minimp.errors import CheckpointError, MinimpError


def test_missing_files_and_folders(path: Path) -> None:
    """Oracle: the errors of minimp.files, as CheckpointError."""
    with pytest.raises(CheckpointError, match="there is no such file"):
        load(path)
    with pytest.raises(CheckpointError, match="it is a folder"):
        load(path.parent)
    with pytest.raises(CheckpointError, match="its folder does not exist"):
        save(path / "x", {})


def test_a_full_disk_leaves_the_old_checkpoint(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: ENOSPC at the second piece; the old file loads, and lies alone in its folder."""
    save(path, {"step": 1})
    real, calls = os.write, []

    def write(handle: int, data: Any) -> int:
        calls.append(handle)
        if len(calls) > 1:
            raise OSError(28, "No space left on device")
        return real(handle, data)

    monkeypatch.setattr(os, "write", write)
    with pytest.raises(CheckpointError, match="the disk is full"):
        save(path, {"step": 2, "w": np.ones(3)})
    monkeypatch.undo()
    assert load(path) == {"step": 1}
    assert [each.name for each in path.parent.iterdir()] == [path.name]


KILLED = """
import os, signal, sys
sys.path[:0] = sys.argv[3:]
import numpy as np
from minimp.checkpoint import save
setattr(os, sys.argv[2], lambda *_: os.kill(os.getpid(), signal.SIGKILL))
save(sys.argv[1], {"step": 2, "w": np.ones(1000)})
"""


@pytest.mark.parametrize("step", ["write", "fsync", "replace"])
def test_a_crash_leaves_the_old_checkpoint(path: Path, step: str) -> None:
    """Oracle: SIGKILL in the place of one step of the writing: the old file loads, and can be replaced."""
    save(path, {"step": 1})
    command = [sys.executable, "-c", KILLED, str(path), step, *sys.path]
    assert subprocess.run(command, capture_output=True, check=False).returncode == -signal.SIGKILL
    assert load(path) == {"step": 1}
    save(path, {"step": 3})
    assert load(path) == {"step": 3}


def test_readers_find_the_old_state_or_the_new_one(path: Path) -> None:
    """Oracle: readers while a writer saves again and again: each load is one whole state, none older."""
    save(path, {"step": 0, "w": np.zeros(20_000)})
    stop, faults = threading.Event(), []

    def read() -> None:
        last = 0
        while not stop.is_set():
            try:
                found = load(path, require_checksum=True)
            except MinimpError as fault:
                faults.append(str(fault))
                return
            if not (found["w"] == found["step"]).all() or found["step"] < last:
                faults.append(f"step {found['step']} after {last}")
            last = found["step"]

    readers = [threading.Thread(target=read) for _ in range(3)]
    for each in readers:
        each.start()
    for step in range(1, 30):
        save(path, {"step": step, "w": np.full(20_000, float(step))})
    stop.set()
    for each in readers:
        each.join()
    assert faults == []
