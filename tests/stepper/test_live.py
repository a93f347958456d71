"""A computation that stands still: its ops so far, looked at from a prompt, and how it goes on."""

from __future__ import annotations

import builtins
import os
import pty
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minimp as mp
from minimp import trace
from minimp.errors import BreakpointError
from minimp.stepper.live import COMMANDS, ENDINGS
from tests.cli.processes import environment
from tests.trace.cases import batch, grown, make_step

Ask = Callable[..., list[str]]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Ask]:
    """Give lines to the prompt as a notebook does, in place of `input`; return what was answered to each."""

    def play(*lines: str | BaseException, block: Callable[[], Any], condition: str = "overflow") -> list[str]:
        said, answers = iter(lines), []

        def answer(_: str = "") -> str:
            answers.append(capsys.readouterr().out)
            each = next(said)
            if isinstance(each, str):
                return each
            raise each

        monkeypatch.setattr(builtins, "input", answer)
        try:
            with trace.break_when(condition, "debug"):
                block()
        finally:
            answers.append(capsys.readouterr().out)
        return answers

    yield play
    assert mp.modes.MODES.get() == mp.modes.DEFAULT_MODES


def plain() -> Any:
    """A step that overflows in its second layer, run once."""
    return make_step(change=grown(2, 1.5e5))(*batch())


def test_it_shows_the_op_at_hand_and_goes_on(told: Ask) -> None:
    """Oracle: the layer that was grown by hand; NumPy on the same product; the plain report."""
    reports: list[Any] = []
    first, shown, where, opened, bits, checked, _ = told(
        "show", "where", "open out0 nonfinite", "bits 0,0", "check", "finish",
        block=lambda: reports.append(plain()),
    )  # fmt: skip
    assert "overflow holds: linear in 2" in first
    assert "`help` lists the commands" in first
    assert shown.startswith("at the breakpoint, step 1, stage forward\n#")
    assert "linear in 2   at tests/stepper/test_live.py:" in shown.replace("\\", "/")
    assert "y = x W^T + b" in shown
    assert "overflowed" in shown
    assert "by binade" in shown or "inf" in shown
    assert where.startswith("at the breakpoint, step 1, stage forward: #")
    model = make_step(change=grown(2, 1.5e5)).model
    x = batch()[0].astype(np.float16).astype(np.float32)
    hidden = np.maximum(x @ model[0].weight.array.astype(np.float16).astype(np.float32).T, 0)
    assert f"out0 float16[{len(hidden)}x16], nonfinite" in opened
    assert "out0[0,0] in float16" in bits
    assert checked.startswith("ok: linear: formats and error bound")
    assert repr(reports) == repr([plain()])  # the loss is NaN


def test_it_goes_up_and_down_the_ops_so_far(told: Ask) -> None:
    """Oracle: the same step recorded: its events, in order, and their values."""
    made = make_step(change=grown(2, 1.5e5))
    with trace.record(values="all") as known:
        made(*batch())
    stop = next(event for event in known.events if event.overflowed)
    lines = ["up"] * stop.number + [
        "up",
        "down 2",
        f"go #{stop.number}",
        "go 999",
        "down",
        "list 3",
        "finish",
    ]
    answers = told(*lines, block=plain)[1:]
    for event, answer in zip(reversed(known.events[: stop.number]), answers, strict=False):
        assert answer.split("\n")[0].startswith(f"{stop.number - event.number} before the breakpoint")
        title = f"{event.op}   " if event.phase == "stage" else f"#{event.number} {event.title}"
        assert answer.split("\n")[1].startswith(title)
    past, down, back, far, further, listed, *_ = answers[stop.number :]
    assert past.startswith("error: go: #0 is the first that is kept")
    assert f"\n#{2} " in down
    assert f"\n#{stop.number} linear in 2" in back
    assert far.startswith("error")
    assert further.startswith("error")
    assert [line.split()[-2:] for line in listed.splitlines()][-1][-1] == "!inf"
    assert f"> #{stop.number}" in listed


def test_stages_show_their_tensors(told: Ask) -> None:
    """Oracle: the name of the weight and its format, by hand; a stage is not proved here."""
    answers = told(
        "show", "open 0.weight", "check", "continue", "open 2.weight", "finish",
        block=lambda: make_step()(*batch()),
        condition="phase == stage and (op == backward or op == unscale)",
    )  # fmt: skip
    assert "backward   g16 = dL'/dw16" in answers[1]
    assert "0.weight" in answers[1]
    assert answers[2].startswith("0.weight float32[16x12]")
    assert "this is a stage" in answers[3]
    assert "holds: stage unscale" in answers[4]
    assert answers[5].startswith("2.weight float32[16x16]")


