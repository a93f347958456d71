"""The command in a process of its own, with warnings as errors."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from typing import Any

START = "import sys; from minimp.cli import main; sys.exit(main())"
PATIENCE = 120
"""Seconds for a command that takes a few, on a machine that has more to do."""


def environment() -> dict[str, str]:
    """Return this process's environment, with the packages under test where Python finds them."""
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def process(*arguments: str, script: str = START, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the command, or a script of its own, and wait for it."""
    options = {"env": environment(), "capture_output": True, "text": True, "timeout": PATIENCE} | options
    return subprocess.run([sys.executable, "-W", "error", "-c", script, *arguments], check=False, **options)


def on_a_terminal(*arguments: str, **variables: str) -> tuple[int, str]:
    """Run the command on a pseudo-terminal; return its exit code and what it wrote there.

    One that has not ended after `PATIENCE` seconds is killed; subprocess.TimeoutExpired holds what it wrote.
    """
    ours, theirs = pty.openpty()
    made = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", START, *arguments],
        stdout=theirs, stderr=theirs, stdin=theirs, env=environment() | variables,
    )  # fmt: skip
    os.close(theirs)
    written, end = b"", time.monotonic() + PATIENCE
    try:
        while part := _read(ours, end):
            written += part
        return made.wait(max(0.0, end - time.monotonic())), written.decode()
    except subprocess.TimeoutExpired:
        raise subprocess.TimeoutExpired(made.args, PATIENCE, written) from None
    finally:
        made.kill()  # nothing where it has ended
        made.wait()
        os.close(ours)


def _read(terminal: int, end: float) -> bytes:
    """Return what was written next; nothing where the terminal's last user has left."""
    if not select.select([terminal], [], [], max(0.0, end - time.monotonic()))[0]:
        raise subprocess.TimeoutExpired("", PATIENCE)
    try:
        return os.read(terminal, 65536)
    except OSError:  # EIO
        return b""
