"""Refusing values that only the device knows: labels out of range, a probability of 1.2.

Mostly the host asks and raises at once. In a training step that the device decides on, asking would make the
host wait; there the question is kept, the update does not take place if the answer is yes, and the error is
raised when the step's report, or a later one, is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from minimp.errors import MinimpError

__all__ = ["Doubt", "postponed", "raise_first", "refuse_if", "within"]

Doubt = tuple[Any, Callable[[], MinimpError]]
"""An array without axes, true where something is wrong, and what makes the error."""
_doubts: ContextVar[list[Doubt] | None] = ContextVar("minimp.refusals", default=None)


def refuse_if(wrong: Any, fault: Callable[[], MinimpError]) -> None:
    """Raise `fault()` if `wrong`, an array without axes, is true: now, or when it is known."""
    doubts = _doubts.get()
    if doubts is not None:
        doubts.append((wrong, fault))
    elif wrong:
        raise fault()


def within(index: Any, wrong: Any, fault: Callable[[], MinimpError]) -> Any:
    """Refuse indices of which some are `wrong`, an array of their shape, and return those to go on with.

    While nobody asks, 0 stands in the place of a wrong one: a kernel must not leave its array.
    """
    refuse_if(wrong.any(), fault)
    return index if _doubts.get() is None else index * ~wrong


def raise_first(doubts: list[Doubt]) -> None:
    """Ask what was postponed, and forget it.

    Raises:
        MinimpError: that of the first question whose answer is yes.
    """
    asked, doubts[:] = list(doubts), []
    for wrong, fault in asked:
        if wrong:
            raise fault()


@contextmanager
def postponed(doubts: list[Doubt]) -> Iterator[None]:
    """Keep what is asked in the block in `doubts`."""
    token = _doubts.set(doubts)
    try:
        yield
    finally:
        _doubts.reset(token)
