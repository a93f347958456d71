"""Where a session can be sent: goals by name and conditions, and what was found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from minimp.trace.conditions import Condition, as_condition

if TYPE_CHECKING:
    from minimp.trace.events import TraceEvent

__all__ = ["GOALS", "Found", "goal_named"]

GOALS = {
    "stage": "the end of the next stage",
    "op": "the next op or gradient",
    "cast": "the next cast, forward or backward",
    "nonfinite": "the next infinity or NaN",
}
"""Word -> where `run` goes by it; all else is a condition (:mod:`minimp.trace.conditions`)."""


@dataclass(frozen=True)
class Found:
    """A moment at which a condition held.

    Attributes:
        condition: the condition.
        event: the event for which it held; `event.step` and `event.stage` say when.
    """

    condition: str
    event: TraceEvent

    def __str__(self) -> str:
        return f"{self.condition}: step {self.event.step}, stage {self.event.stage}, {self.event}"


def goal_named(goal: str | Callable[[TraceEvent], Any] | Condition) -> Condition:
    """Return the condition that a goal stands for: a key of :data:`GOALS`, text, or a function of an event.

    Raises:
        SettingError: it cannot be read.
    """
    tests: dict[str, Callable[[TraceEvent], bool]] = {
        "stage": lambda event: event.phase == "stage",
        "op": lambda event: event.phase != "stage",
        "cast": lambda event: event.op == "cast",
    }
    if isinstance(goal, str) and goal in tests:
        return Condition(goal, tests[goal])
    return as_condition(goal)
