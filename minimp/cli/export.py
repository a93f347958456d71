"""`minimp export`: the weights of a run in 16 bits: their size, what was lost, how the model does."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minimp import checkpoint, formats
from minimp.checkpoint.exporting import TARGETS, ExportReport
from minimp.cli.base import console, examples, json_text
from minimp.cli.choices import add_reading, refuse_reading
from minimp.cli.export_view import show
from minimp.cli.judged import Scored, scored
from minimp.cli.sources import Source, find_source
from minimp.data import AnyParts
from minimp.errors import DataError, SettingError
from minimp.files import check_writable, write_whole
from minimp.formats import Format
from minimp.recipe import Recipe, recipes

__all__ = ["add_parser", "run"]


def add_parser(subparsers: Any) -> None:
    """Add the command and its options."""
    parser = subparsers.add_parser(
        "export",
        help="write the weights of a run in 16 bits; show the size, what was lost, and the accuracy",
        description="Write the weights of a run in another format, each number rounded once. Show bytes "
        "before and after, what became zero, subnormal or infinite, and how the model does on the test part "
        "of its data: in full precision, with the exported weights, and computing in 16 bits throughout.",
        epilog=examples(
            "minimp export runs/mlp-mixed-fp16",
            "minimp export runs/mine/weights.safetensors --dtype bfloat16 --out small.safetensors",
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "run_path", metavar="RUN", type=Path, help="the folder of a run, its checkpoint, or a file of weights"
    )
    add("--dtype", metavar="FORMAT", default="float16", help=f"{', '.join(TARGETS)} (default: float16)")
    add("--out", type=Path, metavar="FILE", help="the file to write (default: weights-FORMAT beside the run)")
    add("--allow-overflow", action="store_true", help="write infinities where numbers do not fit the format")
    add("--size-only", action="store_true", help="do not read data, and do not judge the model")
    add_reading(add, sizes=False)
    add("--label", metavar="COLUMN", help="the label column of a CSV file, by name or number")
    add("--json", metavar="FILE", type=Path, help="write every figure to FILE")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command; return the exit code."""
    form = formats.get(args.dtype)
    source = find_source(args.run_path, "export")
    target = args.out or source.folder / f"weights-{form.name}.safetensors"
    if target.exists() and target.resolve() == source.file.resolve():
        raise SettingError(f"--out {target} is the file that is exported", help="name another")
    if args.json is not None:
        check_writable(args.json)
    if args.size_only:
        refuse_reading(args, "--size-only")
    data = None if args.size_only else source.read(vars(args))
    report = _export(args, source, target, data)
    scores = {} if data is None else _judge(source, data, target, form)
    unit = "rows" if data is None else data.test.unit
    show(console(), source.title, report, scores, unit)
    if args.json is not None:
        write_whole(args.json, json_text(_plain(source, report, scores)))
    return 0


def _export(args: argparse.Namespace, source: Source, target: Path, data: AnyParts | None) -> ExportReport:
    """Write the file."""
    try:
        return checkpoint.export(
            target,
            _tied(source, data),
            args.dtype,
            allow_overflow=args.allow_overflow,
            meta=source.described(data),
        )
    except DataError as fault:
        raise DataError(
            str(fault).split("\n  help:")[0], help="--dtype bfloat16, or --allow-overflow to write infinities"
        ) from fault


def _tied(source: Source, data: AnyParts | None) -> dict[str, Any]:
    """Return the weights, those that the model ties as one array: a file of theirs has it once."""
    if data is None and not source.meta:  # the shape of the model is not known
        return dict(source.weights)
    first: dict[int, Any] = {}
    tied = {}
    for name, leaf in source.build(data).state_dict().items():
        if name in source.weights:
            tied[name] = first.setdefault(id(leaf.array), source.weights[name])
    return tied


def _judge(source: Source, data: AnyParts, exported: Path, form: Format) -> dict[str, Scored]:
    """Return the scores: in full precision, with the exported weights, and in their format throughout."""
    test, single = data.test, recipes["fp32"]
    plain = source.build(data)
    found = {"full precision": scored(plain, test, single)}
    rounded = source.build(data)
    rounded.load_state_dict(exported)
    found[f"{form.name} weights, FP32 arithmetic"] = scored(rounded, test, single)
    if Recipe.low(form):
        low = Recipe(f"{form.name} inference", form, form)
        half = "half" if form is formats.float16 else "bfloat16"
        found[f"model.{half}(): {form.name} throughout"] = scored(rounded.to(form), test, low)
    return found


def _plain(source: Source, report: ExportReport, scores: Mapping[str, Scored]) -> dict[str, Any]:
    names = (
        "elements", "bytes_before", "bytes_after", "file_bytes", "nonfinite", "overflowed", "flushed",
        "subnormal", "max_relative_error",
    )  # fmt: skip
    return {
        "source": source.file, "model": source.kind.name, "written": report.path, "dtype": report.dtype,
        **{name: getattr(report, name) for name in names},
        "scores": {way: each.figures for way, each in scores.items()},
    }  # fmt: skip
