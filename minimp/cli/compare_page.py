"""The page that `minimp compare --report` writes."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any

from minimp.experiments import Experiment, Outcome
from minimp.pages import render
from minimp.pages.charts import Curve, curves, linear, logarithmic, powers_of_two
from minimp.trace.reporting.texts import size
from minimp.verdicts import METRICS, as_good

__all__ = ["page"]

Rows = Sequence[tuple[Outcome, str]]
CAUSES = {
    "weights": "weights", "master": "masters", "gradients": "gradients", "optimizer": "optimizer state",
    "activations": "saved for backward",
}  # fmt: skip
WIDE = 30.0
"""Losses that differ by more than this factor are drawn on a logarithmic axis."""


def page(parts: Sequence[tuple[Experiment, str, Rows]], legend: str) -> str:
    """Return the page.

    Args:
        parts: each experiment, on what it was run, and its outcomes with their verdicts.
        legend: what the columns are.

    Raises:
        SettingError: Jinja2 is not installed.
    """
    return render(
        "compare",
        title="Recipes side by side",
        lead="The same model from the same weights and batches, by several recipes of precision: what each "
        "part is worth. All figures were measured; a sentence says what they come to.",
        legend=legend,
        parts=[_part(*part) for part in parts],
    )


def _part(experiment: Experiment, setting: str, rows: Rows) -> dict[str, Any]:
    reference = next(outcome for outcome, _ in rows if outcome.recipe == experiment.reference)
    outcomes = [outcome for outcome, _ in rows]
    return {
        "name": experiment.name, "shows": experiment.shows, "why": experiment.why, "setting": setting,
        "verdicts": [
            {"recipe": outcome.recipe, "words": sentence, "rank": _rank(outcome, reference)}
            for outcome, sentence in rows
        ],
        "charts": [chart for chart in (_losses(outcomes), _scales(outcomes)) if chart is not None],
        "metric": METRICS[reference.metric].head,
        "table": [_row(outcome, reference) for outcome in outcomes],
        "memory": _memory(outcomes),
    }  # fmt: skip


def _rank(outcome: Outcome, reference: Outcome) -> tuple[str, str]:
    """Return (style, word) of a verdict."""
    if outcome.diverged:
        return "bad", "diverged"
    if outcome is reference:
        return "soft", "reference"
    if reference.diverged:
        return "soft", "alone"
    return ("good", "as good") if as_good(outcome, reference) else ("bad", "worse")


def _losses(outcomes: Sequence[Outcome]) -> dict[str, Any] | None:
    known = [loss for outcome in outcomes for loss in outcome.losses if isfinite(loss)]
    low, high = min(known, default=0.0), max(known, default=0.0)
    wide = low > 0 and high > WIDE * low
    ends = (f"{o.recipe} ends at {o.losses[-1]:.4g}" for o in outcomes if o.losses)
    return curves(
        [Curve(o.recipe, list(enumerate(o.losses, 1))) for o in outcomes],
        label=f"Training loss by step: {'; '.join(ends)}.",
        y_label=f"Training loss{' (logarithmic)' if wide else ''}", x_label="step",
        y_axis=logarithmic if wide else linear,
    )  # fmt: skip


def _scales(outcomes: Sequence[Outcome]) -> dict[str, Any] | None:
    """Return the chart of the recipes that scale the loss; None if none does."""
    scaled = [o for o in outcomes if any(scale != 1.0 for scale in o.loss_scales)]
    ends = (f"{o.recipe} ends at {o.loss_scales[-1]:g}" for o in scaled)
    return curves(
        [Curve(o.recipe, list(enumerate(o.loss_scales, 1))) for o in scaled],
        label=f"Loss scale by step: {'; '.join(ends)}.",
        y_label=f"Loss scale of {', '.join(o.recipe for o in scaled)}", x_label="step", y_axis=powers_of_two,
    )  # fmt: skip


def _row(outcome: Outcome, reference: Outcome) -> list[str]:
    return [
        outcome.recipe, METRICS[outcome.metric].cell(outcome.score), f"{outcome.skipped_steps:,}",
        f"{outcome.underflow_share:.1%}", f"{outcome.overflow_share:.1%}", f"{outcome.swallowed_updates:.1%}",
        f"{outcome.seconds_per_step / reference.seconds_per_step:.2f}x",
    ]  # fmt: skip


def _memory(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    totals = {o.recipe: sum(o.bytes[cause] for cause in CAUSES) for o in outcomes}
    largest = max(totals.values(), default=0) or 1
    rows = [
        {"recipe": o.recipe, "total": size(totals[o.recipe]),
         "parts": [(i, word, size(o.bytes[cause]), f"{100 * o.bytes[cause] / largest:.2f}")
                   for i, (cause, word) in enumerate(CAUSES.items()) if o.bytes[cause]]}
        for o in outcomes
    ]  # fmt: skip
    return {"rows": rows, "causes": list(enumerate(CAUSES.values()))}
