"""The loss scale where the gradients are: its state in arrays, moved without asking what was found.

On a GPU the host runs ahead of the device. Reading one number back makes it wait until all that was asked
for is done, and the device then waits for the host. So here the state is a handful of arrays of one element,
and the rule of :func:`minimp.scaler.next_state` a handful of choices between them. The values are the same,
to the bit: each product is taken in float64 and rounded to the precision of the rule, as there.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minimp.errors import SettingError
from minimp.scaler.machine import ScaleRule, ScaleState

__all__ = ["DeviceScale"]

Array = Any


class DeviceScale:
    """The state of one loss scale on a device.

    Args:
        rule: how it moves.
        state: where it begins; the scale is one that the rule's precision has.
        backend: whose arrays hold it.

    Attributes:
        scale, growth_tracker, skips, met_bad: the fields of :class:`minimp.scaler.ScaleState`, arrays without
            axes: float64, int64, int64 and bool.

    Raises:
        SettingError: the rule counts skipped steps and raises at one; a device cannot.
    """

    def __init__(self, rule: ScaleRule, state: ScaleState, backend: Any) -> None:
        if rule.max_consecutive_skips is not None:
            raise SettingError(
                f"max_consecutive_skips={rule.max_consecutive_skips} cannot act where the host does not read "
                "whether a step was skipped",
                op="GradScaler", help="leave it out, or let the host decide: TrainStep(..., control='host')",
            )  # fmt: skip
        self.rule, self.backend = rule, backend
        fields = (("scale", np.float64), ("growth_tracker", np.int64), ("skips", np.int64), ("met_bad", bool))
        for name, kind in fields:
            setattr(self, name, backend.from_host(np.asarray(getattr(state, name), kind)))

    scale: Array
    growth_tracker: Array
    skips: Array
    met_bad: Array

    def advance(self, found_inf: Array) -> None:
        """Move on by a verdict: an array without axes, true if any gradient was infinite or NaN."""
        state = self.scale, self.growth_tracker, self.skips, self.met_bad
        moved = self.backend.moved_scale(self.rule, state, found_inf)
        if moved is None:
            self._advance(found_inf)
        else:
            self.scale, self.growth_tracker, self.skips, self.met_bad = moved

    def _advance(self, found_inf: Array) -> None:
        """Move on by choices between arrays; a kernel does the same in one launch."""
        xp, rule = self.backend.xp, self.rule
        skips = self.skips + 1
        due = skips % rule.hysteresis == 0 if rule.refill_on_backoff else skips >= rule.hysteresis
        lower = self._rounded(self.scale * rule.backoff_factor)
        if rule.min_scale is not None:
            lower = xp.maximum(lower, rule.min_scale)
        higher, tracker = self._after_good_step()
        bad = xp.where(due, lower, self.scale)
        self.scale = xp.where(found_inf, bad, higher)
        self.growth_tracker = xp.where(found_inf, 0, tracker)
        self.skips = xp.where(found_inf, skips, 0)
        self.met_bad = self.met_bad | found_inf

    def _after_good_step(self) -> tuple[Array, Array]:
        """Return (scale, growth tracker) if nothing was found."""
        xp, rule = self.backend.xp, self.rule
        if rule.smooth:
            scale, tracker = self._grown(rule.growth_factor ** (1.0 / rule.growth_interval)), self.skips * 0
        else:
            tracker = self.growth_tracker + 1
            grows = tracker == rule.growth_interval + rule.grows_late
            scale = xp.where(grows, self._grown(rule.growth_factor), self.scale)
            tracker = xp.where(grows, 0, tracker)
        if rule.until_first_bad is None:
            return scale, tracker
        early = self._grown(rule.until_first_bad)
        return xp.where(self.met_bad, scale, early), xp.where(self.met_bad, tracker, 0)

    def _grown(self, factor: float) -> Array:
        """Return the scale after growing by `factor`, held at the ceiling."""
        xp, rule = self.backend.xp, self.rule
        higher = self._rounded(self.scale * factor)
        if rule.max_scale is not None:
            higher = xp.minimum(higher, rule.max_scale)
        return xp.where(xp.isfinite(higher), higher, self.scale) if rule.stays_finite else higher

    def _rounded(self, scale: Array) -> Array:
        """Round to the precision in which the rule keeps S; the result is float64 all the same."""
        return scale if self.rule.precision == "float64" else scale.astype(np.float32).astype(np.float64)

    def read(self) -> ScaleState:
        """Return the state as numbers; the host waits for them."""
        xp, host = self.backend.xp, self.backend.to_host
        kept = (self.scale, self.growth_tracker, self.skips, self.met_bad)
        together = host(xp.stack([each.astype(np.float64) for each in kept]))  # counts are exact below 2^53
        scale, tracker, skips, met_bad = together.tolist()
        return ScaleState(scale, int(tracker), int(skips), bool(met_bad))
