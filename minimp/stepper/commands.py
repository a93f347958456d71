"""The commands of a session, one table for the prompt and the screen; each answers with lines of text.

{table}
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from minimp.errors import SettingError
from minimp.stepper import views
from minimp.stepper.asking import BITS, MANY, MORE, OPEN, WIDTH, Asking, Command, count_of, number_of
from minimp.stepper.edits import EDITS, parse_edit
from minimp.stepper.goals import GOALS
from minimp.stepper.saving import save_finding
from minimp.stepper.session import Session
from minimp.trace.conditions import COUNTS, NAMES, NUMBERS

if TYPE_CHECKING:
    from minimp.tape import Array

__all__ = ["COMMANDS", "Command", "Prompt"]


class Prompt(Asking):
    """A session that is told what to do in words.

    >>> from minimp import stepper
    >>> prompt = stepper.Prompt(stepper.digits())
    >>> print(prompt.do("run cast"))
    cast: found
    step 1, stage 1/10 cast_weights, op 1/6
    >>> print(prompt.do("where"))
    step 1, stage 1/10 cast_weights, op 1/6

    Args:
        session: the session.
        width: the most columns of an answer, at least 60.

    Attributes:
        looked: which moment of the step `show`, `open` and `check` are about; None: the session's.
        failed: whether a check has failed.
        closed: whether `quit` was said.
    """

    def __init__(self, session: Session, *, width: int = WIDTH) -> None:
        super().__init__(width)
        self.session, self.failed = session, False
        self.looked: int | None = None

    @property
    def commands(self) -> Mapping[str, Command]:
        """The table, :data:`COMMANDS`."""
        return COMMANDS

    def arrays(self) -> tuple[dict[str, Array], Any]:
        """Return the arrays of the moment; before the first stage, the weights."""
        run, at = self.session.run, self.session.cursor if self.looked is None else self.looked
        if run is not None and at >= 0:
            return run.moments[at].arrays, run.moments[at].backend
        holders = dict(self.session.step.model.named_parameters())
        return {name: p.array for name, p in holders.items()}, next(iter(holders.values())).backend

    # ---- the commands -----------------------------------------------------------------------------------

    def step(self, rest: list[str]) -> list[str]:
        """Go on by stages."""
        for _ in range(count_of(rest)):
            self.session.next_stage()
        return self.brief()

    def op(self, rest: list[str]) -> list[str]:
        """Go on by ops."""
        for _ in range(count_of(rest)):
            self.session.next_op()
        return self.show([])

    def back(self, rest: list[str]) -> list[str]:
        """Undo stages."""
        for _ in range(count_of(rest)):
            self.session.back()
        return self.brief()

    def prev(self, rest: list[str]) -> list[str]:
        """Go back by ops."""
        for _ in range(count_of(rest)):
            self.session.previous_op()
        return self.show([])

    def go(self, rest: list[str]) -> list[str]:
        """Go to a moment by its number."""
        self.session.visit(number_of(rest[0]))
        return self.show([])

    def finish(self, rest: list[str]) -> list[str]:
        """Run the rest of this step."""
        del rest
        self.session.finish()
        return self.brief()

    def run(self, rest: list[str]) -> list[str]:
        """Go on until a condition holds."""
        words, steps = rest, 20
        if len(rest) > 2 and rest[-2] == "within":
            words, steps = rest[:-2], count_of(rest[-1:])
        goal = " ".join(words)
        found = self.session.search(goal, steps=steps)
        here = views.place(self.session)
        if found is None:
            return [f"{goal}: not met in {steps} steps", here]
        return [f"{goal}: found", *([here] if goal in ("stage", "op", "cast") else [here, *self._one()])]

    def _one(self) -> list[str]:
        moment = self.session.moment
        return [] if moment is None else [views.cut(views.sourceless(str(moment.event)), self.width)]

    def restart(self, rest: list[str]) -> list[str]:
        """Go back to the beginning."""
        del rest
        self.session.restart()
        return self.brief()

    def where(self, rest: list[str]) -> list[str]:
        """Say the place."""
        del rest
        return [views.place(self.session)]

    def show(self, rest: list[str]) -> list[str]:
        """Show what is looked at."""
        del rest
        return [views.place(self.session), *views.moment_lines(self.session, self.width, self.looked)]

    def brief(self) -> list[str]:
        """Return the place and, of a stage, its equation and facts."""
        stage, lines = self.session.stage, [views.place(self.session)]
        if stage is not None:
            lines.append(views.cut(f"  {stage.equation}", self.width))
            lines += views.fact_lines(stage.facts, self.width)
        said = self.session.run.said[-1] if self.session.run is not None and self.session.run.said else ()
        return [*lines, *(line for text in said for line in views.wrapped(f"warning: {text}", self.width))]

    def listing(self, rest: list[str]) -> list[str]:
        """List stages and ops."""
        del rest
        rows = views.listing(self.session)
        return [views.cut(("> " if row.here else "  ") + row.text, self.width) for row in rows]

    def set(self, rest: list[str]) -> list[str]:
        """Change something, and show what that makes of the step."""
        edit = parse_edit(rest, self.session.number, self.session.done)
        before, after = self.session.change(edit)
        same = [] if before != after else ["nothing of this differs: the change shows later, or nowhere"]
        return [*views.comparison(before, after, self.width), *same, views.place(self.session)]

    def undo(self, rest: list[str]) -> list[str]:
        """Take the last change back."""
        del rest
        edit, before, after = self.session.undo()
        table = views.comparison(before, after, self.width)
        return [f"taken back: {edit.text}", *table, views.place(self.session)]

    def edits(self, rest: list[str]) -> list[str]:
        """List the changes."""
        del rest
        made = [f"step {e.step}, after {e.stages} stages: {e.text}" for e in self.session.edits]
        return made or ["nothing has been changed"]

    def check(self, rest: list[str]) -> list[str]:
        """Prove the op, gradient or stage."""
        del rest
        found = self.session.check(self.looked)
        self.failed |= not found
        run, at = self.session.run, self.session.cursor if self.looked is None else self.looked
        assert run is not None
        event = run.moments[at].event
        name = event.op if event.phase == "stage" else views.headline(event)
        return [f"{name}:", *views.found_lines(found, event, self.width)]

    def why(self, rest: list[str]) -> list[str]:
        """Tell how a value became non-finite."""
        del rest
        found = self.session.why()
        if found is None:
            return ["everything in this step, up to here, is finite"]
        return views.refitted(views.sourceless(str(found)), self.width)

    def save(self, rest: list[str]) -> list[str]:
        """Save the finding."""
        if len(rest) == 2 and rest[1] != "as-seen":
            raise SettingError(f"expected 'as-seen', got {rest[1]!r}")
        return [f"written: {save_finding(self.session, rest[0], as_seen=len(rest) == 2)}"]

    def quit(self, rest: list[str]) -> list[str]:
        """End."""
        del rest
        self.closed = True
        return []


_GOAL_LINES = tuple(f"  {word:10} {meaning}" for word, meaning in GOALS.items())
_CONDITION_LINES = (
    "  or a condition, such as: underflow>1%   op==softmax   amax>30000 and module==layers.*",
    f"  counts   {', '.join(COUNTS)}", f"  numbers  {', '.join(NUMBERS)}", f"  names    {', '.join(NAMES)}",
    "  joined by and, or, not, ( )",
)  # fmt: skip
COMMANDS: Mapping[str, Command] = MappingProxyType({each.name: each for each in (
    Command("step", "n", "step [N]", "run to the end of the next stage", Prompt.step, most=1),
    Command("op", "o", "op [N]", "go to the next op or gradient, and show it", Prompt.op, most=1),
    Command("back", "b", "back [N]", "undo a stage: every bit is as before it", Prompt.back, most=1),
    Command("prev", "p", "prev [N]", "go back by an op", Prompt.prev, most=1),
    Command("go", "g", "go NUMBER", "go to a moment of this step, by its number", Prompt.go,
            1, 1),
    Command("finish", "f", "finish", "run the rest of this training step", Prompt.finish),
    Command("run", "r", "run GOAL [within N]", "go on to a stage, op, cast, or condition",
            Prompt.run, 1, MANY, (*_GOAL_LINES, *_CONDITION_LINES)),
    Command("show", "h", "show", "equation, tensors, statistics, histogram", Prompt.show),
    Command("list", "l", "list", "the stages and ops of this step", Prompt.listing),
    Command("where", ".", "where", "the place in one line", Prompt.where),
    OPEN,
    MORE,
    BITS,
    Command("set", "s", "set WHAT ...", "what if: change something, compare the step", Prompt.set,
            1, MANY, tuple(f"  {kind.usage:26} {kind.summary}" for kind in EDITS.values())),
    Command("undo", "u", "undo", "take the last change back", Prompt.undo),
    Command("edits", "e", "edits", "the changes so far", Prompt.edits),
    Command("check", "c", "check", "prove the op, gradient or stage looked at", Prompt.check),
    Command("why", "w", "why", "the first infinity or NaN, and what led to it", Prompt.why),
    Command("save", "v", "save FILE.py [as-seen]", "write the finding as a script or a test", Prompt.save,
            1, 2,
            ("  test_*.py          a test that fails while the condition of the last run is met",
             "  test_*.py as-seen  a test that passes while this op or stage is as it is here",
             "  *.py               a script that shows it again")),
    Command("restart", "0", "restart", "back to the beginning, without any change", Prompt.restart),
    Command("help", "?", "help [COMMAND]", "this list, or more on one command", Prompt.help, most=1),
    Command("quit", "q", "quit", "end the session", Prompt.quit),
)})  # fmt: skip
"""Name -> command, in the order of the help."""


def _documented() -> str:
    rows: list[tuple[Any, ...]] = [(each.usage, each.help) for each in COMMANDS.values()]
    return "\n".join(views.table(("command", "what it does"), rows))


__doc__ = (__doc__ or "").replace("{table}", _documented())
