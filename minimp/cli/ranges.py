"""`minimp range`: where the values of formats lie, and what a given tensor would lose in them."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from minimp import formats
from minimp.cli.arrays import read_array
from minimp.cli.base import console, examples, json_text
from minimp.cli.range_blocks import as_json as blocks_json
from minimp.cli.range_blocks import compared, quiet_lines
from minimp.errors import DataError, SettingError
from minimp.files import check_writable
from minimp.formats import BLOCK_FORMATS, FORMATS, Format
from minimp.formats.blocks.report import BlockComparison
from minimp.formats.pictures.figures import load, new_figure, save_figure
from minimp.formats.pictures.losses import FATES, Losses, percent
from minimp.formats.pictures.number_line import LEAST_WIDTH, NumberLine, number_line, outline
from minimp.formats.pictures.plots import figure_height, plot_number_line, plot_rounding_error
from minimp.formats.pictures.ranges import Extent, binades, values_in_binade

__all__ = ["add_parser", "as_json", "run"]

Array = npt.NDArray[Any]

DEFAULT = ("float16", "bfloat16", "float8_e4m3fn", "float8_e5m2")
_WIDE = 9.6  # inches of a picture


def add_parser(subparsers: Any) -> None:
    """Add the command and its options."""
    parser = subparsers.add_parser(
        "range",
        help="show where the values of formats lie, and what a tensor would lose in them",
        description="Draw the positive values of formats on a line: where subnormals begin, where the normal "
        "numbers do, where the format ends. With --data also count what a tensor would lose in each format: "
        "how many of its numbers are rounded, flushed to zero or beyond the range, and whether scaling by a "
        "power of two would help.",
        epilog=examples(
            "minimp range",
            "minimp range fp16 e4m3fn --data weights.npy",
            "minimp range e4m3fn e5m2 --data model.safetensors:fc1.weight --json",
            "minimp range bf16 --data weights.npy --blocks mxfp8,mxfp4:rceil,nvfp4",
            "minimp range fp4 e2m3fn --linear --svg values.svg",
        ),
    )
    add = parser.add_argument
    names = f"formats: {', '.join(FORMATS)}; short names such as fp16, bf16, e4m3fn will do"
    add("formats", metavar="FORMAT", nargs="*", help=f"{names} (default: {' '.join(DEFAULT)})")
    add(
        "--data",
        metavar="FILE[:NAME]",
        help="a tensor: .npy, .npz or .safetensors; NAME picks one of several",
    )
    add(
        "--blocks",
        metavar="A,B",
        help="block formats, too: " + ", ".join(BLOCK_FORMATS) + "; NAME:RULE names the rule for scales",
    )
    add("--linear", action="store_true", help="a linear axis; of formats of at most 8 bits, every value")
    add("--errors", action="store_true", help="in the picture, the rounding error over the range instead")
    add("--svg", metavar="FILE", help="draw a picture, too (needs matplotlib)")
    add("--png", metavar="FILE", help="the same as PNG")
    add("--json", action="store_true", help="print JSON")
    add("--quiet", action="store_true", help="print one line for each format")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command; return the exit code."""
    _refuse_what_cannot_act(args)
    chosen = [formats.get(name) for part in args.formats or DEFAULT for name in part.split(",") if name]
    chosen = list(dict.fromkeys(chosen))
    if not chosen:
        raise SettingError("expected a format", help="leave the word out for the usual ones")
    files = {kind: path for kind in ("svg", "png") if (path := getattr(args, kind)) is not None}
    for path in files.values():
        load("matplotlib")
        check_writable(path)
    x = None if args.data is None else read_array(args.data)
    out = console()
    line = number_line(chosen, x, "linear" if args.linear else "log", max(out.width, LEAST_WIDTH))
    _refuse_without_numbers(line.tensor, args.data)
    blocks = () if args.blocks is None else compared(args.blocks, x).reports
    if args.json:
        shown = as_json(line, args.data, x) | ({"blocks": blocks_json(blocks)} if blocks else {})
        out.print(json_text(shown), end="", soft_wrap=True, markup=False)
    elif args.quiet:
        said = [each.advice for each in line.losses] or [f"{each.name}: {outline(each)}" for each in chosen]
        out.print("\n".join([*said, *quiet_lines(blocks)]), soft_wrap=True, markup=False)
    else:
        _show(out, line, args.data, x)
        if blocks:
            out.print(f"\n{BlockComparison(blocks)}", soft_wrap=True, markup=False, highlight=False)
    for kind, path in files.items():
        save_figure(_figure(args, chosen, x), path, kind)
    return 0


