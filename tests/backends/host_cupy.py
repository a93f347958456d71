"""Real `cupy.ndarray`s in host memory: their shapes, strides and views are CuPy's, their numbers NumPy's."""

from __future__ import annotations

from typing import Any

import cupy
import numpy as np
import numpy.typing as npt

from tests.backends.cublas_stand_in import Block, over

__all__ = ["HostArray", "HostLibrary", "host_view"]

Array = npt.NDArray[Any]


class HostArray(cupy.ndarray):  # type: ignore[misc]  # cupy has no annotations
    """A `cupy.ndarray` whose memory is the host's: what would launch a kernel fails, but for assignment."""

    def __setitem__(self, index: Any, value: Any) -> None:
        host_view(self)[index] = host_view(value) if isinstance(value, cupy.ndarray) else value


def host_view(array: Any) -> Array:
    """Return a NumPy array over the memory of a :class:`HostArray`."""
    return over(array.data.ptr, array.shape, array.strides, array.dtype)


class HostLibrary:
    """The functions of an array library that a product needs, over memory of the host that it remembers."""

    ndarray = HostArray

    def __init__(self) -> None:
        self.blocks: list[Block] = []

    def allocate(self, size: int, misaligned: int = 0) -> Block:
        """Return `size` bytes of NaN, at a multiple of 256 (a GPU's) plus `misaligned`."""
        owner = np.full(size + 512, 0xFF, np.uint8)
        start = -(-owner.ctypes.data // 256) * 256 + misaligned
        self.blocks.append(Block(start, size, owner))
        return self.blocks[-1]

    def array(
        self, block: Block, shape: tuple[int, ...], dtype: Any, strides: Any = None, offset: int = 0
    ) -> HostArray:
        """Return an array that begins `offset` bytes into a block."""
        memory = cupy.cuda.UnownedMemory(block.start, max(1, block.size), block.owner, 0)
        pointer = cupy.cuda.MemoryPointer(memory, offset)
        return HostArray(shape, dtype, memptr=pointer, strides=strides)

    def empty(self, shape: tuple[int, ...], dtype: Any) -> HostArray:
        """Return an array in C order, full of NaN."""
        dtype = np.dtype(dtype)
        return self.array(self.allocate(int(np.prod(shape)) * dtype.itemsize), shape, dtype)

    def zeros(self, shape: tuple[int, ...], dtype: Any) -> HostArray:
        """Return an array of zeros in C order."""
        made = self.empty(shape, dtype)
        made[...] = 0
        return made
