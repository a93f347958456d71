"""Unscaling gradients, and the loss scale itself: what unscaling.cu and scales.cu must give."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["unscale", "update_scale"]


@np.errstate(all="ignore")
def unscale(
    grads: Sequence[Any], outs: Sequence[Any], counts: Sequence[int], factor: Any, of_products: int,
    found: Any, found_any: Any,
) -> None:  # fmt: skip
    """Write each gradient times float32(factor), wide; flag each that is not finite, and whether any is not.

    The product is that of ``ArrayBackend.times``: in float32, and in float64 for a float64 gradient. With
    ``of_products`` finiteness is asked of it, as ``ArrayBackend.unscale_all`` does, or else of the gradient,
    as ``ArrayBackend.unscale`` does.
    """
    times = np.float32(factor[0])
    for at, (grad, out, count) in enumerate(zip(grads, outs, counts, strict=True)):
        wide, product = grad.reshape(-1)[:count].astype(out.dtype), out.reshape(-1)[:count]
        np.multiply(wide, out.dtype.type(times), out=product)
        if not np.isfinite(product if of_products else wide).all():
            found[at] = found_any[0] = 1


def update_scale(
    scale: Any, growth_tracker: Any, skips: Any, met_bad: Any, new_scale: Any, new_growth_tracker: Any,
    new_skips: Any, new_met_bad: Any, found: Any, growth: float, backoff: float, early: float, lowest: float,
    highest: float, interval: int, hysteresis: int, options: int,
) -> None:  # fmt: skip
    """Write the state of the loss scale after a step; the rule is ``minimp.scaler.machine.next_state``.

    Args:
        scale, growth_tracker, skips, met_bad: the state, one element each.
        new_scale, new_growth_tracker, new_skips, new_met_bad: the next one.
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
    elif grows_early and not met_bad[0]:
        after = grown(early)
    elif smooth:
        after = grown(growth)
    else:
        tracker = int(growth_tracker[0]) + 1
        if tracker == interval:
            after, tracker = grown(growth), 0
    new_scale[0], new_growth_tracker[0], new_skips[0] = after, tracker, bad_steps
    new_met_bad[0] = bool(found[0] or met_bad[0])
