"""Runs of verdicts, followed by a preset of minimp's and by the library that it is named after."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minimp.frameworks.judging import judged
from minimp.frameworks.results import Row
from minimp.scaler import GradScaler

__all__ = ["Family", "followed", "good_and_bad", "mixed", "verdict_row"]

Verdicts = Callable[[np.random.Generator], list[bool]]
"""Draws verdicts: True is a bad step, with a gradient that is infinite or NaN."""
State = tuple[float, int]
"""The scale, and the good steps counted since it last moved."""


@dataclass(frozen=True)
class Family:
    """One kind of run.

    Attributes:
        name: how a report calls it.
        verdicts: draws the verdicts.
        settings: of the preset, by the names of :class:`minimp.scaler.ScaleRule`.
    """

    name: str
    verdicts: Verdicts
    settings: Mapping[str, Any] = field(default_factory=dict)


def good_and_bad(*runs: tuple[int, int], times: int = 1) -> Verdicts:
    """Return so many good steps and then so many bad ones, for each pair, several times over."""
    verdicts = [bad for good, poor in runs for bad in [False] * good + [True] * poor] * times
    return lambda _: verdicts


def mixed(steps: int, worst: float) -> Verdicts:
    """Return what draws verdicts in stretches of 25, each with a share of bad ones of at most `worst`."""

    def draw(rng: np.random.Generator) -> list[bool]:
        shares = np.repeat(rng.uniform(0.0, worst, -(-steps // 25)), 25)[:steps]
        return [bool(bad) for bad in rng.random(steps) < shares]

    return draw


def followed(scaler: GradScaler, verdicts: Sequence[bool]) -> list[State]:
    """Return the states of one of our scalers after each verdict."""
    states = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a scale that collapses, which is meant
        for bad in verdicts:
            scaler.advance(bad)
            states.append((scaler.get_scale(), scaler.state.growth_tracker))
    return states


def verdict_row(
    framework: str, section: str, subject: str, family: Family,
    ours: Sequence[State], theirs: Sequence[State], verdicts: Sequence[bool],
) -> Row:  # fmt: skip
    """Return a row: all states, or the first that differ."""
    pairs = list(zip(ours, theirs, strict=True))
    at = next((i for i, (mine, other) in enumerate(pairs) if mine != other), len(pairs) - 1)
    told = [f"S = {scale:.9g}, counter {count} after step {at + 1:,}" for scale, count in pairs[at]]
    return judged(
        framework, section, subject, family.name, *told,
        agrees=pairs[at][0] == pairs[at][1],
        figures={"steps": at + 1, "skips": sum(verdicts[: at + 1])},
    )  # fmt: skip
