"""What the prompts have in common: a table of commands, words in, lines of text out, tensors opened."""

from __future__ import annotations

import shlex
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from minimp.errors import SettingError, unknown_name
from minimp.stepper import views
from minimp.stepper.elements import ORDERS, Walk, open_walk

if TYPE_CHECKING:
    from minimp.tape import Array

__all__ = ["BITS", "MANY", "MORE", "OPEN", "WIDTH", "Asking", "Command", "by_word", "count_of", "number_of"]

WIDTH = 100
MANY = 1000
"""So many words a command takes that takes any number."""


@dataclass(frozen=True)
class Command:
    """A command.

    Attributes:
        name, key: how it is called, in full and by a key of the screen (the prompt takes both).
        usage: how it is written.
        help: what it does.
        act: carries it out, given the prompt and its words.
        least, most: how many words it takes.
        more: lines for `help NAME`.
    """

    name: str
    key: str
    usage: str
    help: str
    act: Callable[[Any, list[str]], list[str]]
    least: int = 0
    most: int = 0
    more: tuple[str, ...] = ()


class Asking(ABC):
    """Something that is told what to do in words.

    Args:
        width: the most columns of an answer, at least 60.

    Attributes:
        closed: whether it was told to end.
    """

    def __init__(self, width: int) -> None:
        self.width, self.closed = max(width, 60), False
        self._walk: Walk | None = None

    @property
    @abstractmethod
    def commands(self) -> Mapping[str, Command]:
        """Name -> command, in the order of the help."""

    @abstractmethod
    def arrays(self) -> tuple[dict[str, Array], Any]:
        """Return name -> array of what is looked at, and their backend."""

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
        found = by_word(self.commands).get(name)
        if found is None:
            raise SettingError(unknown_name("command", name, self.commands), help="`help` lists them")
        if not found.least <= len(rest) <= found.most:
            raise SettingError(f"expected {found.usage!r}, got {line!r}")
        return "\n".join(found.act(self, rest))

    # ---- commands that every prompt has -------------------------------------------------------------------

    def open(self, rest: list[str]) -> list[str]:
        """Open a tensor."""
        arrays, backend = self.arrays()
        if not arrays:
            raise SettingError("there are no tensors here", op="open", help="go to an op, or another stage")
        if rest[0] not in arrays:
            raise SettingError(unknown_name("tensor here,", rest[0], arrays), help="`show` lists them")
        self._walk = open_walk(rest[0], arrays[rest[0]], backend, "".join(rest[1:]))
        return self._walk.page()

    def more(self, rest: list[str]) -> list[str]:
        """Show further elements."""
        return self._opened().page(count_of(rest, 16))

    def bits(self, rest: list[str]) -> list[str]:
        """Take one element apart."""
        return self._opened().bits("".join(rest)).split("\n")

    def _opened(self) -> Walk:
        if self._walk is None:
            raise SettingError("no tensor is open", help="open NAME; `show` lists the names")
        return self._walk

    def help(self, rest: list[str]) -> list[str]:
        """Explain commands."""
        if rest:
            found = by_word(self.commands).get(rest[0])
            if found is None:
                raise SettingError(unknown_name("command", rest[0], self.commands))
            more = [line for each in found.more for line in views.refitted(each, self.width)]
            return [f"{found.usage}   ({found.key})", *views.wrapped(found.help, self.width, "  "), *more]
        rows = [(each.key, each.usage, each.help) for each in self.commands.values()]
        return [views.cut(line, self.width) for line in views.table(("key", "command", "what it does"), rows)]


def by_word(commands: Mapping[str, Command]) -> dict[str, Command]:
    """Return name or key -> command."""
    return {word: each for each in commands.values() for word in (each.name, each.key)}


def count_of(rest: list[str], default: int = 1) -> int:
    """Read how often, or how many.

    Raises:
        SettingError: it is no whole number from 1 to 100,000.
    """
    if not rest:
        return default
    if not (rest[0].isascii() and rest[0].isdigit() and 1 <= int(rest[0]) <= 100_000):
        raise SettingError(f"expected a whole number above 0, got {rest[0]!r}")
    return int(rest[0])


def number_of(word: str) -> int:
    """Read the number of a moment, with or without its #.

    Raises:
        SettingError: it is none.
    """
    digits = word.removeprefix("#")
    if not (digits.isascii() and digits.isdigit()):
        raise SettingError(f"expected the number of an op, gradient or stage, got {word!r}")
    return int(digits)


OPEN = Command(
    "open", "t", "open NAME [WHICH]", "walk a tensor's elements and their bits", Asking.open, 1, MANY,
    tuple(f"  {word:10} {meaning}"
          for word, meaning in {**ORDERS, "3,4": "all from that place on, in C order"}.items()),
)  # fmt: skip
MORE = Command("more", "m", "more [N]", "further elements of the open tensor", Asking.more, most=1)
BITS = Command("bits", "x", "bits I,J", "one element of it: fields, ulp, neighbours", Asking.bits, 1, MANY)
