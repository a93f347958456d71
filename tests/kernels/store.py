"""Compiled things, kept between test runs by their content: the same source is not compiled twice."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

__all__ = ["folder", "kept"]


def folder() -> Path:
    """Return the store's folder, which is this user's alone: libraries from it are loaded."""
    path = Path(tempfile.gettempdir()) / f"minimp-kernel-tests-{os.getuid()}"
    path.mkdir(mode=0o700, exist_ok=True)
    status = path.stat()
    assert status.st_uid == os.getuid(), f"{path} belongs to somebody else"
    assert not status.st_mode & 0o022, f"{path} can be written by others"
    return path


def kept(name: str, make: Callable[[Path], None]) -> Path:
    """Return the file of that name; where it is missing, `make(path)` writes it first."""
    path = folder() / name
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=folder()) as scratch:
            made = Path(scratch) / name
            make(made)
            made.replace(path)
    return path
