"""Session: training steps that can be gone through, forward and back, and run again otherwise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from minimp import rng
from minimp.errors import DataError, SettingError
from minimp.step import STAGES
from minimp.stepper.edits import Edit
from minimp.stepper.goals import Found, goal_named
from minimp.stepper.outcomes import Outcome, outcome_of
from minimp.stepper.running import Moment, Run
from minimp.stepper.snapshots import Snapshots, fingerprint
from minimp.trace.conditions import Condition
from minimp.trace.questions.chains import NonFinite, first_nonfinite

if TYPE_CHECKING:
    from minimp.checks import Findings
    from minimp.step import Stage, TrainStep
    from minimp.trace.events import TraceEvent

__all__ = ["Session"]

MOST_STEPS = 64
MOST_BYTES = 256 * 2**20
"""So many beginnings of steps are kept at most, and so many bytes of them."""
OTHER_BITS = (
    "run again, this stage gave other bits than the first time: the model or the loss draws on something "
    "that the session does not know"
)
Batch = tuple[Any, Any]


class Session:
    """A training step in the hand: stage by stage, op by op, back again, and what if.

    Stages really run one after the other: after each, the model, the optimizer, the scaler and the random
    generator are as they are between these two stages of a training run, bit for bit. Within a stage the
    stage runs whole, under the recorder, and its ops are then gone through: each with all its inputs and
    results, while the state is that after the stage. Going back restores the beginning of the step from a
    copy and runs the stages before again; the bits are compared with those of the first time.

    >>> from minimp.stepper import digits
    >>> session = digits()
    >>> session.next_stage().name, session.next_stage().name
    ('cast_weights', 'forward')
    >>> session.back()
    >>> session.stage.name
    'cast_weights'

    Args:
        step: the training step.
        batches: (inputs, targets) of the steps, in order; after the last the first comes again.
        shadow: compute every op in float64 too, for errors and for conditions on them.
        title: what it is a session of.
        source: the code that makes this session again, for saved scripts and tests.

    Attributes:
        number: the step that is under way, from 1.
        run: it, or None before its first stage.
        cursor: which moment of the run is looked at; -1 before the first stage.
        note: what must be known of where the batches come from, or "".
        folder: the working folder in which `source` makes this session; None: any.
        edits: the changes made, in order.
        finding: what the last search found, or None.
        heed: called before each stage and after each op; what it raises stops the session there: it stands
            where it stood before that stage.

    Raises:
        DataError: there is no batch, or one is no pair.
    """

    def __init__(
        self, step: TrainStep, batches: Sequence[Batch], *, shadow: bool = False, title: str = "a script",
        source: str = "",
    ) -> None:  # fmt: skip
        if not len(batches):
            raise DataError("expected at least one batch, got none", op="step")
        given: Sequence[Any] = batches
        for i, each in enumerate(given):
            many = f" of {len(each)}" if isinstance(each, tuple | list) else ""
            if many != " of 2":
                got = f"{type(each).__name__}{many}"
                raise DataError(f"expected batches of (inputs, targets), got {got} as batch {i}", op="step")
        self.step, self.batches, self.shadow = step, batches, shadow
        self.title, self.source, self.note = title, source, ""
        self.folder: Path | None = None
        self.number, self.cursor = 1, -1
        self.run: Run | None = None
        self.edits: list[Edit] = []
        self.finding: Found | None = None
        self.heed: Callable[[], object] = bool
        self._snapshots = Snapshots(step, most=MOST_STEPS, most_bytes=MOST_BYTES)
        self._prints: dict[tuple[int, int], str] = {}
        self._snapshots.keep(1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the recording of the step under way."""
        if self.run is not None:
            self.run.close()

    # ---- where it is --------------------------------------------------------------------------------------

    @property
    def done(self) -> int:
        """How many stages of the step have run."""
        return 0 if self.run is None else self.run.done

    @property
    def moment(self) -> Moment | None:
        """The op, gradient or stage that is looked at; None before the first stage."""
        return None if self.run is None or self.cursor < 0 else self.run.moments[self.cursor]

    @property
    def stage(self) -> Stage | None:
        """The stage that ran last, to which the moment belongs; None before the first."""
        return None if self.run is None or not self.run.stages else self.run.stages[-1]

    @property
    def at_end(self) -> bool:
        """Whether the moment is the stage itself, after its ops."""
        return self.run is None or self.cursor == len(self.run.moments) - 1

    def fingerprint(self) -> str:
        """Return the SHA-256 of the state as it is now (:func:`minimp.stepper.fingerprint`)."""
        return fingerprint(self.step)

    # ---- forward ------------------------------------------------------------------------------------------

    def next_stage(self) -> Stage:
        """Go to the end of this stage, or, from there, run the next one; after the last a new step begins."""
        if self.at_end:
            self._advance()
        assert self.run is not None
        self.cursor = len(self.run.moments) - 1
        return self.run.stages[-1]

    def next_op(self) -> Moment:
        """Go to the next op, gradient or stage; runs the next stage where this one has no more."""
        if not self.at_end:
            self.cursor += 1
        else:
            before = 0 if self.run is None or self.done == len(STAGES) else len(self.run.moments)
            self._advance()
            self.cursor = before
        assert self.moment is not None
        return self.moment

    def finish(self) -> None:
        """Run the stages of this step that are left."""
        self.next_stage()
        while self.done < len(STAGES):
            self.next_stage()

    def search(self, goal: str | Callable[[TraceEvent], Any] | Condition, *, steps: int = 20) -> Found | None:
        """Go on to the next moment for which a condition holds; None, and at an end of a step, if none does.

        Args:
            goal: a key of :data:`GOALS`, or a condition, as text or a function of an event.
            steps: so many steps at most, this one included.

        Raises:
            SettingError: the condition cannot be read, or asks for a shadow that there is not.
        """
        condition = goal_named(goal)
        if condition.shadow and not self.shadow:
            raise SettingError(
                f"{condition}: errors against float64 are not computed in this session",
                op="run", help="open it with --shadow",
            )  # fmt: skip
        last = self.number + steps - (self.done < len(STAGES))
        while True:
            if self.at_end and self.done == len(STAGES) and self.number >= last:
                self.finding = None
                return None
            moment = self.next_op()
            if condition(moment.event):
                self.finding = Found(str(condition), moment.event)
                return self.finding

    def _advance(self) -> None:
        """Run one stage more; if it raises, everything is as it was before."""
        self.heed()
        where = self.number, self.done, self.cursor
        try:
            if self.run is not None and self.run.done == len(STAGES):
                self._forget_run(self.number + 1)
                self._snapshots.keep(self.number)
            self._run_stage()
        except BaseException:
            self._go(*where)
            raise

    def _run_stage(self) -> None:
        if self.run is None:
            batch = self.batches[(self.number - 1) % len(self.batches)]
            for edit in self._edits_at(self.number, 0):
                batch = edit.apply(self.step, None, batch)
            self.run = Run(self.step, *batch, number=self.number, shadow=self.shadow, heed=self.heed)
        self.run.advance()
        for edit in self._edits_at(self.number, self.run.done):
            edit.apply(self.step, self.run, (None, None))
        place = self.number, self.run.done
        made = fingerprint(self.step)
        if self._prints.setdefault(place, made) != made:
            self._prints[place] = made
            self.run.said[-1] += (OTHER_BITS,)
        if self.run.done == len(STAGES):
            self._prints = {
                key: text for key, text in self._prints.items() if key[0] > self.number - MOST_STEPS
            }

    def _edits_at(self, number: int, stages: int) -> list[Edit]:
        return [each for each in self.edits if (each.step, each.stages) == (number, stages)]

    # ---- back ---------------------------------------------------------------------------------------------

    def back(self) -> None:
        """Undo the last stage: the state is again, to the bit, what it was before it ran.

        Raises:
            SettingError: this is the beginning, or the beginning of that step is no longer kept.
        """
        if self.done:
            self._go(self.number, self.done - 1)
        else:
            self._go(self._before(), len(STAGES) - 1)

    def previous_op(self) -> None:
        """Go to the op, gradient or stage before this one; errors as :meth:`back`."""
        if self.run is None or self.cursor < 0:
            self._go(self._before(), len(STAGES))
        elif self.run.done > 1 and self.cursor == self.run.ends[-2]:
            self._go(self.number, self.done - 1)
        elif self.cursor == 0:
            self._go(self.number, 0)
        else:
            self.cursor -= 1

    def restart(self) -> None:
        """Go back to where the session began, and forget every change."""
        self.edits.clear()
        self._prints.clear()
        self.finding = None
        self._go(1, 0)
        self._snapshots.forget_after(1)

    def _before(self) -> int:
        if self.number == 1:
            raise SettingError("this is the beginning: there is nothing to go back to", op="back")
        if self.number - 1 not in self._snapshots:
            raise SettingError(
                f"the beginning of step {self.number - 1} is no longer kept: {MOST_STEPS} steps are "
                f"({MOST_BYTES // 2**20} MiB at most) and the first",
                op="back", help="`restart` goes back to the first",
            )  # fmt: skip
        return self.number - 1

    def go_to(self, number: int, done: int, cursor: int) -> None:
        """Go forward to a moment: a step, so many of its stages, and the place among its ops.

        Raises:
            SettingError: that lies behind, or there is no such moment.
        """
        wanted = number, done
        while (self.number, self.done) < wanted:
            self._advance()
        run, here = self.run, (self.number, self.done)
        if run is None or here != wanted or not run.first <= cursor < len(run.moments):
            raise SettingError(f"step {number} with {done} stages has no moment {cursor} ahead", op="go_to")
        self.cursor = cursor

    def visit(self, cursor: int) -> None:
        """Go to a moment of this step, by its number; where it lies before the last stage, go back to it.

        Raises:
            SettingError: there is no such moment yet.
        """
        run = self.run
        if run is None or not 0 <= cursor < len(run.moments):
            most = 0 if run is None else len(run.moments)
            raise SettingError(f"there is no moment {cursor}: this step has had {most}", op="go")
        if cursor >= run.first:
            self.cursor = cursor
        else:
            self._go(self.number, run.place_of(cursor) + 1, cursor)

    def _go(self, number: int, done: int, cursor: int | None = None) -> None:
        """Go to a step of which so many stages have run, from its beginning; there it stays if one raises."""
        self._stand_before(number)
        try:
            while self.done < done:
                self._run_stage()
        except BaseException:  # a stage that raised cannot be gone on with
            self._stand_before(number)
            raise
        if self.run is not None:
            end = len(self.run.moments) - 1
            self.cursor = end if cursor is None else min(max(cursor, self.run.first), end)

    def _stand_before(self, number: int) -> None:
        """Put the state back in which a step began."""
        self._snapshots.restore(number)
        self._forget_run(number)

    def _forget_run(self, number: int) -> None:
        """Stand before the first stage of a step."""
        self.close()
        self.run, self.number, self.cursor = None, number, -1

    # ---- what if ------------------------------------------------------------------------------------------

    def change(self, edit: Edit) -> tuple[Outcome, Outcome]:
        """Make a change, run the step again from there, and return how it went before, and goes now.

        The session is then where it was, in the step as it has become; :meth:`undo` takes the change back.

        Raises:
            MinimpError: it cannot act; nothing has changed then.
        """
        return self._whether([*self.edits, edit], edit.step)

    def undo(self) -> tuple[Edit, Outcome, Outcome]:
        """Take the last change back; return it, how the step went with it, and goes now.

        Of a change to a step that is ahead again, it is the step under way that is returned: as it was.

        Raises:
            SettingError: there is none, or its step is no longer kept.
        """
        if not self.edits:
            raise SettingError("nothing has been changed: there is nothing to undo", op="undo")
        last = self.edits[-1]
        if last.step > self.number and last.step not in self._snapshots:
            return last, *self._whether(self.edits[:-1], self.number)
        if last.step not in self._snapshots:
            raise SettingError(f"the beginning of step {last.step} is no longer kept", op="undo",
                               help="`restart` forgets every change")  # fmt: skip
        return last, *self._whether(self.edits[:-1], last.step)

    def _whether(self, edits: list[Edit], number: int) -> tuple[Outcome, Outcome]:
        """Put other changes in force from a step on; return how that step went before, and goes now."""
        here = self.number == number
        where = (number, self.done if here else len(STAGES), self.cursor if here else None)
        known, prints = self.edits, dict(self._prints)
        try:
            before = self._outcome(number)
            self.edits = edits
            self._prints = {key: text for key, text in prints.items() if key[0] < number}
            after = self._outcome(number)
            self._go(*where)
        except BaseException:
            self.edits, self._prints = known, prints
            self._go(*where)
            raise
        self._snapshots.forget_after(number)
        return before, after

    def _outcome(self, number: int) -> Outcome:
        self._go(number, len(STAGES))
        assert self.run is not None
        return outcome_of(self.run)

    # ---- questions ----------------------------------------------------------------------------------------

    def check(self, cursor: int | None = None) -> Findings:
        """Prove an op or gradient against float64, or a stage by its contract; the session stays as it is.

        Args:
            cursor: which moment of this step; None: the one that is looked at.

        Raises:
            SettingError: no stage has run.
        """
        at = self.cursor if cursor is None else cursor
        if self.run is None or at < 0:
            raise SettingError("no stage has run yet", op="check", help="step runs the first")
        state = rng.get_rng_state()
        try:
            return self.run.check(at)
        finally:
            rng.set_rng_state(state)

    def why(self) -> NonFinite | None:
        """Return the first value of this step, up to here, that is not finite, and how it came about."""
        return None if self.run is None else first_nonfinite(self.run.events(self.cursor))
