"""What a reproduction is: a claim, a setting, bars written before measuring, and how they are judged."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from minimp.data import TrainTest
from minimp.errors import SettingError

__all__ = ["Bar", "Bench", "Figure", "Judgement", "Measures", "Paper", "Reproduction", "figures_of"]

Measures = Mapping[str, float]
"""What is measured -> its figure, of one seed."""
VERDICTS = ("reproduced", "weaker", "not reproduced")


@dataclass(frozen=True, slots=True)
class Paper:
    """Where a claim comes from."""

    authors: str
    year: int
    title: str
    arxiv: str
    section: str

    def __str__(self) -> str:
        return f"{self.authors} {self.year}, {self.title} (arXiv {self.arxiv}, {self.section})"


@dataclass(frozen=True)
class Bar:
    """A bar: a figure made of a seed's measures, and the limit that its mean over the seeds must keep.

    Attributes:
        what: the figure in words, with its unit.
        figure: makes it of one seed's measures, so that misses to either side do not cancel.
        limit: it must be at least, or at most, this for "reproduced".
        weak: the limit at which the effect is still there, for "weaker"; None: the limit itself.
        at_least: which side of the limit is the good one.
    """

    what: str
    figure: Callable[[Measures], float]
    limit: float
    weak: float | None = None
    at_least: bool = True

    def __post_init__(self) -> None:
        if self.weak is not None and (self.weak > self.limit if self.at_least else self.weak < self.limit):
            raise SettingError(f"bar {self.what!r}: the limit for 'weaker' is stricter than the limit")

    def __str__(self) -> str:
        weak = "" if self.weak is None else f" (weaker: {self.weak:g})"
        return f"{self.what} {'>=' if self.at_least else '<='} {self.limit:g}{weak}"

    def judge(self, measured: Sequence[Measures]) -> Judgement:
        """Return how the figure's mean over the seeds stands to the limits; NaN keeps none."""
        value = sum(map(self.figure, measured)) / len(measured)
        weak = self.limit if self.weak is None else self.weak
        kept = [value >= each if self.at_least else value <= each for each in (self.limit, weak)]
        return Judgement(self, value, VERDICTS[kept.index(True) if True in kept else 2])


@dataclass(frozen=True, slots=True)
class Judgement:
    """A bar, the figure that was found, and what it comes to: one of the three verdicts."""

    bar: Bar
    value: float
    verdict: str


@dataclass(frozen=True, slots=True)
class Figure:
    """A measure over the seeds: mean and sample standard deviation (NaN of one seed)."""

    mean: float
    spread: float
    values: tuple[float, ...]


@dataclass(frozen=True)
class Bench:
    """What a reproduction runs on.

    Attributes:
        data: training and test part, for those that train.
        share: of the steps, or of the numbers, that the setting says; below 1 only in tests, where no verdict
            is meant.
        tell: is told each piece of work in a few words, and how far it has come (0 to 1).
    """

    data: TrainTest
    share: float = 1.0
    tell: Callable[[str, float], None] = field(default=lambda _what, _done: None)

    def part(self, count: int, least: int = 1) -> int:
        """Return a count of the setting, by the share."""
        return max(least, math.ceil(count * self.share))


@dataclass(frozen=True)
class Reproduction:
    """One claim of one paper, made small.

    Attributes:
        name: how it is called.
        paper: where the claim stands.
        claim: what the paper says.
        setting: what is done here in its place.
        units: measure -> its unit; the order of the table.
        criterion: the bars, all of which must be kept.
        run: measures for a seed.
        trains: whether the data set matters.
    """

    name: str
    paper: Paper
    claim: str
    setting: str
    units: Mapping[str, str]
    criterion: tuple[Bar, ...]
    run: Callable[[int, Bench], Measures]
    trains: bool = True

    def judge(self, measured: Sequence[Measures]) -> tuple[str, tuple[Judgement, ...]]:
        """Return the verdict on the measures of the seeds, the worst of the bars', and each bar's own."""
        found = tuple(bar.judge(measured) for bar in self.criterion)
        return max((each.verdict for each in found), key=VERDICTS.index), found


def figures_of(measured: Sequence[Measures]) -> dict[str, Figure]:
    """Return mean and spread of each measure over the seeds.

    >>> figures_of([{"loss": 1.0}, {"loss": 3.0}])["loss"].mean
    2.0
    """
    if not measured:
        raise SettingError("expected the measures of at least one seed")
    made = {}
    for name in measured[0]:
        values = tuple(each[name] for each in measured)
        finite = len(values) > 1 and all(map(math.isfinite, values))
        spread = statistics.stdev(values) if finite else math.nan
        made[name] = Figure(sum(values) / len(values), spread, values)
    return made
