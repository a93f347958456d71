"""The screen on a terminal as people have it: it ends when it is told to, and loses no key."""

from __future__ import annotations

import sys
from pathlib import Path
from threading import Event

import pytest

from minimp.stepper.hand import Hand
from tests.cli.processes import START
from tests.stepper.terminals import terminal

pytest.importorskip("textual")

from minimp.stepper.screen import PATIENCE

TRIES = 3
AT_ONCE = 20.0
"""Seconds in which a process has gone that nothing holds: textual and Python end in half of one, later where
the machine has more to do; what is left behind here would go on for minutes."""
LONG = ":run op == softmax within 50000\r"
SLEEPER = """
import time
import minimp as mp
from minimp import nn, optim

class Sleeper(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, x):
        print("sleeps", flush=True)
        time.sleep(600)
        return self.layer(x)

model = Sleeper()
step = mp.TrainStep(model, lambda y, t: (y * y).mean(), optim.SGD(model.parameters(), lr=0.1), "fp32")
inputs, targets = mp.ones(3, 2), mp.ones(3, 2)
"""
WAYS = {
    "idle": (),
    "while it runs": ((LONG, "Esc stops"),),
    "after a stop": ((LONG, "Esc stops"), ("\x1b", "stopped")),
    "in one breath with Esc": ((LONG, "Esc stops"), ("\x1b", "")),
}
"""What is done before `q`: keys, and words to wait for after them."""


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_q_ends_it_at_once(way: str) -> None:
    """Oracle: the process, which is gone with exit code 0, every time."""
    for _ in range(TRIES):
        with terminal() as user:
            user.await_words("quit")
            for keys, words in WAYS[way]:
                user.type(keys, words)
            user.type("q")
            assert user.seconds_to_end(10 * AT_ONCE) < AT_ONCE, user.said[-2000:]
            assert user.process.returncode == 0


@pytest.mark.slow
def test_a_model_that_never_comes_back_is_left(tmp_path: Path) -> None:
    """Oracle: a forward that sleeps for ten minutes; the process goes without it, and says nothing."""
    script = tmp_path / "sleeper.py"
    script.write_text(SLEEPER)
    with terminal("-c", START, "step", str(script)) as user:
        user.await_words("quit")
        user.type("n", "layer.weight")
        user.type("n", "Esc stops")
        user.type("q")
        assert user.seconds_to_end(10 * AT_ONCE) < AT_ONCE + PATIENCE, user.said[-2000:]
        assert user.process.returncode == 0
        assert "Traceback" not in user.said


@pytest.mark.slow
@pytest.mark.parametrize("text", ["step 3", "\x1b[200~step 3\x1b[201~"], ids=["typed", "pasted"])
def test_what_is_typed_ahead_is_the_command(text: str) -> None:
    """Oracle: the place after three stages: no letter of the line was lost, in one write with its colon."""
    with terminal() as user:
        user.await_words("quit")
        user.type(f":{text}\r", "stage 3/10 loss")


@pytest.mark.slow
def test_the_breakpoint_of_a_script_asks_at_its_terminal(tmp_path: Path) -> None:
    """Oracle: the op that overflows by hand; what the script prints when it goes on."""
    script = tmp_path / "mine.py"
    script.write_text(
        "import minimp as mp\n"
        "with mp.trace.break_when('overflow', 'debug'):\n"
        "    y = mp.tensor([300.0], dtype='float16') ** 2\n"
        "print('went', 'on')\n"
    )
    with terminal(str(script)) as user:
        user.await_words("(minimp) ")
        assert "overflow holds: pow" in user.said
        for line, words in (("show", "mine.py:3"), ("open out0", "inf"), ("stpe", "unknown command")):
            user.type(f"{line}\n", words)
            user.await_words("(minimp) ")
        user.type("continue\n", "went on")
        assert user.seconds_to_end(AT_ONCE) < AT_ONCE
        assert user.process.returncode == 0


def test_a_hand_does_one_thing_after_the_other_and_can_be_left() -> None:
    """Oracle: the order by hand; an end that waits for what is under way only as long as it was told to."""
    hand, done, free = Hand(), [], Event()
    assert Hand().end(0)  # one that was never used
    results = [hand.give(lambda i=i: done.append(i) or i * i) for i in range(5)]
    assert [each.result(60) for each in results] == [0, 1, 4, 9, 16]
    assert done == [*range(5)]
    with pytest.raises(KeyboardInterrupt):
        hand.give(_stop).result(60)
    begun = Event()
    last = hand.give(lambda: begun.set() or free.wait(60))
    assert begun.wait(60)
    assert not hand.end(0.01)
    free.set()
    assert last.result(60)
    assert hand.end(60)


def _stop() -> None:
    raise KeyboardInterrupt


def test_the_hand_holds_no_process() -> None:
    """Oracle: the interpreter's own word on which threads it waits for."""
    hand = Hand()
    hand.give(sys.getswitchinterval).result(60)
    assert hand._thread.daemon
    assert hand.end(60)
