"""A table by identity, whose rows go when their objects go."""

from __future__ import annotations

from typing import Any, Generic, TypeVar
from weakref import ref

__all__ = ["ByIdentity"]

T = TypeVar("T")
MOST_SCALARS = 1024
"""NumPy's scalars, such as losses, cannot be referred to weakly: so many of the newest are held."""


class _Row(ref[Any]):
    """A weak reference that knows its place in the table, and what is written there."""

    __slots__ = ("number", "value")

    number: int
    value: Any


class ByIdentity(Generic[T]):
    """Object -> what is known of it; the object is held weakly and never compared with another."""

    def __init__(self) -> None:
        self._rows: dict[int, _Row] = {}
        self._held: dict[int, tuple[Any, T]] = {}
        rows = self._rows

        def forget(gone: _Row) -> None:
            if rows.get(gone.number) is gone:  # another object may have this place by now
                del rows[gone.number]

        self._forget = forget

    def __len__(self) -> int:
        return len(self._rows) + len(self._held)

    def put(self, key: Any, value: T) -> None:
        """Write down what is known of an object."""
        number = id(key)
        row = self._rows.get(number)
        if row is not None and row() is key:
            row.value = value
            return
        try:
            row = _Row(key, self._forget)
        except TypeError:
            self._held.pop(number, None)  # the newest stands last
            self._held[number] = (key, value)
            if len(self._held) > MOST_SCALARS:
                del self._held[next(iter(self._held))]
            return
        row.number, row.value = number, value
        self._rows[number] = row

    def get(self, key: Any) -> T | None:
        """Return what is known of an object, or None."""
        row = self._rows.get(id(key))
        if row is not None and row() is key:
            found: T = row.value
            return found
        held = self._held.get(id(key))
        return held[1] if held is not None and held[0] is key else None

    def pop(self, key: Any) -> T | None:
        """Return what is known of an object, or None, and forget it."""
        found = self.get(key)
        if found is not None:
            self._rows.pop(id(key), None)
            self._held.pop(id(key), None)
        return found
