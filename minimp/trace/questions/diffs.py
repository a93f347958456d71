"""Where two recordings of one program part."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

import numpy as np

from minimp import formats
from minimp.errors import FormatError
from minimp.formats import Format
from minimp.trace.distances import ulp_of
from minimp.trace.events import Side, TraceEvent
from minimp.trace.scales import carried, scales_by_step
from minimp.trace.stores import Kept

__all__ = ["Difference", "Divergence", "divergence"]

WIDTH, SHOWN = 100, 12
Read = Callable[[TraceEvent], Kept]
Factors = tuple[float, float]


@dataclass(frozen=True)
class Difference:
    """Two events of one place, and how far their results are apart.

    Attributes:
        ours, theirs: the events.
        ulps: the largest distance of two elements, in units in the last place of the coarser format;
            infinite where one is finite and the other is not. Gradients that carry different loss scales are
            compared as they would be at the larger one.
        by: "values" if all elements were compared, "statistics" if only extremes and counts were there.
        ours_format, theirs_format: of the output that differs most.
    """

    ours: TraceEvent
    theirs: TraceEvent
    ulps: float
    by: str
    ours_format: str
    theirs_format: str


@dataclass(frozen=True)
class Divergence:
    """Two traces side by side.

    Attributes:
        pairs: the events of both, in order, with their distance.
        only_ours, only_theirs: events without a partner (casts, where the recipes differ).
        ulps: so far apart two results may be and count as the same.
    """

    pairs: tuple[Difference, ...]
    only_ours: tuple[TraceEvent, ...]
    only_theirs: tuple[TraceEvent, ...]
    ulps: float

    @property
    def first(self) -> Difference | None:
        """The first pair that is further apart than `ulps`, or None."""
        return next((pair for pair in self.pairs if pair.ulps > self.ulps), None)

    @property
    def same(self) -> bool:
        """Whether everything has a partner, and none is further apart than `ulps`."""
        return self.first is None and not self.only_ours and not self.only_theirs

    def __str__(self) -> str:
        head = f"{len(self.pairs):,} events side by side"
        first = self.first
        if first is None:
            lines = [f"{head}: none further apart than {self.ulps:g} ulp"]
        else:
            apart = [pair for pair in self.pairs if pair.ulps > self.ulps]
            lines = [f"{head}, {len(apart):,} further apart than {self.ulps:g} ulp; the first:"]
            lines += [_line(pair) for pair in apart[:1]]
            far = sorted(apart, key=lambda pair: -pair.ulps)[:SHOWN]
            lines += ["the farthest:", *(_line(pair) for pair in far)]
        for whose, events in (("ours", self.only_ours), ("theirs", self.only_theirs)):
            if events:
                names = sorted({event.title for event in events})
                lines.append(f"only in {whose}: {len(events):,} events ({', '.join(names)})")
        return "\n".join(line if len(line) <= WIDTH else line[: WIDTH - 3] + "..." for line in lines)


def _line(pair: Difference) -> str:
    kinds = dict.fromkeys((pair.ours_format, pair.theirs_format))
    about = "" if pair.by == "values" else " by statistics"
    where = f"#{pair.ours.number} {pair.ours.title} in {pair.ours.where}"
    return f"  {where}: {pair.ulps:.4g} ulp{about} ({' and '.join(kinds)})"


def divergence(
    ours: Sequence[TraceEvent], theirs: Sequence[TraceEvent], read_ours: Read, read_theirs: Read, ulps: float
) -> Divergence:
    """Put two traces side by side; see :meth:`minimp.trace.Trace.diff`."""
    pairs, matched = [], (set[int](), set[int]())
    scales = scales_by_step(ours), scales_by_step(theirs)
    for i, j in _aligned([_key(e) for e in ours], [_key(e) for e in theirs]):
        matched[0].add(i)
        matched[1].add(j)
        factors = _factors(_scale(ours[i], scales[0]), _scale(theirs[j], scales[1]))
        pairs.append(_compared(ours[i], theirs[j], read_ours(ours[i]), read_theirs(theirs[j]), factors))
    return Divergence(
        tuple(pairs),
        tuple(event for i, event in enumerate(ours) if i not in matched[0]),
        tuple(event for j, event in enumerate(theirs) if j not in matched[1]),
        ulps,
    )


def _key(event: TraceEvent) -> tuple[Any, ...]:
    return event.phase, event.op, event.module, tuple(s and s.shape for s in event.outputs)


def _aligned(ours: Sequence[Any], theirs: Sequence[Any]) -> Iterator[tuple[int, int]]:
    if list(ours) == list(theirs):
        yield from zip(range(len(ours)), range(len(theirs)), strict=True)
        return
    for i, j, size in SequenceMatcher(None, ours, theirs, autojunk=False).get_matching_blocks():
        yield from zip(range(i, i + size), range(j, j + size), strict=True)


def _scale(event: TraceEvent, by_step: Mapping[int, float]) -> float:
    """Return the loss scale that the results of an event carry."""
    if (
        event.phase == "backward"
        or (event.phase == "forward" and event.facts)
        or (event.phase == "stage" and event.op in ("backward", "scale_loss"))
    ):
        return carried(event, by_step)
    return 1.0


def _factors(ours: float, theirs: float) -> Factors:
    """Return what brings results to the larger of two loss scales; a scale of 0 is left alone."""
    if ours == theirs or not (0 < ours < np.inf and 0 < theirs < np.inf):
        return 1.0, 1.0
    common = max(ours, theirs)
    return common / ours, common / theirs


def _compared(ours: TraceEvent, theirs: TraceEvent, a: Kept, b: Kept, factors: Factors) -> Difference:
    worst, by, names = -1.0, "values", ("", "")
    for i, (mine, other) in enumerate(zip(ours.outputs, theirs.outputs, strict=False)):
        if mine is None or other is None:
            continue
        one, two = a.get(f"out{i}"), b.get(f"out{i}")
        if one is not None and two is not None and one.shape == two.shape:
            distance = _by_values(one, two, _coarser(mine, other), factors)
        else:
            distance, by = _by_statistics(mine, other, factors), "statistics"
        if distance > worst:
            worst, names = distance, (mine.format, other.format)
    return Difference(ours, theirs, max(worst, 0.0), by, *names)


def _coarser(mine: Side, other: Side) -> Format | None:
    try:
        found = [formats.get(mine.format), formats.get(other.format)]
    except FormatError:  # integers
        return None
    return min(found, key=lambda fmt: fmt.mantissa_bits)


def _by_values(one: Any, two: Any, fmt: Format | None, factors: Factors) -> float:
    x, y = one.astype(np.float64) * factors[0], two.astype(np.float64) * factors[1]
    same = (x == y) | (np.isnan(x) & np.isnan(y))
    if same.all():
        return 0.0
    x, y = x[~same], y[~same]
    if fmt is None or not (np.isfinite(x) & np.isfinite(y)).all():
        return float("inf")
    return float((np.abs(x - y) / ulp_of(np.maximum(np.abs(x), np.abs(y)), fmt)).max())


def _by_statistics(mine: Side, other: Side, factors: Factors) -> float:
    """Return a lower estimate: how far extremes and means are apart."""
    a, b = mine.stats, other.stats
    if a is None or b is None:
        return 0.0
    if (a.nan, a.inf) != (b.nan, b.inf):
        return float("inf")
    ends = [(x, y) for x, y in ((a.min, b.min), (a.max, b.max)) if x is not None and y is not None]
    if not ends:
        return 0.0
    x, y = np.array(ends).T
    return _by_values(x, y, _coarser(mine, other), factors)
