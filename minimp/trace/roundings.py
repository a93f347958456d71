"""What each rounding to a 16-bit format lost, counted where it happens.

Ops compute in float32 and round once, through their backend's `narrow`; only there are the numbers before
and after both at hand. While a recording runs, `narrow` of the backends in use is counted on its way; after
the last one it is the backend's own again, so that nothing costs anything when nobody records.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from math import inf, nan
from threading import Lock
from typing import Any

import numpy as np

from minimp.formats import Format
from minimp.tape import Array

__all__ = ["Rounded", "Roundings", "counting", "watch_roundings"]

_SINKS: ContextVar[tuple[Roundings, ...]] = ContextVar("minimp.trace.roundings", default=())
_lock = Lock()
_watched: list[Any] = []  # backends whose narrow is counted on its way
_recordings = 0


@dataclass(frozen=True, slots=True)
class Rounded:
    """A rounded array, and what was there before it was rounded.

    Attributes:
        array: the result.
        zeros, infinite: the elements that were 0, and infinite.
        reach: the largest magnitude.
    """

    array: Array
    zeros: int
    infinite: int
    reach: float


class Roundings:
    """What was rounded since the last event; nothing while it is paused."""

    def __init__(self) -> None:
        self.found: dict[int, Rounded] = {}
        self.paused = False

    def of(self, array: Array) -> Rounded | None:
        """Return what is known of the rounding that made an array, or what it is a view of."""
        while array is not None:
            found = self.found.get(id(array))
            if found is not None:
                return found
            array = getattr(array, "base", None)
        return None

    def forget(self) -> None:
        """Begin anew."""
        self.found.clear()


@contextmanager
def counting(sink: Roundings) -> Iterator[None]:
    """Fill `sink` with what ops of this thread or task round in the block."""
    global _recordings  # noqa: PLW0603 - backends are one to a process, and so is what counts on them
    with _lock:
        _recordings += 1
    token = _SINKS.set((*_SINKS.get(), sink))
    try:
        yield
    finally:
        _SINKS.reset(token)
        with _lock:
            _recordings -= 1
            while not _recordings and _watched:
                backend = _watched.pop()
                del backend.narrow, backend.rounds_in_sight


def watch_roundings(backend: Any) -> None:
    """Count the roundings of a backend until the last recording ends."""
    if "narrow" in vars(backend):
        return
    with _lock:
        if not _recordings or "narrow" in vars(backend):
            return
        plain = backend.narrow

        def narrow(array: Array, format: Format | None) -> Array:
            sinks = [sink for sink in _SINKS.get() if not sink.paused]
            if not sinks or format is None or format.bits > 16 or array.dtype == format.dtype:
                return plain(array, format)
            zeros, infinite, reach = _counted(backend, array)
            low = plain(array, format)  # may take the memory of `array` over
            for sink in sinks:
                sink.found[id(low)] = Rounded(low, zeros, infinite, reach)
            return low

        backend.narrow, backend.rounds_in_sight = narrow, True
        _watched.append(backend)


def _counted(backend: Any, array: Array) -> tuple[int, int, float]:
    """Return the zeros and infinities of a wide array, and its largest magnitude: NaN if there is one."""
    if backend.tallies():
        (told,) = backend.tally([array])
        if not isinstance(told, np.ndarray):
            ends = told.ends or (0.0, 0.0)
            reach = nan if told.nan else inf if told.inf else max(-ends[0], ends[1])
            return told.zeros, told.inf, reach
        array = told
    xp = np if isinstance(array, np.ndarray) else backend.xp
    zeros = array.size - int(xp.count_nonzero(array != 0))
    reach = max(float(array.max()), -float(array.min())) if array.size else 0.0
    return zeros, 0 if reach < inf else int(xp.count_nonzero(xp.isinf(array))), reach
