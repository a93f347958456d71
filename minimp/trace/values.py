"""Which full values a recording keeps beside the statistics."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from minimp.errors import SettingError
from minimp.trace.events import TraceEvent

__all__ = ["Values", "chosen", "sampled", "when"]

Array = npt.NDArray[Any]
KINDS = {
    "none": "statistics alone",
    "all": "every array, once: what another event made is kept there",
    "sampled": "so many elements of each array, evenly spaced in C order",
    "when": "all arrays of the events for which a condition holds",
}
"""Kind -> what is kept."""


@dataclass(frozen=True)
class Values:
    """A choice of values; made by :func:`sampled` and :func:`when`, or by the names "none" and "all"."""

    kind: str = "none"
    count: int = 0
    condition: Callable[[TraceEvent], Any] | None = None

    def wanted(self, event: TraceEvent) -> bool:
        """Tell whether values of an event are kept."""
        return self.kind != "none" and (self.condition is None or bool(self.condition(event)))

    def taken(self, array: Array) -> Array:
        """Return a copy of what is kept of an array: it, or so many of its elements."""
        flat = array.reshape(-1)
        if self.kind != "sampled" or flat.size <= self.count:
            return np.array(array)
        return flat[np.linspace(0, flat.size - 1, self.count).astype(np.int64)]

    def keep(self, event: TraceEvent, arrays: Mapping[str, Array], made_before: set[str]) -> dict[str, Array]:
        """Return what is kept of an event's arrays: name -> values.

        `made_before` are the names of inputs that another event has made and kept as its own.
        """
        if not self.wanted(event):
            return {}
        again = set() if self.kind == "when" else made_before
        return {name: self.taken(array) for name, array in arrays.items() if name not in again}


def sampled(count: int) -> Values:
    """Keep `count` elements of each array, evenly spaced in C order, both ends included.

    Raises:
        SettingError: fewer than 2.
    """
    if count < 2:
        raise SettingError(f"expected at least 2 elements of each array, got {count}", op="trace.sampled")
    return Values("sampled", count)


def when(condition: Callable[[TraceEvent], Any]) -> Values:
    """Keep all values of the events for which `condition(event)` is true.

    >>> import minimp.trace as trace
    >>> kept = trace.when(lambda event: event.nonfinite or event.flushed)

    Raises:
        SettingError: it is no function.
    """
    if not callable(condition):
        raise SettingError(f"expected a function of an event, got {condition!r}", op="trace.when")
    return Values("when", condition=condition)


def chosen(values: str | Values) -> Values:
    """Return a choice that is given by itself or by name.

    Raises:
        SettingError: it is none.
    """
    if isinstance(values, Values):
        return values
    if values not in ("none", "all"):
        raise SettingError(
            f"expected values to be 'none', 'all', sampled(n) or when(condition), got {values!r}",
            op="trace.record",
        )
    return Values(values)
