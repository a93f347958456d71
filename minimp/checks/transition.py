"""The contract of the loss scale: how it may move after a step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from minimp.checks.findings import Finding, Findings

__all__ = ["check_scale_transition"]


def check_scale_transition(
    rule: Mapping[str, Any], before: Mapping[str, Any], after: Mapping[str, Any], found_inf: bool
) -> Findings:
    """Check one update of the loss scale against the rule, stated here a second time.

    found_inf: S <- S·backoff, the count of good steps restarts. Else the count grows by one, and where it
    reaches the interval S <- S·growth, unless that is infinite in float32, and the count restarts
    (torch.amp.GradScaler 2.13). `hysteresis` h lets h - 1 bad steps pass before S backs off.

    Args:
        rule: growth_factor, backoff_factor, growth_interval; min_scale, max_scale (None: no limit) and
            hysteresis (1) may be missing.
        before, after: scale, growth_tracker, and with hysteresis `hysteresis_tracker`, the bad steps left.
        found_inf: whether the step's gradients were not finite.
    """
    wanted = dict(_next_scale(rule, before, found_inf))
    wrong = tuple(
        Finding("moves as the rule says", f"{value!r}", f"{after.get(key)!r}", key)
        for key, value in wanted.items()
        if key in after and after[key] != value
    )
    step = "backs off" if found_inf else "counts a good step"
    claim = f"loss scale {step}: {before['scale']:g} -> {after['scale']:g}"
    return Findings(claim, wrong, checked=len(wanted))


def _next_scale(
    rule: Mapping[str, Any], before: Mapping[str, Any], found_inf: bool
) -> dict[str, float | int]:
    scale, count = np.float32(before["scale"]), int(before["growth_tracker"])
    patience = int(rule.get("hysteresis") or 1)
    left = int(before.get("hysteresis_tracker", patience))
    with np.errstate(over="ignore", under="ignore"):
        if found_inf:
            left = left - 1
            scale = np.float32(scale * np.float32(rule["backoff_factor"])) if left <= 0 else scale
            count = 0
        elif count + 1 == rule["growth_interval"]:
            grown = np.float32(scale * np.float32(rule["growth_factor"]))
            scale = grown if np.isfinite(grown) else scale
            count, left = 0, patience
        else:
            count += 1
    low, high = rule.get("min_scale"), rule.get("max_scale")
    scale = scale if low is None else max(scale, np.float32(low))
    scale = scale if high is None else min(scale, np.float32(high))
    return {"scale": float(scale), "growth_tracker": count, "hysteresis_tracker": max(left, 0)}
