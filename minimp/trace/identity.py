"""A table by identity, whose rows go when their objects go."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar
from weakref import ref

__all__ = ["ByIdentity"]

T = TypeVar("T")
MOST_SCALARS = 1024
"""NumPy's scalars, such as losses, cannot be referred to weakly: so many of the newest are held."""


class ByIdentity(Generic[T]):
    """Object -> what is known of it; the object is held weakly and never compared with another."""

    def __init__(self) -> None:
        self._held: dict[int, tuple[Callable[[], Any], T]] = {}
        self._scalars: deque[int] = deque()

    def __len__(self) -> int:
        return len(self._held)

    def put(self, key: Any, value: T) -> None:
        """Write down what is known of an object."""
        number, held = id(key), self._held

        def forget(gone: Any) -> None:
            now = held.get(number)
            if now is not None and now[0] is gone:  # another object may have this place by now
                del held[number]

        try:
            held[number] = (ref(key, forget), value)
        except TypeError:
            if self.get(key) is None:
                self._scalars.append(number)
            held[number] = (lambda: key, value)
            if len(self._scalars) > MOST_SCALARS:
                held.pop(self._scalars.popleft(), None)

    def get(self, key: Any) -> T | None:
        """Return what is known of an object, or None."""
        found = self._held.get(id(key))
        return found[1] if found is not None and found[0]() is key else None

    def pop(self, key: Any) -> T | None:
        """Return what is known of an object, or None, and forget it."""
        found = self.get(key)
        if found is not None:
            del self._held[id(key)]
        return found
