"""Breakpoints: they stop at the op that was planted, forward and backward, by the user's line."""

from __future__ import annotations

import os
import sys

import numpy as np
import pytest

import minimp as mp
from minimp import trace
from minimp.errors import BreakpointError, SettingError
from tests.trace.cases import batch, grown, make_step


def test_a_forward_op_is_stopped_at_with_its_line_and_values() -> None:
    """Oracle: the layer that was grown by hand; this line of this file; NumPy on the kept values."""
    step = make_step(change=grown(2, 1.5e5))
    before = {name: p.array.tobytes() for name, p in step.model.named_parameters()}
    line = sys._getframe().f_lineno + 2
    with pytest.raises(BreakpointError) as stop, trace.break_when("overflow"):
        step(*batch())
    event = stop.value.event
    assert (event.op, event.module, event.phase, event.stage) == ("linear", "2", "forward", "forward")
    assert event.source.endswith(f"test_breaking.py:{line}")
    kept = stop.value.trace.values(event)
    assert np.isinf(kept["out0"].astype(np.float32)).sum() == event.overflowed > 0
    text = str(stop.value)
    assert f"test_breaking.py:{line}" in text
    assert "linear in 2" in text
    assert "input 1: float16[16, 16]" in text
    assert {name: p.array.tobytes() for name, p in step.model.named_parameters()} == before
    assert mp.modes.MODES.get().listeners == ()


def test_a_gradient_is_stopped_at_with_both_lines() -> None:
    """Oracle: by hand: the line of the forward, and that of backward."""
    x = mp.tensor([0.0, 4.0], requires_grad=True)
    forward = sys._getframe().f_lineno + 3

    def run() -> None:
        y = x.sqrt()
        y.sum().backward()

    with pytest.raises(BreakpointError) as stop, trace.break_when("phase == backward and nonfinite"):
        run()
    assert stop.value.event.title == "sqrt backward"
    assert f"test_breaking.py:{forward} of its forward; backward was called at" in str(stop.value)
    assert f"test_breaking.py:{forward + 1}" in str(stop.value)
    assert x.grad is None


def test_a_stage_is_stopped_at_once() -> None:
    """Oracle: by hand: the stage `clip` is the last that ran; no error hides another."""
    step = make_step()
    with pytest.raises(BreakpointError) as stop, trace.break_when("phase == stage and op == clip"):
        step(*batch())
    assert stop.value.event.op == "clip"
    assert stop.value.__context__ is None
    assert stop.value.trace.events[-1] is stop.value.event


def test_an_op_inside_of_a_stage_raises_once() -> None:
    """Oracle: the first event of the stage: the stage that it broke raises no second error."""
    step = make_step()
    with pytest.raises(BreakpointError) as stop, trace.break_when("stage == backward"):
        step(*batch())
    assert stop.value.event.phase == "backward"
    assert stop.value.__context__ is None


def test_a_function_of_the_event_goes_on() -> None:
    """Oracle: the same step without breakpoints: its report, and the events that were counted."""
    seen: list[trace.TraceEvent] = []
    with trace.break_when(lambda event: event.op == "relu", seen.append) as kept:
        report = make_step()(*batch())
    assert [event.title for event in seen] == ["relu", "relu", "relu backward", "relu backward"]
    assert report == make_step()(*batch())
    assert len(kept.values(seen[0])) == 2
    assert not kept.values(seen[0].number + 1)


def test_where_nobody_can_be_asked_it_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: by hand: standard input is a pipe that never ends; the error has the event, and says why."""
    ours, theirs = os.pipe()
    x = mp.tensor([1e-5, 2.0], dtype=mp.float16)
    with os.fdopen(ours) as pipe:
        monkeypatch.setattr(sys, "stdin", pipe)
        with pytest.raises(BreakpointError) as stop, trace.break_when("underflow > 10%", "debug"):
            x * x
    os.close(theirs)
    assert stop.value.event.op == "mul"
    assert "underflow > 10% holds: mul" in str(stop.value)
    assert "standard input is no terminal" in str(stop.value)
    assert "pytest: with -s" in str(stop.value)
    assert stop.value.__context__ is None


def test_a_condition_on_errors_has_a_shadow() -> None:
    """Oracle: the same op recorded with a shadow; half an ulp is what a rounding makes at most."""
    x = mp.tensor([1.1, 2.3])
    with pytest.raises(BreakpointError) as stop, trace.break_when("error > 1e-5"):
        (x * 3.0).half()
    assert stop.value.event.op == "cast"
    assert stop.value.event.errors[0].made.max_ulp <= 0.5


def test_names_alone_take_no_statistics() -> None:
    """Oracle: the event: without statistics, which cost."""
    x = mp.tensor([1.1, 2.3])
    with pytest.raises(BreakpointError) as stop, trace.break_when("op == tanh"):
        (x * 3.0).tanh()
    assert stop.value.event.outputs[0].stats is None


def test_what_cannot_act_is_refused() -> None:
    """Oracle: the docstring."""
    with pytest.raises(SettingError, match="unknown action 'rase'; did you mean 'raise'"):
        trace.break_when("nonfinite", "rase")
    with pytest.raises(SettingError, match="unknown word"):
        trace.break_when("nonfinit")
    assert issubclass(BreakpointError, RuntimeError)
