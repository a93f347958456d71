"""One run; oracles: a clock that the test turns, allocations of known size, arithmetic by hand."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from minimp.benchmarks import timing
from minimp.benchmarks.formats import running
from minimp.benchmarks.formats.blocks import block_kernels
from minimp.benchmarks.formats.data import FEWEST, values
from minimp.benchmarks.formats.kernels import OURS, Kernel, kernels
from minimp.benchmarks.formats.products import WIDTH, products
from minimp.benchmarks.formats.rows import Row, Weight
from minimp.benchmarks.formats.running import LEAST_WEIGHED, Entry, measure, timed, weigh
from minimp.errors import MinimpError

# ---- time --------------------------------------------------------------------------------------------------


class Turned:
    """A clock that only the contenders turn."""

    def __init__(self) -> None:
        self.now = 0.0
        self.order: list[str] = []

    def entry(self, maker: str, *spends: float) -> Entry:
        """Return a contender that takes so long, the last time from then on."""
        left = list(spends)

        def call() -> None:
            self.order.append(maker)
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return Entry(Row("grid", "fp16", maker, 0.0, 1000), call, lambda result: None)


def test_medians_of_interleaved_rounds() -> None:
    """Oracle: by hand: the trial left out, the middle one of three; each in turn; elements a second."""
    clock = Turned()
    entries = [clock.entry("a", 64, 4, 1, 2), clock.entry("b", 0.5)]
    told: list[int] = []
    rows = timed(entries, 3, told.append, lambda: clock.now)
    assert [(row.maker, row.seconds, row.rate) for row in rows] == [("a", 2, 500), ("b", 0.5, 2000)]
    assert "".join(clock.order) == "ab" * 4
    assert told == [1, 2, 3]


def test_memory_is_at_hand_before_each_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the order of things: the trial, then the most that anybody needs before each round."""
    clock = Turned()
    monkeypatch.setattr(running, "touch_memory", lambda count: clock.order.append(f"<{count}>"))
    entries = [replace(clock.entry("a", 1.0), memory=8), replace(clock.entry("b", 1.0), memory=24)]
    timed(entries, 2, lambda number: None, lambda: clock.now)
    assert "".join(clock.order) == "ab<24>ab<24>ab<24>"


def test_short_calls_are_repeated() -> None:
    """Oracle: by hand: 1/1024 s is too short a sample until there are 8; the time is that of one call."""
    clock = Turned()
    (row,) = timed([clock.entry("a", 2.0**-10)], 5, lambda number: None, lambda: clock.now)
    assert row.seconds == 2.0**-10
    assert len(clock.order) == 1 + 2 + 4 + 8 + 5 * 8


# ---- a whole run -------------------------------------------------------------------------------------------


@pytest.fixture
def few_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let only the quick products take part."""
    quick = [each for each in products() if each.accumulate in ("sgemm with rounding", "numpy float16 @")]
    monkeypatch.setattr(running, "products", lambda: quick)


@pytest.mark.slow
def test_a_whole_run(few_products: None) -> None:
    """Oracle: the contenders, one row each, all with a time; steps told to the last one."""
    told: dict[str, list[int]] = {}
    sizes: dict[str, int] = {}

    def watch(name: str, steps: int) -> Callable[[int], None]:
        sizes[name] = steps
        return told.setdefault(name, []).append

    times = measure(FEWEST, 2, threads=(1, 2), with_torch=False, watch=watch)
    x = values(FEWEST)
    everyone = [*kernels(x, with_torch=False), *block_kernels(x)]
    expected = [(k.family, k.format, k.maker, k.source.size) for k in everyone]
    half = "float16"
    expected += [("matmul", half, name, WIDTH**3) for name in ("sgemm with rounding", "numpy float16 @")]
    assert [(row.family, row.format, row.maker, row.elements) for row in times.rows] == expected
    assert all(row.seconds > 0 and row.threads == 1 for row in times.rows)
    ours = [(family, format) for family, format, maker, _ in expected if maker == OURS and family != "blocks"]
    assert [(row.family, row.format, row.threads) for row in times.threaded] == [
        (family, format, n) for family, format in ours for n in (1, 2)
    ]
    assert (times.size, times.rounds, times.weights) == (FEWEST, 2, [])
    assert times.row("grid", "fp16", OURS) is times.rows[1]
    assert times.row("grid", "bf17", OURS) is None
    assert {name: steps[-1] for name, steps in told.items()} == sizes
    assert list(sizes) == [f"{part}: {step}" for part in ("formats", "matmul", "threads")
                           for step in ("check", "rounds")]  # fmt: skip


@pytest.mark.parametrize("family", ["grid", "stochastic", "decode"])
def test_a_wrong_kernel_stops_the_run_before_the_clock(
    family: str, few_products: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: a kernel of ours that gives its values one place late: an error, and nothing timed."""
    real = kernels

    def wrong(*args: Any, **kwargs: Any) -> list[Kernel]:
        def late(k: Kernel) -> Kernel:
            return replace(k, run=lambda *given: np.roll(k.run(*given), 1))

        return [late(k) if (k.family, k.maker) == (family, OURS) else k for k in real(*args, **kwargs)]

    monkeypatch.setattr(running, "kernels", wrong)
    monkeypatch.setattr(running, "timed", lambda *_: pytest.fail("timed before it was checked"))
    with pytest.raises(MinimpError, match=f"bench formats: {family} fp16, minimp"):
        measure(FEWEST, 1, threads=(1,), with_torch=False, watch=lambda *_: lambda number: None)


