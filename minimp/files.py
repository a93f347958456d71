"""Files that are written whole or not at all, and what the system says about a path in one clear line."""

from __future__ import annotations

import errno
import fcntl
import glob
import os
import secrets
import stat
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType

from minimp.errors import DataError, MinimpError

__all__ = ["check_writable", "read_whole", "write_whole"]

AnyPath = str | os.PathLike[str]
Refusals = Mapping[int, tuple[str, str]]

UNTOUCHED = "what was there before is untouched"

# What the system answers, in words, and what to do about it.
_READING: Refusals = MappingProxyType(
    {
        errno.ENOENT: ("there is no such file", "check the spelling of the path"),
        errno.EACCES: ("permission denied", "change its permissions (chmod +r), or read a copy"),
        errno.EISDIR: ("it is a folder", "name a file inside it"),
        errno.ENOTDIR: ("a part of the path is not a folder", "check the spelling of the path"),
        errno.ENAMETOOLONG: ("the name is too long", "check the spelling of the path"),
    }
)
_WRITING: Refusals = MappingProxyType(
    {
        errno.ENOENT: ("its folder does not exist", "make the folder first (mkdir -p), or name another file"),
        errno.EACCES: ("permission denied", "name a file in a folder that you may write to"),
        errno.EPERM: ("permission denied", "name a file in a folder that you may write to"),
        errno.EISDIR: ("it is a folder", "name a file inside it"),
        errno.ENOTDIR: ("a part of the path is not a folder", "check the spelling of the path"),
        errno.ENAMETOOLONG: ("the name is too long", "name it more briefly"),
        errno.EROFS: ("the file system is read-only", "name a file on another one"),
        errno.ENOSPC: ("the disk is full", f"free some space, or name a file on another disk; {UNTOUCHED}"),
        errno.EDQUOT: ("your disk quota is used up", f"free some space of yours; {UNTOUCHED}"),
        errno.EFBIG: ("the file would grow larger than is allowed here", f"see ulimit -f; {UNTOUCHED}"),
    }
)


def write_whole(
    path: AnyPath,
    data: bytes | str | Iterable[bytes | memoryview],
    *,
    error: type[MinimpError] = DataError,
    op: str | None = None,
) -> None:
    """Put `data` into the file at `path`, so that any reader at any time finds the old file or the new one.

    The bytes go to a new file in the same folder, are forced to the disk (fsync), and only then take the name
    (POSIX rename, which is atomic). A fault, Ctrl-C or a crash before that leaves what was there before. A
    symbolic link is followed, and an existing file keeps its permissions.

    Args:
        path: the file to write. It need not exist; its folder must.
        data: bytes; text, written as UTF-8; or several pieces of bytes, written one after the other.
        error: the class of the error to raise.
        op: what the caller was doing, for the message.

    Raises:
        MinimpError: (`error`) the folder is missing or closed to you, the disk is full, or `path` is a
            folder, device or pipe.
    """
    pieces = (data.encode(),) if isinstance(data, str) else (data,) if isinstance(data, bytes) else data
    with _in_words("write", path, _WRITING, error, op), _new_file_for(path) as (handle, temporary, target):
        for piece in pieces:
            left = memoryview(piece)
            while left.nbytes:
                left = left[os.write(handle, left) :]
        os.fsync(handle)
        os.replace(temporary, target)
        with suppress(OSError):  # the file is in place; some file systems cannot sync a folder
            _sync_folder(target.parent)


def check_writable(path: AnyPath, *, error: type[MinimpError] = DataError, op: str | None = None) -> None:
    """Raise what :func:`write_whole` would raise, short of a full disk: before a long run, not after it.

    An empty file is made in the folder and removed again; `path` itself is not touched.
    """
    with _in_words("write", path, _WRITING, error, op), _new_file_for(path):
        pass


def read_whole(path: AnyPath, *, error: type[MinimpError] = DataError, op: str | None = None) -> bytes:
    """Return all bytes of the file at `path`.

    Raises:
        MinimpError: (`error`) the file is missing, closed to you, or no regular file.
    """
    with _in_words("read", path, _READING, error, op):
        _refuse_special_files(os.stat(path))  # before open: to open a pipe is to wait for its writer
        with open(path, "rb") as file:
            return file.read()


@contextmanager
def _in_words(
    doing: str, path: AnyPath, refusals: Refusals, error: type[MinimpError], op: str | None
) -> Iterator[None]:
    """Turn what the system raises inside the block into an `error` that names `path`."""
    try:
        _refuse_zero_bytes(path)
        yield
    except OSError as fault:
        said, advice = refusals.get(fault.errno or 0, (fault.strerror or str(fault), None))
        raise error(f"cannot {doing} {os.fspath(path)}: {said}", op=op, help=advice) from fault


def _refuse_zero_bytes(path: AnyPath) -> None:
    if "\0" in os.fspath(path):  # Python would say ValueError
        raise OSError(errno.EINVAL, "its name holds a zero byte")


def _refuse_special_files(status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is a device, pipe or socket, and a file is needed")


# ---- the new file beside the target --------------------------------------------------------------------

_LONGEST_STEM = 48  # characters of the target's name: with up to 4 bytes each, the whole stays below 255
_SURELY_LOCKED = 60.0  # seconds: a file of a living writer has had its lock for long by then


@contextmanager
def _new_file_for(path: AnyPath) -> Iterator[tuple[int, Path, Path]]:
    """Give (handle, path, target) of a new, empty file beside the target; it does not outlive the block."""
    target = Path(os.path.realpath(path))
    before = target.stat() if target.exists() else None
    if before is not None:
        _refuse_special_files(before)
        if not os.access(target, os.W_OK):  # a rename would get past that; whoever set it meant it
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    stem = f".{target.name[:_LONGEST_STEM]}"
    _remove_leftovers(target.parent, stem)
    temporary = target.with_name(f"{stem}.{secrets.token_hex(6)}.minimp-tmp")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        if before is not None:
            os.fchmod(handle, stat.S_IMODE(before.st_mode))
        with suppress(OSError):  # a file system without locks: then nothing is ever taken for a leftover
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield handle, temporary, target
    finally:
        os.close(handle)
        temporary.unlink(missing_ok=True)


def _remove_leftovers(folder: Path, stem: str) -> None:
    """Remove the new files of writers that were killed: old ones, whose locks the system has freed."""
    for leftover in folder.glob(f"{glob.escape(stem)}.{'[0-9a-f]' * 12}.minimp-tmp"):
        with suppress(OSError):  # gone meanwhile, locked by its living writer, or not ours to remove
            handle = os.open(leftover, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if time.time() - os.fstat(handle).st_mtime > _SURELY_LOCKED:
                    leftover.unlink()
            finally:
                os.close(handle)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
