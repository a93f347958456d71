"""Telling those who watch (:class:`minimp.modes.watch`) what a scaler does, in whoever's loop it runs.

A watcher that wants to know has a method `scaler_stepped(scaler, optimizer, report)`, or
`scale_moved(scale, before, after)`, or both.
"""

from __future__ import annotations

from typing import Any

from minimp.modes import MODES

__all__ = ["tell_move", "tell_step"]


def tell_step(scaler: Any, optimizer: Any, report: Any) -> None:
    """Tell that `scaler.step(optimizer)` ran, or skipped: `report` is its ScalerStep."""
    for watcher in MODES.get().watchers:
        hear = getattr(watcher, "scaler_stepped", None)
        if hear is not None:
            hear(scaler, optimizer, report)


def tell_move(scale: Any, before: Any, after: Any) -> None:
    """Tell that a verdict reached a MovingScale: its ScaleState `before` and `after`."""
    for watcher in MODES.get().watchers:
        hear = getattr(watcher, "scale_moved", None)
        if hear is not None:
            hear(scale, before, after)
