"""The commands of a session, one table for the prompt and the screen; each answers with lines of text.

{table}
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from minimp.errors import SettingError, unknown_name
from minimp.stepper import views
from minimp.stepper.edits import EDITS, parse_edit
from minimp.stepper.elements import ORDERS, Walk, open_walk
from minimp.stepper.goals import GOALS
from minimp.stepper.saving import save_finding
from minimp.stepper.session import Session
from minimp.trace.conditions import COUNTS, NAMES, NUMBERS

__all__ = ["COMMANDS", "Command", "Prompt"]

WIDTH = 100


class Prompt:
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
        failed: whether a check has failed.
        closed: whether `quit` was said.
    """

    def __init__(self, session: Session, *, width: int = WIDTH) -> None:
        self.session, self.width = session, max(width, 60)
        self.failed = self.closed = False
        self._walk: Walk | None = None

    def do(self, line: str) -> str:
        """Carry a command out, and return what it has to say.

        Raises:
            SettingError: an unknown command, or words that do not fit it.
            MinimpError: it cannot be done.
        """
        try:
            words = shlex.split(line)
        except ValueError as fault:
            raise SettingError(f"cannot read {line!r}: {fault}", op="step") from fault
        if not words:
            return ""
        name, rest = words[0], words[1:]
        found = BY_WORD.get(name)
        if found is None:
            raise SettingError(unknown_name("command", name, COMMANDS), help="`help` lists them")
        if not found.least <= len(rest) <= found.most:
            raise SettingError(f"expected {found.usage!r}, got {line!r}")
        return "\n".join(found.act(self, rest))

    # ---- the commands -----------------------------------------------------------------------------------

    def step(self, rest: list[str]) -> list[str]:
        """Go on by stages."""
        for _ in range(_count(rest)):
            self.session.next_stage()
        return self.brief()

    def op(self, rest: list[str]) -> list[str]:
        """Go on by ops."""
        for _ in range(_count(rest)):
            self.session.next_op()
        return self.show([])

    def back(self, rest: list[str]) -> list[str]:
        """Undo stages."""
        for _ in range(_count(rest)):
            self.session.back()
        return self.brief()

    def prev(self, rest: list[str]) -> list[str]:
        """Go back by ops."""
        for _ in range(_count(rest)):
            self.session.previous_op()
        return self.show([])

    def go(self, rest: list[str]) -> list[str]:
        """Go to a moment by its number."""
        if not rest[0].removeprefix("#").isdigit():
            raise SettingError(f"expected the number of an op, gradient or stage, got {rest[0]!r}")
        self.session.visit(int(rest[0].removeprefix("#")))
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
            words, steps = rest[:-2], _count(rest[-1:])
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
        return [views.place(self.session), *views.moment_lines(self.session, self.width)]

    def brief(self) -> list[str]:
        """Return the place and, of a stage, its equation and facts."""
        stage, lines = self.session.stage, [views.place(self.session)]
        if stage is not None:
            lines += [views.cut(f"  {stage.equation}", self.width), *views.stage_facts(stage, self.width)]
        said = self.session.run.said[-1] if self.session.run is not None and self.session.run.said else ()
        return [*lines, *(line for text in said for line in views.wrapped(f"warning: {text}", self.width))]

    def listing(self, rest: list[str]) -> list[str]:
        """List stages and ops."""
        del rest
        rows = views.listing(self.session)
        return [views.cut(("> " if row.here else "  ") + row.text, self.width) for row in rows]

    def open(self, rest: list[str]) -> list[str]:
        """Open a tensor."""
        moment = self.session.moment
        if moment is None:
            holders = dict(self.session.step.model.named_parameters())
            arrays = {name: p.array for name, p in holders.items()}
            backend = next(iter(holders.values())).backend
        else:
            arrays, backend = moment.arrays, moment.backend
        if rest[0] not in arrays:
            raise SettingError(unknown_name("tensor here,", rest[0], arrays), help="`show` lists them")
        self._walk = open_walk(rest[0], arrays[rest[0]], backend, "".join(rest[1:]))
        return self._walk.page()

    def more(self, rest: list[str]) -> list[str]:
        """Show further elements."""
        return self._opened().page(_count(rest, 16))

    def bits(self, rest: list[str]) -> list[str]:
        """Take one element apart."""
        return self._opened().bits("".join(rest)).split("\n")

    def _opened(self) -> Walk:
        if self._walk is None:
            raise SettingError("no tensor is open", help="open NAME; `show` lists the names")
        return self._walk

    def set(self, rest: list[str]) -> list[str]:
        """Change something, and show what that makes of the step."""
        edit = parse_edit(rest, self.session.number, self.session.done)
        before, after = self.session.change(edit)
        return [*views.comparison(before, after, self.width), views.place(self.session)]

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
        """Prove the stage."""
        del rest
        found = self.session.check()
        self.failed |= not found
        assert self.session.stage is not None
        return [f"{self.session.stage.name}:", *views.refitted(str(found), self.width)]

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

    def help(self, rest: list[str]) -> list[str]:
        """Explain commands."""
        if rest:
            if rest[0] not in BY_WORD:
                raise SettingError(unknown_name("command", rest[0], COMMANDS))
            found = BY_WORD[rest[0]]
            more = [line for each in found.more for line in views.refitted(each, self.width)]
            return [f"{found.usage}   ({found.key})", *views.wrapped(found.help, self.width, "  "), *more]
        rows = [(each.key, each.usage, each.help) for each in COMMANDS.values()]
        return [views.cut(line, self.width) for line in views.table(("key", "command", "what it does"), rows)]

    def quit(self, rest: list[str]) -> list[str]:
        """End."""
        del rest
        self.closed = True
        return []


