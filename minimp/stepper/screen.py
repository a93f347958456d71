"""The screen of a session: stages and ops on the left, what is looked at on the right, keys below.

It needs textual (`pip install "minimp[tui]"`), and does what the prompt does: each key is a command of
:data:`minimp.stepper.COMMANDS`, and `:` takes any command in words.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, ClassVar

from rich.text import Text
from textual import events
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from minimp.errors import MinimpError
from minimp.stepper import views
from minimp.stepper.commands import COMMANDS, Prompt
from minimp.stepper.session import Session

__all__ = ["Stepper", "open_screen"]

MOVES = ("step", "op", "back", "prev", "finish", "restart", "go")
"""Commands after which the screen itself says all there is to say."""
ASKING = {
    "run": "run ", "open": "open out0", "set": "set scale ", "save": "save test_finding.py", "go": "go ",
    "bits": "bits ",
}  # fmt: skip
"""Commands that want words, and what the line begins with."""
KEYS = (
    ("n", "next"), ("o", "op"), ("b", "back"), ("r", "run"), ("t", "open"), ("s", "what-if"), ("c", "check"),
    ("w", "why"), (":", "any"), ("?", "help"), ("q", "quit"), ("p", "prev"), ("f", "finish"), ("u", "undo"),
    ("v", "save"), ("0", "restart"),
)  # fmt: skip
"""The keys that are named at the bottom, as many as there is room for; `?` has all."""


BAR = re.compile(r" *2\^\S+ +[\d,]+ (#+|:+)")
"""A line of a histogram; `:` are numbers below the smallest normal one."""


class Answer(ModalScreen[None]):  # type: ignore[misc]  # mypy looks into no optional library
    """What a command has to say, over the screen; any of Escape, Enter, q closes it.

    Args:
        prompt: goes on where the answer is a page of elements.
        title: the command.
        text: the answer.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,enter,q", "close", "close"),
        Binding("m", "more", "more"),
        Binding("up,k", "scroll(-1)", show=False),
        Binding("down,j", "scroll(1)", show=False),
        Binding("pageup", "scroll(-10)", show=False),
        Binding("pagedown,space", "scroll(10)", show=False),
    ]
    CSS = """
    Answer { align: center middle; overflow: hidden hidden; }
    Answer > VerticalScroll { width: auto; max-width: 100%; height: auto; max-height: 100%;
                              border: round $accent; padding: 0 1; background: $surface;
                              scrollbar-size-vertical: 1; }
    Answer Static { width: auto; }
    """

    def __init__(self, prompt: Prompt, title: str, text: str) -> None:
        super().__init__()
        self.prompt, self.heading, self.text = prompt, title, text

    def compose(self) -> ComposeResult:
        """Lay the answer out."""
        with VerticalScroll() as box:
            box.border_title = Text(self.heading)
            box.border_subtitle = Text(
                "m more, Esc closes" if self.heading.startswith("open ") else "Esc closes"
            )
            yield Static(_coloured(self.text.split("\n")), id="answer")

    def action_close(self) -> None:
        """Close it."""
        self.dismiss()

    def action_scroll(self, lines: int) -> None:
        """Scroll by so many lines."""
        self.query_one(VerticalScroll).scroll_relative(y=lines, animate=False)

    def action_more(self) -> None:
        """Show further elements of the tensor that was opened."""
        if self.heading.startswith("open "):
            lines = self.prompt.do("more").split("\n")
            self.text = "\n".join([self.text, *lines])
            self.query_one("#answer", Static).update(_coloured(self.text.split("\n")))
            self.query_one(VerticalScroll).scroll_end(animate=False)


class _Right(VerticalScroll):  # type: ignore[misc]  # as above
    """The right side, which fits its text to the width that it gets."""

    def on_resize(self) -> None:
        """Fit the text."""
        self.app.look()


