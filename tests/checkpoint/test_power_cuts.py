"""A run under power cuts; oracle: the uninterrupted run, after every cut that POSIX allows (`power`)."""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path

import pytest

from minimp.checkpoint import load
from minimp.runlog import read_log
from tests.checkpoint.killed_run import CHECKPOINT, LOG, make_run
from tests.files.power import Folder, Recorder
from tests.trainer.runs import timeless

STEPS = 3


def record_a_run(folder: Path, monkeypatch: pytest.MonkeyPatch, *, resumed: bool) -> list[tuple[int, Folder]]:
    """Return all power cuts of a run of three steps, new or resumed, with a checkpoint after each."""
    if resumed:
        first = make_run(folder)
        first.run(2)
        kept = (folder / CHECKPOINT).read_bytes()
        first.run(1)  # a step that the log has, and the checkpoint has not
        (folder / CHECKPOINT).write_bytes(kept)
    with monkeypatch.context() as patch:
        recorder = Recorder(folder, patch)
        trainer = make_run(folder)
        if resumed:
            trainer.resume()
        trainer.run(STEPS)
    cuts = list(recorder.cuts())
    recorder.close()
    return cuts


@pytest.mark.parametrize("resumed", [False, True], ids=["new", "resumed"])
def test_the_last_checkpoint_and_its_log_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resumed: bool
) -> None:
    """Oracle: all cuts: a whole checkpoint, never older than at a cut before, and all lines up to its step.
    From ten of them, drawn at random, the run goes on, and ends as one without a break.
    """
    folder, scratch, straight = (tmp_path / name for name in ("run", "scratch", "straight"))
    for each in (folder, scratch, straight):
        each.mkdir()
    cuts = record_a_run(folder, monkeypatch, resumed=resumed)
    lines = (folder / LOG).read_bytes().splitlines(keepends=True)

    @cache
    def step_of(content: bytes) -> int:
        (scratch / CHECKPOINT).write_bytes(content)
        return int(load(scratch / CHECKPOINT, require_checksum=True)["step"])

    least: dict[int, int] = {}
    for count, found in cuts:
        assert CHECKPOINT in found or not any(found.get(LOG, b"").strip(b"\0"))
        step = step_of(found[CHECKPOINT]) if CHECKPOINT in found else -1
        least[count] = min(step, least.get(count, step))
        assert without_times(found.get(LOG, b""), step) == without_times(b"".join(lines), step)
    assert sorted(least.values()) == list(least.values())
    assert least[max(least)] == len(lines)

    whole = make_run(straight, checkpoint_every=0)
    whole.run(8)
    with_checkpoint = [found for _, found in cuts if CHECKPOINT in found]
    for found in random.Random(0).sample(with_checkpoint, 10):
        for old in scratch.iterdir():
            old.unlink()
        for name, content in found.items():
            (scratch / name).write_bytes(content)
        again = make_run(scratch)
        again.resume()
        again.run(8 - again.done)
        assert (scratch / CHECKPOINT).read_bytes() == (straight / CHECKPOINT).read_bytes()
        assert timeless(read_log(scratch / LOG)) == timeless(read_log(straight / LOG))


def without_times(log: bytes, step: int) -> list[bytes]:
    """Return the lines of the first steps up to what differs from run to run, their seconds."""
    return [line.split(b'"seconds"')[0] for line in log.splitlines(keepends=True)[: max(step, 0)]]
