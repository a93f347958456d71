"""The loss scale that gradients of a step carry."""

from __future__ import annotations

from collections.abc import Iterable

from minimp.trace.events import TraceEvent

__all__ = ["scale_of", "scales_by_step"]


def scales_by_step(events: Iterable[TraceEvent]) -> dict[int, float]:
    """Return step -> the loss scale that it used, of the steps whose stage `scale_loss` was recorded."""
    return {
        event.step: float(event.facts["loss_scale"])
        for event in events
        if event.phase == "stage" and event.op in ("scale_loss", "unscale")
    }


def scale_of(event: TraceEvent, events: Iterable[TraceEvent]) -> float | None:
    """Return the loss scale of the step of an event, or None outside of training steps."""
    return scales_by_step(events).get(event.step) if event.step else None
