"""One run: check, time in interleaved rounds, weigh."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from minimp.benchmarks.formats.blocks import block_kernels
from minimp.benchmarks.formats.data import values
from minimp.benchmarks.formats.kernels import OURS, Kernel, kernels
from minimp.benchmarks.formats.products import WIDTH, Product, products
from minimp.benchmarks.formats.rows import FormatTimes, Row, Weight
from minimp.benchmarks.formats.verify import verify_kernel, verify_product
from minimp.benchmarks.timing import (
    Clock,
    interleave,
    medians,
    processor_time,
    quiet_collector,
    repeated,
    repeats_for,
    touch_memory,
    wall_time,
)  # fmt: skip

__all__ = ["LEAST_WEIGHED", "Entry", "Watch", "measure", "timed", "weigh"]

Watch = Callable[[str, int], Callable[[int], None]]
"""(what comes now, its number of steps) -> what is called with the number of each step done."""
LEAST_SAMPLE = 0.005
"""Seconds: a shorter call is repeated until a sample takes so long."""
LEAST_WEIGHED = 1 << 22
"""Values below which a call is hardly more than a block, and memory says nothing."""


@dataclass(frozen=True)
class Entry:
    """What is timed.

    Attributes:
        row: what the seconds will be put into.
        call: the call.
        check: raises where the call's result is wrong.
        memory: bytes that it may newly ask for.
    """

    row: Row
    call: Callable[[], Any]
    check: Callable[[Any], None]
    memory: int = 0


def measure(size: int, rounds: int, *, threads: Sequence[int], with_torch: bool, watch: Watch) -> FormatTimes:
    """Check every contender, then time it; weigh our own, blocks left out: their codes come in between.

    Args:
        size: how many float32 values.
        rounds: interleaved rounds.
        threads: on how many threads our kernels are timed, beside one, by the wall clock.
        with_torch: whether PyTorch takes part.
        watch: told what comes and how far it is.

    Raises:
        MinimpError: a contender's result is not the reference's.
    """
    x = values(size)
    contenders = [*kernels(x, with_torch=with_torch), *block_kernels(x)]
    ours = [each for each in contenders if each.maker == OURS and each.block == 1]
    counts = sorted({1, *threads})
    rows = _checked_and_timed("formats", [_kernel_entry(each) for each in contenders], rounds, watch)
    rows += _checked_and_timed("matmul", [_product_entry(each) for each in products()], rounds, watch)
    weights = weigh(ours, size) if size >= LEAST_WEIGHED else []
    threaded = []
    if len(counts) > 1:
        entries = [_kernel_entry(each, n) for each in ours for n in counts]
        threaded = _checked_and_timed("threads", entries, rounds, watch, wall_time)
    return FormatTimes(size, rounds, rows, weights, threaded)


def _kernel_entry(kernel: Kernel, threads: int = 1) -> Entry:
    row = Row(kernel.family, kernel.format, kernel.maker, 0.0, kernel.source.size, threads)
    return Entry(
        row,
        lambda: kernel.run(kernel.source, 0, threads),
        lambda result: verify_kernel(kernel, result),
        8 * kernel.source.size,  # a result and what lies between: at most twice float32
    )


def _product_entry(product: Product) -> Entry:
    row = Row("matmul", product.inputs.name, product.accumulate, 0.0, WIDTH**3)
    return Entry(row, product.run, lambda result: verify_product(product, result))


def _checked_and_timed(
    what: str, entries: Sequence[Entry], rounds: int, watch: Watch, clock: Clock = processor_time
) -> list[Row]:
    on_step = watch(f"{what}: check", len(entries))
    for number, entry in enumerate(entries, 1):
        entry.check(entry.call())
        on_step(number)
    return timed(entries, rounds, watch(f"{what}: rounds", rounds), clock)


def timed(
    entries: Sequence[Entry], rounds: int, on_round: Callable[[int], None], clock: Clock = processor_time
) -> list[Row]:
    """Time the calls in interleaved rounds; return their rows with the median seconds of one call."""
    most = max(each.memory for each in entries)

    def after_round(number: int) -> None:
        on_round(number)
        touch_memory(most)

    with quiet_collector():
        counts = [repeats_for(each.call, LEAST_SAMPLE, clock=clock) for each in entries]
        calls = {str(i): repeated(each.call, counts[i]) for i, each in enumerate(entries)}
        touch_memory(most)
        found = medians(interleave(calls, rounds, warm_up=0, on_round=after_round, clock=clock))
    return [replace(each.row, seconds=found[str(i)] / counts[i]) for i, each in enumerate(entries)]


def weigh(ours: Sequence[Kernel], size: int) -> list[Weight]:
    """Return what each kernel takes beside its result, for a quarter of the values and for all of them."""
    return [
        Weight(each.family, each.format, {n: _extra(each, n) for n in (size // 4, size)}) for each in ours
    ]


def _extra(kernel: Kernel, count: int) -> int:
    """The highest sum of what Python and NumPy had allocated at one time, the result taken off.

    In a thread of its own, which has no work space yet that an earlier call may have left.
    """
    part = kernel.source[:count]
    with ThreadPoolExecutor(1) as pool:
        pool.submit(int).result()  # the thread is there now
        tracemalloc.start()
        try:
            result = pool.submit(kernel.run, part, 0, 1).result()
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    return max(0, peak - result.nbytes)
