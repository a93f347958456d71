"""Arithmetic in formats, written as text, one rounding after the other: ``fp16(0.1) + fp16(0.2)``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, NoReturn

import numpy as np

from minimp.errors import DataError, FormatError, SettingError
from minimp.formats.dice import Counter, Source
from minimp.formats.inspection.anatomy import Inspection, examine, inspect, one_source
from minimp.formats.inspection.calculation import Calculation, Step
from minimp.formats.inspection.effects import (
    absorbed,
    before_rounding,
    cancelled,
    exactly,
    is_irrational,
    with_sign,
)
from minimp.formats.inspection.grammar import FUNCTIONS, NUMBERS, Node, parse, pointing
from minimp.formats.inspection.wording import finite
from minimp.formats.operations import arithmetic
from minimp.formats.rounding import dice_for
from minimp.formats.roundings import mode_named
from minimp.formats.table import Format, get

__all__ = ["evaluate"]


def evaluate(
    text: str,
    rounding: str = "nearest_even",
    overflow: str | None = None,
    rng: Source = None,
    *,
    formats: Mapping[str, Any] | None = None,
) -> Calculation:
    """Calculate an expression, each operation rounded correctly, once, to the format of its operands.

    >>> evaluate("fp16(2048) + 1").value
    2048.0

    There are casts such as ``fp16(0.1)`` by every name that ``minimp.formats.get`` knows, + - * /, ( ),
    sqrt(a), abs(a) and fma(a, b, c) = a * b + c. Plain numbers are exact among themselves, so that
    ``fp16(1/3)`` is rounded once; beside a value of a format they take that format first. ``fp16(fp32(0.1))``
    rounds twice, and says so where rounding once gives something else.

    Args:
        text: the expression, of at most 500 characters.
        rounding, overflow, rng: as in ``minimp.formats.round``, for every step; step i takes the random bits
            of place i.
        formats: formats of one's own, under the names that the text has for them.

    Raises:
        DataError: the text is no expression, or none of its numbers has a format; the message points at the
            place.
        FormatError: an unknown format, two different ones in one operation, or NaN in one that has none.
        SettingError: unknown rounding or overflow; ``stochastic`` without a random source; a name in formats
            that no text could hold, or that means something else.
    """
    mode_named(rounding)
    source = one_source(rng)
    dice_for(rounding, (), source, None)
    own = {_free_name(name): get(each) for name, each in (formats or {}).items()}
    tree = parse(text, own)
    work = _Work(
        text, rounding, overflow, Counter(int(source)) if isinstance(source, int | np.integer) else source
    )
    found = work.value(tree)
    if found.seen is None:
        raise DataError(
            f"expected a format somewhere: nothing rounds {text.strip()!r}",
            op="evaluate",
            help=f"name one: {_with_a_format(text, tree)}",
        )
    return Calculation(text.strip(), rounding, overflow or "ieee", tuple(work.steps), found.ideal)


def _free_name(name: str) -> str:
    """Refuse the name of a format of one's own that a text could not mean."""
    word = name.lower()
    if not (word.isascii() and word.isidentifier()) or word in FUNCTIONS or word in NUMBERS:
        raise SettingError(
            f"expected a name of ASCII letters, digits and _, got {name!r}",
            op="evaluate",
            formats=(name,),
            help=f"{', '.join((*FUNCTIONS, *NUMBERS))} are taken",
        )
    return name


def _with_a_format(text: str, tree: Node) -> str:
    """The text with a format around its first number."""
    while tree.operands:
        tree = tree.operands[0]
    return f"{text[: tree.start]}fp16({text[tree.start : tree.end].strip('()')}){text[tree.end :]}".strip()


@dataclass(frozen=True)
class _Value:
    """A number on the way: a plain exact one, or (then `seen` is there) one in a format.

    Attributes:
        node: where it comes from.
        number: its value; a float where it is infinite, NaN, a negative zero, or in a format.
        unrounded: the exact number before its last rounding, or row of roundings.
        ideal: the number if nothing had been rounded; None where that is no number.
        seen: what it is in its format.
    """

    node: Node
    number: Fraction | float
    unrounded: Fraction | float
    ideal: Fraction | None
    seen: Inspection | None = None


