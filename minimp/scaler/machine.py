"""How the loss scale moves: one pure function from a rule, a state and a verdict to the next state.

The verdict is whether any gradient of the step was infinite or NaN. A bad step halves the scale (and the
update is skipped); enough good ones in a row double it::

    bad:   S' = max(S * backoff_factor, min_scale)
    good:  S' = min(S * growth_factor, max_scale)   when growth_interval good steps have followed each other

S stays a power of two when it starts as one and the factors are powers of two, so that scaling and
unscaling round nothing, short of overflow and underflow. (Micikevicius et al. 2018, arXiv 1710.03740,
section 3.2; the arithmetic is that of PyTorch 2.13.0's `_amp_update_scale_`: a float64 product rounded
to float32.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np

from minimp.errors import SettingError, unknown_name

__all__ = ["ScaleRule", "ScaleState", "next_state"]

PRECISIONS = ("float32", "float64")


@dataclass(frozen=True, slots=True)
class ScaleRule:
    """What decides the next scale. The defaults are PyTorch's; the later fields are what others add.

    Attributes:
        init_scale: S at the start; any number but NaN (PyTorch takes 0, negative ones and inf as well).
        growth_factor: what S is multiplied by when it grows; at least 1.
        backoff_factor: what S is multiplied by when it backs off; at most 1.
        growth_interval: how many good steps in a row it takes to grow; below 1: never.
        min_scale: the floor of backing off, or None.
        max_scale: the ceiling of growing, or None.
        hysteresis: back off on this many bad steps in a row, and ride out fewer.
        refill_on_backoff: what happens when the bad steps go on. False: back off on each further one,
            until a good step comes. True: wait for `hysteresis` more.
        stays_finite: growth that would make S infinite leaves it as it is; False lets it become infinite,
            after which every step is bad.
        grows_late: it takes `growth_interval` good steps, and one more.
        smooth: grow a little on every good step, by growth_factor ** (1 / growth_interval).
        until_first_bad: multiply S by this on every good step before the first bad one; None: grow as ever.
        precision: what S is kept in: "float32", or "float64" where it is a Python number.
        max_consecutive_skips: bad steps in a row that are skipped: one more raises; None: any number.

    Raises:
        SettingError: a setting of the wrong type, or one that could not act.
    """

    init_scale: float = 2.0**16
    growth_factor: float = 2.0
    backoff_factor: float = 0.5
    growth_interval: int = 2000
    min_scale: float | None = None
    max_scale: float | None = None
    hysteresis: int = 1
    refill_on_backoff: bool = False
    stays_finite: bool = True
    grows_late: bool = False
    smooth: bool = False
    until_first_bad: float | None = None
    precision: str = "float32"
    max_consecutive_skips: int | None = None

    def __post_init__(self) -> None:
        for name in ("init_scale", "growth_factor", "backoff_factor", *_OPTIONAL):
            value = getattr(self, name)
            if value is not None or name not in _OPTIONAL:
                object.__setattr__(self, name, _number(name, value))
        for name in ("growth_interval", "hysteresis", "max_consecutive_skips"):
            value = getattr(self, name)
            if name == "max_consecutive_skips" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, Integral):
                raise SettingError(f"{name}: expected a whole number, got {value!r}")
        if self.precision not in PRECISIONS:
            raise SettingError(unknown_name("precision", self.precision, PRECISIONS))
        self._check_ranges()

    def _check_ranges(self) -> None:
        wrong = {
            "growth_factor": self.growth_factor < 1 and "at least 1",
            "backoff_factor": self.backoff_factor > 1 and "at most 1",
            "until_first_bad": (self.until_first_bad or 1) < 1 and "at least 1",
            "hysteresis": self.hysteresis < 1 and "at least 1",
            "max_consecutive_skips": (self.max_consecutive_skips or 0) < 0 and "at least 0",
            "min_scale": self.min_scale is not None and not self.min_scale > 0 and "above 0",
            "growth_interval": self.smooth and self.growth_interval < 1 and "at least 1 to grow smoothly",
        }
        if self.smooth and self.grows_late:
            raise SettingError("grows_late cannot act where S grows smoothly, on every good step")
        for name, expected in wrong.items():
            if expected:
                raise SettingError(f"{name}: expected {expected}, got {getattr(self, name)!r}")
        low, high = self.min_scale, self.max_scale
        if low is not None and high is not None and low > high:
            raise SettingError(f"expected min_scale <= max_scale, got {low!r} and {high!r}")
        self.check_scale(self.init_scale, "init_scale")

    def check_scale(self, scale: float, name: str, op: str | None = None) -> float:
        """Return `scale` as a float if it may become the scale: in range, and not NaN.

        Raises:
            SettingError: otherwise; `name` says what the value is, `op` who asks.
        """
        scale = _number(name, scale, op)
        low = -math.inf if self.min_scale is None else self.min_scale
        high = math.inf if self.max_scale is None else self.max_scale
        if not low <= scale <= high:
            raise SettingError(
                f"{name}: expected a scale from {low!r} to {high!r}, got {scale!r}", op=op,
                help="min_scale and max_scale are the range; PyTorch's has no ends",
            )  # fmt: skip
        if math.isfinite(scale) and math.isinf(self.rounded(scale)):
            raise SettingError(
                f"{name}: {scale!r} is infinite in {self.precision}", op=op,
                help="2**127 is the highest power of two in float32; pass float('inf') if that is meant",
            )  # fmt: skip
        return scale

    def rounded(self, scale: float) -> float:
        """Return `scale` rounded to the precision in which it is kept."""
        if self.precision == "float64":
            return float(scale)
        with np.errstate(all="ignore"):  # beyond float32 means infinite, which is an answer
            return float(np.float32(scale))

    def backed_off(self, scale: float) -> float:
        """Return the scale after a bad step that counts."""
        lower = self.rounded(scale * self.backoff_factor)
        return lower if self.min_scale is None else max(lower, self.min_scale)

    def grown(self, scale: float, factor: float) -> float:
        """Return the scale after growing by `factor`, held at the ceiling."""
        higher = self.rounded(scale * factor)
        if self.max_scale is not None:
            higher = min(higher, self.max_scale)
        return scale if self.stays_finite and not math.isfinite(higher) else higher


@dataclass(frozen=True, slots=True)
class ScaleState:
    """All that the next step depends on.

    Attributes:
        scale: S.
        growth_tracker: good steps in a row since S last moved.
        skips: bad steps in a row.
        met_bad: whether there ever was a bad step.
    """

    scale: float
    growth_tracker: int = 0
    skips: int = 0
    met_bad: bool = False


def next_state(rule: ScaleRule, state: ScaleState, found_inf: bool) -> ScaleState:
    """Return the state after a step in which gradients were (`found_inf`) or were not infinite or NaN."""
    if found_inf:
        skips = state.skips + 1
        due = skips % rule.hysteresis == 0 if rule.refill_on_backoff else skips >= rule.hysteresis
        scale = rule.backed_off(state.scale) if due else state.scale
        return ScaleState(scale, growth_tracker=0, skips=skips, met_bad=True)
    scale, tracker = _after_good_step(rule, state)
    return ScaleState(scale, tracker, skips=0, met_bad=state.met_bad)


def _after_good_step(rule: ScaleRule, state: ScaleState) -> tuple[float, int]:
    """Return (scale, growth tracker)."""
    if rule.until_first_bad is not None and not state.met_bad:
        return rule.grown(state.scale, rule.until_first_bad), 0
    if rule.smooth:
        return rule.grown(state.scale, rule.growth_factor ** (1.0 / rule.growth_interval)), 0
    tracker = state.growth_tracker + 1
    if tracker == rule.growth_interval + rule.grows_late:
        return rule.grown(state.scale, rule.growth_factor), 0
    return state.scale, tracker


_OPTIONAL = ("min_scale", "max_scale", "until_first_bad")


def _number(name: str, value: Any, op: str | None = None) -> float:
    """Return a real number as a float; refuse everything else, and NaN."""
    try:
        number = float("nan") if isinstance(value, bool) or not isinstance(value, Real) else float(value)
    except OverflowError:
        number = float("nan")
    if math.isnan(number):
        help_ = "a scale that is NaN never recovers" if isinstance(value, Real) else "pass a float"
        raise SettingError(f"{name}: expected a number, got {value!r}", op=op, help=help_)
    return number
