"""Breakpoints on numbers: stop at the op, forward or backward, for which a condition holds."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

from minimp.errors import BreakpointError, SettingError, plain, unknown_name
from minimp.modes import watch
from minimp.nn import Module
from minimp.tape import Event
from minimp.trace.conditions import Condition, as_condition
from minimp.trace.events import Side, TraceEvent
from minimp.trace.questions.tables import number
from minimp.trace.recording import record
from minimp.trace.sites import user_line
from minimp.trace.trace import Trace
from minimp.trace.values import Values

__all__ = ["ACTIONS", "break_when", "described"]

ACTIONS = {
    "raise": "raise BreakpointError",
    "debug": "ask at the terminal: the ops so far, their statistics, tensors and bits, Python's debugger; "
    "then go on or raise",
}
"""Action -> what is done where a condition holds."""
KEPT = 256
"""So many events are kept of what ran before."""
Action = Callable[[TraceEvent], object]


class break_when(record):  # noqa: N801 - reads as a statement: `with break_when("nonfinite"):`
    """Stop in the block where a condition holds, at that op, forward or backward.

    >>> import minimp as mp
    >>> x = mp.tensor([300.0, 2.0], dtype=mp.float16)
    >>> try:
    ...     with mp.trace.break_when("overflow"):
    ...         y = x * x
    ... except mp.errors.BreakpointError as stop:
    ...     print(stop.event.op, stop.event.overflowed)
    mul 1

    The condition is asked after each op, gradient and stage of a training step. The values of those for
    which it holds are kept: ``stop.trace.values(stop.event)``. Breaking in a stage leaves the weights as they
    were, up to stage `update`.

    Args:
        condition: text, see :mod:`minimp.trace.conditions`: ``"underflow > 1%"``, ``"op == softmax"``,
            ``"amax > 30000"``, ``"nonfinite"``; or a function of a TraceEvent.
        action: "raise" raises :class:`minimp.errors.BreakpointError`; "debug" asks at the terminal
            (:mod:`minimp.stepper.live`): one looks at the ops so far, and then goes on or raises; a function
            is called with the event, and the computation goes on when it returns.
        model: a module whose paths and parameter names events are to have, as of :class:`record`.

    Raises:
        SettingError: a condition that cannot be read, or an unknown action.
        BreakpointError: in the block; also of "debug", where standard input is no terminal.
    """

    def __init__(
        self, condition: str | Callable[[TraceEvent], Any] | Condition,
        action: str | Action = "raise", *, model: Module | None = None,
    ) -> None:  # fmt: skip
        self.condition = found = as_condition(condition)
        if not callable(action) and action not in ACTIONS:
            raise SettingError(
                unknown_name("action", action, ACTIONS),
                op="trace.break_when", help="or give a function that is called with the event",
            )  # fmt: skip
        self.action = action
        statistics = found.statistics or found.shadow or action == "debug"
        kept = Values("when", condition=found) if statistics else "none"
        self._finished = False
        super().__init__(statistics=statistics, shadow=found.shadow, values=kept, keep=KEPT, model=model)

    def __enter__(self) -> Trace:
        """Begin; a block is used once."""
        trace = super().__enter__()
        if self.action == "debug":
            assert self._open is not None
            self._past = debugger().Past()
            self._open.enter_context(watch(self._past))
        return trace

    def judge(self, event: TraceEvent, heard: Event | None) -> None:
        """Ask the condition, and act."""
        if heard is None and isinstance(sys.exc_info()[1], BreakpointError):
            return  # the stage that an op has just broken
        if self.action == "debug":
            self._past.take(event, heard)
        if self._finished or not self.condition(event):
            return
        if callable(self.action):
            self.action(event)
            return
        text = "\n".join([f"{self.condition} holds: {headline(event)}", *described(event)])
        advice = None
        if self.action == "debug":
            try:
                ending = debugger().ask(self._past, text, self._trace)
            except SettingError as fault:
                text, advice = f"{text}\n{plain(fault)}", fault.help
            else:
                self._finished = ending == "finish"
                if ending != "abort":
                    return
        stop = BreakpointError(text, op="trace.break_when", help=advice)
        stop.event, stop.trace = event, self._trace
        raise stop


def debugger() -> Any:
    """Return what asks at the terminal: it lies above, and is found by name when it is wanted."""
    return import_module("minimp.stepper.live")


def headline(event: TraceEvent) -> str:
    """Say which op, in which module."""
    return f"{event.title}{f' in {event.module}' if event.module else ''}"


def described(event: TraceEvent) -> list[str]:
    """Return lines that say where an event was called, and the state of what went in and came out."""
    here = user_line()
    if event.phase == "backward":
        called = f" of its forward; backward was called at {here}" if here != event.source else ""
    else:
        called = ""
    lines = [f"  at {event.source}{called}"]
    step = f"step {event.step}, stage {event.stage}" if event.step else ""
    lines += [f"  in {step}"] if step else []
    for what, sides in (("input", event.inputs), ("output", event.outputs)):
        lines += [f"  {_side(what, i, side)}" for i, side in enumerate(sides[:8]) if side is not None]
    lost = {"flushed to 0": event.flushed, "overflowed": event.overflowed}
    told = ", ".join(f"{count:,} {word}" for word, count in lost.items() if count)
    return lines + ([f"  {told}"] if told else [])


def _side(what: str, i: int, side: Side) -> str:
    names = [link for link in side.links if isinstance(link, str)]
    name = side.name or (names[0] if names else "")
    head = f"{what} {i}{f' ({name})' if name else ''}: {side.format}{list(side.shape)}"
    reach = "" if side.reach is None else f", {number(side.reach)} before rounding"
    return head if side.stats is None else f"{head}, {side.stats}{reach}"