class _Work:
    """Walks the tree from the leaves up, and notes each rounding."""

    def __init__(self, text: str, rounding: str, overflow: str | None, rng: Any) -> None:
        self.text, self.rounding, self.overflow, self.rng = text, rounding, overflow, rng
        self.steps: list[Step] = []

    def value(self, node: Node) -> _Value:
        if node.operation == "number":
            return _plain(node, node.value if node.value is not None else 0.0)
        operands = [self.value(each) for each in node.operands]
        if node.format is not None:
            return self.cast(node, operands[0], node.format)
        fmt = self.common_format(node, operands)
        if fmt is None:
            return self.exact(node, [each.number for each in operands])
        return self.rounded(node, [self.in_format(each, fmt) for each in operands], fmt)

    def piece(self, node: Node) -> str:
        return self.text[node.start : node.end].strip()

    def settings(self) -> tuple[str, str | None, Source]:
        """How the next step is rounded, with the random bits of its place."""
        rng = None if self.rng is None else self.rng.advance(len(self.steps))
        return self.rounding, self.overflow, rng

    def common_format(self, node: Node, operands: list[_Value]) -> Format | None:
        """The one format among the operands; None if there is none."""
        found = {each.seen.format: each for each in operands if each.seen}
        if len(found) < 2:
            return next(iter(found), None)
        first, second = list(found.values())[:2]
        names = [each.name for each in found]
        raise FormatError(
            f"{' and '.join(names)} meet in one operation" + pointing(self.text, node.start, node.end),
            op="evaluate",
            formats=names,
            help=f"say in which it is done, for example {self.name_of(first)}({self.piece(second.node)})",
        )

    def name_of(self, value: _Value) -> str:
        """What the text calls a value's format."""
        node = value.node
        while node.format is None:
            node = next(each for each in node.operands if _has_format(each))
        return self.piece(node).lstrip("(+ ").partition("(")[0].strip()

    def in_format(self, value: _Value, fmt: Format) -> _Value:
        return value if value.seen else self.cast(value.node, value, fmt, implicit=True)

    def cast(self, node: Node, value: _Value, fmt: Format, *, implicit: bool = False) -> _Value:
        """Round a number, plain or of another format, to a format."""
        settings = self.settings()
        with _at(self.text, node):
            seen = inspect(value.number, fmt, *settings)
        once = seen
        if value.seen and self.rounding != "stochastic":
            once = inspect(value.unrounded, fmt, *settings)
        twice = repr(once.value) != repr(seen.value)
        self.steps.append(
            Step(
                self.piece(node),
                "cast",
                (value.seen,) if value.seen else (),
                seen.exact,
                False,
                replace(seen, given=self.piece(value.node)),
                (*_flags(seen), *("double_rounding",) * twice),
                unrounded=value.unrounded,
                single=once if twice else None,
                implicit=implicit,
            )
        )
        return _Value(node, seen.value, value.unrounded, value.ideal, seen)

    def exact(self, node: Node, numbers: list[Fraction | float]) -> _Value:
        """Calculate with plain numbers, exactly."""
        if node.operation in ("neg", "abs"):
            return _plain(node, with_sign(node.operation, numbers[0]))
        if not all(map(finite, numbers)):
            self.refuse(node, "arithmetic with inf or nan")
        exact = exactly(node.operation, *(Fraction(each) for each in numbers))
        if exact is None:
            self.refuse(
                node, "division by zero" if node.operation == "div" else "the root of a negative number"
            )
        if is_irrational(node.operation, numbers[0], exact):
            self.refuse(node, "an irrational root")
        return _plain(node, exact)

    def refuse(self, node: Node, what: str) -> NoReturn:
        wrapped = _with_a_format(self.piece(node), _moved(node, -node.start))
        raise DataError(
            f"{what} needs a format" + pointing(self.text, node.start, node.end),
            op="evaluate",
            help=f"for example {wrapped}",
        )

    def rounded(self, node: Node, operands: list[_Value], fmt: Format) -> _Value:
        """Do one operation in a format."""
        op, numbers = node.operation, [float(each.number) for each in operands]
        exact, raised = before_rounding(op, numbers)
        rounding, overflow, rng = self.settings()
        with _at(self.text, node):
            if op in ("neg", "abs"):
                changed = float(with_sign(op, numbers[0]))
                value = inspect(changed, fmt, rounding, overflow, rng).value
            else:
                found = arithmetic(op, *numbers, fmt=fmt, rounding=rounding, overflow=overflow, rng=rng)
                value = float(found)
        seen = examine(self.piece(node), exact, value, fmt, rounding, rng)
        swallowed, gone = absorbed(op, numbers, seen), cancelled(op, numbers, exact, fmt)
        effects = ("absorbed",) * (swallowed is not None) + ("cancellation",) * (gone > 1)
        self.steps.append(
            Step(
                self.piece(node),
                op,
                tuple(each.seen for each in operands if each.seen),
                exact,
                is_irrational(op, numbers[0], exact),
                seen,
                (*_flags(seen), *raised, *effects),
                swallowed,
                gone,
            )
        )
        ideals = [each.ideal for each in operands if each.ideal is not None]
        ideal = exactly(op, *ideals) if len(ideals) == len(operands) else None
        return _Value(node, value, exact, ideal, seen)


@contextmanager
def _at(text: str, node: Node) -> Iterator[None]:
    """Let an error about formats point at its place in the text."""
    try:
        yield
    except FormatError as fault:
        said, _, advice = str(fault).removeprefix(f"{fault.op}: ").partition("\n  help: ")
        raise FormatError(
            said + pointing(text, node.start, node.end),
            op="evaluate",
            formats=fault.formats,
            help=advice or None,
        ) from None


def _plain(node: Node, number: Fraction | float) -> _Value:
    return _Value(node, number, number, Fraction(number) if finite(number) else None)


def _flags(seen: Inspection) -> tuple[str, ...]:
    return tuple(each for each in seen.flags if each != "subnormal")


def _has_format(node: Node) -> bool:
    return node.format is not None or any(map(_has_format, node.operands))


def _moved(node: Node, by: int) -> Node:
    inner = tuple(_moved(each, by) for each in node.operands)
    return replace(node, start=node.start + by, end=node.end + by, operands=inner)
