"""What a gradient is multiplied by, where the loss was multiplied by a scale before backward began.

A gradient is an array like any other; nothing in its numbers says that it is S times too large. So the
tensor that backward leaves behind carries a :class:`Mark`. The mark belongs to that very tensor: what is
computed from it, or put in its place by hand, has none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

from minimp.tape.records import Edge, Node, Value
from minimp.tape.walk import newest_first

__all__ = [
    "PLAIN", "RECORDED", "SOURCES", "Mark", "Marks", "mark", "mark_of", "mark_shown", "mark_sum",
    "marks_behind", "recorded_now", "showing", "shown",
]  # fmt: skip


def _nobody() -> None:
    return None


@dataclass(frozen=True, slots=True)
class Mark:
    """What a gradient was multiplied by.

    Attributes:
        factors: one number; several where parts were added up that had been multiplied by different ones.
        scaler: gives the scaler whose scale that is (a weak reference), or None.
        unscaled: how often it has been divided by a scale.
    """

    factors: frozenset[float]
    scaler: Callable[[], Any] = _nobody
    unscaled: int = 0

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle without the scaler: a gradient that is read back has its factors, and is no scaler's."""
        return Mark, (self.factors, _nobody, self.unscaled)

    def times(self, other: Mark) -> Mark:
        """Return the mark of what carries both, one after the other."""
        if self is PLAIN:
            return other
        return replace(self, factors=frozenset(a * b for a in self.factors for b in other.factors))

    def divided(self, scale: float) -> Mark:
        """Return the mark of the gradient divided by a scale."""
        factors = frozenset(_ratio(each, scale) for each in self.factors)
        return replace(self, factors=factors, unscaled=self.unscaled + 1)

    def __or__(self, other: Mark) -> Mark:
        """Return the mark of the sum of two gradients."""
        if self == other:
            return self
        owner = self if self.scaler() is not None else other
        return Mark(self.factors | other.factors, owner.scaler, max(self.unscaled, other.unscaled))


Marks = Callable[[Edge], Mark]
"""From a place on the tape to what the gradient there carries."""

PLAIN = Mark(frozenset({1.0}))
SOURCES: WeakKeyDictionary[Node, Mark] = WeakKeyDictionary()
"""The nodes that multiplied a loss by its scale, while they live: what lies behind one gets S times more."""
RECORDED: WeakKeyDictionary[Node, Mark] = WeakKeyDictionary()
"""The nodes of gradients that carry a scale and can be differentiated again, while they live."""
_showing: ContextVar[Marks | None] = ContextVar("minimp.tape.scales", default=None)


def recorded_now() -> dict[Node, Mark]:
    """Return what lives in RECORDED; other threads may add to it meanwhile."""
    living = [reference() for reference in RECORDED.keyrefs()]
    return {node: RECORDED[node] for node in living if node is not None}


def mark_of(gradient: Any) -> Mark | None:
    """Return the mark of a gradient, or None."""
    return getattr(gradient, "mark", None)


def mark(gradient: Value, carried: Mark | None) -> None:
    """Mark a gradient that was made just now, unless it never carried anything."""
    if carried is None or carried == PLAIN:
        return
    gradient.mark = carried
    if gradient.node is not None and carried.factors != PLAIN.factors:
        RECORDED[gradient.node] = carried


def mark_sum(total: Value, held: Value | None, part: Mark) -> None:
    """Mark the sum of a gradient that was there, if any, and of one that carries `part`.

    Zeros carry every scale; a gradient without mark that is not zero counts as one that was never scaled.
    """
    before = None if held is None else mark_of(held) or PLAIN
    if before is not None and held is not None and before.factors != part.factors and not _any(held):
        before = None
    mark(total, part if before is None else before | part)


def marks_behind(starts: Sequence[Value], carried: Sequence[Mark | None] = ()) -> Marks | None:
    """Return what tells the marks of gradients when backward goes from `starts`; None if there are none.

    The usual start is a loss times S, and no other scaled loss lives: then it is S everywhere, and no walk.

    Args:
        starts: where backward begins.
        carried: the marks of the gradients that it begins with: a scale goes on from there.
    """
    if any(each is not None and each.factors != PLAIN.factors for each in carried):
        return _told(_walked(_seeded(starts, carried)))
    if not SOURCES:
        return None
    edges = [each.edge for each in starts if each.edge is not None]
    only = starts[0].node if len(SOURCES) == len(starts) == 1 else None
    below = None if only is None else SOURCES.get(only)
    if below is not None:
        return lambda edge: PLAIN if edge is edges[0] else below
    return _told(_walked(dict.fromkeys(edges, PLAIN)))


def _told(found: Mapping[Edge, Mark]) -> Marks:
    return lambda edge: found.get(edge, PLAIN)


def _seeded(starts: Sequence[Value], carried: Sequence[Mark | None]) -> dict[Edge, Mark]:
    """Return the mark of the gradient that backward begins with at each start."""
    seeds: dict[Edge, Mark] = {}
    for start, each in zip(starts, carried, strict=True):
        if start.edge is not None:
            part = each or PLAIN
            seeds[start.edge] = seeds[start.edge] | part if start.edge in seeds else part
    return seeds


def _walked(seeds: Mapping[Edge, Mark]) -> dict[Edge, Mark]:
    """Return the mark of the gradient at each place that is reached from `seeds`, and theirs."""
    found = dict(seeds)
    for edge in newest_first(seeds, frozenset()):
        if isinstance(edge, Value):
            continue
        source = SOURCES.get(edge)
        below = found[edge] if source is None else found[edge].times(source)
        for each in edge.inputs:
            if each is not None:
                held = found.get(each, below)
                found[each] = below if held is below else held | below
    return found


@contextmanager
def showing(marks: Marks | None) -> Iterator[None]:
    """Let hooks that run in the block know the marks of the gradients that they are shown."""
    if marks is None:
        yield
        return
    token = _showing.set(marks)
    try:
        yield
    finally:
        _showing.reset(token)


def mark_shown(edge: Edge) -> Mark:
    """Return the mark of the gradient that a hook at `edge` is being shown."""
    marks = _showing.get()
    return PLAIN if marks is None else marks(edge)


def shown(factor: float) -> str:
    """Return a factor as it is written in messages: 65536, or 1/65536."""
    inverse = 1.0 / factor if factor else factor
    return f"1/{inverse:.10g}" if 0.0 < factor < 1.0 and inverse.is_integer() else f"{factor:.10g}"


def _ratio(factor: float, scale: float) -> float:
    if factor == scale:  # 0 and infinity too
        return 1.0
    return factor / scale if scale else float("inf")


def _any(gradient: Value) -> bool:
    return bool(gradient.backend.xp.any(gradient.array != 0))
