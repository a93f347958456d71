"""What `minimp export` prints: sizes, losses of rounding, and the scores side by side."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console

from minimp import formats
from minimp.checkpoint.exporting import ExportReport
from minimp.cli.base import print_line, print_wrapped
from minimp.cli.judged import Scored, judge

__all__ = ["show"]

INDENT = 24


def show(
    out: Console, title: str, report: ExportReport, scores: Mapping[str, Scored], unit: str
) -> None:  # fmt: skip
    """Print an export.

    Args:
        out: where to print.
        title: what was exported.
        report: what was written.
        scores: way of computing -> how the model did, the reference first; empty if not judged.
        unit: what a row of the data is called, in the plural.
    """
    print_line(out, title)
    ratio = report.bytes_after / max(report.bytes_before, 1)
    for name, text in {
        "written": str(report.path),
        "bytes of tensors": f"{report.bytes_before:,} -> {report.bytes_after:,}  ({ratio:.2f}x)",
        "bytes of the file": f"{report.file_bytes:,}, names and checksum among them",
        "became infinite": _share(report.overflowed, report),
        "became zero": _share(report.flushed, report),
        "became subnormal": _share(report.subnormal, report),
        "largest relative error": f"{report.max_relative_error:.3g}",
    }.items():
        print_line(out, f"{name:{INDENT}}{text}")
    print_wrapped(out, _meaning(report))
    if scores:
        _scores(out, scores, unit)


def _share(count: int, report: ExportReport) -> str:
    return f"{count:,} of {report.elements:,} ({count / max(report.elements, 1):.2%})" if count else "none"


def _meaning(report: ExportReport) -> str:
    """Say what the rounding can do."""
    form = formats.get(report.dtype)
    bits = form.mantissa_bits + 1
    text = (
        f"{form.name} has {bits} significant bits: a number from {form.smallest_normal:.3g} to "
        f"{form.max:.5g} moves by at most 2^-{bits} = {2.0**-bits:.2g} of itself."
    )
    if report.subnormal or report.flushed:
        text += f" Those below {form.smallest_normal:.3g} lose more, up to all of it."
    return text


def _scores(out: Console, scores: Mapping[str, Scored], unit: str) -> None:
    """Print a row for each way of computing, and what the difference means."""
    (first, reference), *others = scores.items()
    metric = reference.metric
    width = max(map(len, scores)) + 2
    loss = reference.name != "test_loss"
    print_line(out, "")
    print_line(
        out,
        f"{'on the test part':{width}}{metric.head:>14}{'change':>20}"
        + (f"{'test loss':>14}" if loss else ""),
    )
    for way, found in scores.items():
        gap = "" if way == first else metric.gap(found.score, reference.score)
        row = f"{way:{width}}{metric.cell(found.score):>14}{gap:>20}"
        print_line(out, row + (f"{found.figures['test_loss']:>14.5g}" if loss else ""))
    for way, found in others:
        print_wrapped(out, f"{way}: {judge(found, reference, than=f'in {first}', unit=unit).words}")