def _refuse_what_cannot_act(args: argparse.Namespace) -> None:
    refusals = (
        (args.json and args.quiet, "--quiet", "beside --json"),
        (args.errors and not (args.svg or args.png), "--errors", "without --svg or --png"),
        (args.errors and args.linear, "--linear", "beside --errors: the error is drawn on a log axis"),
        (args.errors and args.data, "--data", "beside --errors: the error is that of the format alone"),
        (
            args.linear and (args.json or args.quiet) and not (args.svg or args.png),
            "--linear",
            "on --json and --quiet",
        ),
    )
    for refused, option, why in refusals:
        if refused:
            raise SettingError(f"{option} cannot act {why}", help="minimp range --help")


def _refuse_without_numbers(own: Extent | None, where: str) -> None:
    if own is not None and own.infinite + own.nan == own.count:
        raise DataError(
            f"{where} holds no finite number: {own.nan} of {own.count} are NaN, {own.infinite} infinite",
            help="nothing can be lost in it; name an array from before it went wrong",
        )


def _figure(args: argparse.Namespace, chosen: Sequence[Format], x: Array | None) -> Any:
    if args.errors:
        figure = new_figure(_WIDE, 4.2)
        plot_rounding_error(list(chosen), figure.add_subplot())
    else:
        figure = new_figure(_WIDE, figure_height(len(chosen), x is not None))
        scale = "linear" if args.linear else "log"
        plot_number_line(list(chosen), x, figure.add_subplot(), scale=scale)
    return figure


# ---- the way out ------------------------------------------------------------------------------------------


def _show(out: Console, line: NumberLine, where: str | None, x: Array | None) -> None:
    if x is not None:
        out.print(f"x = {where}: {x.dtype} {x.shape}", soft_wrap=True, markup=False)
        out.print()
    out.print(str(line), soft_wrap=True, markup=False)
    if not line.losses:
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("what x would lose")
    heads = ("exact", "rounded", "flushed", "beyond", "subnormal", "SQNR", "worst", "binades")
    for head in heads:
        table.add_column(head, justify="right")
    for lost in line.losses:
        counts = (lost.exact + lost.zeros, lost.rounded, lost.flushed, lost.overflowed, lost.subnormal)
        used = f"{lost.binades_used}/{len(binades(lost.format))}"
        shares = (percent(count, lost.count) for count in counts)
        worst = f"{lost.max_relative_error:.2g}"
        table.add_row(lost.format.name, *shares, f"{lost.sqnr_db:.1f} dB", worst, used)
    out.print()
    out.print(table)
    out.print(textwrap.fill(_KEY, out.width), style="dim", soft_wrap=True)
    out.print()
    for lost in line.losses:
        said = textwrap.fill(lost.advice, out.width, subsequent_indent="  ")
        out.print(said, soft_wrap=True, markup=False)


_KEY = (
    "exact: stored as it is. subnormal: among the exact and the rounded. SQNR: the power of x over that of "
    "the errors. worst: the largest relative error. binades: those of the format that hold a stored number."
)


def as_json(line: NumberLine, where: str | None, x: Array | None) -> dict[str, Any]:
    """Return what `--json` prints."""
    shown: dict[str, Any] = {}
    if x is not None and line.tensor is not None:
        own = line.tensor
        ends = {"smallest": own.smallest, "largest": own.largest}
        others = {"zeros": own.zeros, "infinite": own.infinite, "nan": own.nan}
        shown["data"] = {"file": where, "dtype": str(x.dtype), "shape": x.shape, "count": own.count}
        shown["data"] |= ends | others | {"binades": _keyed(own.binades)}
    shown["formats"] = [_anatomy(each) for each in line.formats]
    for entry, lost in zip(shown["formats"], line.losses, strict=False):
        at_best = None if lost.at_best is None else _counts(lost.at_best)
        entry["losses"] = _counts(lost) | {"at_best": at_best, "advice": lost.advice}
    return shown


def _anatomy(fmt: Format) -> dict[str, Any]:
    return {
        "format": fmt.name,
        "bits": fmt.bits,
        "smallest": fmt.smallest_subnormal,
        "smallest_normal": fmt.smallest_normal,
        "max": fmt.max,
        "lowest": fmt.lowest,
        "has_zero": fmt.has_zero,
        "has_inf": fmt.has_inf,
        "has_nan": fmt.has_nan,
        "values_in_binades": {str(each): values_in_binade(fmt, each) for each in binades(fmt)},
    }


def _counts(lost: Losses) -> dict[str, Any]:
    return {
        "scale_exponent": lost.exponent,
        **{name: getattr(lost, name) for name in (*FATES, "subnormal", "overflowed")},
        "shares": dict(lost.shares),
        "sqnr_db": lost.sqnr_db,
        "max_relative_error": lost.max_relative_error,
        "binades": _keyed(lost.binades),
        "binades_used": lost.binades_used,
        "best_scale_exponent": lost.best_exponent,
    }


def _keyed(counts: Mapping[int, int]) -> dict[str, int]:
    return {str(exponent): count for exponent, count in counts.items()}
