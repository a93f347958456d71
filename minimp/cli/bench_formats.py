"""How `minimp bench formats` is told what to do, and how it shows what it found."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.table import Table

from minimp.benchmarks.formats import FormatTimes
from minimp.benchmarks.formats.data import DATA
from minimp.benchmarks.formats.kernels import FAMILIES
from minimp.benchmarks.formats.products import NUMPY, SGEMM, WIDTH
from minimp.benchmarks.formats.rows import Row
from minimp.benchmarks.formats.running import LEAST_WEIGHED
from minimp.cli.base import MOST_COLUMNS
from minimp.errors import SettingError

__all__ = ["show", "thread_counts"]


def thread_counts(text: str) -> tuple[int, ...]:
    """Read ``--threads``: whole numbers from 1 to the number of cores, with commas between them.

    Raises:
        SettingError: it is something else, or names a number twice.
    """
    words, cores = [word.strip() for word in text.split(",")], _cores()
    counts = tuple(int(word) for word in words if word.isascii() and word.isdigit())
    if len(counts) < len(words) or min(counts) < 1:
        raise SettingError(
            f"--threads must be whole numbers from 1 with commas between, got {text!r}",
            help="for example --threads 1,2",
        )
    if len(set(counts)) < len(counts):
        raise SettingError(f"--threads names a number twice: {text!r}")
    if max(counts) > cores:
        raise SettingError(
            f"--threads {max(counts)} cannot act: this process may use {cores} cores",
            help=f"ask for at most {cores}",
        )
    return counts


def _cores() -> int:
    allowed = getattr(os, "sched_getaffinity", None)  # Linux alone has it
    return len(allowed(0)) if allowed else os.cpu_count() or 1


def show(out: Console, times: FormatTimes) -> None:
    """Print what was measured, table by table."""
    out.print(f"\nformats: {_count(times.size)} float32 values, medians of {times.rounds} interleaved rounds")
    said = (
        f"values: {DATA}. ms and millions of elements a second (Melem/s) are processor time of one core;"
        " x memcpy and x cast are speeds over that of np.copyto, and of the astype to and from that format."
        " Results are new arrays, but for np.copyto, out= and copy_."
    )
    out.print(textwrap.fill(said, MOST_COLUMNS), markup=False)
    for family, title in FAMILIES.items():
        rows = [row for row in times.rows if row.family == family]
        if rows:
            out.print(f"\n{title}", markup=False)
            out.print(_kernel_table(times, rows))
    rows = [row for row in times.rows if row.family == "matmul"]
    if rows:
        out.print(f"\nproducts: {WIDTH} x {WIDTH} x {WIDTH}, by accumulation; at the end times over theirs")
        out.print(_product_table(rows))
    out.print("\nextra memory of one call, beside its result (highest, MiB)")
    out.print(_memory_table(times) if times.weights else f"left out below --size {_count(LEAST_WEIGHED)}")
    if times.threaded:
        out.print("\nthreads: our kernels by the wall clock, told to share the work among so many")
        out.print(_thread_table(times.threaded))


def _table(*heads: str, words: int) -> Table:
    """A bare table whose first columns are words, and the others figures."""
    grid = Table(box=None, pad_edge=False, header_style="bold")
    for place, head in enumerate(heads):
        grid.add_column(head, justify="left" if place < words else "right")
    return grid


def _kernel_table(times: FormatTimes, rows: Sequence[Row]) -> Table:
    copy = times.row("copy", "float32", "numpy")
    grid = _table("format", "kernel", "ms", "Melem/s", "x memcpy", "x cast", words=2)
    for row in rows:
        cast = next((each for each in rows if each.format == row.format and "astype" in each.maker), None)
        grid.add_row(
            row.format, row.maker, _figure(1e3 * row.seconds), _figure(row.rate / 1e6),
            _ratio(row.rate, copy.rate if copy else None), _ratio(row.rate, cast.rate if cast else None),
        )  # fmt: skip
    return grid


def _product_table(rows: Sequence[Row]) -> Table:
    sgemm, numpy = (next((row for row in rows if row.maker == maker), None) for maker in (SGEMM, NUMPY))
    grid = _table("accumulation", "inputs", "ms", "ns/product", f"x {SGEMM}", f"x {NUMPY}", words=2)
    for row in sorted(rows, key=lambda each: each.seconds):
        grid.add_row(
            row.maker, row.format, _figure(1e3 * row.seconds), _figure(1e9 / row.rate),
            *(_ratio(row.seconds, other.seconds if other else None) for other in (sgemm, numpy)),
        )  # fmt: skip
    return grid


def _memory_table(times: FormatTimes) -> Table:
    counts = sorted(times.weights[0].bytes)
    grid = _table("kernel", "format", *(f"{_count(count)} values" for count in counts), "growth", words=2)
    for each in times.weights:
        sizes = (f"{each.bytes[count] / 2**20:.3g}" for count in counts)
        grid.add_row(each.family, each.format, *sizes, f"{each.growth:.3g}")
    return grid


def _thread_table(rows: Sequence[Row]) -> Table:
    counts = sorted({row.threads for row in rows})
    heads = [f"{count} thread{'s' * (count > 1)}, Melem/s" for count in counts]
    grid = _table("kernel", "format", *heads, *(f"speed-up on {count}" for count in counts[1:]), words=2)
    for of_one in _by_kernel(rows):
        rates = [row.rate for row in of_one]
        speed_ups = (f"{rate / rates[0]:.2f}" for rate in rates[1:])
        grid.add_row(of_one[0].family, of_one[0].format, *(_figure(rate / 1e6) for rate in rates), *speed_ups)
    return grid


def _by_kernel(rows: Sequence[Row]) -> Iterator[list[Row]]:
    """The rows of each kernel, threads ascending."""
    for family, format in dict.fromkeys((row.family, row.format) for row in rows):
        yield sorted(
            (row for row in rows if (row.family, row.format) == (family, format)), key=lambda row: row.threads
        )


def _ratio(one: float, other: float | None) -> str:
    return _figure(one / other) if other else "-"


def _figure(x: float) -> str:
    """Three digits that count, without an exponent where that takes few zeros."""
    return f"{x:.3g}" if x < 1e3 else f"{x:.0f}"


def _count(number: int) -> str:
    """A power of two as such: 2^24."""
    power = number.bit_length() - 1
    return f"2^{power}" if number == 1 << power else str(number)
