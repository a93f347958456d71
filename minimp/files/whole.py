"""Files that are written whole or not at all, and what the system says about a path in one clear line.

What a crash may leave, by the order of the calls to the system (Pillai et al. 2014, "All File Systems Are Not
Created Equal", OSDI, section 3): until the name is given, the old file; from then on the new one, whose bytes
were forced to the disk before.

POSIX is needed: locks are `flock`, and a rename over a file that someone reads leaves the reader the old
bytes. Windows has neither: there ``os.replace`` is refused (PermissionError) while anyone has the target
open, a folder cannot be synced, and there is no `fcntl`.
"""

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

__all__ = ["AnyPath", "check_writable", "read_whole", "sync_folder", "write_whole"]

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
        errno.ELOOP: ("its symbolic links lead back to each other", "name a file"),
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
        errno.ELOOP: ("its symbolic links lead back to each other", "name a file"),
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
    (POSIX rename, which is atomic); last the folder is synced, so that the name is on the disk too. A fault,
    Ctrl-C, kill or power cut before that leaves what was there before. A symbolic link is followed, and an
    existing file keeps its permissions. What a killed writer left is removed by the next one.

    Args:
        path: the file to write. It need not exist; its folder must.
        data: bytes; text, written as UTF-8; or several pieces of bytes, written one after the other.
        error: the class of the error to raise.
        op: what the caller was doing, for the message.

    Raises:
        MinimpError: (`error`) the folder is missing or closed to you, the disk is full, or `path` is a
            folder, device or pipe. What was there before is untouched then, but for one case: the disk fails
            when the folder is synced, which the message says.
    """
    pieces = (data.encode(),) if isinstance(data, str) else (data,) if isinstance(data, bytes) else data
    with _in_words("write", path, _WRITING, error, op), _new_file_for(path) as (handle, temporary, target):
        for piece in pieces:
            left = memoryview(piece)
            while left.nbytes:
                left = left[os.write(handle, left) :]
        os.fsync(handle)
        os.replace(temporary, target)
        sync_folder(target.parent)


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
_SURELY_LOCKED = 60.0  # seconds: a living writer has locked its file by then


@contextmanager
def _new_file_for(path: AnyPath) -> Iterator[tuple[int, Path, Path]]:
    """Give (handle, path, target) of a new, empty file beside the target; it does not outlive the block."""
    target = Path(os.path.realpath(path))
    before = None
    with suppress(FileNotFoundError):
        before = target.stat()
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
            fcntl.flock(handle, fcntl.LOCK_EX)  # waits while another writer looks whether this is a leftover
        yield handle, temporary, target
    finally:
        os.close(handle)
        temporary.unlink(missing_ok=True)


def _remove_leftovers(folder: Path, stem: str) -> None:
    """Remove the new files of writers that were killed.

    A living writer locks its file before it writes the first byte, and the system frees the locks of the
    dead: so a file that is not locked and not empty is a leftover. An empty one may be about to be locked.
    """
    for leftover in folder.glob(f"{glob.escape(stem)}.{'[0-9a-f]' * 12}.minimp-tmp"):
        with suppress(OSError):  # gone meanwhile, locked by its living writer, or not ours to remove
            handle = os.open(leftover, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                status = os.fstat(handle)
                if status.st_size or time.time() - status.st_mtime > _SURELY_LOCKED:
                    leftover.unlink()
            finally:
                os.close(handle)


_NO_SUCH_SYNC = (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS)
"""What a file system answers that cannot sync a folder."""


def sync_folder(folder: AnyPath) -> None:
    """Force the names in a folder to the disk: those of files that were made, renamed or removed.

    A folder that may be written to but not be read cannot be opened; then everything is synced (os.sync).

    Raises:
        OSError: the disk failed: it may have the old names or the new ones.
    """
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:
        os.sync()
        return
    try:
        os.fsync(handle)
    except OSError as fault:
        if fault.errno not in _NO_SUCH_SYNC:
            said = f"what was written has its name, and may lose it in a power cut ({fault.strerror})"
            raise OSError(errno.EIO, said) from fault
    finally:
        os.close(handle)
