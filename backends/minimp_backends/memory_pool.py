"""The GPU's memory pool: what it holds, the most that it held, and what is said where it is full.

CuPy keeps freed memory in a pool, in pieces of multiples of 512 bytes, and counts no peak. A hook that the
pool calls at each allocation and release does (cupy 14, cupy.cuda.MemoryHook; hooks are of the thread that
set them, and so is the peak). The pool's allocator is wrapped, so that a full GPU raises our error.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from minimp.errors import OutOfMemoryError

__all__ = ["PoolFigures", "WatchedPool", "full_beside_the_pool", "watch"]

UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")
ADVICE = (
    "mp.memory.ledger(step, inputs, targets) says what a step holds and why; a smaller batch with gradient "
    "accumulation, mp.recompute and 16-bit parameters need less; backend.memory.release() gives back what is "
    "free"
)
NO_ROOM = ("CUBLAS_STATUS_ALLOC_FAILED", "CUDA_ERROR_OUT_OF_MEMORY", "cudaErrorMemoryAllocation")
"""What cuBLAS, the driver and the runtime say where the GPU is full."""


@dataclass(frozen=True, slots=True)
class PoolFigures:
    """What a pool holds, in bytes.

    Attributes:
        used: by arrays that live.
        peak: the most that was used since it was last reset.
        total: taken from the GPU: used, and free for the next array.
        limit: the most that the pool may take; None: all that there is.
    """

    used: int
    peak: int
    total: int
    limit: int | None

    @property
    def free(self) -> int:
        """Taken from the GPU, and in no array."""
        return self.total - self.used


class WatchedPool:
    """A memory pool that counts a peak and explains itself.

    Args:
        pool: a `cupy.cuda.MemoryPool`.
        allocate: what takes memory from it; the pool's own `malloc` as a rule.
        full: the exception that `allocate` raises where there is no room.
        device_bytes: returns (free, all) bytes of the GPU.
    """

    def __init__(
        self, pool: Any, allocate: Callable[[int], Any], full: type[BaseException],
        device_bytes: Callable[[], tuple[int, int]],
    ) -> None:  # fmt: skip
        self.pool, self._allocate, self._full, self._device_bytes = pool, allocate, full, device_bytes
        self._used = self._peak = int(pool.used_bytes())

    def malloc(self, size: int) -> Any:
        """Return memory of `size` bytes: an allocator for `cupy.cuda.set_allocator`.

        Raises:
            OutOfMemoryError: there is no room.
        """
        try:
            return self._allocate(size)
        except self._full as fault:
            raise self._explained(size) from fault

    def taken(self, size: int) -> None:
        """Count an allocation."""
        self._used += size
        self._peak = max(self._peak, self._used)

    def given_back(self, size: int) -> None:
        """Count a release."""
        self._used -= size

    def figures(self) -> PoolFigures:
        """Return what the pool holds now."""
        used = self._used = int(self.pool.used_bytes())  # other threads' as well
        self._peak = max(self._peak, used)
        limit = int(self.pool.get_limit())
        return PoolFigures(used, self._peak, int(self.pool.total_bytes()), limit or None)

    def reset_peak(self) -> None:
        """Let the peak begin at what is used now."""
        self._used = self._peak = int(self.pool.used_bytes())

    def release(self) -> int:
        """Give back to the GPU what no array uses; return the bytes."""
        before = int(self.pool.total_bytes())
        self.pool.free_all_blocks()
        return before - int(self.pool.total_bytes())

    def _explained(self, size: int) -> OutOfMemoryError:
        now, (free, everything) = self.figures(), self._device_bytes()
        limit = "" if now.limit is None else f", which is limited to {in_words(now.limit)}"
        return OutOfMemoryError(
            f"the GPU has no room for {in_words(size)} more: arrays hold {in_words(now.used)} of the pool's "
            f"{in_words(now.total)}{limit}; of the GPU's {in_words(everything)}, {in_words(free)} are free",
            asked=size, used=now.used, total=now.total, limit=now.limit, help=ADVICE,
        )  # fmt: skip


def full_beside_the_pool(op: str, fault: Exception) -> OutOfMemoryError | None:
    """Return the error of a library that found no room for its own needs on the GPU; None of any other fault.

    A workspace of cuBLAS's, or the code of a kernel, lies outside of the pool: it is short where the pool
    has taken everything, free or not.
    """
    if not any(each in str(fault) for each in NO_ROOM):
        return None
    return OutOfMemoryError(
        f"the GPU has no room for what is needed beside the arrays: {fault}", op=op,
        help=f"give back what the memory pool keeps, or limit it: {ADVICE}",
    )  # fmt: skip


def in_words(count: int) -> str:
    """Return a count of bytes in the largest unit of which there is one.

    >>> in_words(512), in_words(1536), in_words(3 << 30)
    ('512 bytes', '1.5 KiB', '3.0 GiB')
    """
    size, unit = float(count), 0
    while size >= 1024 and unit < len(UNITS) - 1:
        size, unit = size / 1024, unit + 1
    return f"{size:.1f} {UNITS[unit]}" if unit else f"{count} bytes"


def watch(cupy: Any) -> WatchedPool:
    """Watch the default memory pool of CuPy from now on, through whatever allocator is in force."""
    cuda = cupy.cuda
    watched = WatchedPool(
        cupy.get_default_memory_pool(), cuda.get_allocator(), cuda.memory.OutOfMemoryError,
        cuda.runtime.memGetInfo,
    )  # fmt: skip

    class Counting(cuda.MemoryHook):  # type: ignore[misc, name-defined]  # CuPy's class, met at run time
        """Counts what the pool gives and takes."""

        name = "minimp"

        def malloc_postprocess(self, **told: int) -> None:
            """Count an allocation that succeeded."""
            if told["mem_ptr"]:
                watched.taken(told["mem_size"])

        def free_postprocess(self, **told: int) -> None:
            """Count a release."""
            watched.given_back(told["mem_size"])

    Counting().__enter__()  # stays, as the pool does
    cuda.set_allocator(watched.malloc)
    return watched
