"""Runs that are killed; oracle: the uninterrupted run, every byte of its last checkpoint and its log."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from minimp.checkpoint import load
from minimp.runlog import read_log
from tests.checkpoint.killed_run import CHECKPOINT, LOG, PHASES, STATUS, WRITING, Status, make_run
from tests.checkpoint.states import environment
from tests.trainer.runs import timeless

PATIENCE = 60.0  # seconds
LONGEST_LIFE = 0.2  # seconds that a life has after its beginning


def wait_until(reached: Callable[[], bool]) -> None:
    """Wait until something holds."""
    until = time.monotonic() + PATIENCE
    while not reached():
        assert time.monotonic() < until, "the run does not get there"


def live_and_die(runs: subprocess.Popen[str], status: Status, chance: random.Random, aim: str | None) -> str:
    """Begin or go on with a run, kill it (SIGKILL), and return the phase in which it died.

    Args:
        runs: the process that begins a life at each line.
        status: where the run says its phase.
        chance: draws the moment.
        aim: the phase to be killed in; None takes a random moment of a life, its beginning included.
    """
    assert runs.stdin is not None
    assert runs.stdout is not None
    status.phase = "begin"
    runs.stdin.write("\n")
    runs.stdin.flush()
    number = int(runs.stdout.readline())
    try:
        if aim is not None or chance.random() < 0.9:
            wait_until(lambda: status.phase != "begin")
        time.sleep(chance.uniform(0, LONGEST_LIFE))
        if aim is not None:
            wait_until(lambda: status.phase == aim)
            time.sleep(chance.uniform(0, 0.001))
    finally:
        os.kill(number, signal.SIGKILL)
        assert int(runs.stdout.readline()) == -signal.SIGKILL
    return status.phase


def check_what_is_left(folder: Path) -> None:
    """Hold the folder of a killed run to: the last complete checkpoint, a log up to it, no pile of files."""
    files = {each.name: each.stat().st_size for each in folder.iterdir()}
    leftovers = [name for name in files.keys() - {LOG, CHECKPOINT, STATUS} if files[name]]
    assert len(leftovers) <= 1
    if CHECKPOINT in files:
        step = load(folder / CHECKPOINT, require_checksum=True)["step"]
        assert step >= Status(folder).saved  # what was reported to be complete is there
        assert len(read_log(folder / LOG)) >= step
    else:
        assert Status(folder).saved == 0


def kill_and_compare(tmp_path: Path, kills: int) -> Counter[str]:
    """Kill one run so many times, let it end, and hold it to one without a break; return where it died."""
    chance, died = random.Random(kills), Counter[str]()
    folder, straight = tmp_path / "killed", tmp_path / "straight"
    for each in (folder, straight):
        each.mkdir()
    command, pipe = [sys.executable, "-m", "tests.checkpoint.killed_run", str(folder)], subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment()) as runs:
        for number in range(kills):
            aim = chance.choice(PHASES[1:]) if number % 2 else None
            died[live_and_die(runs, Status(folder), chance, aim)] += 1
            check_what_is_left(folder)
    last = make_run(folder)
    last.resume()
    done = last.done
    last.run(5)
    whole = make_run(straight, checkpoint_every=0)
    assert whole.run(done + 5).skipped > 0  # the loss scale had work to do
    assert (folder / CHECKPOINT).read_bytes() == (straight / CHECKPOINT).read_bytes()
    assert timeless(read_log(folder / LOG)) == timeless(read_log(straight / LOG))
    assert done > 0
    print(f"\n{kills} kills in {done} steps, by where the run was: {dict(died.most_common())}")
    return died


def test_killed_ten_times(tmp_path: Path) -> None:
    """Oracle: the run without a break, to the byte; five kills at random moments, five of them aimed."""
    assert sum(kill_and_compare(tmp_path, 10).values()) == 10


@pytest.mark.slow
def test_killed_a_hundred_times(tmp_path: Path) -> None:
    """Oracle: as above; at least 30 of the kills fall into the writing of a checkpoint, into every part."""
    died = kill_and_compare(tmp_path, 100)
    assert sum(died.values()) == 100
    assert sum(died[phase] for phase in WRITING) >= 30
    assert all(died[phase] for phase in WRITING)
