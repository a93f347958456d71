"""Taking the solutions out of a lab."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from minimp.errors import DataError

__all__ = ["exercises_in", "fill", "strip"]

BEGIN = re.compile(r"^(?P<indent>\s*)# BEGIN SOLUTION\s*$")
END = re.compile(r"^\s*# END SOLUTION\s*$")
TITLE = re.compile(r"^# #+ Exercise (?P<name>\d+[a-z])\b")


def strip(text: str) -> str:
    """Return a lab without its solutions: in their place, code raises NotAnswered, and prose invites.

    The heading before a solution, ``# ### Exercise 1a``, gives it its name.

    Raises:
        DataError: a marker without its other one, or a solution before any exercise.
    """
    return _rewritten(text, {})


def fill(text: str, answers: dict[str, str]) -> str:
    """Return a lab with other answers in the place of some solutions: name -> code, not indented.

    Raises:
        DataError: as :func:`strip`; or an answer for an exercise that the lab does not have.
    """
    unknown = sorted(set(answers) - set(exercises_in(text)))
    if unknown:
        raise DataError(f"the lab has no exercise {', '.join(unknown)}", op="labs")
    return _rewritten(text, answers, keep_others=True)


def exercises_in(text: str) -> list[str]:
    """Return the names of the exercises that a lab's headings announce and that are answered in code."""
    names, name, markdown = [], "", False
    for line in text.splitlines():
        if line.startswith("# %%"):
            markdown = "[markdown]" in line
        title = TITLE.match(line)
        name = title["name"] if title else name
        if BEGIN.match(line) and not markdown:
            names.append(name)
    return names


@dataclass
class _Reader:
    """Where a reading of a lab stands: the exercise, the kind of cell, the solution that is open."""

    answers: dict[str, str]
    keep_others: bool
    name: str = ""
    markdown: bool = False
    open: str = ""
    indent: str = ""
    made: list[str] = field(default_factory=list)
    held: list[str] = field(default_factory=list)

    def read(self, number: int, line: str) -> None:
        """Take one line."""
        title, begin = TITLE.match(line), BEGIN.match(line)
        if line.startswith("# %%"):
            self.markdown = "[markdown]" in line
        self.name = title["name"] if title else self.name
        if begin:
            if self.open or not (self.name or self.markdown):
                raise DataError(f"line {number}: a solution begins inside another, or before any exercise")
            self.open, self.indent, self.held = self.name or "open", begin["indent"], []
        elif END.match(line):
            if not self.open:
                raise DataError(f"line {number}: a solution ends that did not begin")
            self.made += self._instead()
            self.open = ""
        else:
            (self.held if self.open else self.made).append(line)

    def _instead(self) -> list[str]:
        """Return what stands in the place of the solution that was read."""
        if not self.markdown and self.name in self.answers:
            return [self.indent + each if each else "" for each in self.answers[self.name].splitlines()]
        if self.keep_others:
            return self.held
        if self.markdown:
            return ["# *Your answer.*"]
        return [f'{self.indent}raise mp.labs.NotAnswered("{self.name}")']


def _rewritten(text: str, answers: dict[str, str], *, keep_others: bool = False) -> str:
    reader = _Reader(answers, keep_others)
    for number, line in enumerate(text.splitlines(), 1):
        reader.read(number, line)
    if reader.open:
        raise DataError(f"the solution of exercise {reader.open} does not end", help="write # END SOLUTION")
    return "\n".join(reader.made) + "\n"
