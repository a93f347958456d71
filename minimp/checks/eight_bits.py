"""The contract of FP8 scales between two steps: written a second time, from the definition."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from minimp.checks.findings import Finding, Findings

__all__ = ["check_fp8_scales"]


def check_fp8_scales(recipe: Any, before: Mapping[str, Any], after: Mapping[str, Any]) -> Findings:
    """Check that scales and histories of delayed scaling moved as the rule says.

    With h the history before, h[0] the amax of the step, and a the chosen amax: s' = (max / a) / 2^margin in
    float32, or s where a is 0 or not finite; h' = (0, h[2], h[3], ..., h[0]). Nothing moves where h[0] is 0.

    Args:
        recipe: a :class:`minimp.fp8.DelayedScaling`.
        before, after: as :func:`minimp.fp8.state_dict` gives them.
    """
    wrong = []
    checked = 0
    for path, old in before.items():
        for role in ("input", "weight", "grad"):
            place = f"{path}.{role}"
            history, scale = np.asarray(old[f"{role}.amax_history"]), old[f"{role}.scale"]
            new = after.get(path, {})
            wanted_history, wanted_scale = _moved(recipe, role, history, scale)
            got = np.asarray(new.get(f"{role}.amax_history", ()))
            if not np.array_equal(got, wanted_history, equal_nan=True):
                first = f"slot 0 moved to the end, then 0: {wanted_history[:2]} .. {wanted_history[-2:]}"
                wrong.append(Finding("the history is rotated", first, f"{got[:2]} .. {got[-2:]}", place))
            if new.get(f"{role}.scale") != wanted_scale:
                rule = "the scale is max / amax / 2^margin"
                wrong.append(Finding(rule, repr(wanted_scale), repr(new.get(f"{role}.scale")), place))
            checked += 1
    return Findings(f"{checked} FP8 scales and histories moved by the rule", tuple(wrong), checked=checked)


def _moved(recipe: Any, role: str, history: Any, scale: float) -> tuple[Any, float]:
    """Return the history and the scale of the next step."""
    if history[0] == 0:
        return history, scale
    known = history[~np.isnan(history)]
    amax = known.max(initial=0) if recipe.amax_compute_algo == "max" else history[0]
    if 0 < amax < np.inf:
        with np.errstate(over="ignore"):
            quotient = np.float32(recipe.format_of(role).max * 2.0**-recipe.margin) / np.float32(amax)
        scale = float(min(quotient, np.finfo(np.float32).max))
    return np.array([0, *history[2:], history[0]][: history.size], np.float32), scale
