"""A computation that stands still at a breakpoint: its ops so far, their tensors and bits, from a prompt.

`mp.trace.break_when(condition, "debug")` opens it. Nothing can be changed here, and the computation only
goes on: `minimp step` goes back too, and asks what if. The commands:

{table}
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from shutil import get_terminal_size
from types import BuiltinFunctionType, FrameType, MappingProxyType
from typing import TYPE_CHECKING, Any

from minimp.checks.operations import check_event
from minimp.errors import MinimpError, SettingError
from minimp.stepper import views
from minimp.stepper.asking import BITS, MORE, OPEN, WIDTH, Asking, Command, count_of, number_of
from minimp.stepper.running import Moment
from minimp.trace.questions.chains import first_nonfinite
from minimp.trace.sites import HERE

if TYPE_CHECKING:
    from minimp.tape import Array, Event
    from minimp.trace.events import TraceEvent
    from minimp.trace.trace import Trace

__all__ = ["COMMANDS", "Halt", "Past", "ask"]

MOST_EVENTS = 256
MOST_BYTES = 256 * 2**20
"""So many ops, gradients and stages are kept at most, and so many bytes of their arrays."""
LISTED = 20


@dataclass(frozen=True)
class _Held:
    """A moment, with what the engine told of it; None of stages."""

    moment: Moment
    heard: Event | None

    @property
    def nbytes(self) -> int:
        return sum(int(array.nbytes) for array in self.moment.arrays.values())


class Past:
    """The newest ops, gradients and stages of a recording, with their arrays; nothing is copied.

    It is a watcher too, for the arrays of stages, and told of each event by :meth:`take`.
    """

    def __init__(self) -> None:
        self.held: deque[_Held] = deque(maxlen=MOST_EVENTS)
        self.bytes = 0
        self._made: tuple[dict[str, Array], Any] = {}, None

    def begin_stage(self, step: Any, name: str, state: Any) -> None:
        """Nothing: what a stage has made counts."""

    def end_stage(self, step: Any, name: str, state: Any, tensors: Any) -> None:  # noqa: ARG002 - a watcher's signature
        """Hold the arrays that a stage has made, until its event comes."""
        self._made = {path: tensor.array for path, tensor in (tensors or {}).items()}, state.backend

    def take(self, event: TraceEvent, heard: Event | None) -> None:
        """Keep an event, and let go of the oldest where they are too many."""
        if heard is None:
            (arrays, backend), doc = self._made, ""
            self._made = {}, None
        else:
            arrays = {f"in{i}": array for i, array in enumerate(heard.inputs) if hasattr(array, "dtype")}
            arrays |= {f"out{i}": array for i, array in enumerate(heard.outputs) if hasattr(array, "dtype")}
            backend, doc = heard.node.backend, heard.node.op.__doc__ or ""
        if len(self.held) == self.held.maxlen:
            self.bytes -= self.held.popleft().nbytes
        made = _Held(Moment(event, arrays, backend, doc), heard)
        self.held.append(made)
        self.bytes += made.nbytes
        while self.bytes > MOST_BYTES and len(self.held) > 1:
            self.bytes -= self.held.popleft().nbytes


class Halt(Asking):
    """Where a computation stands still, told in words what to show.

    Args:
        past: what ran so far, the event at which it stands last.
        why: what is said of that event.
        trace: the recording.
        width: the most columns of an answer, at least 60.

    Attributes:
        ending: "", or how it was told to end: a key of :data:`ENDINGS`.
        at: the place in `past` that is looked at.
    """

    def __init__(self, past: Past, why: str, trace: Trace, *, width: int = WIDTH) -> None:
        super().__init__(width)
        self.past, self.reason, self.trace = past, why, trace
        self.ending, self.at = "", len(past.held) - 1

    @property
    def commands(self) -> Mapping[str, Command]:
        """The table, :data:`COMMANDS`."""
        return COMMANDS

    def arrays(self) -> tuple[dict[str, Array], Any]:
        """Return the arrays of what is looked at."""
        return self._here.moment.arrays, self._here.moment.backend

    @property
    def _here(self) -> _Held:
        return self.past.held[self.at]

    def up(self, rest: list[str]) -> list[str]:
        """Look at an op before this one."""
        return self._look(self.at - count_of(rest))

    def down(self, rest: list[str]) -> list[str]:
        """Look at an op after this one."""
        return self._look(self.at + count_of(rest))

    def go(self, rest: list[str]) -> list[str]:
        """Look at an op by its number."""
        first = self.past.held[0].moment.event.number
        return self._look(number_of(rest[0]) - first)

    def _look(self, place: int) -> list[str]:
        held = self.past.held
        if not 0 <= place < len(held):
            first, last = (held[i].moment.event.number for i in (0, -1))
            raise SettingError(f"#{first} is the first that is kept, and it stands at #{last}", op="go")
        self.at, self._walk = place, None
        return self.show([])

    def where(self, rest: list[str]) -> list[str]:
        """Say the place."""
        del rest
        return [views.cut(f"{self._place()}: {views.headline(self._here.moment.event)}", self.width)]

    def _place(self) -> str:
        event, after = self._here.moment.event, len(self.past.held) - 1 - self.at
        said = [f"{after} before the breakpoint" if after else "at the breakpoint"]
        said += [f"step {event.step}"] if event.step else []
        return ", ".join([*said, f"stage {event.stage}"] if event.stage else said)

    def why(self, rest: list[str]) -> list[str]:
        """Tell why it stands here, and how a value became non-finite."""
        del rest
        found = first_nonfinite(self.trace.events)
        more = [] if found is None else views.refitted(str(found), self.width)
        return [*views.refitted(self.reason, self.width), *more]

    def show(self, rest: list[str]) -> list[str]:
        """Show what is looked at."""
        del rest
        moment = self._here.moment
        return [self._place(), *views.seen(moment, moment.event.facts, self.width)]

    def listing(self, rest: list[str]) -> list[str]:
        """List ops around this one."""
        count, held = count_of(rest, LISTED), list(self.past.held)
        first = min(max(self.at - count // 2, 0), max(len(held) - count, 0))
        lines = []
        for i, each in enumerate(held[first : first + count], first):
            event = each.moment.event
            mark = ">" if i == self.at else " "
            lines.append(views.cut(f"{mark} #{event.number:<5} {views.short(event)}", self.width))
        return lines

    def check(self, rest: list[str]) -> list[str]:
        """Prove an op or gradient."""
        del rest
        held = self._here
        if held.heard is None:
            raise SettingError("here ops and gradients are proved, and this is a stage", op="check",
                               help="`minimp step` proves stages")  # fmt: skip
        node = held.heard.node
        known = (each.heard for each in self.past.held if each.heard is not None)
        forward = next((e for e in known if e.node is node and e.phase == "forward"), None)
        return views.found_lines(check_event(held.heard, forward), held.moment.event, self.width)

    def python(self, rest: list[str]) -> list[str]:
        """Start the debugger that Python is set to."""
        del rest
        start_python(self._here.moment.event, self.trace)
        return []

    def go_on(self, rest: list[str]) -> list[str]:
        """Let the computation go on, to the next breakpoint."""
        del rest
        return self._end("continue")

    def finish(self, rest: list[str]) -> list[str]:
        """Let the computation go on to the end of the block."""
        del rest
        return self._end("finish")

    def abort(self, rest: list[str]) -> list[str]:
        """Let the computation end here."""
        del rest
        return self._end("abort")

    def _end(self, how: str) -> list[str]:
        self.ending, self.closed = how, True
        return []


def start_python(event: TraceEvent, trace: Trace) -> None:  # noqa: ARG001 - for who looks around
    """Call sys.breakpointhook, which starts pdb or what PYTHONBREAKPOINT names."""
    frame: FrameType | None = sys._getframe()
    ups = 0
    while frame is not None and frame.f_code.co_filename.startswith(HERE):
        frame, ups = frame.f_back, ups + 1
    if frame is not None:
        sys.stderr.write(f"`up {ups}` leads to your code; `event` and `trace` are here; `c` comes back\n")
    sys.breakpointhook()  # noqa: T100 - it was asked for


ENDINGS = {
    "continue": "go on until the condition holds again",
    "finish": "go on, and stop no more in this block",
    "abort": "raise BreakpointError where it stands",
}
"""How it can be told to end -> what then happens."""
COMMANDS: Mapping[str, Command] = MappingProxyType({each.name: each for each in (
    Command("show", "h", "show", "equation, formats, statistics, histogram", Halt.show),
    Command("up", "u", "up [N]", "look at the op before", Halt.up, most=1),
    Command("down", "d", "down [N]", "look at the op after", Halt.down, most=1),
    Command("go", "g", "go NUMBER", "look at an op by its number", Halt.go, 1, 1),
    Command("list", "l", "list [N]", "the ops around this one", Halt.listing, most=1),
    Command("where", ".", "where", "the place in one line", Halt.where),
    OPEN,
    MORE,
    BITS,
    Command("check", "k", "check", "prove the op or gradient looked at", Halt.check),
    Command("why", "w", "why", "why it stands here; the first infinity or NaN", Halt.why),
    Command("python", "y", "python", "Python's debugger, here", Halt.python),
    Command("continue", "c", "continue", ENDINGS["continue"], Halt.go_on),
    Command("finish", "f", "finish", ENDINGS["finish"], Halt.finish),
    Command("abort", "a", "abort", ENDINGS["abort"], Halt.abort),
    Command("help", "?", "help [COMMAND]", "this list, or more on one command", Halt.help, most=1),
    Command("quit", "q", "quit", "the same as abort", Halt.abort),
)})  # fmt: skip
"""Name -> command, in the order of the help."""


def ask(past: Past, why: str, trace: Trace) -> str:
    """Ask at the terminal until told how to end; return a key of :data:`ENDINGS`.

    Ctrl-D ends as abort does; Ctrl-C is KeyboardInterrupt, as anywhere.

    Raises:
        SettingError: nobody can be asked: standard input is no terminal, and no notebook is.
    """
    if not _somebody():
        raise SettingError(
            "standard input is no terminal, so that nobody can be asked what to look at",
            help="run it in a terminal (pytest: with -s); or look at this error's `event` and `trace`",
        )  # fmt: skip
    out = sys.stdout if sys.stdout.isatty() or not _is_terminal() else sys.stderr
    halt = Halt(past, why, trace, width=min(get_terminal_size().columns, WIDTH))

    def say(text: str) -> None:
        out.write(text + "\n" if text else "")
        out.flush()

    say(
        "\n".join(
            [
                *views.refitted(why, halt.width),
                "`help` lists the commands, `continue` goes on, `abort` raises.",
            ]
        )
    )
    while not halt.closed:
        try:
            line = _line(out)
        except EOFError:
            return "abort"
        say(_told(halt, line))
    return halt.ending


def _told(halt: Halt, line: str) -> str:
    try:
        return halt.do(line)
    except MinimpError as fault:
        return "\n".join(views.refitted(f"error: {fault}", halt.width))


def _line(out: Any) -> str:
    if out is sys.stdout:
        return input("(minimp) ")
    out.write("(minimp) ")
    out.flush()
    return input()


def _is_terminal() -> bool:
    return sys.stdin is not None and not sys.stdin.closed and sys.stdin.isatty()


def _somebody() -> bool:
    """Tell whether `input` reaches somebody: a terminal, or what a notebook has put in its place."""
    return _is_terminal() or not isinstance(input, BuiltinFunctionType)


def _documented() -> str:
    rows: list[tuple[Any, ...]] = [(each.usage, each.help) for each in COMMANDS.values()]
    return "\n".join(views.table(("command", "what it does"), rows))


__doc__ = (__doc__ or "").replace("{table}", _documented())
