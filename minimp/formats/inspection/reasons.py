"""A calculation in words: what each rounding lost, and why, in one sentence; and all of it as text."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import TYPE_CHECKING

from minimp.formats.inspection.wording import clipped, exact_text, lost_text, number, share

if TYPE_CHECKING:
    from minimp.formats.inspection.anatomy import Inspection
    from minimp.formats.inspection.calculation import Calculation, Step

__all__ = [
    "as_text",
    "exact_of",
    "headline",
    "is_exact_cast",
    "operand_names",
    "reason",
    "settings",
    "steps_text",
    "title",
    "total",
]

MOST_COLUMNS = 100
LETTERS = ("a", "b", "c")


# ---- one sentence ------------------------------------------------------------------------------------------


def reason(step: Step) -> str:
    """Say in one sentence what a step lost, and why."""
    words = next(words for applies, words in _REASONS if applies(step))
    return words(step)


def _exact_is(step: Step) -> str:
    return exact_text(step.exact, 12)


def _no_number(step: Step) -> str:
    if isinstance(step.exact, Fraction):
        return f"{step.result.format.name} has no place for {_exact_is(step)}: it becomes NaN."
    return "There is no such number: the result is NaN."


def _special(step: Step) -> str:
    if "division_by_zero" in step.flags:
        start = "A number divided by zero is infinite"
    else:
        start = "What is NaN stays NaN" if math.isnan(step.exact) else "The exact result is infinite"
    same = repr(step.result.value) == repr(step.exact)
    return f"{start}{'.' if same else f', and becomes {number(step.result.value)}.'}"


def _beyond(step: Step) -> str:
    fmt = step.result.format
    end, which = (fmt.max, "largest") if step.exact > 0 else (fmt.lowest, "lowest")
    return (
        f"{_exact_is(step)} lies beyond {number(end)}, the {which} value of {fmt.name}: it becomes"
        f" {number(step.result.value)}."
    )


def _swallowed(step: Step) -> str:
    left, right = step.operands[0], step.operands[-1]
    product = len(step.operands) == 3
    first = "the product" if product else number(left.value)
    lost, kept = (first, number(right.value)) if step.swallowed == 0 else (number(right.value), first)
    if product and step.swallowed:
        return f"{lost} was swallowed: without it the product rounds to {number(step.result.value)} as well."
    below, above = map(number, step.result.neighbours)
    tie = " as a tie" if step.result.position == Fraction(1, 2) else ""
    return (
        f"{lost} was swallowed: next to {kept} come {below} and {above}, and {_exact_is(step)} went back to"
        f" {number(step.result.value)}{tie} ({step.result.rounding})."
    )


def _twice(step: Step) -> str:
    start = exact_text(step.unrounded, 12) if step.unrounded is not None else "the number"
    single = "" if step.single is None else number(step.single.value)
    return (
        f"Rounded twice: {start} went to {number(step.operands[0].value)} first, and then to"
        f" {number(step.result.value)}; rounded once it would be {single}."
    )


def _where(step: Step) -> str:
    seen, position = step.result, step.result.position
    what = _exact_is(step) if step.operation == "cast" else "The exact result"
    below, above = map(number, seen.between)
    if position is None:
        return f"{what} is no value of {seen.format.name}: {seen.rounding} takes {number(seen.value)}"
    if position != Fraction(1, 2):
        way = f"{share(position)} of the way from {below} to {above}"
        return f"{what} lies {way}: {seen.rounding} takes {number(seen.value)}"
    choice = {"nearest_even": "gives to the even significand,", "nearest_away": "takes away from zero, to"}
    tie = f"a tie, which {seen.rounding} {choice.get(seen.rounding, 'takes to')} {number(seen.value)}"
    return f"{what} lies half way between {below} and {above}: {tie}"


def _small(step: Step) -> str:
    seen = step.result
    smallest = number(seen.format.smallest_normal)
    if seen.value == 0:
        return (
            f"{exact_text(step.exact, 6)} is too small: the values beside 0 are"
            f" {number(seen.format.smallest_subnormal)} away, and {seen.rounding} takes 0."
        )
    return f"{_where(step)}, with fewer bits than normal, being below {smallest}."


def _inexact(step: Step) -> str:
    return f"{_where(step)}{_and_cancelled(step)}."


def _and_cancelled(step: Step) -> str:
    return f"; {step.cancelled} leading bits cancelled" if "cancellation" in step.flags else ""


def _cancelled(step: Step) -> str:
    if step.exact == 0:
        return "All bits cancelled; the difference of equal numbers is exact."
    return (
        f"{step.cancelled} leading bits cancelled; nothing is lost here, but what the operands had lost"
        " before is now in the leading bits."
    )


def _exact(step: Step) -> str:
    return f"Nothing is lost: {number(step.result.value)} is a value of {step.result.format.name}."


def _has(flag: str) -> Callable[[Step], bool]:
    return lambda step: flag in step.flags


_REASONS: tuple[tuple[Callable[[Step], bool], Callable[[Step], str]], ...] = (
    (_has("invalid"), _no_number),
    (lambda step: not isinstance(step.exact, Fraction), _special),
    (_has("double_rounding"), _twice),
    (_has("overflow"), _beyond),
    (_has("absorbed"), _swallowed),
    (_has("underflow"), _small),
    (_has("inexact"), _inexact),
    (_has("cancellation"), _cancelled),
    (lambda _: True, _exact),
)
"""When it holds, and the sentence: the first that holds is said."""


# ---- all of it ---------------------------------------------------------------------------------------------


def headline(whole: Calculation) -> str:
    """The result in one line."""
    return f"{clipped(whole.text, 60)} = {number(whole.value)}"


def title(step: Step) -> str:
    """What a step does, in a few words."""
    takes = f"{clipped(step.text, 36)} takes {clipped(step.result.format.name, 20)}"
    return takes if step.implicit else clipped(step.text, 50)


def is_exact_cast(step: Step) -> bool:
    """Whether a step does no more than name the format of a plain number."""
    return step.operation == "cast" and not step.flags and not step.operands


def operand_names(step: Step) -> tuple[str, ...]:
    """What the operands are called: a, b and c; of a cast its source's format."""
    return ("from",) if step.operation == "cast" else LETTERS


