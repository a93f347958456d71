"""Where two recordings of one program part."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from textwrap import wrap
from typing import Any

import numpy as np

from minimp import formats
from minimp.errors import FormatError, SettingError, unknown_name
from minimp.formats import Format
from minimp.trace.distances import ulp_of
from minimp.trace.events import Side, TraceEvent
from minimp.trace.scales import carried, scales_by_step
from minimp.trace.stores import Kept

__all__ = ["Difference", "Divergence", "divergence"]

WIDTH, SHOWN, MOST_LINES = 100, 12, 3
Read = Callable[[TraceEvent], Kept]
Factors = tuple[float, float]
BY = ("nothing", "statistics", "values")
"""Neither was recorded; extremes and counts of what is not finite, a lower estimate; the elements kept."""
AT = {
    "element": "each element's own, so that what is left of a cancellation counts in full",
    "largest": "the array's largest element's, as the norms do in which two orders of summation agree",
}
"""Where a unit in the last place is taken."""


@dataclass(frozen=True)
class Difference:
    """Two events of one place, and how far their results are apart.

    Attributes:
        ours, theirs: the events.
        ulps: the largest distance of two elements, in units in the last place of the coarser format;
            infinite where one is finite and the other is not. Gradients that carry different loss scales are
            compared as they would be at the larger one.
        by: what was compared of both, the least of what there is for all outputs, of :data:`BY`.
        ours_format, theirs_format: of the output that differs most.
        name: of that output of a stage: the parameter's or tensor's name.
    """

    ours: TraceEvent
    theirs: TraceEvent
    ulps: float
    by: str
    ours_format: str
    theirs_format: str
    name: str = ""


@dataclass(frozen=True)
class Divergence:
    """Two traces side by side.

    Attributes:
        pairs: the events of both, in order, with their distance.
        only_ours, only_theirs: events without a partner (casts, where the recipes differ).
        ulps: so far apart two results may be and count as the same.
        at: where a unit in the last place is taken, a key of :data:`AT`.
    """

    pairs: tuple[Difference, ...]
    only_ours: tuple[TraceEvent, ...]
    only_theirs: tuple[TraceEvent, ...]
    ulps: float
    at: str = "element"

    @property
    def first(self) -> Difference | None:
        """The first pair that is further apart than `ulps`, or None."""
        return next((pair for pair in self.pairs if pair.ulps > self.ulps), None)

    @property
    def unknown(self) -> tuple[Difference, ...]:
        """The pairs of which results were not compared: recorded without statistics, or not chosen."""
        return tuple(pair for pair in self.pairs if pair.by == "nothing")

    @property
    def same(self) -> bool:
        """Whether everything has a partner, was compared, and none is further apart than `ulps`."""
        return not (self.first or self.only_ours or self.only_theirs or self.unknown)

    def __str__(self) -> str:
        head = f"{len(self.pairs) - len(self.unknown):,} events side by side"
        first = self.first
        if first is None:
            lines = [f"{head}: none further apart than {self.ulps:g} ulp"]
        else:
            apart = [pair for pair in self.pairs if pair.ulps > self.ulps]
            lines = [f"{head}, {len(apart):,} further apart than {self.ulps:g} ulp; the first:"]
            lines += [_line(pair) for pair in apart[:1]]
            far = sorted(apart, key=lambda pair: -pair.ulps)[:SHOWN]
            lines += ["the farthest:", *(_line(pair) for pair in far)]
        if self.at == "largest":
            lines.append("an ulp is that of the array's largest element")
        if self.unknown:
            lines.append(f"{len(self.unknown):,} more were not compared: they have no statistics in both")
        for whose, events in (("ours", self.only_ours), ("theirs", self.only_theirs)):
            if events:
                names = dict.fromkeys(_titled(event) for event in events)
                lines += wrap(f"only in {whose}: {len(events):,} events: {', '.join(names)}", WIDTH,
                              subsequent_indent="  ", max_lines=MOST_LINES, placeholder=" ...")  # fmt: skip
        return "\n".join(line if len(line) <= WIDTH else line[: WIDTH - 3] + "..." for line in lines)


def _titled(event: TraceEvent) -> str:
    return f"{event.title} in {event.module}" if event.module else event.title


def _line(pair: Difference) -> str:
    kinds = dict.fromkeys((pair.ours_format, pair.theirs_format))
    about = "" if pair.by == "values" else " by statistics"
    where = f"#{pair.ours.number} {pair.ours.title} in {pair.name or pair.ours.where}"
    return f"  {where}: {pair.ulps:.4g} ulp{about} ({' and '.join(kinds)})"


def divergence(
    ours: Sequence[TraceEvent], theirs: Sequence[TraceEvent], read_ours: Read, read_theirs: Read, ulps: float,
    at: str,
) -> Divergence:  # fmt: skip
    """Put two traces side by side; see :meth:`minimp.trace.Trace.diff`."""
    if at not in AT:
        raise SettingError(unknown_name("place of a unit", at, AT), op="trace.diff")
    pairs, matched = [], (set[int](), set[int]())
    scales = scales_by_step(ours), scales_by_step(theirs)
    for i, j in _aligned([_key(e) for e in ours], [_key(e) for e in theirs]):
        matched[0].add(i)
        matched[1].add(j)
        factors = _factors(_scale(ours[i], scales[0]), _scale(theirs[j], scales[1]))
        pairs.append(_compared(ours[i], theirs[j], read_ours(ours[i]), read_theirs(theirs[j]), factors, at))
    return Divergence(
        tuple(pairs),
        tuple(event for i, event in enumerate(ours) if i not in matched[0]),
        tuple(event for j, event in enumerate(theirs) if j not in matched[1]),
        ulps, at,
    )  # fmt: skip


def _key(event: TraceEvent) -> tuple[Any, ...]:
    """Return what pairs events; gradients go by the one that arrives: not all make one for every input."""
    sides = event.inputs[:1] if event.phase == "backward" else event.outputs
    return event.phase, event.op, event.module, tuple(s and s.shape for s in sides)


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


def _compared(
    ours: TraceEvent, theirs: TraceEvent, a: Kept, b: Kept, factors: Factors, at: str
) -> Difference:  # fmt: skip
    found: list[tuple[float, str, Side, Side]] = []
    for i, (mine, other) in enumerate(zip(ours.outputs, theirs.outputs, strict=False)):
        if mine is None or other is None:
            continue
        one, two = a.get(f"out{i}"), b.get(f"out{i}")
        if one is not None and two is not None and one.shape == two.shape:
            distance, by = _by_values(one, two, _coarser(mine, other), factors, at), "values"
        elif mine.stats is None or other.stats is None:
            distance, by = 0.0, "nothing"
        else:
            distance, by = _by_statistics(mine, other, factors, at), "statistics"
        found.append((distance, by, mine, other))
    if not found:
        return Difference(ours, theirs, 0.0, "values", "", "")
    worst, _, mine, other = max(found, key=lambda each: each[0])
    least = min((by for _, by, *_ in found), key=BY.index)
    return Difference(ours, theirs, worst, least, mine.format, other.format, mine.name)


def _coarser(mine: Side, other: Side) -> Format | None:
    try:
        found = [formats.get(mine.format), formats.get(other.format)]
    except FormatError:  # integers
        return None
    return min(found, key=lambda fmt: fmt.mantissa_bits)


def _by_values(one: Any, two: Any, fmt: Format | None, factors: Factors, at: str) -> float:
    x, y = one.astype(np.float64) * factors[0], two.astype(np.float64) * factors[1]
    same = (x == y) | (np.isnan(x) & np.isnan(y))
    if same.all():
        return 0.0
    if fmt is None or not (np.isfinite(x) & np.isfinite(y))[~same].all():
        return float("inf")
    sizes = np.maximum(np.abs(x), np.abs(y))
    if at == "largest":  # what is not finite is the same in both
        sizes = np.full_like(sizes, sizes[np.isfinite(sizes)].max())
    return float((np.abs(x - y)[~same] / ulp_of(sizes[~same], fmt)).max())


def _by_statistics(mine: Side, other: Side, factors: Factors, at: str) -> float:
    """Return a lower estimate: how far extremes and means are apart."""
    a, b = mine.stats, other.stats
    assert a is not None
    assert b is not None
    if (a.nan, a.inf) != (b.nan, b.inf):
        return float("inf")
    ends = [(x, y) for x, y in ((a.min, b.min), (a.max, b.max)) if x is not None and y is not None]
    if not ends:
        return 0.0
    x, y = np.array(ends).T
    return _by_values(x, y, _coarser(mine, other), factors, at)
