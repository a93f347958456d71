"""What `minimp train` shows: progress while it runs, and one screen at its end."""

from __future__ import annotations

import statistics
import textwrap
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from minimp.memory import Ledger
from minimp.runlog import StepRecord
from minimp.trainer import RunResult

__all__ = ["OnStep", "bytes_text", "figures", "progress", "summary"]

LINES = 10
"""Lines of progress where there is no terminal to draw a bar on."""
WIDTH, INDENT = 98, 16
"""Columns of the summary, and of the names at its left."""
TIED = "\xa0"
"""A space at which no line is broken."""
SHORTEST_WAIT = 0.1
"""Seconds between two changes of the bar's figures."""


class OnStep(Protocol):
    """Is told of each step."""

    def __call__(self, record: StepRecord) -> None:
        """Show it, or not."""


def progress(
    out: Console, *, done: int, steps: int, skipped: int, quiet: bool
) -> AbstractContextManager[OnStep]:
    """Give what shows the steps of a run that has done some of them before.

    Args:
        out: where to show it.
        done, skipped: steps done, and skipped, before this one.
        steps: steps in all.
        quiet: show nothing.
    """
    if quiet:
        return _silence()
    show = _bar if out.is_terminal else _lines
    return show(out, _Tally(done, steps, skipped))


class _Tally:
    """Counts the steps of this process."""

    def __init__(self, done: int, steps: int, skipped: int) -> None:
        self.done, self.steps, self.skipped = done, steps, skipped
        self.first = done
        self.start = time.perf_counter()

    def add(self, record: StepRecord) -> dict[str, Any]:
        """Count a step; return the figures to show."""
        self.done = record.step
        self.skipped += record.skipped
        rate = (self.done - self.first) / max(time.perf_counter() - self.start, 1e-9)
        return {
            "loss": f"{record.loss:.4g}",
            "scale": f"{record.loss_scale:g}",
            "skipped": f"{self.skipped:,}",
            "rate": f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}",
        }


@contextmanager
def _silence() -> Iterator[OnStep]:
    yield lambda record: None  # noqa: ARG005 - the callback's one argument


@contextmanager
def _bar(out: Console, tally: _Tally) -> Iterator[OnStep]:
    """Draw a bar with the figures of the last step."""
    columns = (
        BarColumn(24), MofNCompleteColumn(), TextColumn("loss {task.fields[loss]}"),
        TextColumn("S {task.fields[scale]}"), TextColumn("skipped {task.fields[skipped]}"),
        TextColumn("{task.fields[rate]} steps/s"), TimeRemainingColumn(),
    )  # fmt: skip
    blank: dict[str, Any] = {"loss": "-", "scale": "-", "skipped": f"{tally.skipped:,}", "rate": "-"}
    with Progress(*columns, console=out, transient=True) as bars:
        task = bars.add_task("train", total=tally.steps, completed=tally.done, **blank)
        shown = 0.0

        def show(record: StepRecord) -> None:
            nonlocal shown
            figures = tally.add(record)
            now = time.perf_counter()
            if now - shown > SHORTEST_WAIT or record.step == tally.steps:
                shown = now
                bars.update(task, completed=record.step, **figures)

        yield show


@contextmanager
def _lines(out: Console, tally: _Tally) -> Iterator[OnStep]:
    """Print a line now and then."""
    every = max(1, tally.steps // LINES)

    def show(record: StepRecord) -> None:
        figures = tally.add(record)
        if record.step % every == 0 or record.step == tally.steps:
            out.print(
                f"step {record.step:>{len(str(tally.steps))}}/{tally.steps}  loss {figures['loss']}  "
                f"scale {figures['scale']}  skipped {figures['skipped']}  {figures['rate']} steps/s",
                highlight=False,
            )

    yield show


def summary(
    out: Console,
    title: str,
    result: RunResult,
    records: Sequence[StepRecord],
    scores: Mapping[str, float],
    held: Ledger,
    paths: Mapping[str, str],
) -> None:
    """Print what came of a run, within 100 columns.

    Args:
        out: where to print.
        title: what was run.
        result: what the trainer returned.
        records: the steps of the log, those before a resume too.
        scores: what `evaluate` returned.
        held: bytes by cause.
        paths: further lines: what they are -> text.
    """
    rows = {}
    if "test_accuracy" in scores:
        rows["test accuracy"] = f"{scores['test_accuracy']:.1%}"
    rows |= {"test loss": _loss_text(scores)} | _course(result, records)
    sizes = [f"{name} {bytes_text(count)}" for name, count in held.as_dict().items()]
    rows["bytes"] = ", ".join(each.replace(" ", TIED) for each in sizes)
    out.print(title, highlight=False, markup=False)
    for name, text in rows.items():
        for number, line in enumerate(textwrap.wrap(text, WIDTH - INDENT, break_on_hyphens=False)):
            _print_row(out, "" if number else name, line.replace(TIED, " "))
    for name, text in paths.items():
        _print_row(out, name, text)  # never wrapped: to be copied


def _loss_text(scores: Mapping[str, float]) -> str:
    """Return the loss on the test part; of a text with its units."""
    loss = f"{scores['test_loss']:.4g}"
    if "test_bits" not in scores:
        return loss
    perplexity = f"{scores['test_perplexity']:.3g}"
    return f"{loss} nats a character = {scores['test_bits']:.4g} bits; perplexity {perplexity}"


def _print_row(out: Console, name: str, text: str) -> None:
    out.print(f"[bold]{name.strip():{INDENT}}[/]{escape(text)}", soft_wrap=True, highlight=False)


def _course(result: RunResult, records: Sequence[StepRecord]) -> dict[str, str]:
    """Return what the steps came to."""
    found = {}
    if records:
        last = records[-1]
        found["training loss"] = f"{last.loss:.4g} at step {result.step:,}"
        if result.diverged_at is not None:
            found["diverged"] = (
                f"from step {result.diverged_at:,} on no loss is finite: a result, not a fault"
            )
        found["loss scale"] = f"{last.loss_scale:g} at the last step; steps skipped: {result.skipped:,}"
    if result.records:
        seconds = [record.seconds for record in result.records]
        found["time"] = f"{sum(seconds):,.1f} s, {1000 * statistics.median(seconds):.2f} ms a step (median)"
    return found


def bytes_text(count: int) -> str:
    """Return a number of bytes as people read it.

    >>> bytes_text(1536)
    '1.5 K'
    """
    return f"{count / 1024:,.1f} K" if count < 2**20 else f"{count / 2**20:,.1f} M"


def figures(
    result: RunResult, records: Sequence[StepRecord], scores: Mapping[str, float], held: Ledger
) -> dict[str, Any]:
    """Return what `--json` says of a run; accuracies are fractions of 1."""
    return {
        **scores,
        "final_loss": records[-1].loss if records else None,
        "losses": [record.loss for record in records],
        "loss_scales": [record.loss_scale for record in records],
        "steps": result.step,
        "skipped_steps": result.skipped,
        "diverged_at": result.diverged_at,
        "bytes": held.as_dict(),
        "seconds_per_step": statistics.median([r.seconds for r in records]) if records else None,
    }
