"""The cost of being listened to; oracle: the same losses without hooks, and a listener that hears nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import minimp as mp
from minimp import door
from minimp.benchmarks import listening
from minimp.benchmarks.listening import deaf_codes, listening_cost, running
from minimp.benchmarks.workloads import WORKLOADS, minimp_step
from minimp.modes import listen


def heard() -> list[str]:
    """Return the phases that a listener hears of one product and its gradient."""
    events: list[Any] = []
    x = mp.tensor(np.ones((2, 2), np.float32), requires_grad=True)
    with listen(events.append):
        (x @ x).sum().backward()
    return [event.phase for event in events]


def test_without_hooks_nothing_is_heard_and_afterwards_all() -> None:
    """Oracle: the events of two ops forward and backward, before and after; none in between."""
    before = heard()
    assert before == ["forward", "forward", "backward", "backward"]
    with running(deaf_codes()):
        assert heard() == []
    assert heard() == before


def test_without_hooks_the_losses_are_the_same() -> None:
    """Oracle: the losses of three steps, bit for bit."""
    losses = []
    for codes in ({}, deaf_codes()):
        run = minimp_step(WORKLOADS["mlp"], "mixed-fp16")
        with running(codes):
            losses.append([run() for _ in range(3)])
    assert losses[0] == losses[1]


def test_what_failed_inside_leaves_the_hooks() -> None:
    """Oracle: the code of the door, before and after an error."""
    code = door.Op.__call__.__code__
    seen = []

    def fail() -> None:
        with running(deaf_codes()):
            seen.append(door.Op.__call__.__code__)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert seen[0] is not code
    assert door.Op.__call__.__code__ is code


def test_the_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: a clock by hand: 6 with hooks and 5 without is 1.2; the calls really run."""
    losses: list[float] = []
    monkeypatch.setattr(listening, "minimp_step", lambda *_: lambda: losses.append(1.0))

    def interleave(contenders: Any, rounds: int) -> dict[str, list[float]]:
        for call in contenders.values():
            call()
        return {name: [6.0 if name[0] == "a" else 5.0] * rounds for name in contenders}

    monkeypatch.setattr(listening, "interleave", interleave)
    figure = listening_cost("cnn", 3, steps=2)
    assert (figure.value, figure.target, figure.at_most, figure.reached) == (1.2, 1.02, True, False)
    assert figure.name.startswith("cnn: ")
    assert len(losses) == 8


def test_a_door_without_hooks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: an error: nothing would be measured."""
    monkeypatch.setattr(listening, "_deaf", lambda _: None)
    with pytest.raises(RuntimeError, match="found in nothing"):
        deaf_codes()
