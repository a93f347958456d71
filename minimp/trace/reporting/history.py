"""The loss and the loss scale of each training step, from the stages of a recording."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf, nan
from typing import Any

from minimp.pages.charts import Curve, curves, powers_of_two
from minimp.trace.events import TraceEvent
from minimp.trace.reporting.texts import counted, power
from minimp.trace.scales import scales_by_step

__all__ = ["History", "history_of"]


@dataclass
class History:
    """What the steps of a recording did.

    Attributes:
        losses: step -> loss; infinite or NaN where it was.
        scales: step -> loss scale.
        skipped: the steps whose update was skipped.
        steps: the steps seen, in order.
    """

    losses: dict[int, float] = field(default_factory=dict)
    scales: dict[int, float] = field(default_factory=dict)
    skipped: list[int] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)

    @property
    def scale_words(self) -> str:
        """The range of the loss scale, in words."""
        found = sorted(set(self.scales.values()))
        if not found:
            return "none"
        if len(found) == 1:
            return power(found[0])
        return " to ".join(power(end).split(" = ", maxsplit=1)[0] for end in (found[0], found[-1]))

    @property
    def last_scale(self) -> float | None:
        """The loss scale of the last step; None where no step told one."""
        return self.scales[max(self.scales)] if self.scales else None

    def charts(self) -> list[dict[str, Any]]:
        """Return the charts of loss and loss scale, where there is something to draw."""
        skipped = {"update skipped": self.skipped}
        x_label = "training step of this recording"
        loss = curves(
            [Curve("loss", sorted(self.losses.items()))], x_label=x_label,
            y_label="Loss, as the step computed it",
            label=f"Loss over {counted(len(self.losses), 'step')}{_ends(self.losses)}.", marks=skipped,
        )  # fmt: skip
        scale = curves(
            [Curve("loss scale", sorted(self.scales.items()))], x_label=x_label,
            y_label="Loss scale, in powers of two",
            label=f"Loss scale over {counted(len(self.scales), 'step')}: {self.scale_words}.",
            y_axis=powers_of_two, marks=skipped,
        )  # fmt: skip
        return [chart for chart in (loss, scale) if chart is not None and len(self.steps) > 1]

    def rows(self) -> list[tuple[Any, ...]]:
        """Return (step, loss, loss scale, what became of the update) of each step."""
        skipped = set(self.skipped)
        return [
            (f"{step:,}", _number(self.losses.get(step)),
             power(self.scales[step]) if step in self.scales else "–",
             "skipped" if step in skipped else "made")
            for step in self.steps
        ]  # fmt: skip


def history_of(events: Sequence[TraceEvent]) -> History:
    """Read losses, scales and skipped updates from the events of stages."""
    made = History(scales=scales_by_step(events))
    made.steps = sorted({event.step for event in events if event.step})
    for event in events:
        if event.phase != "stage":
            continue
        if event.op == "loss" and (loss := _loss(event)) is not None:
            made.losses[event.step] = loss
        if event.facts.get("skipped") is True:
            made.skipped.append(event.step)
    return made


def _loss(event: TraceEvent) -> float | None:
    side = next((side for side in event.outputs if side is not None and side.name == "loss"), None)
    if side is None or side.stats is None:
        return None
    if side.stats.nan:
        return nan
    return inf if side.stats.inf else side.stats.min


def _ends(losses: dict[int, float]) -> str:
    known = [losses[step] for step in sorted(losses)]
    return f": from {known[0]:.4g} to {known[-1]:.4g}" if known else ""


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.5g}"
