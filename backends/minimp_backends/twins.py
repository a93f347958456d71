"""Float32 twins: the values of a 16-bit array, kept beside it so that it need not be widened again.

A kernel that rounds to float16 has the rounded values in float32 anyway; the next kernel wants exactly
those. The twin is a cache and never a second truth: it holds the same values bit for bit, the 16-bit
array is made read-only while it has one, and the oldest twins are dropped when they pass a limit.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Any
from weakref import ref

__all__ = ["Twins"]

Array = Any
"""What has `base`, `nbytes` and `setflags`, and can be referred to weakly."""


class Twins:
    """16-bit array -> its float32 twin, for arrays that are alive, up to `limit` bytes of twins."""

    def __init__(self, limit: int = 24 * 2**20) -> None:
        self.limit = limit
        self.nbytes = 0
        self._held: OrderedDict[int, tuple[ref[Array], Array | None]] = OrderedDict()

    def get(self, low: Array) -> Array | None:
        """Return the twin of `low`, or None."""
        held = self._held.get(id(low))
        return None if held is None else held[1]

    def __iter__(self) -> Iterator[tuple[Array, Array]]:
        """Yield (16-bit array, its twin) for every twin."""
        for low, wide in list(self._held.values()):
            array = low()
            if array is not None and wide is not None:
                yield array, wide

    def put(self, low: Array, wide: Array) -> None:
        """Keep `wide` as the twin of `low`; both become read-only, and what `low` is a view of."""
        if wide.nbytes > self.limit or any(self.is_shared(each) for each in _owners(low)):
            return
        for each in _owners(low):
            each.setflags(write=False)
        wide.setflags(write=False)
        self._forget(id(low))
        self._hold(low, wide)
        self.nbytes += wide.nbytes
        while self.nbytes > self.limit:
            self._forget(next(iter(self._held)))

    def share(self, low: Array) -> None:
        """Never keep a twin of `low` again: somebody outside the engine can write to it."""
        self._forget(id(low))
        self._hold(low, None)

    def is_shared(self, low: Array) -> bool:
        """Tell whether :meth:`share` was called on this array."""
        held = self._held.get(id(low))
        return held is not None and held[1] is None

    def _hold(self, low: Array, wide: Array | None) -> None:
        key = id(low)
        self._held[key] = (ref(low, lambda _: self._forget(key)), wide)

    def _forget(self, key: int) -> None:
        held = self._held.pop(key, None)
        if held is not None and held[1] is not None:
            self.nbytes -= held[1].nbytes

    def clear(self) -> None:
        """Drop every twin."""
        for key in [key for key, (_, wide) in self._held.items() if wide is not None]:
            self._forget(key)


def _owners(array: Any) -> Iterator[Array]:
    """Yield an array, the one that it is a view of, and so on."""
    while hasattr(array, "setflags"):  # NumPy's arrays, and shapes of them
        yield array
        array = array.base
