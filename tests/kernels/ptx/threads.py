"""Who waits for whom: barriers of a block, and what the lanes of a warp exchange."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from tests.kernels.ptx.memory import Clock
from tests.kernels.ptx.parsing import PtxError
from tests.kernels.ptx.values import Bits

__all__ = ["RUNS", "Threads", "shuffle_source"]

RUNS, AT_BARRIER, AT_WARP, DONE = range(4)
WARP = 32


@dataclass
class Threads:
    """The state of every thread of a launch.

    Attributes:
        grid: blocks.
        block: threads of each.
        counter: of each thread, the number of its next instruction.
        state: of each thread, one of the four above.
    """

    grid: int
    block: int
    counter: np.ndarray = field(init=False)
    state: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.count = self.grid * self.block
        self.counter = np.zeros(self.count, np.int64)
        self.state = np.full(self.count, RUNS)
        self.all = np.arange(self.count)
        self.in_block = self.all % self.block
        self.block_of = self.all // self.block
        warps = -(-self.block // WARP)
        self.warp_of = self.block_of * warps + self.in_block // WARP
        self.lane = self.in_block % WARP
        self.bit = np.uint64(1) << self.lane.astype(np.uint64)
        self.clock = Clock(self.block_of, self.warp_of)

    def next_group(self) -> np.ndarray | None:
        """Return the running threads that are furthest behind, at one instruction; None where none runs."""
        running = np.flatnonzero(self.state == RUNS)
        if not running.size:
            return None
        counters = self.counter[running]
        return running[counters == counters.min()]

    def finish(self, threads: np.ndarray) -> None:
        """Note that these threads have returned."""
        self.state[threads] = DONE

    def wait_at_barrier(self, threads: np.ndarray) -> None:
        """Note that these threads have come to a barrier of their block."""
        self.state[threads] = AT_BARRIER

    def complete_blocks(self) -> list[np.ndarray]:
        """Return the threads of each block that has come to a barrier whole, and let them go on.

        Raises:
            PtxError: a block waits at two barriers at once.
        """
        complete = []
        for block in np.unique(self.block_of[self.state == AT_BARRIER]):
            threads = self.all[self.block_of == block]
            if (self.state[threads] == AT_BARRIER).all():
                if np.unique(self.counter[threads]).size > 1:
                    raise PtxError(f"block {block}: its threads wait at different barriers")
                self.state[threads] = RUNS
                self.clock.barrier(threads)
                complete.append(threads)
        return complete

    def ready_warps(self, threads: np.ndarray, masks: Bits) -> np.ndarray:
        """Return which of the threads at a warp instruction have all partners there that still run."""
        here = np.zeros(int(self.warp_of[-1]) + 1, np.uint64)
        alive = here.copy()
        np.bitwise_or.at(here, self.warp_of[threads], self.bit[threads])
        running = self.all[self.state != DONE]
        np.bitwise_or.at(alive, self.warp_of[running], self.bit[running])
        warps = self.warp_of[threads]
        if not (masks & self.bit[threads]).all():
            raise PtxError("a thread calls a warp function with a mask that leaves it out")
        alone = masks & alive[warps] & ~here[warps] != 0
        waiting = np.unique(warps[alone])  # a warp goes on as a whole or not at all
        return ~np.isin(warps, waiting)

    def present(self, threads: np.ndarray) -> np.ndarray:
        """Return, for each thread of the launch, the position of it among `threads`, or -1."""
        place = np.full(self.count, -1)
        place[threads] = np.arange(threads.size)
        return place

    def stuck(self) -> PtxError:
        """Return the error of a launch in which nobody can go on."""
        at_barrier, at_warp = (self.all[self.state == state] for state in (AT_BARRIER, AT_WARP))
        thread, what = (at_warp[0], "a warp function") if at_warp.size else (at_barrier[0], "a barrier")
        return PtxError(f"thread {thread} waits at {what} which not every thread reaches")


def shuffle_source(mode: str, lane: np.ndarray, b: Bits, c: Bits) -> tuple[np.ndarray, np.ndarray]:
    """Return whose value each lane takes, and whether that is inside the segment (PTX ISA, shfl.sync).

    Args:
        mode: ``up``, ``down``, ``bfly`` or ``idx``.
        lane: of each thread.
        b: the distance, or lane.
        c: the clamp in bits 0 to 4 and the mask of segments in bits 8 to 12.
    """
    b5, clamp, segment = (np.asarray(each).astype(np.int64) & 31 for each in (b, c, c >> np.uint64(8)))
    first = lane & segment
    last = first | (clamp & ~segment)
    source = {"up": lane - b5, "down": lane + b5, "bfly": lane ^ b5, "idx": first | (b5 & ~segment)}.get(mode)
    if source is None:
        raise PtxError(f"unknown shuffle .{mode}")
    inside = source >= last if mode == "up" else source <= last
    return np.where(inside, source, lane), inside
