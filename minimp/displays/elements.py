"""The parts that displays are put together from."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from html import escape
from typing import Any

__all__ = [
    "FAINT",
    "MONO",
    "Html",
    "badge",
    "box",
    "clipped",
    "counted",
    "head",
    "number",
    "paragraph",
    "rows",
    "tag",
]

BOX = (
    "font-family:ui-sans-serif,system-ui,sans-serif;font-size:14px;line-height:1.5;max-width:860px;"
    "padding:12px 16px;border:1px solid rgba(127,127,127,.35);border-radius:10px;overflow-x:auto;"
    "background:rgba(127,127,127,.06)"
)
MONO = "font-family:ui-monospace,Menlo,Consolas,monospace;font-variant-numeric:tabular-nums"
FAINT = "opacity:.75;font-size:12px"
CELL = "padding:1px 8px;border:0;text-align:"
LONGEST = 80
EXACT = 2.0**40
"""Below this, whole numbers are written with all of their digits: loss scales are."""


class Html(str):
    """HTML that is finished; all other text is escaped where it is put into an element."""

    __slots__ = ()


def tag(name: str, style: str, *inner: Any, **attributes: str) -> Html:
    """Return an element: `inner` and the values of attributes are text, unless they are Html."""
    given = ({"style": style} if style else {}) | attributes
    said = "".join(f' {key.replace("_", "-")}="{escape(value)}"' for key, value in given.items())
    return Html(f"<{name}{said}>{''.join(map(_escaped, inner))}</{name}>")


def _escaped(part: Any) -> str:
    return part if isinstance(part, Html) else escape(str(part))


def clipped(text: Any, most: int = LONGEST) -> str:
    """Return at most so many characters of what may be a name of someone's own, without line breaks."""
    words = " ".join(str(text).split())
    return words if len(words) <= most else words[: most - 3] + "..."


def number(value: float) -> str:
    """Return a number as it is shown: 12,345, 65,536, 0.0001234, 6.1e-05."""
    whole = isinstance(value, int) or (value.is_integer() and abs(value) < EXACT)
    return f"{int(value):,}" if whole else f"{value:.5g}"


def counted(count: int, what: str) -> str:
    """Return "1 element", "12 elements"."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def box(label: str, *inner: Html) -> Html:
    """Return the frame around a display; `label` says to screen readers what it is."""
    return tag("div", BOX, *inner, role="group", aria_label=clipped(label))


def badge(text: str, colour: str = "127,127,127") -> Html:
    """Return a word in a frame."""
    style = (
        f"font-size:12px;padding:1px 9px;border-radius:9px;background:rgba({colour},.16);"
        f"border:1px solid rgba({colour},.55);white-space:nowrap"
    )
    return tag("span", style, clipped(text))


def head(strong: str, rest: str, badges: Iterable[Html] = ()) -> Html:
    """Return the first line: what it is, what it is like, and words in frames."""
    name = tag("span", f"font-size:16px;font-weight:600;overflow-wrap:anywhere;{MONO}", clipped(strong))
    more = tag("span", "opacity:.85;overflow-wrap:anywhere", clipped(rest, 200))
    style = "display:flex;flex-wrap:wrap;gap:4px 10px;align-items:center;margin-bottom:6px"
    return tag("div", style, name, more, *badges)


def paragraph(text: Any) -> Html:
    """Return a line of small text."""
    return tag("div", f"{FAINT};margin-top:6px;overflow-wrap:anywhere", text)


def rows(columns: Sequence[str], cells: Iterable[Sequence[Any]], right: Collection[int] = ()) -> Html:
    """Return a table; `right` are the columns that are aligned to the right."""
    styles = [f"{CELL}{'right' if i in right else 'left'};" for i in range(len(columns))]
    line = tag("tr", "", *(tag("th", s + FAINT, c) for s, c in zip(styles, columns, strict=True)))
    body = [
        tag("tr", "background:none", *(tag("td", s, c) for s, c in zip(styles, row, strict=True)))
        for row in cells
    ]
    top = [tag("thead", "", line)] if any(columns) else []
    return tag(
        "table", f"border-collapse:collapse;font-size:13px;margin:0;{MONO}", *top, tag("tbody", "", *body)
    )
