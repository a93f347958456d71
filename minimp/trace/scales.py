"""The loss scale that gradients of a step carry."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from minimp.trace.events import TraceEvent

__all__ = ["carried", "scale_of", "scales_by_step"]


def scales_by_step(events: Iterable[TraceEvent]) -> dict[int, float]:
    """Return step -> the loss scale that it used, of the steps whose stage `scale_loss` was recorded."""
    return {
        event.step: float(event.facts["loss_scale"])
        for event in events
        if event.phase == "stage" and event.op in ("scale_loss", "unscale") and event.step
    }


def carried(event: TraceEvent, by_step: Mapping[int, float]) -> float:
    """Return the loss scale of what an event made: what it was seen to carry, else the step's."""
    if event.phase != "stage" and "loss_scale" in event.facts:
        return float(event.facts["loss_scale"])
    return by_step.get(event.step, 1.0)


def scale_of(event: TraceEvent, events: Iterable[TraceEvent]) -> float | None:
    """Return the loss scale of an event, or None where there is none to be known."""
    by_step = scales_by_step(events)
    known = event.step in by_step or "loss_scale" in event.facts
    return carried(event, by_step) if known else None
