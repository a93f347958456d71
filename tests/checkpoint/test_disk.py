"""Checkpoints on a disk that fails; oracle: the old state, whole, alone in its folder."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minimp.checkpoint import load, save
from minimp.errors import CheckpointError
from minimp.runlog import read_log
from tests.checkpoint.killed_run import CHECKPOINT, LOG, make_run
from tests.checkpoint.states import environment, same
from tests.trainer.runs import timeless

OLD: dict[str, Any] = {"step": 1}
NEW: dict[str, Any] = {"step": 2, "w": np.arange(3.0), "list": ["text", None]}


def test_missing_files_and_folders(path: Path) -> None:
    """Oracle: the errors of minimp.files, as CheckpointError."""
    with pytest.raises(CheckpointError, match="there is no such file"):
        load(path)
    with pytest.raises(CheckpointError, match="it is a folder"):
        load(path.parent)
    with pytest.raises(CheckpointError, match="its folder does not exist"):
        save(path / "x", {})


def old_state_alone(path: Path) -> None:
    """Hold a folder to: the old checkpoint, whole, and nothing else."""
    assert load(path, require_checksum=True) == OLD
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_a_full_disk_leaves_the_old_checkpoint(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: ENOSPC planted after each number of bytes from 0 to one less than the file has."""
    save(path, NEW)
    size = path.stat().st_size
    save(path, OLD)
    real = os.write
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # nothing is cut here but writes
    for room in range(size):
        left = room

        def write(handle: int, data: Any) -> int:
            nonlocal left
            if not left:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            count = real(handle, data[:left])
            left -= count
            return count

        monkeypatch.setattr(os, "write", write)
        with pytest.raises(CheckpointError, match="the disk is full\n  help: free some space") as caught:
            save(path, NEW)
        assert str(path) in str(caught.value)
        old_state_alone(path)
    monkeypatch.setattr(os, "write", real)
    save(path, NEW)
    assert same(load(path), NEW)


FULL = """
import resource, sys
from pathlib import Path
from minimp.checkpoint import load, save
from minimp.errors import CheckpointError
from tests.checkpoint.test_disk import NEW, OLD, old_state_alone
path, means, room = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
if means == "tmpfs":
    import subprocess
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={room}", "tmpfs", path.parent], check=True)
else:
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
save(path, OLD)
try:
    save(path, {**NEW, "more": NEW["w"].repeat(room)})
except CheckpointError as fault:
    print(fault)
old_state_alone(path)
"""
UNSHARE = ("unshare", "--user", "--map-root-user", "--mount")
MEANS = {
    "limit": ("the file would grow larger than is allowed here", ()),
    "tmpfs": ("the disk is full", UNSHARE),
}


def can_mount() -> bool:
    """Return whether this machine lets anyone mount a file system of his own."""
    try:
        mounted = [*UNSHARE, "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
        return subprocess.run(mounted, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


@pytest.mark.parametrize("means", [each for each in MEANS if each == "limit" or can_mount()])
def test_a_disk_that_is_really_full(path: Path, means: str) -> None:
    """Oracle: the system: a limit on the size of files, and a small disk where one can be mounted."""
    said, prefix = MEANS[means]
    command = [*prefix, sys.executable, "-c", FULL, str(path), means, str(16384)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment())
    assert done.stdout.startswith(f"cannot write {path}: {said}\n  help: "), done.stderr
    assert done.returncode == 0, done.stderr


def test_a_run_on_a_full_disk_goes_on_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the run without a break; its disk was full at the checkpoint of step 4."""
    folder, straight = tmp_path / "run", tmp_path / "straight"
    for each in (folder, straight):
        each.mkdir()
    trainer = make_run(folder)
    trainer.run(3)
    before = (folder / CHECKPOINT).read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", refuse)
        with pytest.raises(CheckpointError, match="the disk is full"):
            trainer.run(3)
    assert (folder / CHECKPOINT).read_bytes() == before
    assert sorted(each.name for each in folder.iterdir()) == [LOG, CHECKPOINT]
    again = make_run(folder)
    again.resume()
    again.run(3)
    make_run(straight).run(6)
    assert (folder / CHECKPOINT).read_bytes() == (straight / CHECKPOINT).read_bytes()
    assert timeless(read_log(folder / LOG)) == timeless(read_log(straight / LOG))


def refuse(*names: Any) -> None:
    """Stand in for a rename that finds no room for the new name."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), *names)


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