def _count(rest: list[str], default: int = 1) -> int:
    """Read how often, or how many."""
    if not rest:
        return default
    if not rest[0].isdigit() or not 1 <= int(rest[0]) <= 100_000:
        raise SettingError(f"expected a whole number above 0, got {rest[0]!r}")
    return int(rest[0])


@dataclass(frozen=True)
class Command:
    """A command.

    Attributes:
        name, key: how it is called, in full and by a key of the screen (the prompt takes both).
        usage: how it is written.
        help: what it does.
        act: carries it out.
        least, most: how many words it takes.
        more: lines for `help NAME`.
    """

    name: str
    key: str
    usage: str
    help: str
    act: Callable[[Prompt, list[str]], list[str]]
    least: int = 0
    most: int = 0
    more: tuple[str, ...] = ()


_GOAL_LINES = tuple(f"  {word:10} {meaning}" for word, meaning in GOALS.items())
_CONDITION_LINES = (
    "  or a condition, such as: underflow>1%   op==softmax   amax>30000 and module==layers.*",
    f"  counts   {', '.join(COUNTS)}", f"  numbers  {', '.join(NUMBERS)}", f"  names    {', '.join(NAMES)}",
    "  joined by and, or, not, ( )",
)  # fmt: skip
_MANY = 1000
COMMANDS: Mapping[str, Command] = MappingProxyType({each.name: each for each in (
    Command("step", "n", "step [N]", "run to the end of the next stage", Prompt.step, most=1),
    Command("op", "o", "op [N]", "go to the next op or gradient, and show it", Prompt.op, most=1),
    Command("back", "b", "back [N]", "undo a stage: every bit is as before it", Prompt.back, most=1),
    Command("prev", "p", "prev [N]", "go back by an op", Prompt.prev, most=1),
    Command("go", "g", "go NUMBER", "go to a moment of this step, by its number", Prompt.go,
            1, 1),
    Command("finish", "f", "finish", "run the rest of this training step", Prompt.finish),
    Command("run", "r", "run GOAL [within N]", "go on to a stage, op, cast, or condition",
            Prompt.run, 1, _MANY, (*_GOAL_LINES, *_CONDITION_LINES)),
    Command("show", "h", "show", "equation, tensors, statistics, histogram", Prompt.show),
    Command("list", "l", "list", "the stages and ops of this step", Prompt.listing),
    Command("where", ".", "where", "the place in one line", Prompt.where),
    Command("open", "t", "open NAME [WHICH]", "walk a tensor's elements and their bits", Prompt.open,
            1, _MANY, tuple(f"  {word:10} {meaning}" for word, meaning in
                            {**ORDERS, "3,4": "all from that place on, in C order"}.items())),
    Command("more", "m", "more [N]", "further elements of the open tensor", Prompt.more, most=1),
    Command("bits", "x", "bits I,J", "one element of it: fields, ulp, neighbours", Prompt.bits, 1, _MANY),
    Command("set", "s", "set WHAT ...", "what if: change something, compare the step", Prompt.set,
            1, _MANY, tuple(f"  {kind.usage:26} {kind.summary}" for kind in EDITS.values())),
    Command("undo", "u", "undo", "take the last change back", Prompt.undo),
    Command("edits", "e", "edits", "the changes so far", Prompt.edits),
    Command("check", "c", "check", "prove the stage that ran last", Prompt.check),
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
BY_WORD: dict[str, Command] = {word: each for each in COMMANDS.values() for word in (each.name, each.key)}


def _documented() -> str:
    rows: list[tuple[Any, ...]] = [(each.usage, each.help) for each in COMMANDS.values()]
    return "\n".join(views.table(("command", "what it does"), rows))


__doc__ = (__doc__ or "").replace("{table}", _documented())
