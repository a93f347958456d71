"""What ops on float32 and float64 flushed to zero: by their inputs, where those tell an honest zero."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import inf
from typing import Any

from minimp.tape import Event

__all__ = ["FLUSHING", "flushed_wide"]


def _product(xp: Any, a: Any, b: Any) -> Any:
    return xp.logical_and(a != 0, b != 0)


def _quotient(xp: Any, a: Any, b: Any) -> Any:
    return xp.logical_and(a != 0, xp.isfinite(b))


def _power_of_e(_: Any, a: Any) -> Any:
    return a != -inf


FLUSHING: Mapping[str, Callable[..., Any]] = {
    "mul": _product, "div": _quotient, "exp": _power_of_e, "sigmoid": _power_of_e,
}  # fmt: skip
"""Op by elements -> where its result is not 0, before it is rounded."""


def flushed_wide(event: Event, result: Any) -> int:
    """Return how many results of a forward op on wide formats became 0 without being it.

    Of other ops than those of :data:`FLUSHING` it is not known without a shadow, and 0 is returned.
    """
    tell = FLUSHING.get(event.node.op.name)
    if tell is None or event.phase != "forward" or len(event.inputs) + 1 != tell.__code__.co_argcount:
        return 0
    xp = event.node.backend.xp
    return int(xp.count_nonzero(xp.logical_and(result == 0, tell(xp, *event.inputs))))
