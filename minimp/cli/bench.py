"""`minimp bench`: ratios from one interleaved run, beside PyTorch and mygrad where they are installed."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from minimp.benchmarks import Figure, StepTimes, describe_machine, step_times, tape_figures, trajectory_gap
from minimp.benchmarks.formats import FormatTimes, measure
from minimp.benchmarks.formats import figures as format_figures
from minimp.benchmarks.formats.data import whole_size
from minimp.benchmarks.gpu import PARTS as DEVICE_PARTS
from minimp.benchmarks.integers import integer_figures
from minimp.benchmarks.machine import THREAD_VARIABLES, one_thread
from minimp.benchmarks.suite import mygrad_is_there, torch_is_there
from minimp.benchmarks.tracing import trace_figures
from minimp.benchmarks.workloads import WORKLOADS
from minimp.cli import bench_gpu
from minimp.cli.base import MOST_COLUMNS, console, examples, json_text, progress_console
from minimp.cli.bench_formats import show as show_formats
from minimp.cli.bench_formats import thread_counts
from minimp.cli.choices import add_backend, computing_on
from minimp.errors import SettingError, unknown_name
from minimp.files import check_writable, write_whole

__all__ = ["add_parser", "run"]

PARTS = (*WORKLOADS, "tape", "formats", "quant", "trace")
"""Of the numpy backend; devices have parts of their own."""
ROUNDS = 15
SIZE, THREADS = "2^24", "1"
DESCRIPTION = """\
Measure speed in interleaved rounds: medians of processor time, with one BLAS thread. The parts, and
what they take on a core of 2020 with PyTorch and mygrad beside:

  mlp      one training step, 784-512-512-10, batch 128                      5 s
  cnn      one training step, two 3x3 convolutions on 28x28, batch 64       45 s
  gpt      one training step, 4 layers of width 128 over 128 tokens,
           batch 16, and its memory                                        120 s
  tape     what recording costs: a recorded add of four numbers, tiny ops
           forward and backward, a step with and without its hooks          20 s
  formats  rounding, storing, reading back, stochastic rounding of 2^24
           values beside NumPy, ml_dtypes and PyTorch; 256^3 products by
           each accumulation; extra memory (takes 800 MiB itself)           60 s
  quant    products and convolutions of int8 codes beside float32's;
           quantising, dequantising and requantising beside memcpy;
           the bytes of a CNN on codes                                       5 s
  trace    a mixed-fp16 step of the mlp, recorded: with statistics, with the
           float64 shadow; and what stays behind when nothing is recorded    5 s"""


def add_parser(subparsers: Any) -> None:
    """Add the command and its options."""
    parser = subparsers.add_parser(
        "bench",
        help="measure speed, as ratios, beside PyTorch and mygrad where they are installed",
        description=f"{DESCRIPTION}\n\n{bench_gpu.description()}",
        epilog=examples(
            "minimp bench",
            "minimp bench mlp tape --rounds 41",
            "minimp bench formats --threads 1,2",
            "minimp bench --json bench.json",
            "minimp bench --backend cupy --json gpu.json",
            "minimp bench gemm adamw --backend cupy --no-torch",
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("parts", nargs="*", metavar="PART", help="any of those above (default: all that the backend has)")
    add("--rounds", type=int, default=ROUNDS, help=f"interleaved rounds (default: {ROUNDS})")
    add("--size", help=f"formats: how many values, as 1000000 or 2^20 (default: {SIZE})")
    add("--threads", help="formats: time our kernels on 1, 2, ... threads too, as 1,2 (default: 1)")
    add("--no-torch", action="store_true", help="leave PyTorch out, also where it is installed")
    add("--no-mygrad", action="store_true", help="leave mygrad out, also where it is installed")
    add_backend(add)
    add("--tiny", action="store_true",
        help="on a device: sizes that only show that parts run; strict has no other")  # fmt: skip
    add("--json", metavar="FILE", type=Path, help="write every figure to FILE")
    add("--quiet", action="store_true", help="no progress bars")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command; return the exit code."""
    parts = _parts(args)
    if args.tiny and args.backend == "numpy":
        raise SettingError("--tiny cannot act on the numpy backend", help="it is for --backend cupy")
    if args.rounds < 1:
        raise SettingError(f"--rounds must be at least 1, got {args.rounds}")
    for option in ("size", "threads"):
        if getattr(args, option) is not None and "formats" not in parts:
            raise SettingError(
                f"--{option} acts on the part formats alone, which is not among {', '.join(parts)}",
                help=f"leave --{option} out, or name formats",
            )
    args.size, args.threads = whole_size(args.size or SIZE), thread_counts(args.threads or THREADS)
    if args.json is not None:
        check_writable(args.json)
    if not one_thread():  # BLAS reads its thread count when it is loaded: start again with it pinned
        pinned = os.environ | dict.fromkeys(THREAD_VARIABLES, "1")
        return subprocess.run(
            [sys.executable, "-m", "minimp", *args.argv], env=pinned, check=False
        ).returncode
    with computing_on(args.backend):
        return _bench(args, parts) if args.backend == "numpy" else _bench_device(args, parts)