def exact_of(step: Step) -> str:
    """The exact result."""
    return exact_text(step.exact) + (" (irrational)" if step.irrational else "")


def total(whole: Calculation) -> str:
    """What all roundings together did."""
    if whole.exact is None:
        return f"Result: {number(whole.value)}"
    lost = lost_text(whole.lost, whole.result.ulp)
    exact = exact_text(whole.exact)
    return f"Result: {number(whole.value)}; without any rounding: {exact}; lost in all: {lost}"


def as_text(whole: Calculation) -> str:
    """A calculation for people, in at most 100 columns."""
    return "\n".join((headline(whole), f"  in {settings(whole)}", "", *steps_text(whole)))


def settings(whole: Calculation) -> str:
    """The format, and how every step was rounded."""
    overflow = f", overflow {whole.overflow}" if whole.overflow != "ieee" else ""
    return f"{clipped(whole.format.name, 40)}, {whole.rounding}{overflow}"


def steps_text(whole: Calculation) -> Iterator[str]:
    """The lines of all steps, and what they lost together."""
    for place, step in enumerate(whole.steps, 1):
        yield from _step_lines(place, step)
    yield from textwrap.wrap(total(whole), MOST_COLUMNS)


def _step_lines(place: int, step: Step) -> Iterator[str]:
    if is_exact_cast(step):
        link = ":" if step.implicit else " ="
        yield from _row(f"{place:>2}  {title(step)}{link} {number(step.result.value)}, exactly", step.result)
        yield ""
        return
    flags = f"  [{', '.join(each.replace('_', ' ') for each in step.flags)}]" if step.flags else ""
    yield f"{place:>2}  {title(step)}{flags}"
    names = operand_names(step)
    rows: list[tuple[str, str, Inspection | None]]
    rows = [(name, number(each.value), each) for name, each in zip(names, step.operands, strict=False)]
    rows += [("exact", exact_of(step), None), ("rounded", number(step.result.value), step.result)]
    width = max(len(value) for _, value, _ in rows)
    for name, value, seen in rows:
        yield from _row(f"    {name:<9}{value:<{width}}", seen)
    yield f"    {'lost':<9}{lost_text(step.lost, step.result.ulp)}"
    yield from textwrap.wrap(step.why, MOST_COLUMNS, initial_indent="    ", subsequent_indent="    ")
    yield ""


def _row(start: str, seen: Inspection | None) -> Iterator[str]:
    """A line with the bits at its end; on a line of their own where that is too long."""
    bits = f"{seen.fields}  {seen.code}" if seen is not None else ""
    if len(start) + 2 + len(bits) <= MOST_COLUMNS:
        yield f"{start}  {bits}".rstrip()
    else:
        yield from (start.rstrip(), f"{'':13}{bits if len(bits) < 80 else bits.rpartition('  ')[0]}")
