"""How a loss scale fares: a word for it, and what is said aloud when it is in trouble.

A skipped step is how a scale finds its height, and nothing to speak of. What is worth a warning is a scale
that skipping does not help::

    stuck at the floor   S <= min_scale, and STUCK_AFTER bad steps in a row since it got there
    collapsing           0 < S < 1, and it backed off to there; without a floor
    stuck                STUCK_ANYWHERE bad steps in a row, wherever S is
    dead                 S = 0: finite gradients are divided by it, and weights become NaN (in PyTorch too);
                         S infinite: every step is bad

At S = 1 the gradients are those of the unscaled loss, so that what still overflows below it does so for
another reason: the weights, the data or the loss itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from minimp.scaler.machine import ScaleRule, ScaleState
from minimp.scaler.naming import listing

__all__ = ["STUCK_AFTER", "STUCK_ANYWHERE", "ScaleHealth", "Watch", "alarm", "health_of", "watched"]

STUCK_AFTER = 5
"""Bad steps in a row at the floor. If one batch in ten overflowed by chance, five did so once in 100,000."""

STUCK_ANYWHERE = 25
"""Bad steps in a row anywhere. The highest start of any library is 2^32; halved 25 times it is 128, lower
than most models need: a run that is still looking for its height is left in peace."""

LOWEST_FLOOR = 2.0**-24
"""Float16's smallest number: a floor below it, as Flax's 2^-126, comes too late to be one."""

HELP = {
    "stuck at the floor": (
        "a lower scale would not help: look for NaN in the data or the loss, lower the learning rate, "
        "or compute what overflows in float32"
    ),
    "collapsing": (
        "at 1 gradients are those of the loss itself, so less will not help: look for NaN in the data or the "
        "loss, lower the learning rate, and set min_scale=1.0"
    ),
    "stuck": (
        "look for NaN in the data or the loss; a scale that is static, or backs off slowly, may be too high; "
        "max_consecutive_skips=n raises an error instead"
    ),
    "dead": (
        "nothing recovers from this: go back to an earlier checkpoint, whose scale is finite and above 0, "
        "and set min_scale=1.0 and max_scale=2.0**24"
    ),
}  # fmt: skip
"""What to do next; the words that are in here are the alarming ones."""


@dataclass(frozen=True, slots=True)
class ScaleHealth:
    """How a scale fares.

    Attributes:
        word: "ok": the last step was good. "backing off": it was bad, as happens. "stuck", "stuck at the
            floor", "collapsing", "dead": see :mod:`minimp.scaler.health`.
        scale: S.
        skips: bad steps in a row.
        floor_skips: as many of them as came at the floor.
    """

    word: str
    scale: float
    skips: int = 0
    floor_skips: int = 0

    @property
    def alarming(self) -> bool:
        """Whether it is worth a warning."""
        return self.word in HELP

    def __str__(self) -> str:
        """Say it in one line."""
        return self.told("")

    def told(self, about: str) -> str:
        """Say it in one line, with more about the scale."""
        steps = f"the last {self.skips} steps were" if self.skips > 1 else "the last step was"
        return f"{self.word}: loss scale {self.scale:g}{about}" + (f"; {steps} bad" if self.skips else "")


@dataclass(frozen=True, slots=True)
class Watch:
    """What is kept to tell trouble once: it is no part of the scale's state, and not saved.

    Attributes:
        floor_skips: bad steps in a row that began at the floor.
        told: the alarming words of this episode, which ends with the first word that is not alarming.
    """

    floor_skips: int = 0
    told: frozenset[str] = frozenset()


def watched(watch: Watch, rule: ScaleRule, before: ScaleState, after: ScaleState) -> Watch:
    """Return the watch after a step; what is newly in `told` is to be told."""
    at_floor = rule.min_scale is not None and before.scale <= rule.min_scale
    floor_skips = watch.floor_skips + 1 if after.skips and at_floor else 0
    word = health_of(rule, after, floor_skips).word
    return Watch(floor_skips, watch.told | {word} if word in HELP else frozenset())


def health_of(rule: ScaleRule, state: ScaleState, floor_skips: int) -> ScaleHealth:
    """Return how a scale fares: the worst word that fits."""
    size = abs(state.scale)
    has_floor = rule.min_scale is not None and rule.min_scale >= LOWEST_FLOOR
    words = {
        "dead": size == 0.0 or math.isinf(size),
        "stuck at the floor": floor_skips >= STUCK_AFTER,
        "collapsing": size < 1.0 and state.met_bad and rule.backoff_factor < 1.0 and not has_floor,
        "stuck": state.skips >= STUCK_ANYWHERE,
        "backing off": state.skips > 0,
    }
    word = next((word for word, fits in words.items() if fits), "ok")
    return ScaleHealth(word, state.scale, state.skips, floor_skips)


def alarm(health: ScaleHealth, rule: ScaleRule, nonfinite: Iterable[str]) -> str:
    """Return the text of a warning: what happened, where, and what to do next."""
    about = {
        "stuck at the floor": f", as low as min_scale={rule.min_scale!r} lets it go",
        "collapsing": ", with nothing to stop it on the way to 0",
    }
    names = listing(nonfinite)
    seen = f": not finite in {names}" if names else ""
    return f"{health.told(about.get(health.word, ''))}{seen}\n  help: {HELP[health.word]}"
