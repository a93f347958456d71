"""The contract of the loss scale: how it may move after a step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from minimp.checks.findings import Finding, Findings

__all__ = ["check_scale_transition"]

SETTINGS: dict[str, Any] = {
    "growth_factor": 2.0,
    "backoff_factor": 0.5,
    "growth_interval": 2000,
    "min_scale": None,
    "max_scale": None,
    "hysteresis": 1,
    "refill_on_backoff": False,
    "stays_finite": True,
    "grows_late": False,
    "smooth": False,
    "until_first_bad": None,
    "precision": "float32",
}
"""What a rule may say, and what it says if it does not: torch.amp.GradScaler 2.13's settings."""

COUNTS: dict[str, Any] = {"growth_tracker": 0, "skips": 0, "met_bad": False}


def check_scale_transition(
    rule: Any, before: Mapping[str, Any], after: Mapping[str, Any], found_inf: bool
) -> Findings:
    """Check one move of the loss scale against the rule, which is stated here a second time.

    A bad step backs off, S <- max(S backoff_factor, min_scale), once `hysteresis` bad steps have followed
    each other. A good step counts; the growth_interval-th in a row grows, S <- min(S growth_factor,
    max_scale), unless that is infinite, and the count begins again. (torch.amp.GradScaler 2.13; what
    other libraries add is described at :class:`minimp.scaler.ScaleRule`.)

    Args:
        rule: a mapping, or an object with attributes, of the names in :data:`SETTINGS`; what it lacks has
            torch's value.
        before, after: the state: scale, growth_tracker and, if kept, skips and met_bad; names may begin with
            an underscore, as in state dicts.
        found_inf: whether the step's gradients were not finite.
    """
    settings = {name: _read(rule, name, default) for name, default in SETTINGS.items()}
    old = {name: _read(before, name, default) for name, default in COUNTS.items()}
    wanted = _next(settings, {**old, "scale": _read(before, "scale", None)}, found_inf)
    moved = {name: _read(after, name, None) for name in wanted}
    wrong = tuple(
        Finding("moves as the rule says", repr(value), repr(moved[name]), name)
        for name, value in wanted.items()
        if (moved[name] is not None or name == "scale") and moved[name] != value
    )
    step = "after a bad step" if found_inf else "after a good step"
    claim = f"the loss scale moves {step} from {before['scale']!r} to {after.get('scale')!r}"
    return Findings(claim, wrong, checked=len(wanted))


def _next(by: Mapping[str, Any], old: Mapping[str, Any], found_inf: bool) -> dict[str, Any]:
    scale, good, bad = float(old["scale"]), int(old["growth_tracker"]), int(old["skips"])
    if found_inf:
        bad += 1
        waited = bad % by["hysteresis"] == 0 if by["refill_on_backoff"] else bad >= by["hysteresis"]
        if waited:
            scale = max(_kept(scale * by["backoff_factor"], by), _limit(by["min_scale"], -math.inf))
        return {"scale": scale, "growth_tracker": 0, "skips": bad, "met_bad": True}
    factor, good = by["growth_factor"], good + 1
    if by["until_first_bad"] is not None and not old["met_bad"]:
        factor, good = by["until_first_bad"], 0
    elif by["smooth"]:
        factor, good = factor ** (1.0 / by["growth_interval"]), 0
    elif good == by["growth_interval"] + by["grows_late"]:
        good = 0
    else:
        factor = 1.0
    if factor != 1.0:
        grown = min(_kept(scale * factor, by), _limit(by["max_scale"], math.inf))
        scale = grown if math.isfinite(grown) or not by["stays_finite"] else scale
    return {"scale": scale, "growth_tracker": good, "skips": 0, "met_bad": bool(old["met_bad"])}


def _kept(scale: float, by: Mapping[str, Any]) -> float:
    """Return the scale in the precision that it is kept in."""
    with np.errstate(all="ignore"):
        return float(np.float32(scale)) if by["precision"] == "float32" else scale


def _limit(value: float | None, none: float) -> float:
    return none if value is None else value


def _read(source: Any, name: str, default: Any) -> Any:
    """Read an entry or attribute, with or without an underscore in front."""
    for each in (name, f"_{name}"):
        if isinstance(source, Mapping):
            if each in source:
                return source[each]
        elif hasattr(source, each):
            return getattr(source, each)
    return default
