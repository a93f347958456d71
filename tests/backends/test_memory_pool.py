"""Figures of a memory pool, and what is said where it is full; a pool of numbers stands in for the GPU's."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest

from minimp.errors import DeviceError, OutOfMemoryError
from minimp_backends.memory_pool import WatchedPool, in_words, watch

UNIT = 512


class FullError(MemoryError):
    """CuPy's OutOfMemoryError."""


class Hook:
    """CuPy's MemoryHook: the pool calls those that are entered."""

    entered: ClassVar[list[Any]] = []

    def __enter__(self) -> Any:
        Hook.entered.append(self)
        return self


class Pool:
    """A pool that gives numbers for memory: what cupy.cuda.MemoryPool does, without a GPU."""

    def __init__(self, room: int, limit: int = 0) -> None:
        self.room, self.limit, self.held, self.cached, self.next = room, limit, {}, 0, 1

    def malloc(self, size: int) -> int:
        """Return a number; in pieces of 512 bytes."""
        size = -(-size // UNIT) * UNIT
        new = max(0, size - self.cached)
        fits = self.total_bytes() + new <= min(self.room, self.limit or self.room)
        pointer = self.next if fits else 0
        for hook in Hook.entered:
            hook.malloc_postprocess(device_id=0, size=size, mem_size=size, mem_ptr=pointer, pmem_id=0)
        if not fits:
            raise FullError
        self.cached -= size - new
        self.held[pointer], self.next = size, self.next + 1
        return pointer

    def free(self, pointer: int) -> None:
        """Keep it for the next."""
        size = self.held.pop(pointer)
        self.cached += size
        for hook in Hook.entered:
            hook.free_postprocess(device_id=0, mem_size=size, mem_ptr=pointer, pmem_id=0)

    def used_bytes(self) -> int:
        """What is held."""
        return sum(self.held.values())

    def total_bytes(self) -> int:
        """What was taken."""
        return self.used_bytes() + self.cached

    def get_limit(self) -> int:
        """0 for none."""
        return self.limit

    def free_all_blocks(self) -> None:
        """Give back."""
        self.cached = 0


@pytest.fixture
def cupy_like() -> Iterator[Any]:
    """Return what of CuPy is needed, over a pool with room for 10,240 bytes."""
    pool = Pool(room=20 * UNIT)
    set_to: list[Any] = []
    cuda = SimpleNamespace(
        MemoryHook=Hook, get_allocator=lambda: pool.malloc, set_allocator=set_to.append,
        memory=SimpleNamespace(OutOfMemoryError=FullError),
        runtime=SimpleNamespace(memGetInfo=lambda: (pool.room - pool.total_bytes(), pool.room)),
    )  # fmt: skip
    yield SimpleNamespace(cuda=cuda, get_default_memory_pool=lambda: pool, pool=pool, set_to=set_to)
    Hook.entered.clear()


def test_the_peak_is_the_most_that_was_used(cupy_like: Any) -> None:
    """Allocations and releases, counted in 512 bytes; oracle: arithmetic."""
    pool = cupy_like.pool
    early = pool.malloc(UNIT)
    watched = watch(cupy_like)
    assert cupy_like.set_to == [watched.malloc]
    a, b = watched.malloc(1000), watched.malloc(2000)
    pool.free(a)
    pool.free(early)
    c = watched.malloc(500)
    now = watched.figures()
    assert (now.used, now.peak, now.total, now.free, now.limit) == (
        5 * UNIT,
        7 * UNIT,
        7 * UNIT,
        2 * UNIT,
        None,
    )
    watched.reset_peak()
    pool.free(b)
    assert watched.figures().peak == 5 * UNIT
    assert watched.release() == 6 * UNIT
    pool.free(c)
    assert watched.figures().used == 0


def test_a_full_gpu_says_what_was_asked_and_what_is_held(cupy_like: Any) -> None:
    """Asked, used, pool, limit, and where to look; oracle: the sentence by hand."""
    watched = watch(cupy_like)
    kept = watched.malloc(15 * UNIT)
    with pytest.raises(OutOfMemoryError) as caught:
        watched.malloc(6 * UNIT)
    fault = caught.value
    assert isinstance(fault, DeviceError)
    assert (
        "no room for 3.0 KiB more: arrays hold 7.5 KiB of the pool's 7.5 KiB; of the GPU's 10.0 KiB"
        in str(fault)
    )
    assert "mp.memory.ledger(step, inputs, targets)" in (fault.help or "")
    assert (fault.asked, fault.used, fault.total, fault.limit) == (6 * UNIT, 15 * UNIT, 15 * UNIT, None)
    assert (watched.figures().used, watched.figures().peak) == (15 * UNIT, 15 * UNIT), "it is not counted"
    cupy_like.pool.limit = 16 * UNIT
    with pytest.raises(OutOfMemoryError, match=r"which is limited to 8\.0 KiB"):
        watched.malloc(2 * UNIT)
    cupy_like.pool.free(kept)
    assert watched.malloc(6 * UNIT), "and it goes on"


def test_another_fault_passes_through(cupy_like: Any) -> None:
    """Only a full pool is explained; oracle: the exception."""

    def broken(size: int) -> None:
        raise RuntimeError("cudaErrorIllegalAddress")

    watched = WatchedPool(cupy_like.pool, broken, FullError, lambda: (0, 0))
    with pytest.raises(RuntimeError, match="IllegalAddress"):
        watched.malloc(1)


def test_bytes_in_words() -> None:
    """The largest unit; oracle: by hand."""
    assert [in_words(n) for n in (0, 1023, 1024, 5 << 20, 80 << 30, 3 << 40)] == [
        "0 bytes", "1023 bytes", "1.0 KiB", "5.0 MiB", "80.0 GiB", "3.0 TiB"
    ]  # fmt: skip


def test_cupys_own_arrays_come_from_the_watched_allocator() -> None:
    """The real `set_allocator` and `MemoryHook` take what we give them; oracle: cupy.empty, on the host."""
    cupy = pytest.importorskip("cupy")
    room = np.zeros(4096, np.uint8)

    def allocate(size: int) -> Any:
        if size > room.size:
            raise cupy.cuda.memory.OutOfMemoryError(size, 0, 0)
        memory = cupy.cuda.UnownedMemory(room.ctypes.data, room.size, room, 0)
        return cupy.cuda.MemoryPointer(memory, 0)

    runtime = SimpleNamespace(memGetInfo=lambda: (0, room.size))
    names = ("MemoryHook", "memory", "set_allocator")
    cuda = SimpleNamespace(
        **{name: getattr(cupy.cuda, name) for name in names}, get_allocator=lambda: allocate, runtime=runtime
    )
    before = cupy.cuda.get_allocator()
    watch(SimpleNamespace(cuda=cuda, get_default_memory_pool=lambda: Pool(room.size)))
    try:
        made = cupy.empty((4, 4), np.float16)
        assert made.data.ptr == room.ctypes.data
        with pytest.raises(OutOfMemoryError, match=r"no room for 64\.0 KiB more"):
            cupy.empty(1 << 16, np.uint8)
    finally:
        cupy.cuda.set_allocator(before)
        hooks = cupy.cuda.memory_hook.get_memory_hooks()
        hooks["minimp"].__exit__()
