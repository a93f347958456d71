"""The screen of a session: stages and ops on the left, what is looked at on the right, keys below.

It needs textual (`pip install "minimp[tui]"`), and does what the prompt does: each key is a command of
:data:`minimp.stepper.COMMANDS`, and `:` takes any command in words.
"""

from __future__ import annotations

import asyncio
from functools import partial
from threading import Event
from typing import Any, ClassVar

from rich.text import Text
from textual import events
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from minimp.errors import MinimpError
from minimp.step import STAGES
from minimp.stepper import views
from minimp.stepper.answers import Answer, name_in
from minimp.stepper.commands import COMMANDS, Prompt
from minimp.stepper.drawing import INKS, coloured, styled
from minimp.stepper.hand import Hand
from minimp.stepper.session import Session

__all__ = ["Stepper", "open_screen"]

MOVES = ("step", "op", "back", "prev", "finish", "restart", "go")
"""Commands after which the screen itself says all there is to say."""
STILL = ("open", "more", "bits", "show", "help", "why", "where", "list", "edits", "check", "save")
"""Commands after which the session is where it was."""
ASKING = {
    "run": "run ", "set": "set scale ", "save": "save test_finding.py", "go": "go ",
    "bits": "bits ",
}  # fmt: skip
"""Commands that want words, and what the line begins with."""
KEYS = (
    ("n", "next"), ("o", "op"), ("b", "back"), ("r", "run"), ("t", "open"), ("s", "what-if"), ("c", "check"),
    ("w", "why"), (":", "any"), ("?", "help"), ("q", "quit"), ("p", "prev"), ("f", "finish"), ("u", "undo"),
    ("v", "save"), ("0", "restart"),
)  # fmt: skip
"""The keys that are named at the bottom, as many as there is room for; `?` has all."""
OTHER_KEYS = (
    (":", "any command, in words"),
    ("Up Down", "look at another row; `open` and `check` are about it"),
    ("Enter", "go to that row: back to an op, or on to a stage"),
    ("Tab", "scroll the right side down; Shift+Tab up"),
    ("Esc", "stop what runs; leave the line; close what lies over the screen"),
    ("Ctrl+C", "stop what runs"),
    ("q Ctrl+Q", "end the session, whatever runs"),
)
"""Keys that are no commands."""
TICK = 0.2
"""So often, in seconds, it is said how far a command has come."""
PATIENCE = 2.0
"""So long, in seconds, the end waits for an op or for code of the user's that is under way."""


class _Right(VerticalScroll):  # type: ignore[misc]  # as above
    """The right side, which fits its text to the width that it gets."""

    def on_resize(self) -> None:
        """Fit the text."""
        self.app.look()


