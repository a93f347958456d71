"""The order of writes under power cuts; oracle: a disk that keeps no more than what was synced."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from minimp.files import whole
from tests.files.power import Recorder

OLD, NEW = b"the old content", (b"the new", b" content, in", b" three pieces")
NAME = "result"


def found_after(
    write: Callable[[Path], None], folder: Path, monkeypatch: pytest.MonkeyPatch, *, before: bool = True
) -> tuple[set[bytes | None], set[bytes | None]]:
    """Return what a file may hold if the power is cut while it is written, and after that; None: no file."""
    target = folder / NAME
    if before:
        target.write_bytes(OLD)
    with monkeypatch.context() as patch:
        recorder = Recorder(folder, patch)
        write(target)
    last, cuts = len(recorder.events), list(recorder.cuts())
    recorder.close()
    assert len(cuts) > last
    during, afterwards = cuts, [each for each in cuts if each[0] == last]
    return {found.get(NAME) for _, found in during}, {found.get(NAME) for _, found in afterwards}


def write_whole(target: Path) -> None:
    """Write as minimp does."""
    whole.write_whole(target, NEW)


@pytest.mark.parametrize("before", [True, False])
def test_the_old_file_or_the_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: bool) -> None:
    """Oracle: every cut that POSIX allows leaves the old file, or none where there was none, or the new one;
    and once the call has returned, the new one alone.
    """
    during, afterwards = found_after(write_whole, tmp_path, monkeypatch, before=before)
    assert during == {OLD if before else None, b"".join(NEW)}
    assert afterwards == {b"".join(NEW)}


def test_a_killed_writer_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: as above; the writer has to remove what a killed one left, and that may come back."""
    (tmp_path / f".{NAME}.0123456789ab.minimp-tmp").write_bytes(b"half")
    during, afterwards = found_after(write_whole, tmp_path, monkeypatch)
    assert (during, afterwards) == ({OLD, b"".join(NEW)}, {b"".join(NEW)})


# ---- the model finds what is wrong with other ways ---------------------------------------------------------


def write_in_place(target: Path) -> None:
    """Write over the old file, and sync it."""
    handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.write(handle, b"".join(NEW))
    os.fsync(handle)
    os.close(handle)


def write_beside(target: Path, *, sync: bool, sync_folder: bool) -> None:
    """Write a new file and rename it."""
    beside = target.with_name("new")
    handle = os.open(beside, os.O_WRONLY | os.O_CREAT)
    for piece in NEW:
        os.write(handle, piece)
    if sync:
        os.fsync(handle)
    os.close(handle)
    os.replace(beside, target)
    if sync_folder:
        whole.sync_folder(target.parent)


def sync_too_late(target: Path) -> None:
    """Rename first, and sync then."""
    write_beside(target, sync=False, sync_folder=True)
    handle = os.open(target, os.O_WRONLY)
    os.fsync(handle)
    os.close(handle)


@pytest.mark.parametrize(
    ("write", "during_is_safe", "afterwards_is_safe"),
    [
        (write_in_place, False, True),
        (sync_too_late, False, True),
        (lambda target: write_beside(target, sync=False, sync_folder=True), False, False),
        (lambda target: write_beside(target, sync=True, sync_folder=False), True, False),
        (lambda target: write_beside(target, sync=True, sync_folder=True), True, True),
    ],
    ids=["in place", "sync after rename", "no sync", "no sync of the folder", "right"],
)
def test_the_model_tells_right_from_wrong(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    write: Callable[[Path], None],
    during_is_safe: bool,
    afterwards_is_safe: bool,
) -> None:
    """Oracle: the table of five ways to replace a file, four of them known to be wrong."""
    during, afterwards = found_after(write, tmp_path, monkeypatch)
    assert (during <= {OLD, b"".join(NEW)}) is during_is_safe
    assert (afterwards == {b"".join(NEW)}) is afterwards_is_safe
