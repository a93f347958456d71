"""Blocks and work space: what keeps a chain of NumPy calls in the cache.

A kernel sees one block at a time, contiguous and in the machine's byte order, whatever the array looks like:
``np.nditer`` hands it the array's own memory where it can and a copy of a block where it must. So the extra
memory is a few blocks a thread, kept for the next call, and never grows with the array.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from minimp.quiet import hush, speak

__all__ = ["DOUBLE", "SINGLE", "Array", "Kernel", "Width", "block_of", "constant_lane", "each_block", "lane"]

Array = npt.NDArray[Any]
Kernel = Callable[[int, Array, Array], None]
"""Takes the place of a block's first element, the block, and where the result goes."""

BLOCK_BYTES = 1 << 18
"""Of the wider side of a block: four or five such lanes are a level-2 cache."""


@dataclass(frozen=True, eq=False)
class Width:
    """A binary float of the machine in which a kernel computes, and its bit patterns.

    Attributes:
        real, word, whole: its dtype, and the unsigned and signed integers of its size.
        stored: its mantissa bits. bias: its exponent bias.
        sign, exponent: masks of those fields, as 0-d arrays: a ufunc takes them without conversion.
    """

    real: np.dtype[Any]
    word: np.dtype[Any]
    whole: np.dtype[Any]
    stored: int
    bias: int
    sign: Array
    exponent: Array

    def constant(self, pattern: int) -> Array:
        """Return a bit pattern as a 0-d array of words; read-only, for it is kept."""
        return _constant(self.word, pattern)

    def field(self, exponent: int) -> int:
        """Return the pattern of 2^exponent, a normal number."""
        return (exponent + self.bias) << self.stored


@lru_cache(maxsize=1024)
def _constant(word: np.dtype[Any], pattern: int) -> Array:
    made = np.array(pattern, word)
    made.setflags(write=False)
    return made


def _width(real: str, word: str, whole: str, stored: int, bias: int) -> Width:
    size = np.dtype(word).itemsize * 8
    sign, exponent = 1 << (size - 1), (2 * bias + 1) << stored
    masks = np.array(sign, word), np.array(exponent, word)
    return Width(np.dtype(real), np.dtype(word), np.dtype(whole), stored, bias, *masks)


SINGLE = _width("f4", "u4", "i4", 23, 127)
DOUBLE = _width("f8", "u8", "i8", 52, 1023)


class _Space(threading.local):
    """The lanes of one thread, made when first asked for, and what some of them are filled with."""

    def __init__(self) -> None:
        self.lanes: dict[tuple[str, np.dtype[Any]], Array] = {}
        self.filled: dict[str, tuple[np.dtype[Any], float, int]] = {}

    def lane(self, name: str, dtype: np.dtype[Any]) -> Array:
        found = self.lanes.get((name, dtype))
        if found is None:
            base = self.lanes.setdefault((name, _BYTE), np.empty(BLOCK_BYTES + _SLACK, _BYTE))
            found = self.lanes[name, dtype] = base.view(dtype)
        return found


_BYTE = np.dtype("u1")
_SLACK = 64  # bytes: pairs of random words may begin before a block
_space = _Space()


def lane(name: str, dtype: np.dtype[Any], size: int) -> Array:
    """This thread's work space of that name, as `size` numbers; all dtypes share its memory."""
    return _space.lane(name, dtype)[:size]


def kept_bytes() -> int:
    """Return the bytes of work space that this thread keeps."""
    return sum(each.nbytes for (_, dtype), each in _space.lanes.items() if dtype is _BYTE)


def constant_lane(name: str, dtype: np.dtype[Any], size: int, value: float) -> Array:
    """A lane in which every number is `value`; nobody else writes to it.

    np.maximum and np.minimum with an array are several times faster than with one number.
    """
    known, old, count = _space.filled.get(name, (None, 0.0, 0))
    whole = _space.lane(name, dtype)
    if known is not dtype or old != value or count < size:
        whole[:size].fill(value)
        _space.filled[name] = dtype, value, size
    return whole[:size]


def block_of(*dtypes: np.dtype[Any]) -> int:
    """Elements of one block: even, and the widest of the dtypes fits a lane."""
    return BLOCK_BYTES // max(each.itemsize for each in dtypes)


def each_block(
    kernel: Kernel,
    source: Array,
    target: Array,
    *,
    read: np.dtype[Any],
    write: np.dtype[Any] | None = None,
    block: int,
    by_place: bool = False,
    threads: int = 1,
) -> None:
    """Run a kernel over all blocks of `source`, its results going to `target`.

    Args:
        source, target: of one shape. They may be the same array; where they merely overlap, source is copied.
        read, write: what the kernel takes and gives; ``target``'s own dtype by default.
        block: elements of a block.
        by_place: whether the kernel needs the elements in C order; or else memory's order is taken.
        threads: how many share the work.
    """
    if np.may_share_memory(source, target) and not _same_memory(source, target):
        source = source.copy()

    def run(start: int, stop: int) -> None:
        token = hush()
        try:
            with _blocks(source, target, (read, write or target.dtype), block, by_place) as blocks:
                blocks.iterrange = (start, stop)  # type: ignore[misc]  # settable, in a ranged iteration
                place = start
                for given, result in blocks:
                    kernel(place, given, result)
                    place += given.size
        finally:
            speak(token)

    size = source.size
    pieces = min(threads, -(-size // block))
    if pieces <= 1:
        if size:
            run(0, size)
        return
    share = -(-size // (pieces * block)) * block
    starts = range(0, size, share)
    with ThreadPoolExecutor(len(starts)) as pool:
        list(pool.map(run, starts, [min(each + share, size) for each in starts]))


# Any: NumPy's annotations misspell "contig".
_WHOLE: Any = ("external_loop", "buffered", "ranged")
_EACH: Any = (("readonly", "contig", "aligned"), ("writeonly", "contig", "aligned"))


def _blocks(
    source: Array, target: Array, dtypes: tuple[np.dtype[Any], np.dtype[Any]], block: int, by_place: bool
) -> np.nditer:
    return np.nditer(
        (source, target),
        flags=_WHOLE,
        op_flags=_EACH,
        op_dtypes=dtypes,
        order="C" if by_place else "K",
        casting="unsafe",
        buffersize=block,
    )


def _same_memory(source: Array, target: Array) -> bool:
    return (
        source.__array_interface__["data"][0] == target.__array_interface__["data"][0]
        and source.strides == target.strides
        and source.dtype == target.dtype
    )
