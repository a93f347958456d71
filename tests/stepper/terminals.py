"""The screen in a process of its own, on a pseudo-terminal of a size."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.cli.processes import START, environment

PLACED = re.compile(rb"\x1b(\[[0-9;?<>=]*[a-zA-Z]|\][^\x07\x1b]*(\x07|\x1b\\)|[()][A-Z0-9]|[=>])")
"""What places and colours text: no text itself."""
SOON = 60.0
"""Seconds in which a slow machine has done what a person waits for."""


class Terminal:
    """A process at the other end of a terminal.

    Attributes:
        said: the text that it has written since the last keys.
    """

    def __init__(self, process: subprocess.Popen[bytes], ours: int) -> None:
        self.process, self.ours = process, ours
        self._written = b""

    @property
    def said(self) -> str:
        """The text since the last keys, what places it aside."""
        return PLACED.sub(b" ", self._written).decode(errors="replace")

    def type(self, keys: str, words: str = "") -> None:
        """Press keys; then read until some words have come."""
        self._written = b""
        os.write(self.ours, keys.encode())
        self.await_words(words)

    def await_words(self, words: str) -> None:
        """Read until some words have come."""
        end = time.monotonic() + SOON
        while words not in self.said:
            assert time.monotonic() < end, self.said[-2000:]
            assert self._read(), self.said[-2000:]

    def rest(self, seconds: float) -> None:
        """Read for so long."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and self._read():
            pass

    def seconds_to_end(self, most: float) -> float:
        """Read until the process has ended; return how long that took, or infinity."""
        begun = time.monotonic()
        while self.process.poll() is None:
            if time.monotonic() - begun > most:
                return float("inf")
            self._read()
        return time.monotonic() - begun

    def _read(self) -> bool:
        """Read what is there, waiting a little; false where the other end has gone."""
        if not select.select([self.ours], [], [], 0.02)[0]:
            return True
        try:
            part = os.read(self.ours, 65536)
        except OSError:  # EIO: the terminal's last user has left
            return False
        self._written += part
        return bool(part)


@contextmanager
def terminal(*command: str, size: tuple[int, int] = (80, 24)) -> Iterator[Terminal]:
    """Run Python's arguments on a terminal, and end them however the block ends; none: `minimp step`."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))
    process = subprocess.Popen(
        [sys.executable, *(command or ("-c", START, "step"))],
        stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        env=environment() | {"TERM": "xterm-256color"},
    )  # fmt: skip
    os.close(theirs)
    try:
        yield Terminal(process, ours)
    finally:
        process.kill()
        process.wait()
        os.close(ours)