class Stepper(App[int]):  # type: ignore[misc]  # as above
    """The screen.

    Args:
        session: the session.
    """

    TITLE = "minimp step"
    ENABLE_COMMAND_PALETTE = False
    CSS = """
    #place { height: 1; background: $accent; color: $text; text-style: bold; padding: 0 1; }
    #left { width: 30; height: 1fr; border: none; padding: 0; scrollbar-size-vertical: 1; }
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
            )
            for each in COMMANDS.values()
        ),
        Binding("colon", "ask('')", "command"),
        Binding("escape", "leave_line", "back", show=False),
        Binding("tab", "scroll_look(8)", "scroll", priority=True, show=False),
        Binding("shift+tab", "scroll_look(-8)", "scroll", priority=True, show=False),
    ]

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session
        self.prompt = Prompt(session)
        self.looked: int | None = None
        self._checked: tuple[tuple[int, int], list[str]] | None = None
        self._rows: list[views.Row] = []

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
        self.query_one("#left").focus()
        self._fill()
        self.say("Enter on a stage runs to its end; on an op, goes there. ? has all keys.")

    def on_resize(self, event: events.Resize) -> None:
        """Fit the text to the new width."""
        self.screen.set_class(event.size.width >= 120, "wide")
        self.screen.set_class(event.size.width < 76, "narrow")
        self.prompt.width = max(min(event.size.width - 6, 100), 60)
        self.call_after_refresh(self._fill)

    # ---- what is seen -----------------------------------------------------------------------------------

    def _fill(self) -> None:
        """Show where the session is."""
        self.looked = None
        place = views.place(self.session)
        title = self.session.title
        fits = len(place) + len(title) + 5 <= self.size.width
        shown = place.ljust(self.size.width - 2 - len(title)) + title if fits else place
        self.query_one("#place", Static).update(Text(shown, no_wrap=True))
        left = self.query_one("#left", OptionList)
        self._rows = views.listing(self.session)
        left.clear_options()
        room = int(left.styles.width.value if left.styles.width else 30) - 2  # the scroll bar, and a gap
        left.add_options([Option(_styled(row, room)) for row in self._rows])
        here = next((i for i, row in enumerate(self._rows) if row.here), None)
        left.highlighted = self.session.done if here is None else here
        self._keys()
        self.call_after_refresh(self.look)

    def look(self) -> None:
        """Show what is looked at: the session's place, or another row of the list."""
        right = self.query_one("#right", VerticalScroll)
        width = max(right.scrollable_content_region.width, 30)
        lines = views.moment_lines(self.session, min(width, 100), self.looked)
        if self._checked is not None and self._checked[0] == (self.session.number, self.session.done):
            lines += ["", *(part for line in self._checked[1] for part in views.refitted(line, width))]
        self.query_one("#look", Static).update(_coloured(lines))

    def _keys(self) -> None:
        text, room = Text(no_wrap=True), self.size.width - 2
        for key, word in KEYS:
            part = Text.assemble((key, "bold reverse"), f" {word} ")
            if len(text) + len(part) - 1 > room:
                break
            text.append_text(part)
        self.query_one("#keys", Static).update(text)

    def say(self, text: str, *, wrong: bool = False) -> None:
        """Put a few words above the keys."""
        self.query_one("#said", Static).update(Text(text, style="bold red" if wrong else ""))

    # ---- what is done -----------------------------------------------------------------------------------

    def on_option_list_option_highlighted(self, event: OptionList.OptionHighlighted) -> None:
        """Look at the row that the arrows are on; the session stays where it is."""
        row = self._rows[event.option_index]
        here = row.here or (row.cursor is None and self.session.run is None)
        self.looked = None if here else row.cursor
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
        if name in ASKING:
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
        line.focus()
        line.cursor_position = len(start)

    def action_leave_line(self) -> None:
        """Close the line."""
        line = self.query_one("#line", Input)
        line.display = False
        self.query_one("#keys").display = True
        self.query_one("#left").focus()

    def action_scroll_look(self, lines: int) -> None:
        """Scroll the right side."""
        self.query_one("#right", VerticalScroll).scroll_relative(y=lines, animate=False)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Carry out what was typed."""
        self.action_leave_line()
        self.carry_out(event.value.strip())

    def carry_out(self, line: str) -> None:
        """Carry a command out, and show what it says."""
        self.say(f"{line} ...")
        self.call_after_refresh(self._carry_out, line)

    def _carry_out(self, line: str) -> None:
        session = self.session
        where = session.number, session.done, session.cursor
        try:
            told = self.prompt.do(line)
        except Exception as fault:  # noqa: BLE001 - a model or loss may raise anything
            raised = "" if isinstance(fault, MinimpError) else f"the stage raised {type(fault).__name__}: "
            if (session.number, session.done, session.cursor) != where:  # of several moves, some were made
                self._fill()
            self.say(f"error: {raised}{fault}", wrong=True)
            return
        if self.prompt.closed:
            self.exit(int(self.prompt.failed))
            return
        self._show(line, told)

    def _show(self, line: str, told: str) -> None:
        """Show what a command has said: nothing more, a line, beside the stage, or over the screen."""
        name = line.split(maxsplit=1)[0] if line else ""
        name = next((each.name for each in COMMANDS.values() if name in (each.name, each.key)), name)
        self.say("")
        if name == "check":
            self._checked = (self.session.number, self.session.done), told.split("\n")
            self.look()
            self.call_after_refresh(self.query_one("#right").scroll_end, animate=False)
            return
        self._fill()
        lines = told.split("\n")
        warned = [each for each in lines if each.startswith("warning:")]
        if name in MOVES:
            self.say("\n".join(warned))
        elif len(lines) == 1 or name == "run":
            self.say(lines[0])
        else:
            self.push_screen(Answer(self.prompt, line, told))


def _styled(row: views.Row, width: int) -> Text:
    """Return a row of the list; what is wrong with it stands out, also without colours."""
    text, _, marks = row.text.partition(" !")
    room = width - (len(marks) + 3 if marks else 0)
    made = Text(views.cut(text, max(room, 12)), style="dim" if row.cursor is None else "", no_wrap=True)
    if marks:
        made.append(" ").append(f"!{marks}", "bold white on #b00020")
    return made


def _coloured(lines: Iterable[str]) -> Text:
    """Return lines as they are, with a little colour where it helps to read."""
    text = Text()
    for i, line in enumerate(lines):
        style: Any = "bold" if i == 0 else ""
        if line.startswith(("WRONG", "error")):
            style = "bold red"
        elif line.startswith("*"):
            style = "bold yellow"
        elif line.startswith("ok:"):
            style = "green"
        elif BAR.fullmatch(line):
            style = "yellow" if line.endswith(":") else "cyan"
        text.append(line + "\n", style)
    text.rstrip()
    return text


def open_screen(session: Session) -> int:
    """Show a session until it is quit; return the exit code: 1 if a check failed."""
    return Stepper(session).run() or 0