def _parts(args: argparse.Namespace) -> list[str]:
    """The parts that were asked for; all that the backend has, if none was."""
    known: tuple[str, ...] = PARTS if args.backend == "numpy" else tuple(DEVICE_PARTS)
    parts = args.parts or list(known)
    for part in parts:
        if part in known:
            continue
        if part in PARTS:
            raise SettingError(
                f"the part {part} measures NumPy's kernels; --backend {args.backend} cannot act on it",
                help=f"leave --backend out, or name parts of a device: {', '.join(known)}",
            )
        if part in DEVICE_PARTS:
            raise SettingError(f"the part {part} is a GPU's", help="add --backend cupy")
        raise SettingError(unknown_name("part", part, known))
    for part in parts:
        if parts.count(part) > 1:
            raise SettingError(f"part {part!r} is named twice")
    return list(parts)


def _bench_device(args: argparse.Namespace, parts: list[str]) -> int:
    """Measure parts of a device; the exit code is 1 if something could not be measured."""
    if args.no_mygrad:
        raise SettingError("--no-mygrad cannot act on a device, where mygrad computes nothing")
    out, torch = console(), bench_gpu.torch_side(args)
    machine = {**describe_machine(), **bench_gpu.facts(args.backend)}
    if torch is not None:
        machine["torch"] = torch.describe()
    _show_machine(out, machine)
    if torch is None:
        out.print(
            f"{'torch':14} {'left out' if args.no_torch else 'not installed with CUDA: nothing beside'}"
        )
    args.tiny |= args.backend == "strict"
    run = bench_gpu.measure(args, parts, torch)
    bench_gpu.show(out, run)
    _show_figures(out, run.figures())
    if args.json is not None:
        told = {"machine": machine, "rounds": args.rounds, "tiny": args.tiny, **run.as_dict()}
        write_whole(args.json, json_text(told))
    return 1 if run.all_faults() else 0


def _bench(args: argparse.Namespace, parts: list[str]) -> int:
    out = console()
    machine = describe_machine()
    with_torch = torch_is_there() and not args.no_torch
    with_mygrad = mygrad_is_there() and not args.no_mygrad
    _show_machine(out, machine)
    _show_left_out(out, "torch", left_out=args.no_torch, there=with_torch)
    _show_left_out(out, "mygrad", left_out=args.no_mygrad, there=with_mygrad)
    content: dict[str, Any] = {"machine": machine, "rounds": args.rounds, "seconds": {}, "peak_bytes": {}}
    figures: list[Figure] = []
    for part in parts:
        if part == "tape":
            figures += tape_figures()
            continue
        if part == "quant":
            figures += integer_figures(args.rounds)
            continue
        if part == "trace":
            figures += trace_figures(args.rounds)
            continue
        if part == "formats":
            found = _formats(args, with_torch=with_torch)
            show_formats(out, found)
            figures += format_figures(found)
            content["formats"] = found.as_dict()
            continue
        times = _timed(part, args, with_torch=with_torch, with_mygrad=with_mygrad)
        work = f"{WORKLOADS[part].flops / 1e9:.2f} GFLOP in products"
        out.print(f"\n{part}: one training step ({work}), medians of {args.rounds} rounds")
        out.print(_times_table(times))
        content["seconds"][part] = times.seconds
        content["peak_bytes"][part] = times.peaks
        figures += times.figures()
        if with_torch:
            figures += trajectory_gap(part)
    _show_figures(out, figures)
    if args.json is not None:
        write_whole(args.json, json_text(content | {"figures": [figure.as_dict() for figure in figures]}))
    return 0


