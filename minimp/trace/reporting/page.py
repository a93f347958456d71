"""The page of a recording, put together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from minimp.pages import render, require_renderer
from minimp.trace.reporting.budget import error_budget
from minimp.trace.reporting.gradients import gradients_or_reason
from minimp.trace.reporting.heat import heat_maps
from minimp.trace.reporting.history import history_of
from minimp.trace.reporting.stages import memory_rows, stage_rows
from minimp.trace.reporting.tensors import Limits, tensors_of
from minimp.trace.reporting.texts import count, grid, printable, size, table
from minimp.trace.reporting.words import figures, has_statistics, lead, sentences, verdict

if TYPE_CHECKING:
    from minimp.trace.trace import Trace

__all__ = ["MOST_BYTES", "report_html"]

NO_STATISTICS = "no statistics were taken"
MOST_BYTES = 3_000_000
"""A report is smaller than this."""


@dataclass(frozen=True)
class Bounds:
    """How much of each list a page holds: rows of tables, places and steps of maps, arrays and elements."""

    rows: int = 24
    places: int = 32
    steps: int = 48
    tensors: Limits = (48, 1024, 12)


BOUNDS = (Bounds(), Bounds(16, 20, 32, (24, 512, 8)), Bounds(8, 10, 16, (8, 128, 4)))
"""What is tried, until a page is small enough; the last one always is."""


def report_html(
    trace: Trace, *, title: str, notes: str = "", memory: Any = None, checks: Mapping[str, Any] | None = None
) -> str:
    """Return the page; see :meth:`minimp.trace.Trace.report`.

    Raises:
        SettingError: Jinja2 is not installed.
    """
    require_renderer()
    html = ""
    for bounds in BOUNDS:
        html = _page(trace, bounds, title, notes, memory, checks or {})
        if len(html.encode()) < MOST_BYTES:
            break
    return html


def _page(
    trace: Trace, bounds: Bounds, title: str, notes: str, memory: Any, checks: Mapping[str, Any]
) -> str:
    events, spans = trace.events, trace.spans
    history = history_of(events)
    underflow, overflow, swallowed = trace.underflow(), trace.overflow(), trace.swallowed()
    known = has_statistics(events)
    gradients, reason = gradients_or_reason(trace, rows=bounds.rows, last=history.last_scale)
    columns, causes = memory_rows(memory)
    budget = error_budget(trace.errors, rows=bounds.rows)
    return render(
        "report",
        title=printable(title, 200),
        notes=[printable(line, 600) for line in notes.splitlines()[:40] if line.strip()],
        lead=lead(events, history, trace.dropped),
        verdict=verdict(events, trace.first_nonfinite(), underflow, trace.dropped),
        figures=figures(events, history, overflow),
        said=sentences(events, history, overflow, swallowed, (gradients or {}).get("range", "")),
        charts=history.charts(),
        history=grid("Loss and loss scale, step by step", ("step", "loss", "loss scale", "update"),
                     history.rows(), most=bounds.rows * 4),
        gradients=gradients, no_gradients=reason if known or not events else NO_STATISTICS, known=known,
        maps=heat_maps(events, rows=bounds.places, columns=bounds.steps),
        underflow=table(trace.underflow("place"), most=bounds.rows),
        overflow=table(trace.overflow("place"), most=bounds.rows),
        budget=budget, amplifiers=table(trace.amplifiers(), most=bounds.rows // 2) if budget else None,
        unshadowed=_pairs(trace.info.get("notes", {}))[: bounds.rows],
        swallowed=table(swallowed, most=bounds.rows),
        counts=table(trace.counts(), most=2 * bounds.rows),
        memory=_memory(columns, causes, bounds.rows),
        stages=stage_rows(events, spans, checks)[: bounds.rows],
        tensors=tensors_of(trace, events, bounds.tensors),
        settings=_pairs(trace.info.get("settings", {}))[: bounds.rows],
        dropped=count(trace.dropped) if trace.dropped else "",
    )  # fmt: skip


def _pairs(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return (name, value) of what has a value."""
    return [(printable(name), printable(value, 200)) for name, value in found.items() if value]


def _memory(columns: list[str], causes: list[tuple[str, list[int]]], most: int) -> dict[str, Any] | None:
    if not causes:
        return None
    largest = [max(values) or 1 for values in zip(*(values for _, values in causes), strict=True)]
    return {
        "columns": columns,
        "rows": [
            (printable(name.replace("_", " ")),
             [(size(value), f"{100 * value / most_of:.1f}" if value else "")
              for value, most_of in zip(values, largest, strict=True)])
            for name, values in causes[:most]
        ],
        "totals": [size(sum(values[i] for _, values in causes)) for i in range(len(columns))],
    }  # fmt: skip
