"""Opening data files: gzip is seen through, and what the system reports becomes a DataError."""

from __future__ import annotations

import gzip
import io
import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from minimp.errors import DataError

__all__ = ["head_of", "open_bytes", "open_raw", "read_at_most", "unreadable"]

GZIP_MAGIC = b"\x1f\x8b"
CHUNK = 1 << 20

# What a damaged container raises, and what it means; the first row that fits is used.
DAMAGE: tuple[tuple[type[Exception], str], ...] = (
    (EOFError, "its compressed data ends too early"),
    (gzip.BadGzipFile, "its gzip data is damaged"),
    (zlib.error, "its compressed data is damaged"),
    (zipfile.BadZipFile, "it is not a whole zip archive"),
)
DAMAGED = tuple(kind for kind, _ in DAMAGE)

# What the system says about a path that cannot be read, and what to do; the first row that fits is used.
REFUSED: tuple[tuple[type[OSError], str, str], ...] = (
    (FileNotFoundError, "there is no such file or directory", "check the spelling of the path"),
    (PermissionError, "you may not read it", "change its permissions (chmod +r) or read a copy"),
    (IsADirectoryError, "it is a directory", "name a file inside it"),
    (NotADirectoryError, "a part of the path is not a directory", "check the spelling of the path"),
)


@contextmanager
def unreadable(path: Path, op: str) -> Iterator[None]:
    """Turn what the system or a container raises inside the block into a DataError that names `path`."""
    try:
        yield
    except DAMAGED as fault:
        said = next(text for kind, text in DAMAGE if isinstance(fault, kind))
        raise DataError(
            f"cannot read {path}: {said} ({fault})", op=op, help="copy or download the file again"
        ) from fault
    except OSError as fault:
        for kind, said, advice in REFUSED:
            if isinstance(fault, kind):
                raise DataError(f"cannot read {path}: {said}", op=op, help=advice) from fault
        raise DataError(f"cannot read {path}: {fault.strerror or fault}", op=op) from fault


@contextmanager
def open_raw(path: Path, op: str) -> Iterator[io.BufferedReader]:
    """Give the bytes of a regular file as they are.

    Raises:
        DataError: the file is missing, not a regular file, or not readable.
    """
    with unreadable(path, op):
        try:
            mode = path.stat().st_mode
        except ValueError as fault:  # a zero byte in the name
            raise DataError(f"cannot read {str(path)!r}: {fault}", op=op) from fault
        if stat.S_ISDIR(mode):
            raise IsADirectoryError
        if not stat.S_ISREG(mode):
            raise DataError(f"cannot read {path}: it is a device, pipe or socket", op=op, help="name a file")
        with path.open("rb") as raw:
            yield raw


@contextmanager
def open_bytes(path: Path, op: str) -> Iterator[io.BufferedIOBase]:
    """Give the bytes of a regular file, decompressed if its first two bytes (not its name) say gzip.

    Raises:
        DataError: the file is missing, not a regular file, not readable, or its gzip data is damaged.
    """
    with open_raw(path, op) as raw:
        packed = raw.read(len(GZIP_MAGIC)) == GZIP_MAGIC
        raw.seek(0)
        if packed:
            with gzip.GzipFile(fileobj=raw) as unpacked:
                yield unpacked
        else:
            yield raw


def read_at_most(stream: io.BufferedIOBase, count: int) -> bytes:
    """Read up to `count` bytes in pieces, so that a header that lies about its size claims no memory."""
    parts, left = [], count
    while left > 0:
        part = stream.read(min(left, CHUNK))
        if not part:
            break
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def head_of(path: Path, op: str, count: int = 16) -> bytes:
    """Return the first `count` bytes of a file, after gzip is undone."""
    with open_bytes(path, op) as stream:
        return read_at_most(stream, count)
