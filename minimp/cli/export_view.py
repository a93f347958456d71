"""What `minimp export` prints: sizes, losses of rounding, and the scores side by side."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

from rich.console import Console

from minimp import formats
from minimp.checkpoint.exporting import ExportReport
from minimp.verdicts import METRICS

__all__ = ["show"]

INDENT = 24
JUDGED = ("test_accuracy", "test_bits", "test_loss")
"""What a model is judged by: the first of these that it has."""


def show(
    out: Console, title: str, report: ExportReport, scores: Mapping[str, Mapping[str, float]]
) -> None:  # fmt: skip
    """Print an export.

    Args:
        out: where to print.
        title: what was exported.
        report: what was written.
        scores: way of computing -> what `evaluate` returned, the reference first; empty if not judged.
    """
    _line(out, title)
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
        _line(out, f"{name:{INDENT}}{text}")
    _wrapped(out, _meaning(report))
    if scores:
        _scores(out, scores)


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


def _scores(out: Console, scores: Mapping[str, Mapping[str, float]]) -> None:
    """Print a row for each way of computing, and what the difference means."""
    (first, reference), *others = scores.items()
    name = next(each for each in JUDGED if each in reference)
    metric = METRICS[name]
    width = max(map(len, scores)) + 2
    loss = name != "test_loss"
    _line(out, "")
    _line(
        out,
        f"{'on the test part':{width}}{metric.head:>14}{'change':>20}"
        + (f"{'test loss':>14}" if loss else ""),
    )
    for way, found in scores.items():
        gap = "" if way == first else metric.gap(found[name], reference[name])
        row = f"{way:{width}}{metric.cell(found[name]):>14}{gap:>20}"
        _line(out, row + (f"{found['test_loss']:>14.5g}" if loss else ""))
    worse = [way for way, found in others if not metric.as_good(found[name], reference[name])]
    _wrapped(
        out,
        f"Worse than full precision beyond what chance moves: {'; '.join(worse)}."
        if worse
        else "Nothing is lost that chance would not move as well.",
    )


def _wrapped(out: Console, text: str) -> None:
    for line in textwrap.wrap(text, out.width, break_on_hyphens=False):
        _line(out, line)


def _line(out: Console, text: str) -> None:
    out.print(text, soft_wrap=True, highlight=False, markup=False)
