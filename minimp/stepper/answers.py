"""What a command has to say, over the screen."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from minimp.stepper.asking import by_word
from minimp.stepper.commands import COMMANDS, Prompt
from minimp.stepper.drawing import coloured

__all__ = ["Answer", "name_in"]

PAGED = ("open", "more")
"""Commands of which there may be more."""


def name_in(line: str) -> str:
    """Return the name of the command in a line."""
    word = line.split(maxsplit=1)[0] if line.strip() else ""
    found = by_word(COMMANDS).get(word)
    return word if found is None else found.name


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
        self.paged = name_in(title) in PAGED

    def compose(self) -> ComposeResult:
        """Lay the answer out."""
        with VerticalScroll() as box:
            box.border_title = Text(self.heading)
            box.border_subtitle = Text(f"{'m more' if self.paged else 'Up Down scroll'}, Esc closes")
            yield Static(coloured(self.text.split("\n"), light=not self.app.current_theme.dark), id="answer")

    def action_close(self) -> None:
        """Close it."""
        self.dismiss()

    def action_scroll(self, lines: int) -> None:
        """Scroll by so many lines."""
        self.query_one(VerticalScroll).scroll_relative(y=lines, animate=False)

    def action_more(self) -> None:
        """Show further elements of the tensor that was opened."""
        if self.paged:
            lines = self.prompt.do("more").split("\n")
            self.text = "\n".join([self.text, *lines])
            self.query_one("#answer", Static).update(
                coloured(self.text.split("\n"), light=not self.app.current_theme.dark)
            )
            self.query_one(VerticalScroll).scroll_end(animate=False)
