"""One training step, run stage by stage under a recorder, with everything that its ops saw and made."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextvars import copy_context
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from weakref import finalize

from minimp.checks.operations import check_event
from minimp.errors import SettingError
from minimp.modes import listen, watch
from minimp.trace import record
from minimp.trace.events import TraceEvent
from minimp.trace.sites import user_line

if TYPE_CHECKING:
    from minimp.checks import Findings
    from minimp.step import Stage, TrainStep
    from minimp.tape import Array, Event

__all__ = ["OURSELVES", "Moment", "Run"]

OURSELVES = "minimp"
"""The source of what no line of the user's called: a model of minimp's own, driven by the session."""


@dataclass(frozen=True)
class Moment:
    """One op, gradient or stage of a step: what the recorder says of it, and its arrays.

    Attributes:
        event: the recorder's event; `event.step` is the session's number of the step.
        arrays: name -> array, as the backend has it: "in0", "out0", ...; of a stage the names of its tensors.
        backend: the backend of the arrays.
        doc: what the op computes, in the words of its docstring.
    """

    event: TraceEvent
    arrays: dict[str, Array]
    backend: Any
    doc: str = ""


@dataclass
class _Kept:
    """Arrays in the order of the recorder's events: it is told of the same ops and stages, just before."""

    moments: list[tuple[dict[str, Array], Any, str]] = field(default_factory=list)
    state: Any = None
    heed: Callable[[], object] = bool

    def hear(self, event: Event) -> None:
        """Keep the arrays of an op or gradient; nothing is copied, for arrays are never changed in place."""
        named = {f"in{i}": array for i, array in enumerate(event.inputs) if hasattr(array, "dtype")}
        named |= {f"out{i}": array for i, array in enumerate(event.outputs) if hasattr(array, "dtype")}
        self.heed()
        self.moments.append((named, event.node.backend, event.node.op.__doc__ or ""))

    def begin_stage(self, step: Any, name: str, state: Any) -> None:  # noqa: ARG002 - a watcher's signature
        """Learn what the stages hand on, which an edit may change between them."""
        self.state = state

    def end_stage(self, step: Any, name: str, state: Any, tensors: Any) -> None:  # noqa: ARG002 - a watcher's signature
        """Keep the arrays that a stage has made."""
        arrays = {path: tensor.array for path, tensor in (tensors or {}).items()}
        self.moments.append((arrays, state.backend, ""))


class Run:
    """A training step under way.

    It lives in a context of its own: what it puts in force (the recorder) is in force nowhere else, however
    long it waits between two stages.

    Args:
        step: the training step.
        inputs, targets: its batch.
        number: the number of the step in the session.
        shadow: compute every op in float64 too.
        heed: called after each op.

    Attributes:
        stages: the stages that have run.
        ends: how many moments there were when each had run; the last of a stage's is the stage itself.
        moments: the ops, gradients and stages so far.
        said: what was warned of, per stage.
    """

    def __init__(
        self, step: TrainStep, inputs: Any, targets: Any, *, number: int, shadow: bool,
        heed: Callable[[], object] = bool,
    ) -> None:  # fmt: skip
        self.number = number
        self.stages: list[Stage] = []
        self.ends: list[int] = []
        self.moments: list[Moment] = []
        self.said: list[tuple[str, ...]] = []
        self._context = copy_context()
        self._kept = _Kept(heed=heed)
        self._record = record(shadow=shadow, model=step.model)
        self._trace = self._inside(self._record.__enter__)
        # also where nobody closes it: what was put in force in a context is put back in that context
        self._end = finalize(self, self._context.run, self._record.__exit__, None, None, None)
        self._end.atexit = False  # a context ends with its process
        self._inside(listen(self._kept.hear).__enter__)
        self._inside(watch(self._kept).__enter__)
        self._stages: Any = self._inside(step.stages, inputs, targets)

    def _inside(self, function: Callable[..., Any], *given: Any) -> Any:
        return self._context.run(function, *given)

    @property
    def state(self) -> Any:
        """What the stages hand on (a StepState); None before the first."""
        return self._kept.state

    @property
    def done(self) -> int:
        """How many stages have run."""
        return len(self.stages)

    def place_of(self, cursor: int) -> int:
        """Return the place of the stage that a moment belongs to."""
        return next(place for place, end in enumerate(self.ends) if cursor < end)

    @property
    def first(self) -> int:
        """The place of the last stage's first moment."""
        return self.ends[-2] if self.done > 1 else 0

    def advance(self) -> Stage:
        """Run the next stage.

        Raises:
            SettingError: the step has been closed.
            Exception: whatever the model or the loss raises; the run cannot go on after it.
        """
        if not self._end.alive:
            raise SettingError(
                "the recording of this step has been closed: no stage can follow",
                op="step", help="go on inside of `with session:`; restart() begins again",
            )  # fmt: skip
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            stage: Stage = self._inside(next, self._stages)
        events, driver = self._trace.events[len(self.moments) :], user_line()
        for event, (arrays, backend, doc) in zip(events, self._kept.moments, strict=True):
            source = OURSELVES if event.source == driver else event.source
            known = replace(event, step=self.number, source=source)
            self.moments.append(Moment(known, arrays, backend, doc))
        self._kept.moments.clear()
        self.stages.append(stage)
        self.ends.append(len(self.moments))
        self.said.append(tuple(str(each.message) for each in said))
        return stage

    def check(self, cursor: int) -> Findings:
        """Prove an op or gradient by its bounds against float64, or a stage by its contract."""
        place = self.place_of(cursor)
        stage, first = self.stages[place], self.ends[place - 1] if place else 0
        if cursor == self.ends[place] - 1:
            return stage.check()
        event = stage.events[cursor - first]
        before = (e for each in self.stages for e in each.events if e.phase == "forward")
        return check_event(event, next((e for e in before if e.node is event.node), None))

    def events(self, cursor: int) -> list[TraceEvent]:
        """Return the events up to a moment, it included."""
        return [moment.event for moment in self.moments[: cursor + 1]]

    def close(self) -> None:
        """End the recording; also of a step that is left half way."""
        if self._end.alive:
            self._inside(self._stages.close)
            self._end()
