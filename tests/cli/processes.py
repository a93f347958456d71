"""The command in a process of its own, with warnings as errors."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from typing import Any

START = "import sys; from minimp.cli import main; sys.exit(main())"


def environment() -> dict[str, str]:
    """Return this process's environment, with the packages under test where Python finds them."""
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def process(*arguments: str, script: str = START, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the command, or a script of its own, and wait for it."""
    options = {"env": environment(), "capture_output": True, "text": True, "timeout": 120} | options
    return subprocess.run([sys.executable, "-W", "error", "-c", script, *arguments], check=False, **options)


def on_a_terminal(*arguments: str, **variables: str) -> tuple[int, str]:
    """Run the command on a pseudo-terminal; return its exit code and what it wrote there."""
    ours, theirs = pty.openpty()
    made = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", START, *arguments],
        stdout=theirs, stderr=theirs, stdin=theirs, env=environment() | variables,
    )  # fmt: skip
    os.close(theirs)
    written = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # EIO: the terminal's last user has left
            break
        if not part:
            break
        written += part
    os.close(ours)
    return made.wait(), written.decode()
