"""Random orders that are pure functions of numbers: the same on every machine and under every NumPy release.

An order of n rows comes from n 64-bit keys of the counter-based generator Philox4x64-10 (Salmon, Moraes, Dror
and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011): the rows are sorted by their keys, equal
keys by position. The generator's key is the seed; its 256-bit counter starts at (block 0, 0, stream,
purpose), so no two streams share a block. NumPy keeps the raw stream of a bit generator between releases,
which it does not promise for ``Generator.permutation`` (NEP 19); and a state that is nothing but (seed,
stream) is exact to save.
"""

from __future__ import annotations

import operator
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from minimp.errors import SettingError

__all__ = ["Purpose", "check_seed", "permutation"]

SEED_LIMIT = 2**64


class Purpose(IntEnum):
    """What an order is for; two purposes never share random numbers."""

    LOADER = 0
    SPLIT = 1


def check_seed(seed: object, op: str) -> int:
    """Return `seed` as an int.

    Raises:
        SettingError: it is not an integer in 0 .. 2^64 - 1.
    """
    try:
        number = operator.index(seed)  # type: ignore[arg-type]  # what is no integer raises TypeError here
    except TypeError:
        number = -1
    if isinstance(seed, bool) or not 0 <= number < SEED_LIMIT:
        raise SettingError(f"seed must be an integer from 0 to 2^64 - 1, got {seed!r}", op=op)
    return number


def permutation(count: int, *, seed: int, stream: int, purpose: Purpose) -> npt.NDArray[np.int64]:
    """Return the order of `count` rows that belongs to (seed, stream, purpose), int64 (count,)."""
    bits = np.random.Philox(key=seed, counter=(stream << 128) | (int(purpose) << 192))
    return np.argsort(bits.random_raw(count), kind="stable").astype(np.int64, copy=False)