def test_it_is_aborted_by_word_and_by_the_end_of_input(told: Ask) -> None:
    """Oracle: the error that action="raise" has, its event included; Ctrl-C stays Ctrl-C."""
    with pytest.raises(BreakpointError) as wanted, trace.break_when("overflow"):
        plain()
    for end in ("abort", "quit", EOFError()):
        with pytest.raises(BreakpointError) as stop:
            told("where", end, block=plain)
        assert str(stop.value).split("\n")[0] == str(wanted.value).split("\n")[0]
        assert stop.value.event.number == wanted.value.event.number
        assert stop.value.__context__ is None
    with pytest.raises(KeyboardInterrupt):
        told(KeyboardInterrupt(), block=plain)


def test_continue_stops_again_and_finish_does_not(told: Ask) -> None:
    """Oracle: a count: the relu of each of three steps is met, forward and backward, twice in the model."""
    step = make_step()

    def three() -> None:
        for seed in range(3):
            step(*batch(seed))

    answers = told(*["continue"] * 12, block=three, condition="op == relu")
    assert sum("holds: relu" in each for each in answers) == 12
    answers = told("continue", "finish", block=three, condition="op == relu")
    assert sum("holds: relu" in each for each in answers) == 2


def test_python_starts_where_its_hook_says(told: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: Python's own hook: the names there, and the frame that as many `up` lead to."""
    seen: list[Any] = []

    def hook() -> None:
        frame = sys._getframe(1)
        seen.append((frame.f_locals["event"], frame.f_locals["trace"]))
        said = errors[-1] if errors else ""
        for _ in range(int(said.split()[1].strip("`"))):
            frame = frame.f_back
        seen.append(frame.f_code.co_name)

    errors: list[str] = []
    monkeypatch.setattr(sys.stderr, "write", errors.append)
    monkeypatch.setattr(sys, "breakpointhook", hook)

    def mine() -> None:
        mp.tensor([300.0], dtype=mp.float16) ** 2

    told("python", "finish", block=mine)
    (event, made), name = seen
    assert (event.op, made.events[-1].number, name) == ("pow", event.number, "mine")


def test_slips_are_told_and_every_answer_fits(told: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the width of the terminal; the words; every command of the table was used."""
    monkeypatch.setenv("COLUMNS", "80")
    lines = ["", "stpe", "help", "help open", "show", "up 3", "down", "go 1", "list", "where", "open in0",
             "more", "bits 0,0", "check", "why", "continue"]  # fmt: skip
    first, *answers = told(*lines, *["continue"] * 100, block=plain)
    assert all(len(line) <= 80 for each in [first, *answers] for line in each.split("\n")), first
    assert "did you mean" not in answers[0]
    assert "error: unknown command 'stpe'" in answers[1]
    assert all(each.usage in answers[2] for each in COMMANDS.values())
    assert "overflowed float16" in answers[14]
    used = {line.split()[0] for line in lines if line}
    assert {*COMMANDS} - used - {"python", "quit", *ENDINGS} == set()


def test_what_is_kept_of_the_past_is_bounded(told: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the bounds; the op at hand is always there."""
    x = mp.tensor(np.ones(1000, np.float32))

    def long() -> None:
        y = x
        for _ in range(300):
            y = y + 1.0
        y.tanh()

    listed = told("list 1000", "finish", block=long, condition="op == tanh")[1]
    assert len(listed.splitlines()) == 256
    monkeypatch.setattr("minimp.stepper.live.MOST_BYTES", 50_000)
    listed = told("list 1000", "finish", block=long, condition="op == tanh")[1]
    assert 1 < len(listed.splitlines()) <= 50_000 // 8000
    monkeypatch.setattr("minimp.stepper.live.MOST_BYTES", 10)
    assert len(told("list", "finish", block=long, condition="op == tanh")[1].splitlines()) == 1


@pytest.mark.slow
def test_it_asks_at_a_real_terminal(tmp_path: Path) -> None:
    """Oracle: a pseudo-terminal at both ends; standard output in a file leaves it the questions."""
    script = tmp_path / "mine.py"
    script.write_text(
        "import minimp as mp\n"
        "with mp.trace.break_when('overflow', 'debug'):\n"
        "    mp.tensor([300.0], dtype=mp.float16) ** 2\n"
        "print('went on')\n"
    )
    for out in (None, tmp_path / "out.txt"):
        ours, theirs = pty.openpty()
        with (out or script).open("ab" if out else "rb") as file:
            made = subprocess.Popen(
                [sys.executable, str(script)], stdin=theirs, stderr=theirs, stdout=file if out else theirs,
                env=environment(), cwd=tmp_path,
            )  # fmt: skip
        os.close(theirs)
        seen = until(ours, b"(minimp) ")
        os.write(ours, b"where\n")
        seen += until(ours, b"(minimp) ")
        os.write(ours, b"continue\n")
        assert made.wait(60) == 0
        assert b"overflow holds: pow" in seen
        assert b"at the breakpoint: #" in seen
        assert out.read_text() == "went on\n" if out else b"went on" in until(ours, b"went on")
        os.close(ours)


def until(terminal: int, words: bytes) -> bytes:
    """Read from a terminal until some words have come."""
    seen = b""
    while words not in seen:
        assert select.select([terminal], [], [], 60)[0], seen
        seen += os.read(terminal, 4096)
    return seen
