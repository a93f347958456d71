"""Memory that watches: bounds, alignment, what was never written, and accesses that no barrier orders.

An access is judged by what was done to the same bytes before. Two threads that touch a byte, one of them
writing, must be ordered: by a barrier of their block between the two, or by a ``__syncwarp`` that both
joined. Threads of different blocks are never ordered. Atomic accesses need no order among themselves, and
writing what is there already is no race, for it changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from tests.kernels.ptx.parsing import PtxError

__all__ = ["Clock", "Region"]

NOBODY, SEVERAL = -1, -2  # several threads of different warps; -3 - w stands for several of warp w
GAP = 256  # bytes between allocations, so that an index out of one array is not inside the next


@dataclass
class Clock:
    """When what happened, and which threads have met since.

    Attributes:
        block: of each thread.
        warp: of each thread, counted through all blocks.
        now: a count of instructions and barriers.
        met: when the thread last passed a barrier of its block.
        joined: when it last passed a barrier of its warp, and `company` with which lanes.
    """

    block: np.ndarray
    warp: np.ndarray
    now: int = 1
    met: np.ndarray = field(init=False)
    joined: np.ndarray = field(init=False)
    company: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.met, self.joined = np.zeros(self.block.size, np.int64), np.zeros(self.block.size, np.int64)
        self.company = np.zeros(self.block.size, np.uint64)
        self.lane = self.place_in_warp()

    def place_in_warp(self) -> np.ndarray:
        """Return which lane of its warp each thread is."""
        first = np.searchsorted(self.warp, self.warp)
        return np.arange(self.warp.size) - first

    def barrier(self, threads: np.ndarray) -> None:
        """Order everything before with everything after, for these threads of one block."""
        self.now += 1
        self.met[threads] = self.now

    def join(self, threads: np.ndarray, masks: np.ndarray) -> None:
        """Order these threads with the lanes of their masks."""
        self.now += 1
        self.joined[threads], self.company[threads] = self.now, masks

    def unordered(self, threads: np.ndarray, others: np.ndarray, when: np.ndarray) -> np.ndarray:
        """Return where a thread's access now is not ordered with what another one did then."""
        known = np.where(others >= 0, others, 0)
        one_warp = np.where(others >= 0, self.warp[known], np.where(others < SEVERAL, -3 - others, -1))
        bit = np.where(
            others >= 0, np.uint64(1) << self.lane[known].astype(np.uint64), np.uint64(0xFFFF_FFFF)
        )
        same_block = (self.block[known] == self.block[threads]) | (others < 0)
        by_block = same_block & (self.met[threads] > when)
        by_warp = (
            (one_warp == self.warp[threads])
            & (self.joined[threads] > when)
            & (self.company[threads] & bit == bit)
        )
        return (others != NOBODY) & (others != threads) & ~by_block & ~by_warp


