"""MINIMP_DEBUG; oracle: fresh interpreters, their two streams and exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

THREADS = """
import threading
import minimp as mp
x = mp.tensor([1e-9])
threads = [threading.Thread(target=x.half) for _ in range(2)]
for thread in threads:
    thread.start()
    thread.join()
x.half()
with mp.debug(0):
    x.half()
print("end")
"""


def run(level: str, *command: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run Python under MINIMP_DEBUG=level."""
    settings = {**os.environ, "MINIMP_DEBUG": level}
    return subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, env=settings, timeout=120,
        check=False, cwd=folder,
    )  # fmt: skip


def test_it_acts_in_every_thread_and_a_block_can_silence_it() -> None:
    """Oracle: three casts heard, of which each made one zero; the one in debug(0) is not."""
    done = run("2", "-c", THREADS)
    assert done.stdout == "end\n"
    line = "minimp 2 fwd cast float32->float16  [1]          |max| 0         made 1 zeros 0 infs"
    assert done.stderr.splitlines() == [line] * 3


@pytest.mark.parametrize("level", ["0", "", " "])
def test_off_writes_nothing(level: str) -> None:
    """Oracle: an empty stderr."""
    done = run(level, "-c", THREADS)
    assert (done.stdout, done.stderr, done.returncode) == ("end\n", "", 0)


@pytest.mark.parametrize("level", ["7", "x"])
def test_what_is_no_level_does_not_break_an_import(level: str) -> None:
    """Oracle: importing and making tensors works; the first op raises one SettingError of ours."""
    code = (
        "import minimp as mp\n"
        "x = mp.tensor([1.0])\n"
        "try:\n"
        "    x + x\n"
        "except mp.errors.SettingError as fault:\n"
        "    print(fault)\n"
    )
    done = run(level, "-c", code)
    assert done.stdout.startswith(f"MINIMP_DEBUG: expected a level from 0 to 4, got {level!r}")
    assert (done.stderr, done.returncode) == ("", 0)


def test_the_command_keeps_its_output_apart(tmp_path: Path) -> None:
    """Oracle: what a run without it writes: the same stdout but for times, the same JSON; lines on stderr."""
    command = ("-m", "minimp", "train", "--steps", "1", "--quiet", "--json", "made.json")
    found = []
    for level in ("0", "1"):
        folder = tmp_path / level
        folder.mkdir()
        done = run(level, *command, folder=folder)
        assert done.returncode == 0
        assert "minimp 1" not in done.stdout
        found.append((done.stderr, json.loads((folder / "made.json").read_text("utf-8")).keys()))
    (silent, plain), (told, seen) = found
    assert "minimp 1" not in silent
    assert told.startswith("minimp 1 step  1     loss ")
    assert plain == seen


def test_the_command_says_what_is_wrong(tmp_path: Path) -> None:
    """Oracle: exit code 2 and one error, as of every setting that is wrong."""
    done = run("9", "-m", "minimp", "train", "--steps", "1", "--quiet", folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("MINIMP_DEBUG") == 1
    assert "Traceback" not in done.stderr
