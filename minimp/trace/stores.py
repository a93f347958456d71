"""Where events go while they are recorded: all in memory, the last of them, or a folder."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol

import numpy.typing as npt

from minimp.trace.events import Span, TraceEvent

__all__ = ["Kept", "Memory", "Store"]

Array = npt.NDArray[Any]
Kept = Mapping[str, Array]
"""The values kept of an event: "in0", "out1", ... -> array."""

PER_ARRAY = 1500
"""About the bytes that a record of one array takes in memory, its histogram included."""


class Store(Protocol):
    """What holds the events of a trace."""

    dropped: int
    """How many events are no longer there."""

    def add(self, event: TraceEvent, values: Kept) -> None:
        """Take an event in."""

    def add_span(self, span: Span) -> None:
        """Take in the time of a module or a stage."""

    def events(self) -> list[TraceEvent]:
        """Return the events, oldest first."""

    def spans(self) -> list[Span]:
        """Return the times of modules and stages, in the order in which they ended."""

    def values(self, number: int) -> Kept:
        """Return the values kept of an event."""


class Memory:
    """In memory: everything, or the newest events.

    Args:
        most: so many events at most; None: all.
        most_bytes: so many bytes at most, of values and (estimated) of records; None: all.
    """

    def __init__(self, most: int | None = None, most_bytes: int | None = None) -> None:
        self.most, self.most_bytes = most, most_bytes
        self.bytes = self.dropped = 0
        self._events: deque[TraceEvent] = deque()
        self._spans: deque[Span] = deque()
        self._values: dict[int, Kept] = {}

    @classmethod
    def holding(
        cls, events: Iterable[TraceEvent], spans: Iterable[Span], values: Mapping[int, Kept], dropped: int
    ) -> Memory:
        """Return one that holds what was read from elsewhere."""
        made = cls()
        made._events, made._spans = deque(events), deque(spans)
        made._values, made.dropped = dict(values), dropped
        return made

    def add(self, event: TraceEvent, values: Kept) -> None:
        """Take an event in, and let the oldest go that are too many."""
        self._events.append(event)
        if values:
            self._values[event.number] = values
        if self.most is None and self.most_bytes is None:
            return
        self.bytes += _size(event, values)
        while len(self._events) > 1 and self._too_many():
            old = self._events.popleft()
            self.bytes -= _size(old, self._values.pop(old.number, {}))
            self.dropped += 1
        while self._spans and self._spans[0].end < self._events[0].start:
            self._spans.popleft()

    def _too_many(self) -> bool:
        return (self.most is not None and len(self._events) > self.most) or (
            self.most_bytes is not None and self.bytes > self.most_bytes
        )

    def add_span(self, span: Span) -> None:
        """Take in the time of a module or a stage."""
        self._spans.append(span)

    def events(self) -> list[TraceEvent]:
        """Return the events, oldest first."""
        return list(self._events)

    def spans(self) -> list[Span]:
        """Return the times of modules and stages."""
        return list(self._spans)

    def values(self, number: int) -> Kept:
        """Return the values kept of an event."""
        return self._values.get(number, {})

    def all_values(self) -> Iterator[tuple[int, Kept]]:
        """Yield (number, values) of the events that have some."""
        yield from self._values.items()


def _size(event: TraceEvent, values: Kept) -> int:
    arrays = len(event.inputs) + len(event.outputs)
    return PER_ARRAY * (1 + arrays) + sum(array.nbytes for array in values.values())