class Region:
    """One stretch of memory with everything that was allocated in it.

    Args:
        name: for messages, for example "shared memory".
        clock: of the launch.
        watch: look for races.
    """

    def __init__(self, name: str, clock: Clock, *, watch: bool = True) -> None:
        self.name, self.clock, self.watch = name, clock, watch
        self.names: list[str] = []
        self.reserve(GAP)

    def reserve(self, size: int) -> None:
        """Start over with that many bytes, all of them out of bounds."""
        self.data = np.zeros(size, np.uint8)
        self.owner = np.full(size, -1, np.int32)
        self.written = np.zeros(size, bool)
        self.writer, self.reader = np.full(size, NOBODY), np.full(size, NOBODY)
        self.write_time, self.read_time = np.zeros(size, np.int64), np.zeros(size, np.int64)
        self.atomic = np.zeros(size, bool)

    def frames(
        self, sizes: dict[str, tuple[int, int]], copies: int, moved: Mapping[str, int] | None = None
    ) -> tuple[dict[str, int], int]:
        """Lay out variables of (size, alignment), once for each copy; start over with that.

        `moved` begin so many bytes behind where they would.

        Returns:
            the place of each variable in a frame, and the bytes from one frame to the next.
        """
        places, end = {}, GAP
        for name, (size, align) in sizes.items():
            step = max(align, 16)
            places[name] = -(-end // step) * step + (moved or {}).get(name, 0)
            end = places[name] + size + GAP
        stride = -(-end // 256) * 256
        self.reserve(stride * copies)
        self.names = list(sizes)
        owners = self.owner.reshape(copies, stride)
        for k, (name, (size, _)) in enumerate(sizes.items()):
            owners[:, places[name] : places[name] + size] = k
        return places, stride

    def fill(self, at: int, content: bytes) -> None:
        """Put bytes there, as the host does before the launch."""
        self.data[at : at + len(content)] = np.frombuffer(content, np.uint8)
        self.written[at : at + len(content)] = True

    def _check(self, threads: np.ndarray, at: np.ndarray, size: int, doing: str) -> np.ndarray:
        """Return the places in units of `size` bytes; a thread that may not go there is an error."""
        inside = (at >= 0) & (at + size <= self.data.size)
        safe = np.where(inside, at, 0)
        bad = (
            ~inside
            | (self.owner[safe] < 0)
            | (self.owner[safe] != self.owner[np.where(inside, at + size - 1, 0)])
        )
        if bad.any():
            self._fail(threads, at, bad, f"{doing} {size} bytes out of bounds")
        if (at % size).any():
            self._fail(
                threads, at, at % size != 0, f"{doing} {size} bytes at an address that is no multiple of it"
            )
        return at // size

    def _fail(self, threads: np.ndarray, at: np.ndarray, bad: np.ndarray, what: str) -> None:
        k = int(np.flatnonzero(bad)[0])
        place = int(at[k])
        near = self.owner[max(0, place - GAP) : max(0, place) + GAP]
        names = [self.names[each] for each in np.unique(near[near >= 0])]
        where = f" in or near {' or '.join(dict.fromkeys(names))}" if names else ""
        raise PtxError(f"{self.name}: thread {int(threads[k])} {what}{where}")

    def load(
        self, threads: np.ndarray, at: np.ndarray, size: int, *, atomic: bool = False, fresh: bool = True
    ) -> np.ndarray:
        """Return the bytes at each address as uint64.

        Args:
            threads: who reads.
            at: their addresses.
            size: bytes, 1 to 8.
            atomic: as part of an atomic operation.
            fresh: what nobody has written is an error.
        """
        place = self._check(threads, at, size, "reads")
        if fresh and not self.written.reshape(-1, size)[place].all():
            self._fail(
                threads, at, ~self.written.reshape(-1, size)[place].all(1), "reads what was never written"
            )
        if self.watch:
            self._judge(
                threads, at, place, size, self.writer, self.write_time, atomic, "reads what another wrote"
            )
            self._note_reader(threads, place, size)
        return self.data.view(f"u{size}")[place].astype(np.uint64)

    def store(
        self, threads: np.ndarray, at: np.ndarray, size: int, bits: np.ndarray, *, atomic: bool = False
    ) -> None:
        """Write the low bytes of uint64 values to each address."""
        place = self._check(threads, at, size, "writes")
        values = np.broadcast_to(bits, at.shape).astype(f"u{size}")
        if self.watch:
            changes = (self.data.view(f"u{size}")[place] != values) | ~self.written.reshape(-1, size)[
                place
            ].all(1)
            some = np.flatnonzero(changes)
            if some.size:
                self._judge_write(threads[some], at[some], place[some], size, values[some], atomic=atomic)
        self.data.view(f"u{size}")[place] = values
        self.written.reshape(-1, size)[place] = True
        if self.watch:
            self.writer.reshape(-1, size)[place] = threads[:, None]
            self.write_time.reshape(-1, size)[place] = self.clock.now
            self.atomic.reshape(-1, size)[place] = atomic

    def _judge_write(
        self,
        threads: np.ndarray,
        at: np.ndarray,
        place: np.ndarray,
        size: int,
        values: np.ndarray,
        *,
        atomic: bool,
    ) -> None:
        self._judge(
            threads, at, place, size, self.writer, self.write_time, atomic, "overwrites what another wrote"
        )
        self._judge(
            threads, at, place, size, self.reader, self.read_time, atomic, "overwrites what another read"
        )
        order = np.argsort(place, kind="stable")
        twice = (np.diff(place[order]) == 0) & (np.diff(values[order].astype(np.int64)) != 0)
        if twice.any():
            bad = np.zeros(at.size, bool)
            bad[order[1:][twice]] = True
            self._fail(threads, at, bad, "writes where another writes something else at the same time")

    def _judge(
        self,
        threads: np.ndarray,
        at: np.ndarray,
        place: np.ndarray,
        size: int,
        who: np.ndarray,
        when: np.ndarray,
        atomic: bool,
        what: str,
    ) -> None:
        others, times = who.reshape(-1, size)[place], when.reshape(-1, size)[place]
        bad = self.clock.unordered(threads[:, None].repeat(size, 1), others, times)
        if atomic:
            bad &= ~self.atomic.reshape(-1, size)[place]
        if bad.any():
            self._fail(threads, at, bad.any(1), f"{what} with no barrier between the two: a race")

    def _note_reader(self, threads: np.ndarray, place: np.ndarray, size: int) -> None:
        readers, times = self.reader.reshape(-1, size), self.read_time.reshape(-1, size)
        before = readers[place]
        stale = ~self.clock.unordered(threads[:, None].repeat(size, 1), before, times[place])
        warp = -3 - self.clock.warp[threads][:, None]
        before_warp = np.where(before >= 0, -3 - self.clock.warp[np.maximum(before, 0)], before)
        merged = np.where(before_warp == warp, warp, SEVERAL)
        readers[place] = np.where(stale, threads[:, None], merged)
        again = readers[place] != np.where(stale, threads[:, None], merged)  # two of these read one byte
        if again.any():
            many = self.clock.warp[threads].min() != self.clock.warp[threads].max()
            readers[place] = np.where(again.any(), SEVERAL if many else warp, readers[place])
        times[place] = self.clock.now
