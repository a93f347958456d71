"""The screen of `minimp bench --backend cupy`: times beside the GPU's roof and PyTorch on the same GPU."""

from __future__ import annotations

import argparse
import datetime as dt
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from minimp.backend import default_backend
from minimp.benchmarks.gpu import FULL, PARTS, TINY, Bench, Run, Timed, TorchSide, clock_of, run_parts
from minimp.benchmarks.gpu.jobs import OURS
from minimp.cli.base import print_wrapped, progress_console

__all__ = ["LEGEND", "description", "facts", "measure", "show"]

UNITS = {"B": ("GB/s", 1e9), "FLOP": ("TFLOP/s", 1e12), "OP": ("TOP/s", 1e12)}
LEGEND = (
    "ms: of one call, the median of interleaved rounds. rate: bytes that must move, or operations of "
    "products, over that time. of roof: over the best rate of a copy, or of a large fp16 product, on this "
    "GPU in this run. minimp's speed: its own over the row's, above 1.00 it is faster. spread: between the "
    "slowest and the fastest round, over the median."
)
TRIED = "The sizes are tiny: the parts run, and their times say nothing."


def description() -> str:
    """Return what the help says of the parts."""
    lines = [f"  {name:8} {part.about:78}{part.seconds:>4} s" for name, part in PARTS.items()]
    head = (
        "With --backend cupy these, timed by events of the GPU, beside its own roof and beside PyTorch\n"
        "where that sees the GPU; and what they may take on a GPU of 2023, which is a guess:"
    )
    return head + "\n\n" + "\n".join(lines)


def facts(backend: str) -> dict[str, str]:
    """Return what stands in the header: the date, the clock, and torch."""
    now = dt.datetime.now(dt.UTC)
    found = {"date": f"{now:%Y-%m-%d %H:%M} UTC", "clock": clock_of(default_backend()).name}
    if backend == "strict":
        found["backend"] = "strict: a device for tests, on the host"
    return found


def torch_side(args: argparse.Namespace) -> TorchSide | None:
    """Return PyTorch's side, where it is wanted and sees the GPU."""
    return TorchSide() if args.backend == "cupy" and not args.no_torch and TorchSide.is_there() else None


def measure(args: argparse.Namespace, parts: list[str], torch: TorchSide | None) -> Run:
    """Measure the parts."""
    backend = default_backend()
    bench = Bench(backend, clock_of(backend), TINY if args.tiny else FULL, args.rounds, torch)
    columns = (TextColumn("{task.description}"), BarColumn(20), MofNCompleteColumn())
    screen = progress_console()
    unseen = args.quiet or not screen.is_terminal
    with Progress(*columns, console=screen, disable=unseen, transient=True) as bars:
        task = bars.add_task("roof", total=len(parts))

        def seen(part: str, what: str) -> None:
            done = parts.index(part) if part in parts else 0
            bars.update(task, completed=done, description=f"{part}: {what}"[:60])

        return run_parts(bench, parts, seen)


def show(out: Console, run: Run) -> None:
    """Print every time, part by part, and what the columns mean."""
    for part in dict.fromkeys(each.part for each in run.timed):
        out.print(f"\n[bold]{part}[/]")
        out.print(_table([each for each in run.timed if each.part == part], run))
    out.print()
    print_wrapped(out, f"{LEGEND} {TRIED}" if run.tiny else LEGEND)
    for line in run.all_left_out():
        out.print()
        print_wrapped(out, f"LEFT OUT  {line}")
    for line in run.all_faults():
        out.print()
        print_wrapped(out, f"NOT MEASURED  {line}")


def _table(timed: list[Timed], run: Run) -> Table:
    grid = Table(box=None, pad_edge=False, header_style="bold")
    grid.add_column("", overflow="fold", max_width=40)
    grid.add_column("")
    for head in ("ms", "rate", "of roof", "minimp's speed", "spread"):
        grid.add_column(head, justify="right", no_wrap=True)
    for each in timed:
        for number, name in enumerate(each.seconds):
            grid.add_row("" if number else each.what, name, *_cells(each, name, run))
    return grid


def _cells(timed: Timed, name: str, run: Run) -> tuple[str, ...]:
    rate, roof = timed.rate(name), run.roof.rates.get(timed.unit)
    unit, size = UNITS[timed.unit]
    beside: Any = None if name == OURS else timed.speed_over(name)
    return (
        f"{1e3 * timed.seconds[name]:.4g}",
        f"{rate / size:,.1f} {unit}" if rate else "-",
        f"{rate / roof:.0%}" if rate and roof else "-",
        f"{beside:.2f}" if beside else "-",
        f"{timed.spread.get(name, 0.0):.0%}",
    )
