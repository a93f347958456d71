"""`minimp reproduce`: claims of papers, measured on the data at hand."""

from __future__ import annotations

import argparse
import math
import textwrap
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from minimp.cli.base import console, examples, json_text, print_line, print_wrapped, progress_console
from minimp.data import TrainTest, load
from minimp.errors import SettingError
from minimp.files import check_writable, write_whole
from minimp.reproductions import REPRODUCTIONS, Bench, Reproduction, Result, reproduce

__all__ = ["add_parser", "run"]

ALL = "all"
FIELD = "{:11}"
DATA_HELP = (
    "'digits', a folder of MNIST or Fashion-MNIST files, .npz or .csv, for those that train (default: "
    "digits, for which settings and bars were chosen)"
)


def add_parser(subparsers: Any) -> None:
    """Add the command and its options."""
    parser = subparsers.add_parser(
        "reproduce",
        help="measure claims of papers on the data at hand; say which are reproduced",
        description="Measure what papers on mixed precision claim, made small: the claim, the setting here, "
        "the figures over several seeds, the bars that stood before, and the verdict. The exit code is 1 if "
        "a claim was not reproduced, or only a weaker effect was.",
        epilog=examples(
            "minimp reproduce", "minimp reproduce chunked-sums", "minimp reproduce master-weights --seeds 5",
            "minimp reproduce all --json figures.json",
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add = parser.add_argument
    add("names", metavar="NAME", nargs="*", help=f"one or several of the list, or {ALL}; none: the list")
    add("--list", action="store_true", help="list what there is, and run nothing")
    add("--seeds", metavar="N", type=int, default=3, help="seeds 0 to N-1 (default: 3)")
    add("--data", metavar="SOURCE", default="digits", help=DATA_HELP)
    add("--json", metavar="FILE", type=Path, help="write every figure to FILE")
    add("--quiet", action="store_true", help="no progress bar")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command; return the exit code: 1 if a claim was not fully reproduced."""
    if args.list or not args.names:
        return _list(args)
    chosen = _choose(args.names)
    if args.json is not None:
        check_writable(args.json)
    if args.data != "digits" and not any(each.trains for each in chosen):
        raise SettingError(f"--data {args.data} cannot act: nothing that is asked for trains")
    bench, out = Bench(load(args.data)), console()
    results: list[Result] = []
    try:
        for each in chosen:
            _head(out, each, bench.data, args.data)
            results.append(_run_with_progress(each, bench, args))
            _show(out, results[-1])
    except KeyboardInterrupt:
        rest = ", ".join(each.name for each in chosen[len(results) :])
        print_wrapped(out, f"Interrupted. Of {len(chosen)}, {len(results)} ended; without a verdict: {rest}.")
        raise
    if args.json is not None:
        write_whole(args.json, json_text({"data": args.data, "results": [r.to_json() for r in results]}))
    if len(results) > 1:
        _summary(out, results)
    return 0 if all(each.verdict == "reproduced" for each in results) else 1


def _choose(names: list[str]) -> list[Reproduction]:
    if ALL in names:
        if len(names) > 1:
            raise SettingError(f"{ALL!r} goes without other names, got {' '.join(names)}")
        return list(REPRODUCTIONS.values())
    if len(set(names)) < len(names):
        raise SettingError(f"a name is given twice in {' '.join(names)}")
    return [REPRODUCTIONS[name] for name in names]


def _list(args: argparse.Namespace) -> int:
    if args.names or args.json is not None:
        raise SettingError("the list runs nothing: names and --json cannot act", help="minimp reproduce all")
    out, table = console(), Table(box=None, pad_edge=False)
    for title in ("name", "paper", "arXiv"):
        table.add_column(title, no_wrap=title != "paper")
    for each in REPRODUCTIONS.values():
        table.add_row(
            each.name, f"{each.paper.authors} {each.paper.year}: {each.paper.title}", each.paper.arxiv
        )
    out.print(table, markup=False)
    print_wrapped(out, "Run one: minimp reproduce NAME. All of them: minimp reproduce all")
    return 0


def _head(out: Console, one: Reproduction, data: TrainTest, source: str) -> None:
    where = (
        f" Data: {source}, {len(data.train):,} rows to train, {len(data.test):,} to test."
        if one.trains
        else ""
    )
    out.print(one.name, style="bold", markup=False)
    _field(out, "Paper", str(one.paper))
    _field(out, "Claim", one.claim)
    _field(out, "Setting", f"{one.setting}{where}")
    for number, bar in enumerate(one.criterion):
        _field(out, "" if number else "Criterion", str(bar))


def _field(out: Console, head: str, text: str) -> None:
    lines = textwrap.wrap(text, out.width - len(FIELD.format("")), break_on_hyphens=False)
    for number, line in enumerate(lines):
        print_line(out, FIELD.format("" if number else head) + line)


def _run_with_progress(one: Reproduction, bench: Bench, args: argparse.Namespace) -> Result:
    columns = (TextColumn("{task.description:44}"), BarColumn(28), TimeElapsedColumn())
    screen = progress_console()
    unseen = args.quiet or not screen.is_terminal  # into a file, the bar would be empty lines
    with Progress(*columns, console=screen, disable=unseen, transient=True) as bars:
        task = bars.add_task(one.name, total=1.0)
        return reproduce(
            one, bench, seeds=args.seeds,
            tell=lambda what, done: bars.update(task, description=what, completed=done),
        )  # fmt: skip


def _show(out: Console, result: Result) -> None:
    many = len(result.seeds) > 1
    table = Table(box=None, pad_edge=False)
    table.add_column("measured", overflow="fold")
    for title in ("mean", "+-" if many else "", "unit"):
        table.add_column(title, justify="left" if title == "unit" else "right")
    for name, each in result.figures.items():
        spread = _number(each.spread) if many else ""
        table.add_row(name, _number(each.mean), spread, result.reproduction.units[name])
    out.print(table, markup=False)
    if many:
        print_wrapped(out, f"+-: standard deviation over {len(result.seeds)} seeds.")
    for found in result.judgements:
        print_wrapped(out, f"  {found.verdict}: {found.bar.what}: {_number(found.value)}")
    print_wrapped(out, f"Verdict: {result.verdict} ({result.seconds:.1f} s)")
    out.print()


def _summary(out: Console, results: list[Result]) -> None:
    table = Table(box=None, pad_edge=False)
    for title in ("name", "paper", "verdict", "seconds"):
        table.add_column(title, justify="right" if title == "seconds" else "left")
    for each in results:
        paper = each.reproduction.paper
        table.add_row(
            each.reproduction.name, f"{paper.authors} {paper.year}", each.verdict, f"{each.seconds:.1f}"
        )
    out.print(table, markup=False)


def _number(value: float) -> str:
    return f"{value:.4g}" if math.isfinite(value) else str(value)
