"""One job: contenders that do the same work, timed in turn; what they came to, and what was aimed at."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from minimp.benchmarks.figure import Figure
from minimp.benchmarks.gpu.clock import DeviceClock
from minimp.benchmarks.gpu.sizes import Sizes
from minimp.errors import MinimpError, plain

if TYPE_CHECKING:
    from minimp.benchmarks.gpu.torch_side import TorchSide
    from minimp_backends.array_backend import ArrayBackend as Backend

__all__ = ["OURS", "ROOF", "TORCH", "Aim", "Bench", "Job", "Timed", "in_words", "run_job"]

OURS, TORCH = "minimp", "torch"
ROOF = "roof"
LEAST_ROUNDS = 3
SHORTEST = 2e-3
"""Seconds between two stamps of the clock: calls are repeated until they take so long."""
FAULTS = (RuntimeError, MinimpError, AttributeError, TypeError, ValueError, NotImplementedError, MemoryError)
"""What a contender may end with: it is said in the table, and the others go on."""


@dataclass(frozen=True, slots=True)
class Bench:
    """What jobs are made with.

    Attributes:
        backend: where ours compute.
        clock: tells the time.
        sizes: of the jobs.
        rounds: interleaved rounds at most.
        torch: PyTorch on the same device; None: it is not there, or left out.
    """

    backend: Backend
    clock: DeviceClock
    sizes: Sizes
    rounds: int = 15
    torch: TorchSide | None = None


@dataclass(frozen=True, slots=True)
class Aim:
    """What a job should reach.

    Attributes:
        beside: :data:`ROOF`, or a contender: ours is to run at `target` times its speed.
        target: the ratio.
    """

    beside: str
    target: float


@dataclass(frozen=True, slots=True)
class Job:
    """The same work, by several contenders.

    Attributes:
        what: the work, in a few words.
        contenders: name -> the call; ours is :data:`OURS`.
        amount: bytes that must move, or floating-point operations, in one call; 0: neither counts.
        unit: "B" or "FLOP".
        aims: what ours should reach.
        left_out: contender that there might be -> why it is not there.
    """

    what: str
    contenders: Mapping[str, Callable[[], object]]
    amount: float = 0.0
    unit: str = "B"
    aims: tuple[Aim, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Timed:
    """What a job came to.

    Attributes:
        part, what, amount, unit, aims, left_out: as the job has them.
        seconds: contender -> seconds of one call, the median of the rounds.
        spread: contender -> (the largest less the smallest) over the median.
        faults: contender -> why it has no time.
    """

    part: str
    what: str
    amount: float
    unit: str
    aims: tuple[Aim, ...]
    seconds: Mapping[str, float]
    spread: Mapping[str, float] = field(default_factory=dict)
    faults: Mapping[str, str] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)

    def rate(self, name: str = OURS) -> float | None:
        """Return amount a second of a contender; None if it has no time, or nothing is counted."""
        seconds = self.seconds.get(name)
        return self.amount / seconds if seconds and self.amount else None

    def speed_over(self, name: str) -> float | None:
        """Return how many times as fast ours is as a contender."""
        ours, theirs = self.seconds.get(OURS), self.seconds.get(name)
        return theirs / ours if ours and theirs else None

    def figures(self, roofs: Mapping[str, float]) -> list[Figure]:
        """Return each aim with what was reached, where that is known."""
        found = []
        for aim in self.aims:
            if aim.beside == ROOF:
                rate, roof = self.rate(), roofs.get(self.unit)
                value = rate / roof if rate and roof else None
                name = f"{self.part}: {self.what}, share of the roof"
            else:
                value = self.speed_over(aim.beside)
                name = f"{self.part}: {self.what}, speed over {aim.beside}"
            if value is not None:
                found.append(Figure(name, value, aim.target, at_most=False))
        return found

    def as_dict(self) -> dict[str, Any]:
        """Return what JSON has of it."""
        return {
            "part": self.part, "what": self.what, "amount": self.amount, "unit": self.unit,
            "seconds": dict(self.seconds), "spread": dict(self.spread), "faults": dict(self.faults),
            "left_out": dict(self.left_out),
        }  # fmt: skip


def run_job(bench: Bench, part: str, job: Job) -> Timed:
    """Time every contender of a job, in turn, round after round; a contender that fails is left out."""
    repeats: dict[str, int] = {}
    faults: dict[str, str] = {}
    for name, call in job.contenders.items():
        try:
            call()  # compiles, plans, and fills caches
            once = bench.clock.seconds(call, 1)
            repeats[name] = max(1, min(bench.sizes.repeats, int(SHORTEST / max(once, 1e-9))))
        except FAULTS as fault:
            faults[name] = in_words(fault)
    rounds = _rounds(bench, {name: job.contenders[name] for name in repeats}, repeats)
    seconds = {name: statistics.median(each) for name, each in rounds.items()}
    spread = {name: (max(each) - min(each)) / seconds[name] for name, each in rounds.items() if seconds[name]}
    return Timed(part, job.what, job.amount, job.unit, job.aims, seconds, spread, faults, job.left_out)


def _rounds(
    bench: Bench, contenders: Mapping[str, Callable[[], object]], repeats: Mapping[str, int]
) -> dict[str, list[float]]:
    """Return the seconds of each contender, round by round, until there are enough or the time is up."""
    found: dict[str, list[float]] = {name: [] for name in contenders}
    collecting, begin = gc.isenabled(), time.monotonic()
    gc.collect()
    gc.disable()
    try:
        for number in range(bench.rounds):
            if number >= LEAST_ROUNDS and time.monotonic() - begin > bench.sizes.rounds_seconds:
                break
            for name, call in contenders.items():
                found[name].append(bench.clock.seconds(call, repeats[name]))
    finally:
        if collecting:
            gc.enable()
    return found


def in_words(fault: BaseException) -> str:
    """Return what went wrong in one line."""
    said = plain(fault) if isinstance(fault, MinimpError) else f"{type(fault).__name__}: {fault}"
    return " ".join(said.split())[:200]
