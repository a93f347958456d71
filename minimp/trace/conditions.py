"""Conditions on events, as text: ``underflow > 1%``, ``op == softmax and phase == backward``, ``nonfinite``.

A condition compares what an event has with a number, a share or a name; nothing in it is ever executed.

===============  =====================================================================================
words            what they are, of the event's results
===============  =====================================================================================
numbers          amax (infinite where a result is), max, min, mean; elements, bytes, step, number, binades
                 (those in use); ulps (the largest error made here) and error (relative), with a shadow;
                 scale (of stages that know it)
counts           zeros, subnormals, nan, inf, nonfinite; flushed or underflow, overflowed or overflow (made
                 by this op). With "%", shares: underflow and overflow of the results that were not 0, the
                 others of all. Alone, they ask for more than none: ``nonfinite``
names            op, module, stage, phase, format, given (the inputs' formats before casting), source,
                 title; ``==`` and ``!=`` take patterns as of a shell: ``module == layers.*``
comparisons      ``<  <=  >  >=  ==  !=`` (``=`` is ``==``)
joined by        ``and``, ``or``, ``not``, parentheses
===============  =====================================================================================
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from minimp.errors import SettingError, unknown_name
from minimp.trace.events import TraceEvent
from minimp.trace.statistics import Stats

__all__ = ["COUNTS", "NAMES", "NUMBERS", "Condition", "as_condition", "parse"]

Test = Callable[[TraceEvent], bool]


def _stats(event: TraceEvent) -> Iterator[Stats]:
    return (side.stats for side in event.outputs if side is not None and side.stats is not None)


def _sum(name: str) -> Callable[[TraceEvent], float]:
    return lambda event: sum(getattr(stats, name) for stats in _stats(event))


def _most(values: Iterator[float | None], pick: Callable[[list[float]], float] = max) -> float | None:
    found = [value for value in values if value is not None]
    return pick(found) if found else None


def _amax(event: TraceEvent) -> float | None:
    return _most(math.inf if stats.inf else stats.amax for stats in _stats(event))


def _of_errors(name: str) -> Callable[[TraceEvent], float | None]:
    return lambda event: _most(getattr(error.made, name) for error in event.errors if error is not None)


def _nonzero(event: TraceEvent) -> float:
    """The results that were not 0 before they were rounded."""
    return sum(stats.nonzero for stats in _stats(event)) + event.flushed


NUMBERS: dict[str, Callable[[TraceEvent], float | None]] = {
    "amax": _amax,
    "max": lambda event: _most(stats.max for stats in _stats(event)),
    "min": lambda event: _most((stats.min for stats in _stats(event)), min),
    "mean": lambda event: _most(stats.mean for stats in _stats(event)),
    "elements": _sum("size"),
    "bytes": _sum("bytes"),
    "binades": lambda event: _most(float(len(stats.binades)) for stats in _stats(event)),
    "step": lambda event: event.step,
    "number": lambda event: event.number,
    "ulps": _of_errors("max_ulp"),
    "error": _of_errors("relative"),
    "scale": lambda event: event.facts.get("loss_scale"),
}
"""Word -> the number of an event, or None where it has none: then no comparison holds."""

COUNTS: dict[str, tuple[Callable[[TraceEvent], float], Callable[[TraceEvent], float]]] = {
    **{name: (_sum(name), _sum("size")) for name in ("zeros", "subnormals", "nan", "inf", "nonfinite")},
    **{name: (lambda event: event.flushed, _nonzero) for name in ("flushed", "underflow")},
    **{name: (lambda event: event.overflowed, _nonzero) for name in ("overflowed", "overflow")},
}
"""Word -> (how many elements, of how many "%" is a share)."""

NAMES: dict[str, Callable[[TraceEvent], tuple[str, ...]]] = {
    "op": lambda event: (event.op,),
    "module": lambda event: (event.module,),
    "stage": lambda event: (event.stage,),
    "phase": lambda event: (event.phase,),
    "source": lambda event: (event.source,),
    "title": lambda event: (event.title,),
    "format": lambda event: tuple(side.format for side in event.outputs if side is not None),
    "given": lambda event: tuple(side.given for side in event.inputs if side is not None and side.given),
}
"""Word -> the texts of an event: ``==`` holds if one of them fits, ``!=`` if none does."""

COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "<=": operator.le, ">=": operator.ge, "==": operator.eq, "!=": operator.ne, "<": operator.lt,
    ">": operator.gt, "=": operator.eq,
}  # fmt: skip
TOKEN = re.compile(r"\s*(?:(<=|>=|==|!=|[<>=()])|'([^']*)'|\"([^\"]*)\"|([^\s<>=!()'\"]+))")
SHADOWED = ("ulps", "error")
DEEPEST = 50
"""So deep at most parentheses and `not` may be nested."""


@dataclass(frozen=True)
class Condition:
    """A condition that can be called on an event.

    Attributes:
        text: as it was written.
        statistics: whether it asks for anything but names and numbers of events.
        shadow: whether it asks for errors against float64.
    """

    text: str
    test: Test
    statistics: bool = False
    shadow: bool = False

    def __call__(self, event: TraceEvent) -> bool:
        """Tell whether it holds."""
        return bool(self.test(event))

    def __str__(self) -> str:
        return self.text


def as_condition(given: str | Callable[[TraceEvent], Any] | Condition) -> Condition:
    """Return a condition that is given as text, or as a function of an event (which may ask for statistics).

    Raises:
        SettingError: it is neither, or text that cannot be read.
    """
    if isinstance(given, Condition):
        return given
    if isinstance(given, str):
        return parse(given)
    if not callable(given):
        raise SettingError(f"expected a condition as text or a function of an event, got {given!r}")
    return Condition(getattr(given, "__name__", "condition"), given, statistics=True)


def parse(text: str) -> Condition:
    """Return the condition that a text describes; nothing in it is ever executed.

    >>> parse("underflow > 1% and op == softmax").text
    'underflow > 1% and op == softmax'

    Raises:
        SettingError: a word, comparison or value that does not fit; the message names it.
    """
    reader = _Reader(text)
    test = reader.either(0)
    if reader.next is not None:
        raise reader.unfit(f"did not expect {reader.next!r} there")
    return Condition(text, test, reader.statistics, reader.shadow)


class _Reader:
    """Reads a condition word by word, from left to right."""

    def __init__(self, text: str) -> None:
        self.text, self.statistics, self.shadow = text, False, False
        self._words: list[tuple[str, bool]] = []  # (word, whether it stood in quotes)
        place, whole = 0, text.strip()
        while place < len(whole):
            found = TOKEN.match(whole, place)
            if found is None:
                raise self.unfit(f"cannot read {whole[place:].strip()[:20]!r}")
            mark, *quoted, word = found.groups()
            said = next((each for each in quoted if each is not None), None)
            self._words.append((mark or word, False) if said is None else (said, True))
            place = found.end()
        self._at = 0

    @property
    def next(self) -> str | None:
        """The word that comes, or None at the end."""
        return self._words[self._at][0] if self._at < len(self._words) else None

    def take(self, expected: str) -> tuple[str, bool]:
        """Return the next word, and whether it stood in quotes."""
        if self.next is None:
            raise self.unfit(f"expected {expected} at the end")
        self._at += 1
        return self._words[self._at - 1]

    def unfit(self, what: str) -> SettingError:
        """Return the error that says what does not fit."""
        return SettingError(
            f"condition {self.text!r}: {what}", op="trace",
            help="write it as: underflow > 1%, op == softmax, amax > 30000, nonfinite, a and b, not a",
        )  # fmt: skip

    def either(self, depth: int) -> Test:
        """Read what is joined by `or`."""
        parts = [self.both(depth)]
        while self.next == "or":
            self._at += 1
            parts.append(self.both(depth))
        return parts[0] if len(parts) == 1 else lambda event: any(part(event) for part in parts)

    def both(self, depth: int) -> Test:
        """Read what is joined by `and`, which binds tighter than `or`."""
        parts = [self.one(depth)]
        while self.next == "and":
            self._at += 1
            parts.append(self.one(depth))
        return parts[0] if len(parts) == 1 else lambda event: all(part(event) for part in parts)

    def one(self, depth: int) -> Test:
        """Read one comparison, a word that stands alone, `not`, or what is in parentheses."""
        if depth > DEEPEST:
            raise self.unfit("too many parentheses")
        word, _ = self.take("a comparison")
        if word == "not":
            inner = self.one(depth + 1)
            return lambda event: not inner(event)
        if word == "(":
            inner = self.either(depth + 1)
            if self.take("')'")[0] != ")":
                raise self.unfit("expected ')'")
            return inner
        if word not in NUMBERS and word not in COUNTS and word not in NAMES:
            raise self.unfit(unknown_name("word", word, [*COUNTS, *NUMBERS, *NAMES]))
        self.shadow |= word in SHADOWED
        self.statistics |= word in COUNTS or (word in NUMBERS and word not in ("step", "number", "scale"))
        if self.next not in COMPARISONS:
            if word not in COUNTS:
                raise self.unfit(f"expected a comparison after {word!r}")
            count = COUNTS[word][0]
            return lambda event: count(event) > 0
        return self.compared(word, self.take("a comparison")[0])

    def compared(self, word: str, sign: str) -> Test:
        """Read the value that a word is compared with."""
        value, quoted = self.take("a value")
        if word in NAMES:
            return self._named(word, sign, value)
        if quoted or not (number := _number(value.removesuffix("%"))):
            raise self.unfit(f"expected a number after {word} {sign}, got {value!r}")
        compare, limit = COMPARISONS[sign], number[0]
        if not value.endswith("%"):
            read = COUNTS[word][0] if word in COUNTS else NUMBERS[word]
            return lambda event: (found := read(event)) is not None and compare(found, limit)
        if word not in COUNTS:
            raise self.unfit(f"{word} is no count, so it has no share in %")
        part, whole = COUNTS[word]
        return lambda event: (of := whole(event)) > 0 and compare(100 * part(event), limit * of)

    def _named(self, word: str, sign: str, value: str) -> Test:
        if sign not in ("==", "=", "!="):
            raise self.unfit(f"{word} is a name: compare it by == or !=")
        read, wanted = NAMES[word], sign != "!="
        return lambda event: any(fnmatchcase(text, value) for text in read(event)) is wanted


def _number(text: str) -> tuple[float] | None:
    """Return a number: 30000, 1e-3, 2^-14, inf."""
    base, power, exponent = text.partition("^")
    try:
        found = float(base) ** int(exponent) if power else float(base)
    except (ValueError, OverflowError, ZeroDivisionError):
        return None
    return None if isinstance(found, complex) or math.isnan(found) else (found,)
