"""A trace in the JSON of chrome://tracing and ui.perfetto.dev.

Source: "Trace Event Format" (the Chromium project's design document of the JSON that its viewers read):
complete events (``"ph": "X"``) with a start and a duration in microseconds; those of one thread that overlap
are nested. Stages hold modules, modules hold ops; counters (``"ph": "C"``) show the loss scale and what was
lost.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from minimp.trace.events import Span, TraceEvent

__all__ = ["chrome_json"]


def chrome_json(events: Iterable[TraceEvent], spans: Iterable[Span]) -> str:
    """Return the JSON."""
    slices = [*map(_of_span, spans)]
    counters: list[dict[str, Any]] = []
    for event in events:
        if event.phase == "stage":
            counters += _of_stage(event)
            continue
        slices.append(_of_op(event))
        if event.flushed or event.overflowed:
            lost = {"flushed": event.flushed, "overflowed": event.overflowed}
            counters.append({**_at(event.end), "name": "lost", "ph": "C", "args": lost})
    slices.sort(key=lambda each: (each["tid"], each["ts"], -each["dur"]))
    return json.dumps({"traceEvents": [*slices, *counters], "displayTimeUnit": "ns"}, allow_nan=False)


def _at(when: int, thread: int = 0) -> dict[str, Any]:
    return {"pid": 0, "tid": thread, "ts": when / 1000}


def _slice(name: str, category: str, start: int, end: int, thread: int) -> dict[str, Any]:
    return {**_at(start, thread), "name": name, "cat": category, "ph": "X", "dur": (end - start) / 1000}


def _of_span(span: Span) -> dict[str, Any]:
    return _slice(span.name, span.kind, span.start, span.end, span.thread)


def _of_op(event: TraceEvent) -> dict[str, Any]:
    sides = {"inputs": event.inputs, "outputs": event.outputs}
    args: dict[str, Any] = {
        name: [f"{side.format}{list(side.shape)}" for side in found if side is not None]
        for name, found in sides.items()
    }
    counts = {"flushed": event.flushed, "overflowed": event.overflowed, "nonfinite": event.nonfinite}
    args |= {name: count for name, count in counts.items() if count}
    args |= {"event": event.number, "source": event.source, "module": event.module, "step": event.step}
    made = _slice(event.title, event.phase, event.start, event.end, event.thread)
    return {**made, "args": args}


def _of_stage(event: TraceEvent) -> Iterator[dict[str, Any]]:
    scale = event.facts.get("loss_scale")
    if scale is not None:
        yield {**_at(event.end, event.thread), "name": "loss scale", "ph": "C", "args": {"S": float(scale)}}
