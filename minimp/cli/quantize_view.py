"""What `minimp quantize` prints: a row for each layer, what was fused, the scores, and what they mean."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bars
from rich.table import Table
from rich.text import Text

from minimp.cli.base import TIED, print_line, print_wrapped
from minimp.cli.quantize_layers import Layer
from minimp.quant.fusion.reports import FusionReport, ScalingReport, shown_path
from minimp.quant.layer_reports import LayerRow
from minimp.quant.static import Progress

if TYPE_CHECKING:
    from minimp.cli.quantize import Result

__all__ = ["calibrating", "show"]

INDENT = 16
WIDEST = 1000
"""Columns that no table has."""
LINES = 8
"""Lines of progress at most."""
FAIR = 20.0
"""dB below which what a layer gives is named."""
RATIO = "10 log10(sum {0}² / sum ({0} - {0}')²)."
LEVELS = "20 dB is a tenth of the signal, 40 dB a hundredth."
OUTPUTS = (
    "least, most: the ends of what the codes of a layer's output reach; scale: the step from code to code; "
    "zero: the code of 0."
)
STORED = (
    "largest: max |w| of the weights; scale: the largest of their scales, each of which a tensor, a row, or "
    "so many numbers share."
)
ON_CODES = (
    "dB: what a layer gives, beside what it gives in floats, with the errors of all layers before it: "
    f"{RATIO.format('y').replace(' ', TIED)} {LEVELS}"
)
OF_WEIGHTS = (
    "dB: the weights as they are read back, beside those of before: "
    f"{RATIO.format('w').replace(' ', TIED)} {LEVELS}"
)


@contextmanager
def calibrating(out: Console, *, quiet: bool) -> Iterator[Callable[[Progress], None]]:
    """Give what is told of each batch of a calibration: a bar, or a line now and then, or nothing."""
    if quiet:
        yield lambda _: None
    elif out.is_terminal:
        words = (
            TextColumn("calibrating"),
            BarColumn(24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[moved]}"),
        )
        with Bars(*words, console=out, transient=True) as bars:
            task = bars.add_task("calibrate", total=None, moved="")
            yield lambda done: bars.update(task, total=done.of, completed=done.batch, moved=_moved(done))
    else:
        yield partial(_told, out)


def _told(out: Console, done: Progress) -> None:
    every = max(1, (done.of or 1) // LINES)
    if done.batch % every == 0 or done.batch == done.of or done.settled:
        out.print(f"calibrating: batch {done.batch}/{done.of or '?'}{_moved(done)}", highlight=False)


def _moved(done: Progress) -> str:
    return "" if done.change is None else f"  ranges moved by {done.change:.2%} at most"


def show(out: Console, result: Result) -> None:
    """Print what became of a model."""
    made = result.made
    print_line(out, f"{result.title}; quantised: {result.mode.name}")
    for name, text in made.facts.items():
        _row(out, name, text)
    if made.fused is not None:
        _fused(out, made.fused)
    if made.scaled is not None:
        _scaled(out, made.scaled)
    _layers(out, made.layers, on_codes=result.mode.on_codes)
    if made.left:
        _left(out, made.left)
    print_line(out, "")
    _row(out, "bytes", f"{result.before:,} -> {result.after:,}  ({result.after / result.before:.3f} x)")
    for path, size in result.written.items():
        print_line(out, f"{'written':{INDENT}}{path}  ({size:,} bytes)")
    for text in result.onnx:
        _row(out, "ONNX", text)
    if result.scores:
        _scores(out, result)
    file = next(iter(result.written))
    print_line(out, f"{'use':{INDENT}}from minimp.quant import load")
    print_line(out, f"{'':{INDENT}}model = load({file!r})")


# ---- tables ---------------------------------------------------------------------------------------------


def _layers(out: Console, layers: Sequence[Layer], *, on_codes: bool) -> None:
    """Print the rows, what else is to be known of them, and what the columns mean."""
    if not on_codes:
        _row(out, "weights", ", ".join(dict.fromkeys(each.stored for each in layers)))
    print_line(out, "")
    out.print(_of_codes(layers, out) if on_codes else _of_weights(layers, out))
    for layer in filter(attrgetter("note"), layers):
        print_wrapped(out, f"{layer.path}: {layer.note}")
    for text in (OUTPUTS, ON_CODES) if on_codes else (STORED, OF_WEIGHTS):
        print_wrapped(out, text)


def _table(heads: Sequence[str], words: int, padding: int) -> Table:
    grid = Table(box=None, pad_edge=False, padding=(0, padding, 0, 0), header_style="bold")
    for place, head in enumerate(heads):
        left = place < words
        grid.add_column(head, justify="left" if left else "right", overflow="fold", no_wrap=not left)
    return grid


def _of_codes(layers: Sequence[Layer], out: Console) -> Table:
    """Return the table of a model on codes, with all columns if they fit."""
    heads = ("layer", "kind", "least", "most", "scale", "zero", "dB", "weight bytes", "weights")
    rows = [
        (
            each.path or "the model", each.kind, _figure(each.low), _figure(each.high), _figure(each.scale),
            str(each.zero_point), _decibels(each.error_db), _bytes(each), each.stored,
        )
        for each in layers
    ]  # fmt: skip
    return _fitting(heads, rows, ((9, 2), (9, 1), (8, 2), (8, 1)), 2, out)


def _filled(
    heads: Sequence[str], rows: Sequence[Sequence[str]], columns: int, padding: int, words: int
) -> Table:
    grid = _table(heads[:columns], words, padding)
    for row in rows:
        grid.add_row(*map(Text, row[:columns]))
    return grid


def _of_weights(layers: Sequence[Layer], out: Console) -> Table:
    """Return the table of a model whose weights are stored narrow."""
    heads = ("layer", "kind", "largest", "scale", "dB", "bytes", "weights")
    rows = [
        (
            each.path or "the model", each.kind, _figure(each.high), _figure(each.scale),
            _decibels(each.error_db), _bytes(each), each.stored,
        )
        for each in layers
    ]  # fmt: skip
    return _fitting(heads, rows, ((7, 2), (7, 1), (6, 2), (6, 1)), 2, out)


def _fitting(
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    ways: Sequence[tuple[int, int]],
    words: int,
    out: Console,
) -> Table:
    """Return the first (columns, padding) that fits the screen, or the last, with names in several lines."""
    made = [_filled(heads, rows, columns, padding, words) for columns, padding in ways]
    wide = out.options.update(max_width=WIDEST)
    return next((each for each in made if out.measure(each, options=wide).maximum <= out.width), made[-1])


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _decibels(value: float) -> str:
    return "" if math.isnan(value) else "exact" if math.isinf(value) and value > 0 else f"{value:.1f}"


def _bytes(layer: Layer) -> str:
    if not layer.bytes_before:
        return ""
    return f"{_size(layer.bytes_before)} -> {_size(layer.bytes_after)}"


def _size(count: int) -> str:
    return f"{count}" if count < 1000 else f"{count / 1e3:.3g}K" if count < 999_500 else f"{count / 1e6:.3g}M"


# ---- what was done before -------------------------------------------------------------------------------


def _fused(out: Console, report: FusionReport) -> None:
    """Say what was fused, and what was not, and why."""
    done = "; ".join(shown_path(each.modules) for each in report.fused)
    _row(out, "fused", done or "nothing")
    for each in report.refused:
        _row(out, "not fused", f"{each.modules[0]} ({each.pattern}): {each.why}")


def _scaled(out: Console, report: ScalingReport) -> None:
    pairs = [f"{each.first} -> {each.second} (up to x {each.factor:.3g})" for each in report.paired]
    _row(out, "equalized", "; ".join(pairs) or "nothing: no two layers are joined by what scale goes through")


def _left(out: Console, left: Sequence[LayerRow]) -> None:
    """Say which layers stay in floats, and why; those of one reason together."""
    reasons: dict[str, list[str]] = {}
    for each in left:
        reasons.setdefault(f"{each.kind}: {each.note}", []).append(each.path or "the model")
    for why, paths in reasons.items():
        kind, _, note = why.partition(": ")
        _row(out, "in floats", f"{', '.join(paths)} ({kind}): {note}")


# ---- the scores -----------------------------------------------------------------------------------------


def _scores(out: Console, result: Result) -> None:
    """Print the scores, and what the difference means."""
    before, after = result.scores["in floats"], result.scores["quantised"]
    metric = before.metric
    gap = metric.gap(after.score, before.score)
    said = f"{metric.cell(before.score)} in floats, {metric.cell(after.score)} quantised: {gap}"
    if before.name != "test_loss":
        losses = (each.figures["test_loss"] for each in (before, after))
        said += "; test loss {:.4g} in floats, {:.4g} quantised".format(*losses)
    _row(out, metric.head, said)
    rounded = result.scores.get("not trained on")
    if rounded is not None:
        gain = metric.gap(after.score, rounded.score)
        _row(out, "", f"rounded alike and not trained on: {metric.cell(rounded.score)}; training on: {gain}")
    verdict = result.verdict
    assert verdict is not None
    if not verdict.worse:
        print_wrapped(out, verdict.words)
        return
    known = [each for each in result.made.layers if not math.isnan(each.error_db)]
    worst = min(known, key=lambda each: each.error_db, default=None)
    words = verdict.words
    if worst is not None and worst.error_db < FAIR:
        words += f" The largest error is that of '{worst.path}', {worst.error_db:.1f} dB."
    print_wrapped(out, f"{words} To try: {result.mode.ways}.")


def _row(out: Console, name: str, text: str) -> None:
    """Print a text beside its name, wrapped."""
    lines = textwrap.wrap(text, out.width - INDENT, break_on_hyphens=False) or [""]
    for number, line in enumerate(lines):
        print_line(out, f"{'' if number else name:{INDENT}}{line}")
