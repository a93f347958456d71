"""What a power cut may leave of the calls to the system that were made in one folder.

The model promises no more than POSIX does. Names that were given, changed or removed since the folder was
last synced may each be on the disk or not, in any combination; a rename is two of them, the new name and the
end of the old one. Whatever was written to a file since it was last synced may be lost, be there in part, be
there as zeros (the length without the bytes), or be there, each write for itself. What was synced stays.

Source: Pillai et al. 2014, "All File Systems Are Not Created Equal: On the Complexity of Crafting
Crash-Consistent Applications", OSDI, sections 3.1 and 3.2 (ALICE), without any of the orders that real file
systems keep beyond POSIX.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

Names = dict[str, int]
Folder = dict[str, bytes]


@dataclass(frozen=True)
class Named:
    """A name that leads to a file from now on; None: to nothing."""

    name: str
    inode: int | None


@dataclass(frozen=True)
class Written:
    """Bytes written to a file."""

    inode: int
    start: int
    data: bytes


@dataclass(frozen=True)
class Cut:
    """A file cut to a length."""

    inode: int
    size: int


@dataclass(frozen=True)
class Synced:
    """A file that was synced; None: the folder."""

    inode: int | None


Event = Named | Written | Cut | Synced


class Recorder:
    """Records the calls made in a folder while a test runs; they are carried out too.

    Attributes:
        names, bytes: what was there, and is on the disk: name -> inode -> bytes.
        events: the calls since.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.names: Names = {each.name: each.stat().st_ino for each in folder.iterdir()}
        self.bytes = {each.stat().st_ino: each.read_bytes() for each in folder.iterdir()}
        self.events: list[Event] = []
        self._appending: set[int] = set()
        self._kept = [os.open(each, os.O_RDONLY) for each in folder.iterdir()]
        for name in ("open", "write", "fsync", "replace", "unlink", "ftruncate"):
            monkeypatch.setattr(os, name, self._recorded(getattr(self, f"_{name}"), getattr(os, name)))

    @staticmethod
    def _recorded(record: Callable[..., Any], real: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *given, **named: record(real, *given, **named)

    def _open(self, real: Any, path: Any, flags: int, *rest: Any, **named: Any) -> int:
        new = Path(path).parent == self.folder and flags & os.O_CREAT and not os.path.exists(path)
        handle: int = real(path, flags, *rest, **named)
        self._appending.discard(handle)
        if flags & os.O_APPEND:
            self._appending.add(handle)
        inode = os.fstat(handle).st_ino
        if new:
            self._kept.append(os.dup(handle))  # an open file's number is not given to another one
            self.bytes[inode] = b""
            self.events.append(Named(Path(path).name, inode))
        elif flags & os.O_TRUNC:
            self.events.append(Cut(inode, 0))
        return handle

    def _write(self, real: Any, handle: int, data: Any) -> int:
        status = os.fstat(handle)
        start = status.st_size if handle in self._appending else os.lseek(handle, 0, os.SEEK_CUR)
        count: int = real(handle, data)
        self.events.append(Written(status.st_ino, start, bytes(memoryview(data).cast("B")[:count])))
        return count

    def _ftruncate(self, real: Any, handle: int, size: int) -> None:
        real(handle, size)
        self.events.append(Cut(os.fstat(handle).st_ino, size))

    def _fsync(self, real: Any, handle: int) -> None:
        real(handle)
        status = os.fstat(handle)
        self.events.append(Synced(None if status.st_ino == self.folder.stat().st_ino else status.st_ino))

    def _replace(self, real: Any, source: Any, target: Any) -> None:
        inode = os.stat(source).st_ino
        real(source, target)
        self.events += [Named(Path(target).name, inode), Named(Path(source).name, None)]

    def _unlink(self, real: Any, path: Any, **named: Any) -> None:
        real(path, **named)
        self.events.append(Named(Path(path).name, None))

    def close(self) -> None:
        """Let the files that were kept open go."""
        for handle in self._kept:
            os.close(handle)

    # ---- power cuts -------------------------------------------------------------------------------------

    def cuts(self) -> Iterator[tuple[int, Folder]]:
        """Yield (how many calls were made, what is in the folder) for every power cut that is possible."""
        for count in range(len(self.events) + 1):
            for folder in self.after(count):
                yield count, folder

    def after(self, count: int) -> Iterator[Folder]:
        """Yield what may be in the folder if the power is cut after so many calls."""
        done = self.events[:count]
        names = [each for each in done if isinstance(each, Named)]
        unsynced = _since_sync(done, None, Named)
        safe = _name(self.names, names[: len(names) - len(unsynced)])
        contents = {inode: set(self._contents(done, inode)) for inode in self.bytes}
        for chosen in itertools.product((False, True), repeat=len(unsynced)):
            now = _name(safe, itertools.compress(unsynced, chosen))
            for picked in itertools.product(*(sorted(contents[inode]) for inode in now.values())):
                yield dict(zip(now, picked, strict=True))

    def _contents(self, done: list[Event], inode: int) -> Iterator[bytes]:
        """Yield the bytes that a file may have."""
        changes = [e for e in done if isinstance(e, Written | Cut) and e.inode == inode]
        unsynced = _since_sync(done, inode, Written | Cut)
        safe = self.bytes[inode]
        for change in changes[: len(changes) - len(unsynced)]:
            safe = _change(safe, change, "whole")
        unsynced = _joined(unsynced)
        for fates in itertools.product(("lost", "part", "zeros", "whole"), repeat=len(unsynced)):
            content = safe
            for change, fate in zip(unsynced, fates, strict=True):
                content = _change(content, change, fate)
            yield content


def _since_sync(done: list[Event], inode: int | None, kind: Any) -> list[Any]:
    """Return the events of a kind that came after the last sync of their file, or of the folder."""
    found = []
    for event in reversed(done):
        if event == Synced(inode):
            break
        if isinstance(event, kind) and (inode is None or event.inode == inode):
            found.append(event)
    return found[::-1]


def _joined(changes: list[Any]) -> list[Any]:
    """Return at most three writes for any number of writes in a row, so that there are not 4^n cases."""
    in_a_row = all(
        isinstance(b, Written) and isinstance(a, Written) and b.start == a.start + len(a.data)
        for a, b in itertools.pairwise(changes)
    )
    if len(changes) <= 3 or not in_a_row:
        return changes
    middle = changes[1:-1]
    joined = Written(middle[0].inode, middle[0].start, b"".join(each.data for each in middle))
    return [changes[0], joined, changes[-1]]


def _name(names: Names, events: Any) -> Names:
    now = dict(names)
    for event in events:
        now.pop(event.name, None)
        if event.inode is not None:
            now[event.name] = event.inode
    return now


def _change(content: bytes, change: Written | Cut, fate: str) -> bytes:
    if fate == "lost":
        return content
    if isinstance(change, Cut):
        return content[: change.size]
    data = {"part": change.data[: len(change.data) // 2], "zeros": bytes(len(change.data))}
    put = data.get(fate, change.data)
    return content[: change.start].ljust(change.start, b"\0") + put + content[change.start + len(put) :]
