"""`minimp train` killed and resumed; oracle: the command without a break, every file of it, bit for bit."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from minimp.checkpoint import load
from minimp.cli import main
from minimp.runlog import read_log
from tests.checkpoint.states import environment
from tests.trainer.runs import timeless

OPTIONS = ("--recipe", "mixed-fp16", "--seed", "3")
LOG, CHECKPOINT, WEIGHTS = "log.jsonl", "checkpoint.safetensors", "weights.safetensors"
PATIENCE = 60.0  # seconds


def run_and_kill(steps: int, *arguments: str) -> Path:
    """Start the command, kill it (SIGKILL) when its log has that many steps more; return the run's folder."""
    command = [sys.executable, "-m", "minimp", "train", "--quiet", *arguments]
    wanted, until = steps + sum(map(logged, Path("runs").glob("*"))), time.monotonic() + PATIENCE
    with subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE) as process:
        while sum(map(logged, Path("runs").glob("*"))) < wanted:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < until, "the run does not begin"
            time.sleep(0.002)
        process.kill()
        assert process.wait() == -signal.SIGKILL
    (folder,) = Path("runs").iterdir()
    return folder


def logged(folder: Path) -> int:
    """Return how many lines the log of a run has."""
    log = folder / LOG
    return log.read_bytes().count(b"\n") if log.exists() else 0


@pytest.mark.slow
def test_killed_and_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the run in one piece. It was killed twice, first when it had no checkpoint but that of
    step 0; --resume alone finds the run, and no pile of files is left.
    """
    monkeypatch.chdir(tmp_path)
    folder = run_and_kill(5, "--steps", "1000000", "--checkpoint-every", "100000", *OPTIONS)
    assert load(folder / CHECKPOINT)["step"] == 0
    assert run_and_kill(45, "--resume", "--checkpoint-every", "20") == folder
    done = load(folder / CHECKPOINT, require_checksum=True)["step"]
    assert done >= 20
    steps = str(done + 5)
    assert main(["train", "--quiet", "--resume", "--steps", steps]) == 0
    options = ("--out", "straight", "--steps", steps, "--checkpoint-every", "20", *OPTIONS)
    assert main(["train", "--quiet", *options]) == 0
    straight = Path("straight")
    assert sorted(each.name for each in folder.iterdir()) == [CHECKPOINT, LOG, WEIGHTS]
    for name in (CHECKPOINT, WEIGHTS):
        assert (folder / name).read_bytes() == (straight / name).read_bytes()
    assert timeless(read_log(folder / LOG)) == timeless(read_log(straight / LOG))


def test_the_help_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    """Oracle: the words that someone looks for whose run has died."""
    assert main(["train", "--help"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    for words in ("killed at any instant", "--resume [DIR]", "last in runs/", "steps between checkpoints"):
        assert words in said
