"""How the kernels of weight updates go through memory: once, block by block, low copies included."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minimp import formats
from minimp.formats import Format
from minimp_backends.updates_plain import plain_stochastic_bfloat16

__all__ = ["Blocks", "Room"]

Array = Any
BLOCK = 64 * 1024
"""Elements of a block: six arrays of it fill a level-2 cache of 1 to 2 MiB."""


@dataclass(slots=True)
class Room:
    """Where a kernel puts what it makes; contiguous arrays of the weight's shape, written over.

    Attributes:
        new: w + delta, wide.
        change: delta, wide; None if nobody asks.
        low: `new` rounded to a 16-bit format; None if the weight has no low copy.
        grid: the values of `low`, wide; it may be `new`. None if nobody asks.
        compensation: Kahan's, of the format of `low`, read and carried on. With it `low` is the rounding of
            w + delta - compensation, and `grid` must be given.
        unless: an array without axes: where it is true, a kernel that obeys it (`obeys_verdict`) carries over
            what was there in the place of its results. None: nobody asks.
    """

    new: Array
    change: Array | None = None
    low: Array | None = None
    grid: Array | None = None
    compensation: Array | None = None
    unless: Array | None = None

    def flat(self) -> Room:
        """Return views without shape."""
        return self._each(lambda array: array.reshape(-1))

    def part(self, start: int, stop: int) -> Room:
        """Return views of a run of elements; the room must be flat."""
        return self._each(lambda array: array[start:stop])

    def _each(self, view: Callable[[Array], Array]) -> Room:
        arrays = (self.new, self.change, self.low, self.grid, self.compensation)
        made = Room(*(None if each is None else view(each) for each in arrays))
        made.unless = self.unless
        return made

    @property
    def asks_for_change(self) -> bool:
        """Whether delta itself is read, and not only w + delta."""
        return self.change is not None or self.compensation is not None


class Blocks:
    """Going through the arrays of an update, and storing its results; over the array namespace `xp`."""

    xp: Any
    from_host: Callable[[np.ndarray[Any, Any]], Array]
    cast: Callable[..., Array]
    decides_on_device: bool
    room = Room

    def blocks(self, room: Room, *arrays: Array | None) -> Iterator[tuple[Any, ...]]:
        """Yield (part of the room, parts of the arrays, two blocks of scratch); all flat, None stays None."""
        room, size = room.flat(), room.new.size
        flat = [None if each is None else each.reshape(-1) for each in arrays]
        t, s = (self.xp.empty(min(size, BLOCK), room.new.dtype) for _ in range(2))
        if 0 < size <= BLOCK:
            yield (room, *flat, t, s)
            return
        for start in range(0, size, BLOCK):
            stop = min(start + BLOCK, size)
            parts = [None if each is None else each[start:stop] for each in flat]
            yield (room.part(start, stop), *parts, t[: stop - start], s[: stop - start])

    def obeys_verdict(self, rule: str, weight: Array) -> bool:  # noqa: ARG002 - it depends on the kernels
        """Tell whether the kernel of a rule, a name of ``Optimizer.rule``, obeys `Room.unless` here."""
        return False

    def store(self, room: Room, w: Array, s: Array, t: Array) -> None:
        """Make of a block of `new` all else that is asked for, while it is in the cache.

        Args:
            room: of this block; `new` is done.
            w: the old weight.
            s: delta, if the room asks for it; overwritten, as `t` is.
        """
        if room.change is not None:
            room.change[...] = s
        if room.compensation is not None:
            self._compensate(room, w, s, t)
        elif room.low is not None:
            self.narrow_into(room.new, room.low, room.grid)

    def _compensate(self, room: Room, w: Array, s: Array, t: Array) -> None:
        """Add s less the compensation, and keep what rounding cuts off; `plain_kahan` in a block."""
        xp, grid = self.xp, room.grid
        self.widen_into(room.compensation, t)
        xp.subtract(s, t, out=t)
        xp.add(w, t, out=room.new)
        self.narrow_into(room.new, room.low, grid)
        xp.subtract(grid, w, out=s)
        xp.subtract(s, t, out=s)
        self.narrow_into(s, room.compensation, None)

    # ---- what an array library may do better ------------------------------------------------------------

    def narrow_into(self, wide: Array, low: Array, grid: Array | None) -> None:
        """Write `wide`, rounded once to nearest even, into the 16-bit `low`, and its values into `grid`.

        All are flat and contiguous; `grid` may be `wide`.
        """
        low[...] = wide
        if grid is not None:
            grid[...] = low

    def widen_into(self, low: Array, wide: Array) -> None:
        """Write the values of the 16-bit `low` into `wide`, exactly; both flat and contiguous."""
        wide[...] = low

    def keeps_twin(self, size: int) -> bool:  # noqa: ARG002 - it depends on the array library
        """Tell whether :meth:`keep_twin` does anything for an array of `size` elements."""
        return False

    def keep_twin(self, low: Array, grid: Array) -> None:
        """Take over the wide values of a 16-bit array, so that `wide(low)` need not be computed."""

    # ---- rounding at random -----------------------------------------------------------------------------

    def round_stochastic(
        self, wide: Array, format: Format, rng: np.random.Generator, sizes: Sequence[int] | None = None
    ) -> Array:
        """Round a wide array once to storage of `format`, up or down at random, right on average.

        On the host bfloat16 from float32 goes by :func:`plain_stochastic_bfloat16`, drawing 16 bits an
        element; anything else, and everything on a device, to which those bits would have to travel, by
        :func:`minimp.formats.round`, drawing the seed of a counter. Overflow is to infinity.

        Args:
            wide: the values.
            format: where to.
            rng: what is drawn from.
            sizes: the elements of several tensors that lie end to end in `wide`; each of them draws as if it
                came by itself, in this order. None: `wide` is one tensor.
        """
        if self.decides_on_device or format.dtype != formats.bfloat16.dtype or wide.dtype != np.float32:
            stops = np.cumsum([wide.size] if sizes is None else sizes)[:-1].tolist()
            pieces = [wide] if sizes is None else self.xp.split(wide, stops)
            rounded = [self._round_by_counter(piece, format, rng) for piece in pieces]
            return rounded[0] if sizes is None else self.xp.concatenate(rounded)
        draws = [rng.integers(0, 1 << 16, size, np.uint16) for size in (sizes or [wide.size])]
        dice = self.from_host(draws[0] if sizes is None else np.concatenate(draws))
        low = self.xp.empty(wide.shape, format.dtype)
        flat, out = wide.reshape(-1), low.reshape(-1)
        for start in range(0, wide.size, BLOCK):
            part = slice(start, start + BLOCK)
            out[part] = plain_stochastic_bfloat16(self.xp, flat[part], dice[part])
        return low

    def _round_by_counter(self, wide: Array, format: Format, rng: np.random.Generator) -> Array:
        seed = int(rng.integers(0, 1 << 64, dtype=np.uint64))
        return self.cast(wide, format, "stochastic", rng=formats.Counter(seed))
