"""Compiled kernels on disk, by content: whatever could change the machine code is in the name.

The folder is ``$MINIMP_CACHE/kernels``, or ``minimp/kernels`` in the user's cache (``$XDG_CACHE_HOME``, or
``~/.cache``). An entry's name holds a hash of what it was compiled from and a hash of its own bytes: one that
was cut short or changed does not fit its name and is compiled again. Entries are written aside and moved into
place, so that another process sees a whole entry or none. Deleting the folder costs a compilation, no more.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["VARIABLE", "Kept", "fetch", "folder"]

VARIABLE = "MINIMP_CACHE"
_SHORT = 32  # hexadecimal digits of a hash in a name: 128 bits


@dataclass(frozen=True)
class Kept:
    """A compiled kernel.

    Attributes:
        data: the bytes.
        path: the file that holds them; None where it could not be written.
    """

    data: bytes
    path: Path | None


def folder() -> Path:
    """Return the folder of the cache, which may not exist yet."""
    chosen = os.environ.get(VARIABLE)
    if chosen:
        return Path(chosen).expanduser() / "kernels"
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "minimp" / "kernels"


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:_SHORT]


def _entry(place: Path, key: str) -> Kept | None:
    """The entry of that key, if it is there and whole."""
    try:
        for path in sorted(place.glob(f"{key[:_SHORT]}-*.bin")):
            data = path.read_bytes()
            if path.stem == f"{key[:_SHORT]}-{_hash(data)}":
                return Kept(data, path)
    except OSError:  # a folder that cannot be read is an empty one; writing to it will say why
        pass
    return None


def _write(place: Path, key: str, data: bytes) -> Path:
    place.mkdir(parents=True, exist_ok=True)
    path = place / f"{key[:_SHORT]}-{_hash(data)}.bin"
    handle, scratch = tempfile.mkstemp(dir=place, prefix=".", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        Path(scratch).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(scratch).unlink()
        raise
    for other in place.glob(f"{key[:_SHORT]}-*.bin"):
        with contextlib.suppress(OSError):
            if other.stem != f"{key[:_SHORT]}-{_hash(other.read_bytes())}":
                other.unlink()  # what fits its name another process may be about to load
    return path


def fetch(key: str, make: Callable[[], bytes]) -> Kept:
    """Return the entry of a key; where there is none, or it is damaged, ``make()`` is called and kept.

    A disk that is full or may not be written to is no failure, nor is a user without a home: the bytes come
    back without a file, and a warning says why.

    Args:
        key: the hexadecimal SHA-256 of everything that the bytes depend on.
        make: compiles.
    """
    try:
        place = folder()
    except RuntimeError as fault:  # Path.home(): neither $HOME nor an entry of the user
        return _unkept(make(), "the user's cache", fault)
    found = _entry(place, key)
    if found:
        return found
    data = make()
    try:
        return Kept(data, _write(place, key, data))
    except OSError as fault:
        return _unkept(data, place, fault.strerror or fault)


def _unkept(data: bytes, place: object, why: object) -> Kept:
    warnings.warn(
        f"a compiled kernel could not be kept in {place} ({why}); the next process will compile it again. "
        f"Set {VARIABLE} to a folder that can be written to",
        stacklevel=3,
    )
    return Kept(data, None)
