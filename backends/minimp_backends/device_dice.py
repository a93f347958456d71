"""Random numbers made where they are needed: the bits of :class:`minimp.formats.Counter` on a device.

Only the seed is drawn on the host, so nothing travels, and the bits are those of the host's own counter.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minimp.formats.dice import GOLDEN, Counter, Dice, mix64

__all__ = ["counter_words", "keep_mask", "roll_on_device"]

Array = Any
MASK = (1 << 64) - 1


def counter_words(xp: Any, counter: Counter, count: int, *, further: bool = False) -> Array:
    """Return ``counter.words(count)`` as an array of `xp`: 32 random bits an element, uint32."""
    first, stop = counter.start // 2, (counter.start + count + 1) // 2
    z = xp.arange(stop - first, dtype=np.uint64) * np.uint64(GOLDEN)
    z = z + np.uint64((counter.key(further=further) + (first + 1) * GOLDEN) & MASK)
    halves = mix64(z).view(np.uint32)  # the low half first: every device counts bytes so
    skip = counter.start - 2 * first
    return halves[skip : skip + count]


def roll_on_device(xp: Any, shape: tuple[int, ...], counter: Counter) -> Dice:
    """Throw the dice that :func:`minimp.formats.dice.roll` throws with this counter."""
    words, further = (counter_words(xp, counter, math.prod(shape), further=each) for each in (False, True))
    return Dice((words * 2.0**21 + (further >> np.uint32(11))).reshape(shape), 53)


def keep_mask(xp: Any, shape: tuple[int, ...], p: float, seed: int) -> Array:
    """Return what dropout keeps: true with probability 1 - p, to within 2^-32."""
    words = counter_words(xp, Counter(seed), math.prod(shape))
    return (words >= p * 2.0**32).reshape(shape)
