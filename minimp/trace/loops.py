"""What is recorded of training loops of one's own: bare optimizers and scalers.

A :class:`minimp.TrainStep` tells of its stages. In a loop of one's own, what an optimizer and a scaler do is
written down as the stage that it is: ``update`` (its swallowed updates), ``check_finite`` (what the scaler
found, and whether it skipped) and ``update_scale``; `step` is 0 there. The loss scale of gradients is what
they carry (:mod:`minimp.tape.scales`).
"""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager
from types import FrameType
from typing import TYPE_CHECKING, Any

from minimp.errors import MinimpError
from minimp.scaler.naming import named_parameters
from minimp.scaler.outputs import times_scale
from minimp.tape import Event, Node, Value
from minimp.tape.scales import SOURCES, Mark, mark_shown
from minimp.trace.events import TraceEvent
from minimp.trace.sites import Modules, user_line
from minimp.trace.updates import Updates

if TYPE_CHECKING:
    from minimp.trace.places import Here

__all__ = ["Loops", "carried_scale", "factor_of", "mark_of_running", "scale_of_loss", "scaler_scaling"]

GRADIENTS = frozenset({"differentiate", "_differentiate"})
"""What is called to run the gradient of a `node`."""
HOOK = "show"
"""What is called to show the gradient of an `edge` to a hook."""
NEAR = 12
"""So many frames at most lie between a listener's helper and the scaler that called the op."""


def carried_scale(node: Node) -> float | None:
    """Return the loss scale that the gradients of a node's inputs carry, in a listener; None if it is 1.

    Where parts that carry several scales were added up, there is none to name.
    """
    return factor_of(_behind(node))


def _behind(node: Node) -> Mark:
    """Return the mark of the gradients of a node's inputs."""
    source = SOURCES.get(node)
    return mark_shown(node) if source is None else mark_shown(node).times(source)


def factor_of(mark: Mark) -> float | None:
    """Return the scale of a mark; None if it is 1, or if there are several."""
    if len(mark.factors) != 1:
        return None
    (factor,) = mark.factors
    return None if factor == 1.0 else factor


def scaler_scaling() -> Any:
    """Return the scaler that is multiplying a loss by its scale just now, in a listener, or None."""
    frame: FrameType | None = sys._getframe(1)
    for _ in range(NEAR):
        if frame is None:
            return None
        if frame.f_code is times_scale.__code__:
            return frame.f_locals["scaler"]
        frame = frame.f_back
    return None


def mark_of_running() -> Mark | None:
    """Return what the gradient carries that is made of ops which run just now, in a listener, or None.

    A gradient is made of ops where it is recorded (`create_graph`), in the backward of a
    :class:`minimp.Function`, and in a hook on a tensor.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name in GRADIENTS and isinstance(node := frame.f_locals.get("node"), Node):
            return _behind(node)
        if frame.f_code.co_name == HOOK and isinstance(edge := frame.f_locals.get("edge"), Node | Value):
            return mark_shown(edge)
        frame = frame.f_back
    return None


def scale_of_loss(event: Event) -> float | None:
    """Return the scale that a loss is being multiplied by, in a listener; None if it is not."""
    factor = event.inputs[-1]
    if event.node.op.name != "mul" or not isinstance(factor, float) or factor == 1.0:
        return None
    return None if scaler_scaling() is None else factor


class Loops:
    """The part of a recorder that watches optimizers and scalers outside of training steps."""

    statistics: bool
    paused: bool
    names: Modules
    _count: int
    _lock: AbstractContextManager[Any]
    _updates: Updates

    def here(self) -> Here:
        """Return where this thread is."""
        raise NotImplementedError

    def write_stage(self, event: TraceEvent) -> None:
        """Write down a stage without arrays."""
        raise NotImplementedError

    def clock(self, now: int | None = None) -> int:
        """Return nanoseconds since the recording began."""
        raise NotImplementedError

    def optimizer_steps(self, optimizer: Any) -> None:
        """Let a bare optimizer count the updates that it swallows (a watcher)."""
        with self._lock:
            if self.statistics and not self._is_quiet():
                self._updates.begin(optimizer)

    def optimizer_stepped(self, optimizer: Any, *, done: bool) -> None:
        """Write down what a bare optimizer has done (a watcher)."""
        with self._lock:
            if self._is_quiet():
                return
            rows = self._updates.counted(optimizer)
            if done:
                updates = {self._name_of(row.param, i): [row.size, row.nonzero, row.swallowed]
                           for i, row in enumerate(rows)}  # fmt: skip
                self._write_bare("update", {"skipped": False, **({"updates": updates} if rows else {})})

    def scaler_stepped(self, scaler: Any, optimizer: Any, report: Any) -> None:
        """Write down what a scaler has found (a watcher)."""
        with self._lock:
            if not self._is_quiet():
                own = self._own_names(scaler, optimizer) if report.nonfinite else {}
                bad = [own.get(name, name) for name in report.nonfinite]
                facts = {"loss_scale": report.scale, "skipped": report.skipped, "nonfinite": bad}
                self._write_bare("check_finite", facts)

    def scale_moved(self, scale: Any, before: Any, after: Any) -> None:  # noqa: ARG002 - a watcher's signature
        """Write down where a scaler's scale has gone (a watcher)."""
        with self._lock:
            if not self._is_quiet():
                self._write_bare("update_scale", {"loss_scale": after.scale, "before": before.scale})

    def _is_quiet(self) -> bool:
        """Tell whether a TrainStep tells of this, or nothing is to be written down."""
        return self.paused or bool(self.here().stage)

    def _own_names(self, scaler: Any, optimizer: Any) -> dict[str, str]:
        """Return what the scaler calls its parameters -> what they are called in this recording."""
        try:
            pairs = list(named_parameters(optimizer, scaler._names))
        except (MinimpError, AttributeError):  # an optimizer or scaler of someone's own
            return {}
        return {name: self.names.leaf(param) or name for name, param in pairs}

    def _name_of(self, param: Value, number: int) -> str:
        return self.names.leaf(param) or f"parameter {number}"

    def _write_bare(self, name: str, facts: dict[str, Any]) -> None:
        here = self.here()
        now = max(self.clock(), here.last)
        here.last = now
        made = TraceEvent(
            self._count, "stage", name, "", user_line(), name, 0, (), (),
            start=now, end=now, thread=here.thread, facts=facts,
        )  # fmt: skip
        self.write_stage(made)