def _show_machine(out: Console, machine: dict[str, str]) -> None:
    for name, fact in machine.items():
        lines = textwrap.wrap(fact, MOST_COLUMNS - 15, break_on_hyphens=False)
        out.print(f"{name:14} " + f"\n{'':15}".join(lines), markup=False)


def _show_left_out(out: Console, name: str, *, left_out: bool, there: bool) -> None:
    """Say why a contender is not beside us."""
    if not there:
        why = "left out" if left_out else f"not installed: nothing beside from it (pip install {name})"
        out.print(f"{name:14} {why}")


@contextmanager
def _progress(*, quiet: bool) -> Iterator[Callable[[str, int], Callable[[int], None]]]:
    """Show a bar for each thing that is announced: (name, steps) -> what takes the number of each step."""
    columns = (TextColumn("{task.description}"), BarColumn(40), MofNCompleteColumn())
    screen = progress_console()
    unseen = quiet or not screen.is_terminal  # into a file, the bar would be empty lines
    with Progress(*columns, console=screen, disable=unseen, transient=True) as bars:

        def announce(name: str, steps: int) -> Callable[[int], None]:
            task = bars.add_task(name, total=steps)
            return lambda number: bars.update(task, completed=number)

        yield announce


def _formats(args: argparse.Namespace, *, with_torch: bool) -> FormatTimes:
    with _progress(quiet=args.quiet) as watch:
        return measure(args.size, args.rounds, threads=args.threads, with_torch=with_torch, watch=watch)


def _timed(part: str, args: argparse.Namespace, *, with_torch: bool, with_mygrad: bool) -> StepTimes:
    with _progress(quiet=args.quiet) as watch:
        seen = watch(f"{part}: rounds", args.rounds + 2)
        return step_times(part, args.rounds, with_torch=with_torch, with_mygrad=with_mygrad, on_round=seen)


def _times_table(times: StepTimes) -> Table:
    own = times.seconds["minimp fp32"]
    grid = Table(box=None, pad_edge=False, header_style="bold")
    grid.add_column("engine and recipe")
    for head in ("ms", "x minimp fp32", "x torch fp32", "MiB at peak"):
        grid.add_column(head, justify="right")
    for name, seconds in sorted(times.seconds.items(), key=lambda row: row[1]):
        theirs = times.seconds.get("torch fp32")
        beside = f"{seconds / theirs:.2f}" if theirs else "-"
        peak = f"{times.peaks[name] / 2**20:.1f}" if name in times.peaks else "-"
        grid.add_row(name, f"{1e3 * seconds:.2f}", f"{seconds / own:.2f}", beside, peak)
    return grid


def _show_figures(out: Console, figures: list[Figure]) -> None:
    if not figures:
        return
    grid = Table(box=None, pad_edge=False, header_style="bold", title="\nfigures", title_justify="left")
    grid.add_column("figure")
    grid.add_column("measured", justify="right")
    grid.add_column("aim", justify="right")
    grid.add_column("")
    for figure in figures:
        aim = f"{'<=' if figure.at_most else '>='} {figure.target:.3g}"
        grid.add_row(figure.name, f"{figure.value:.3g}", aim, "reached" if figure.reached else "missed")
    out.print(grid)
