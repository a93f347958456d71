"""Colours of the screen: they only repeat what letters say."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from rich.text import Text

from minimp.stepper import views

__all__ = ["INKS", "coloured", "styled"]

INKS = {
    False: {"wrong": "bold #ff8a80", "star": "bold #ffb74d", "ok": "#a5d6a7", "bar": "#80deea",
            "low": "#ffcc80"},
    True: {"wrong": "bold #9b0000", "star": "bold #7a3e00", "ok": "#1b5e20", "bar": "#004d63",
           "low": "#7a3e00"},
}  # fmt: skip
"""Whether the ground is light -> what for -> style; all can be read on it."""
BAR = re.compile(r" *2\^\S+ +[\d,]+ (#+|:+)")
"""A line of a histogram; `:` are numbers below the smallest normal one."""


def styled(row: views.Row, width: int) -> Text:
    """Return a row of the list; what is wrong with it stands out, also without colours."""
    text, _, marks = row.text.partition(" !")
    room = width - (len(marks) + 3 if marks else 0)
    made = Text(views.cut(text, max(room, 12)), style="italic" if row.cursor is None else "", no_wrap=True)
    if marks:
        made.append(" ").append(f"!{marks}", "bold #ffffff on #b00020")
    return made


def coloured(lines: Iterable[str], *, light: bool) -> Text:
    """Return lines as they are, with a little colour where it helps to read."""
    text, ink = Text(), INKS[light]
    for i, line in enumerate(lines):
        style: Any = "bold" if i == 0 else ""
        if line.startswith(("WRONG", "error")):
            style = ink["wrong"]
        elif line.startswith("*"):
            style = ink["star"]
        elif line.startswith("ok:"):
            style = ink["ok"]
        elif BAR.fullmatch(line):
            style = ink["low" if line.endswith(":") else "bar"]
        text.append(line + "\n", style)
    text.rstrip()
    return text