class Stepper(App[int]):  # type: ignore[misc]  # as above
    """The screen.

    Args:
        session: the session.
        light: dark letters on light ground.

    Attributes:
        busy: the command that runs, or "".
    """

    TITLE = "minimp step"
    ENABLE_COMMAND_PALETTE = False
    CSS = """
    #place { height: 1; background: $accent; color: $text; text-style: bold; padding: 0 1; }
    #left { width: 30; height: 1fr; border: none; padding: 0; scrollbar-size-vertical: 1; }
    #left > .option-list--option-highlighted { background: #00508f; color: #ffffff; text-style: bold; }
    #right { width: 1fr; height: 1fr; border-left: vkey $accent; padding: 0 1; scrollbar-size-vertical: 1;
             scrollbar-gutter: stable; }
    #look { width: 1fr; }
    #said { height: auto; max-height: 4; padding: 0 1; }
    #keys { height: 1; padding: 0 1; }
    #line { height: 1; border: none; padding: 0 1; display: none; }
    Screen.wide #left { width: 44; }
    Screen.narrow #left { width: 20; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        *(
            Binding(
                {"?": "question_mark", ".": "full_stop"}.get(each.key, each.key),
                f"press('{each.name}')",
                each.name,
                priority=True,  # or a key that is typed ahead gets lost: it has gone to where the focus was
            )
            for each in COMMANDS.values()
        ),
        Binding("colon", "ask('')", "command", priority=True),
        Binding("escape", "leave_line", "back", priority=True, show=False),
        Binding("ctrl+c", "stop", "stop", priority=True, show=False),
        Binding("tab", "scroll_look(8)", "scroll", priority=True, show=False),
        Binding("shift+tab", "scroll_look(-8)", "scroll", priority=True, show=False),
    ]

    def __init__(self, session: Session, *, light: bool = False) -> None:
        super().__init__()
        self.session = session
        self.prompt = Prompt(session)
        self.busy = ""
        self.light_ground = light
        self._checked: tuple[Any, dict[int, list[str]]] = None, {}
        self._rows: list[views.Row] = []
        self._stopping, self._ending = Event(), Event()
        self._hand = Hand()
        session.heed = self._heed

    def compose(self) -> ComposeResult:
        """Lay the screen out."""
        yield Static(id="place")
        with Horizontal():
            yield OptionList(id="left")
            with _Right(id="right", can_focus=False):
                yield Static(id="look")
        yield Static(id="said")
        yield Static(id="keys")
        yield Input(id="line", compact=True, select_on_focus=False)

    def on_mount(self) -> None:
        """Show the beginning."""
        if self.light_ground:
            self.theme = "textual-light"
        self.set_interval(TICK, self._tell_progress)
        self.query_one("#left").focus()
        self._fill()
        first = "Enter on a stage runs to its end; on an op, goes there. ? has all keys."
        self.say("\n".join(filter(None, (self.session.note, first))))

    def on_resize(self, event: events.Resize) -> None:
        """Fit the text to the new width."""
        self.screen.set_class(event.size.width >= 120, "wide")
        self.screen.set_class(event.size.width < 76, "narrow")
        self.prompt.width = max(min(event.size.width - 6, 100), 60)
        self.call_after_refresh(self._fill)

    # ---- what is seen -----------------------------------------------------------------------------------

    def _fill(self) -> None:
        """Show where the session is."""
        if self.busy:
            return
        self.prompt.looked = None
        place = views.place(self.session)
        title = self.session.title
        fits = len(place) + len(title) + 5 <= self.size.width
        shown = place.ljust(self.size.width - 2 - len(title)) + title if fits else place
        self.query_one("#place", Static).update(Text(shown, no_wrap=True))
        left = self.query_one("#left", OptionList)
        self._rows = views.listing(self.session)
        left.clear_options()
        room = int(left.styles.width.value if left.styles.width else 30) - 2  # the scroll bar, and a gap
        left.add_options([Option(styled(row, room)) for row in self._rows])
        here = next((i for i, row in enumerate(self._rows) if row.here), None)
        left.highlighted = self.session.done if here is None else here
        self._keys()
        self.call_after_refresh(self.look)

    def look(self) -> None:
        """Show what is looked at: the session's place, or another row of the list."""
        if self.busy:
            return
        right = self.query_one("#right", VerticalScroll)
        width = max(right.scrollable_content_region.width, 30)
        session, looked = self.session, self.prompt.looked
        lines = views.moment_lines(session, min(width, 100), looked)
        at = session.cursor if looked is None else looked
        run, checked = self._checked
        if run is session.run and at in checked:
            lines += ["", *(part for line in checked[at] for part in views.refitted(line, width))]
        elif at >= 0:
            lines += ["", "not checked; c does"]
        self.query_one("#look", Static).update(coloured(lines, light=self.is_light))

    def _keys(self) -> None:
        text, room = Text(no_wrap=True), self.size.width - 2
        for key, word in KEYS:
            part = Text.assemble((key, "bold reverse"), f" {word} ")
            if len(text) + len(part) - 1 > room:
                break
            text.append_text(part)
        self.query_one("#keys", Static).update(text)

    @property
    def is_light(self) -> bool:
        """Whether the ground is light."""
        return not self.current_theme.dark

    def say(self, text: str, *, wrong: bool = False) -> None:
        """Put a few words above the keys."""
        for said in self.query("#said").results(Static):  # none is there any more when the screen goes
            said.update(Text(text, style=INKS[self.is_light]["wrong"] if wrong else ""))

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Leave letters to the line, and all keys to what lies over the screen."""
        del parameters
        if isinstance(self.screen, Answer):
            return action not in ("press", "ask", "leave_line")
        return action not in ("press", "ask") or self.focused is not self.query_one("#line")

    # ---- what is done -----------------------------------------------------------------------------------

    def on_option_list_option_highlighted(self, event: OptionList.OptionHighlighted) -> None:
        """Look at the row that the arrows are on; the session stays where it is."""
        row = self._rows[event.option_index]
        here = row.here or (row.cursor is None and self.session.run is None)
        if not self.busy:
            self.prompt.looked = None if here else row.cursor
        self.look()
        self.query_one("#right").scroll_home(animate=False)

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """Go to a row: to an op, also back; or run up to a stage that has not run."""
        row = self._rows[event.option_index]
        if row.cursor is not None:
            self.carry_out(f"go {row.cursor}")
        else:
            stages = sum(each.cursor is None for each in self._rows[: event.option_index + 1])
            ahead = 0 if self.session.at_end else 1  # from among a stage's ops, its end comes first
            self.carry_out(f"step {stages + ahead}")

    def action_press(self, name: str) -> None:
        """Carry out the command of a key, or ask for its words."""
        if name == "open":
            arrays, _ = self.prompt.arrays()
            self.action_ask(f"open {'out0' if 'out0' in arrays else next(iter(arrays), '')}")
        elif name in ASKING:
            self.action_ask(ASKING[name])
        else:
            self.carry_out(name)

    def action_ask(self, start: str) -> None:
        """Open the line for a command in words."""
        line = self.query_one("#line", Input)
        line.value = start
        line.placeholder = "a command, such as: run underflow>1%   Enter does it, Escape leaves"
        line.display = True
        self.query_one("#keys").display = False
        self.screen.set_focus(line)  # at once: what is typed ahead belongs to it
        line.cursor_position = len(start)

    def action_leave_line(self) -> None:
        """Close the line; where none is open, stop what runs."""
        if not self.query_one("#line", Input).display:
            self.action_stop()
        line = self.query_one("#line", Input)
        line.display = False
        self.query_one("#keys").display = True
        self.screen.set_focus(self.query_one("#left"))

    def action_scroll_look(self, lines: int) -> None:
        """Scroll the right side."""
        self.query_one("#right", VerticalScroll).scroll_relative(y=lines, animate=False)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Carry out what was typed."""
        self.action_leave_line()
        self.carry_out(event.value.strip())

    def action_stop(self) -> None:
        """Stop what runs, at its next op."""
        if self.busy:
            self._stopping.set()
            self.say(f"{self.busy}: stopping ...")

    def carry_out(self, line: str) -> None:
        """Carry a command out, beside the screen, and show what it says; to quit, nothing is waited for."""
        if line in ("quit", COMMANDS["quit"].key):
            self.exit(int(self.prompt.failed))
            return
        if self.busy:
            self.bell()  # what runs, and how to stop it, stands there already
            return
        self.busy = line or " "
        self._stopping.clear()
        self.run_worker(self._carry_out(line), exit_on_error=True)

    def _heed(self) -> None:
        """Stop the session where that was asked for (it calls this)."""
        if self._stopping.is_set() or self._ending.is_set():
            self._stopping.clear()  # once: what was begun is then taken back, if the session goes on
            raise KeyboardInterrupt

    def _tell_progress(self) -> None:
        """Say how far a command has come."""
        if self.busy and not self._stopping.is_set():
            run, session = self.session.run, self.session
            stages = 0 if run is None else run.done
            self.say(f"{self.busy} ... step {session.number}, {stages} of {len(STAGES)} stages; Esc stops")

    async def _carry_out(self, line: str) -> None:
        session = self.session
        where = session.number, session.done, session.cursor
        told, fault = await asyncio.wrap_future(self._hand.give(partial(_done, self.prompt, line)))
        self.busy = ""
        if fault is not None:
            if (session.number, session.done, session.cursor) != where:  # of several moves, some were made
                self._fill()
            self.say(_said_of(fault, session), wrong=not isinstance(fault, KeyboardInterrupt))
        else:
            self._show(line, told)

    async def on_event(self, event: events.Event) -> None:
        """Take Escape and a key in one breath, which a terminal hands on as Alt and the key, for the two."""
        if isinstance(event, events.Key) and event.key.startswith("alt+"):
            self.simulate_key("escape")
            self.simulate_key(event.key.removeprefix("alt+"))
        else:
            await super().on_event(event)

    def on_unmount(self) -> None:
        """End what runs, also where the terminal has gone."""
        self.end()

    def end(self) -> None:
        """End what runs, at its next op; what takes longer than :data:`PATIENCE` is left to the process."""
        self._ending.set()
        if self._hand.end(PATIENCE):
            self._ending.clear()
        else:
            self.session.run = None  # it cannot be closed while it runs
        self.session.heed = bool

    def _show(self, line: str, told: str) -> None:
        """Show what a command has said: nothing more, a line, beside the stage, or over the screen."""
        name = name_in(line)
        self.say("")
        lines = told.split("\n")
        if name == "check":
            self._keep_check(lines)
            return
        if name == "help" and len(line.split()) == 1:
            width = max(len(key) for key, _ in OTHER_KEYS) + 2
            lines += ["", *(f"{key:{width}}{text}" for key, text in OTHER_KEYS)]
        if name not in STILL:
            self._fill()
        warned = [each for each in lines if each.startswith("warning:")]
        if name in MOVES:
            self.say("\n".join(warned))
        elif len(lines) == 1 or name == "run":
            self.say(lines[0])
        else:
            self.push_screen(Answer(self.prompt, line, "\n".join(lines)))

    def _keep_check(self, lines: list[str]) -> None:
        """Show what a check has found beside what it is about, also when one comes back to it."""
        run, checked = self._checked
        at = self.session.cursor if self.prompt.looked is None else self.prompt.looked
        kept = checked if run is self.session.run else {}
        self._checked = self.session.run, {**kept, at: lines}
        self.look()
        self.call_after_refresh(self.query_one("#right").scroll_end, animate=False)


def _done(prompt: Prompt, line: str) -> tuple[str, BaseException | None]:
    """Carry a command out; what it raises is an answer too: a model or loss may raise anything."""
    try:
        return prompt.do(line), None
    except (Exception, KeyboardInterrupt) as fault:  # noqa: BLE001 - as said
        return "", fault


def _said_of(fault: BaseException, session: Session) -> str:
    if isinstance(fault, KeyboardInterrupt):
        return f"stopped: {views.place(session)}"
    raised = "" if isinstance(fault, MinimpError) else f"the stage raised {type(fault).__name__}: "
    return f"error: {raised}{fault}"


def open_screen(session: Session, *, light: bool = False) -> int:
    """Show a session until it is quit; return the exit code: 1 if a check failed."""
    app = Stepper(session, light=light)
    try:
        return app.run() or 0
    finally:
        app.end()
