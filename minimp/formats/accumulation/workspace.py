"""Work space that a thread keeps: fresh memory costs a fault a page, several times what is done with it."""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["kept_bytes", "space"]

_KEPT = 4 << 20  # bytes; what is larger is made anew each time


class _Kept(threading.local):
    def __init__(self) -> None:
        self.memory: dict[str, npt.NDArray[np.uint8]] = {}


_kept = _Kept()


def space(name: str, shape: tuple[int, ...], dtype: Any) -> npt.NDArray[Any]:
    """Return this thread's work space of that name, as an array of any content.

    The next call with the same name gives the same memory: no two holders at a time, and nothing that is
    handed on to a caller.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size > _KEPT:
        return np.empty(shape, dtype)
    memory = _kept.memory.get(name)
    if memory is None or memory.size < size:
        memory = _kept.memory[name] = np.empty(size, np.uint8)
    numbers: npt.NDArray[Any] = memory[:size].view(dtype).reshape(shape)
    return numbers


def kept_bytes() -> int:
    """Return the bytes of work space that this thread keeps."""
    return sum(memory.nbytes for memory in _kept.memory.values())
