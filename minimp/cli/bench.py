"""`minimp bench`: ratios from one interleaved run, beside PyTorch where it is installed."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from minimp.backend import use_backend
from minimp.benchmarks import Figure, StepTimes, add_overhead, describe_machine, step_times, trajectory_gap
from minimp.benchmarks.machine import THREAD_VARIABLES, one_thread
from minimp.benchmarks.suite import torch_is_there
from minimp.benchmarks.workloads import WORKLOADS
from minimp.cli.base import MOST_COLUMNS, console, examples, json_text, progress_console
from minimp.errors import SettingError, unknown_name
from minimp.files import check_writable, write_whole

__all__ = ["add_parser", "run"]

PARTS = (*WORKLOADS, "add")


def add_parser(subparsers: Any) -> None:
    """Add the command and its options."""
    parser = subparsers.add_parser(
        "bench",
        help="measure speed, as ratios, beside PyTorch where it is installed",
        description="Measure one training step of two workloads (MLP 784-512-512-10, batch 128; CNN with two "
        "3x3 convolutions on 28x28, batch 64) in interleaved rounds: medians of processor time, with one "
        "BLAS thread.",
        epilog=examples("minimp bench", "minimp bench mlp add --rounds 41", "minimp bench --json bench.json"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("parts", nargs="*", metavar="PART", help=f"any of {', '.join(PARTS)} (default: all)")
    add("--rounds", type=int, default=15, help="interleaved rounds (default: 15)")
    add("--no-torch", action="store_true", help="leave PyTorch out, also where it is installed")
    add("--backend", default="numpy", help="where to compute (default: numpy)")
    add("--json", metavar="FILE", type=Path, help="write every figure to FILE")
    add("--quiet", action="store_true", help="no progress bars")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command; return the exit code."""
    parts = args.parts or list(PARTS)
    for part in parts:
        if part not in PARTS:
            raise SettingError(unknown_name("part", part, PARTS))
        if parts.count(part) > 1:
            raise SettingError(f"part {part!r} is named twice")
    if args.rounds < 1:
        raise SettingError(f"--rounds must be at least 1, got {args.rounds}")
    if args.json is not None:
        check_writable(args.json)
    if not one_thread():  # BLAS reads its thread count when it is loaded: start again with it pinned
        pinned = os.environ | dict.fromkeys(THREAD_VARIABLES, "1")
        return subprocess.run(
            [sys.executable, "-m", "minimp", *args.argv], env=pinned, check=False
        ).returncode
    with use_backend(args.backend):
        _bench(args, parts)
    return 0


def _bench(args: argparse.Namespace, parts: list[str]) -> None:
    out = console()
    machine = describe_machine()
    with_torch = torch_is_there() and not args.no_torch
    for name, fact in machine.items():
        lines = textwrap.wrap(fact, MOST_COLUMNS - 15, break_on_hyphens=False)
        out.print(f"{name:14} " + f"\n{'':15}".join(lines), markup=False)
    if not with_torch:
        left_out = "left out" if args.no_torch else "not installed: our own side only (pip install torch)"
        out.print(f"{'torch':14} {left_out}")
    times: list[StepTimes] = []
    figures: list[Figure] = []
    for part in parts:
        if part == "add":
            figures.append(add_overhead())
            continue
        times.append(_timed(part, args.rounds, with_torch=with_torch, quiet=args.quiet))
        work = f"{WORKLOADS[part].flops / 1e9:.2f} GFLOP in products"
        out.print(f"\n{part}: one training step ({work}), medians of {args.rounds} rounds")
        out.print(_times_table(times[-1]))
        figures += times[-1].figures()
        if with_torch:
            figures += trajectory_gap(part)
    _show_figures(out, figures)
    if args.json is not None:
        content = {
            "machine": machine,
            "rounds": args.rounds,
            "seconds": {t.workload: t.seconds for t in times},
            "figures": [figure.as_dict() for figure in figures],
        }
        write_whole(args.json, json_text(content))


def _timed(part: str, rounds: int, *, with_torch: bool, quiet: bool) -> StepTimes:
    columns = (TextColumn("{task.description}"), BarColumn(40), MofNCompleteColumn(), TextColumn("rounds"))
    screen = progress_console()
    unseen = quiet or not screen.is_terminal  # into a file, the bar would be empty lines
    with Progress(*columns, console=screen, disable=unseen, transient=True) as bars:
        task = bars.add_task(part, total=rounds + 2)
        return step_times(
            part, rounds, with_torch=with_torch, on_round=lambda n: bars.update(task, completed=n)
        )


def _times_table(times: StepTimes) -> Table:
    own = times.seconds["minimp fp32"]
    grid = Table(box=None, pad_edge=False, header_style="bold")
    grid.add_column("engine and recipe")
    for head in ("ms", "x minimp fp32", "x torch fp32"):
        grid.add_column(head, justify="right")
    for name, seconds in sorted(times.seconds.items(), key=lambda row: row[1]):
        theirs = times.seconds.get("torch fp32")
        beside = f"{seconds / theirs:.2f}" if theirs else "-"
        grid.add_row(name, f"{1e3 * seconds:.2f}", f"{seconds / own:.2f}", beside)
    return grid


def _show_figures(out: Console, figures: list[Figure]) -> None:
    grid = Table(box=None, pad_edge=False, header_style="bold", title="\nfigures", title_justify="left")
    grid.add_column("ratio")
    grid.add_column("measured", justify="right")
    grid.add_column("aim", justify="right")
    grid.add_column("")
    for figure in figures:
        aim = f"{'<=' if figure.at_most else '>='} {figure.target:g}"
        grid.add_row(figure.name, f"{figure.value:.3g}", aim, "reached" if figure.reached else "missed")
    out.print(grid)
