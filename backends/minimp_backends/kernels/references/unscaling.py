"""Unscaling gradients, and the loss scale itself: what unscaling.cu and scales.cu must give."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["invert_scale", "unscale", "update_scale"]


@np.errstate(all="ignore")
def unscale(
    grads: Sequence[Any], outs: Sequence[Any], counts: Sequence[int], inverse: Any, found: Any, found_any: Any
) -> None:
    """Write each gradient times ``inverse[0]``, wide; flag each that has an infinity or NaN, and any at all.

    The product is that of ``ArrayBackend.times``: in float32, and in float64 for a float64 gradient.
    """
    for at, (grad, out, count) in enumerate(zip(grads, outs, counts, strict=True)):
        wide = grad[:count].astype(out.dtype)
        out[:count] = wide * out.dtype.type(inverse[0])
        if not np.isfinite(wide).all():
            found[at] = found_any[0] = 1


@np.errstate(all="ignore")
def invert_scale(scale: Any, inverse: Any) -> None:
    """Write float32(1 / S), as ``ArrayBackend.unscale`` takes it."""
    inverse[0] = np.float32(np.float64(1.0) / scale[0])


def update_scale(
    scale: Any, growth_tracker: Any, skips: Any, met_bad: Any, inverse: Any, found: Any, growth: float,
    backoff: float, early: float, lowest: float, highest: float, interval: int, hysteresis: int, options: int,
) -> None:  # fmt: skip
    """Move the loss scale on by ``found[0]``; the rule is ``minimp.scaler.machine.next_state``.

    Args:
        scale, growth_tracker, skips, met_bad: the state, one element each.
        inverse: becomes float32(1 / S) of the new scale.
        found: not 0 where a gradient of this step was infinite or NaN.
        growth: what S is multiplied by when it grows. backoff: when it backs off.
        early: when it grows before the first bad step.
        lowest, highest: -inf and inf where there are none.
        interval, hysteresis: steps.
        options: 1 refills, 2 stays finite, 4 grows smoothly, 8 grows early, 16 is kept in float32.
    """
    refills, stays_finite, smooth, grows_early, single = (bool(options >> bit & 1) for bit in range(5))

    def rounded(value: float) -> float:
        with np.errstate(all="ignore"):
            return float(np.float32(value)) if single else value

    def grown(factor: float) -> float:
        higher = min(rounded(before * factor), highest)
        return before if stays_finite and not math.isfinite(higher) else higher

    before, tracker, bad_steps = float(scale[0]), 0, 0
    after = before
    if found[0]:
        bad_steps = int(skips[0]) + 1
        if bad_steps % hysteresis == 0 if refills else bad_steps >= hysteresis:
            after = max(rounded(before * backoff), lowest)
        met_bad[0] = 1
    elif grows_early and not met_bad[0]:
        after = grown(early)
    elif smooth:
        after = grown(growth)
    else:
        tracker = int(growth_tracker[0]) + 1
        if tracker == interval:
            after, tracker = grown(growth), 0
    scale[0], growth_tracker[0], skips[0] = after, tracker, bad_steps
    invert_scale(scale, inverse)
