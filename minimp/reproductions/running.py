"""Runs a reproduction over seeds, and judges it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from minimp.errors import SettingError
from minimp.reproductions.record import Bench, Figure, Judgement, Reproduction, figures_of

__all__ = ["Result", "reproduce"]

MOST_SEEDS = 1000


@dataclass(frozen=True)
class Result:
    """What came of a reproduction: its figures over the seeds, the verdict, each bar's own, and the time."""

    reproduction: Reproduction
    seeds: tuple[int, ...]
    figures: dict[str, Figure]
    verdict: str
    judgements: tuple[Judgement, ...]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        one = self.reproduction
        paper = {name: getattr(one.paper, name) for name in one.paper.__slots__}
        return {
            "name": one.name, "paper": paper, "claim": one.claim, "setting": one.setting,
            "seeds": list(self.seeds), "seconds": self.seconds, "verdict": self.verdict,
            "measures": {
                name: {"unit": one.units[name], "mean": each.mean, "spread": each.spread,
                       "values": list(each.values)}
                for name, each in self.figures.items()
            },
            "criterion": [
                {"what": each.bar.what, "at_least": each.bar.at_least, "limit": each.bar.limit,
                 "weaker": each.bar.weak, "value": each.value, "verdict": each.verdict}
                for each in self.judgements
            ],
        }  # fmt: skip


def reproduce(
    one: Reproduction, bench: Bench, *, seeds: int = 3, tell: Callable[[str, float], None] | None = None
) -> Result:
    """Run a reproduction with the seeds 0 to `seeds` - 1, and judge the means.

    Args:
        one: the reproduction.
        bench: what it runs on.
        seeds: how many; the spread is over them.
        tell: is told the piece of work at hand, and the share of it that is done.

    Raises:
        SettingError: `seeds` is no whole number from 1 to 1000.
    """
    if type(seeds) is not int or not 1 <= seeds <= MOST_SEEDS:
        raise SettingError(
            f"seeds must be a whole number from 1 to {MOST_SEEDS:,}, got {seeds}", op="reproduce"
        )
    start, measured = time.perf_counter(), []
    for seed in range(seeds):
        here = bench if tell is None else replace(bench, tell=_with_seed(tell, seed, seeds))
        measured.append(one.run(seed, here))
    figures = figures_of(measured)
    verdict, judgements = one.judge(measured)
    seconds = time.perf_counter() - start
    return Result(one, tuple(range(seeds)), figures, verdict, judgements, seconds)


def _with_seed(tell: Callable[[str, float], None], seed: int, seeds: int) -> Callable[[str, float], None]:
    return lambda what, done: tell(f"seed {seed + 1} of {seeds}: {what}", done)