def test_a_kernel_that_is_wrong_on_threads_is_found(
    few_products: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: a kernel whose second half starts anew on two threads: right on one, and refused."""
    real = kernels

    def run_of(k: Kernel) -> Callable[[Any, int, int], Any]:
        def run(part: Any, first: int, threads: int) -> Any:
            half = part.size // 2 if threads > 1 else part.size
            return np.concatenate([k.run(part[:half], first, 1), k.run(part[half:], first, 1)])

        return run

    def forgetful(*args: Any, **kwargs: Any) -> list[Kernel]:
        found = real(*args, **kwargs)
        return [replace(k, run=run_of(k)) if k.family == "stochastic" else k for k in found]

    monkeypatch.setattr(running, "kernels", forgetful)
    monkeypatch.setattr(running, "timed", lambda *_: [])
    measure(FEWEST, 1, threads=(1,), with_torch=False, watch=lambda *_: lambda number: None)
    with pytest.raises(MinimpError, match="stochastic fp16, minimp"):
        measure(FEWEST, 1, threads=(2,), with_torch=False, watch=lambda *_: lambda number: None)


def test_threads_are_timed_by_the_wall_clock(few_products: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the clock of each group of contenders, and the threads that each kernel is told to use."""
    clocks: list[Any] = []
    memory: list[int] = []
    told: list[int] = []
    real = kernels

    def timed_(entries: Any, rounds: int, on_round: Any, clock: Any) -> list[Row]:
        clocks.append(clock)
        memory.append(max(entry.memory for entry in entries))
        return [entry.row for entry in entries]

    def telling(*args: Any, **kwargs: Any) -> list[Kernel]:
        def tell(k: Kernel) -> Kernel:
            return replace(k, run=lambda *given: (told.append(given[2]), k.run(*given))[1])

        return [tell(k) if (k.family, k.format) == ("grid", "bf16") else k for k in real(*args, **kwargs)]

    monkeypatch.setattr(running, "timed", timed_)
    monkeypatch.setattr(running, "kernels", telling)
    times = measure(FEWEST, 1, threads=(3, 2), with_torch=False, watch=lambda *_: lambda number: None)
    assert clocks == [timing.processor_time, timing.processor_time, timing.wall_time]
    assert memory == [8 * FEWEST, 0, 8 * FEWEST]  # products are small
    assert told == [*[1] * 4, 1, 2, 3]  # the four contenders of bf16 first; ours in the last group
    bf16 = [row.threads for row in times.threaded if (row.family, row.format) == ("grid", "bf16")]
    assert bf16 == [1, 2, 3]


# ---- memory ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("fixed", "share"), [(8 << 20, 0), (0, 40)])
def test_extra_memory_is_what_is_not_the_result(fixed: int, share: int) -> None:
    """Oracle: what the test itself allocates beside the result; 16 KiB of Python's objects may join it."""

    def run(part: Any, *_: int) -> Any:
        beside = np.empty(fixed + share * part.size, np.uint8)
        result = part.copy()
        del beside
        return result

    x = np.zeros(1 << 18, np.float32)
    (found,) = weigh([Kernel("grid", "fp16", OURS, x, run, lambda part, _: part)], x.size)
    assert (found.family, found.format, list(found.bytes)) == ("grid", "fp16", [1 << 16, 1 << 18])
    for count, extra in found.bytes.items():
        assert 0 <= extra - (fixed + share * count) <= 1 << 14


def test_work_space_that_a_thread_keeps_is_weighed_each_time() -> None:
    """Oracle: a kernel that keeps 4 MiB for each thread, made when first needed: no call finds them there."""
    kept = threading.local()

    def run(part: Any, *_: int) -> Any:
        if not hasattr(kept, "space"):
            kept.space = np.empty(4 << 20, np.uint8)
        return part.copy()

    x = np.zeros(1 << 14, np.float32)
    run(x)
    (found,) = weigh([Kernel("grid", "fp16", OURS, x, run, lambda part, _: part)], x.size)
    assert all(4 << 20 <= extra <= (4 << 20) + (1 << 14) for extra in found.bytes.values())


def test_growth() -> None:
    """Oracle: quotients by hand; what is less than a page counts as a page."""
    assert Weight("grid", "fp16", {4: 8192, 16: 12288}).growth == 1.5
    assert Weight("grid", "fp16", {16: 12288, 4: 8192}).growth == 1.5
    assert Weight("grid", "fp16", {4: 0, 16: 4096}).growth == 1.0
    assert LEAST_WEIGHED == 1 << 22
