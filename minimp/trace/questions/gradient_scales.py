"""What gradients would lose at every power-of-two loss scale.

A loss scale 2^k moves every gradient by k binades, exactly, until it leaves the format: so a histogram by
binades tells what each scale would do (Micikevicius et al. 2018, "Mixed Precision Training", arXiv
1710.03740, figure 3). Three thresholds lie inside of a binade; how many values are beyond them is counted in
:attr:`minimp.trace.Stats.cuts`, and makes the counts exact: those of rounding the recorded numbers, times
2^k, to nearest even.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import frexp, log2
from typing import Any

from minimp import formats
from minimp.errors import SettingError
from minimp.formats import Format
from minimp.trace.events import TraceEvent
from minimp.trace.questions.scale_plot import plot_fates
from minimp.trace.questions.tables import share
from minimp.trace.scales import carried, scales_by_step
from minimp.trace.statistics import Cuts, Stats, cuts_of

__all__ = ["Fate", "GradientScales", "ScaledGradients", "gradients_at_scales"]

WIDTH, BAR, SHOWN = 100, 30, 20
Binades = Counter[int]
WIDE = (formats.float16, formats.bfloat16)
"""What wide gradients are asked to fit."""


@dataclass(frozen=True, slots=True)
class Fate:
    """What one scale does to gradients, as counts of elements.

    Attributes:
        flushed: of those that are not 0, how many would be.
        subnormal: how many would be kept with fewer digits.
        overflowed: how many would be infinite.
    """

    flushed: int
    subnormal: int
    overflowed: int


@dataclass(frozen=True)
class ScaledGradients:
    """Gradients of one place, as they are at a loss scale of 1.

    Attributes:
        name: the parameter, or the module and op.
        format: the format that they must fit.
        elements: how many there are.
        nonzero: of those, how many were finite and not 0 when they were recorded.
        lost: those that were 0 or infinite already, having been made so by a rounding on the way.
        binades: exponent -> count.
        cuts: see :data:`minimp.trace.statistics.Cuts`.
    """

    name: str
    format: Format
    elements: int
    nonzero: int
    lost: int
    binades: dict[int, int]
    cuts: Cuts

    def at(self, power: int) -> Fate:
        """Return what a loss scale of 2^power does."""
        return _fate(self.binades, self.cuts, self.format, power)

    @property
    def span(self) -> tuple[int, int]:
        """From the power at which nearly all is flushed to that at which nearly all overflows."""
        if not self.binades:
            return 0, 0
        low, high = min(self.binades), max(self.binades)
        bottom, top = round(log2(self.format.smallest_subnormal)), frexp(self.format.max)[1] - 1
        return bottom - 2 - high, top + 1 - low

    def powers(self, *, normal: bool = False) -> tuple[int, int] | None:
        """Return the smallest and the largest power of two that loses nothing; None if there is none, or
        nothing that it could lose.

        Args:
            normal: subnormal numbers count as a loss too.
        """
        if not self.binades:
            return None
        low, high = self.span
        good = [
            power
            for power in range(low, high + 1)
            if not ((fate := self.at(power)).flushed or fate.overflowed or (normal and fate.subnormal))
        ]
        return (good[0], good[-1]) if good else None


@dataclass(frozen=True)
class GradientScales:
    """What gradients would lose at every power-of-two loss scale.

    Attributes:
        rows: one for each place.
        total: all of them together.
        used: the loss scales that the recorded steps used.
        source: "recorded", the numbers as they were rounded, or "shadow", as they would be in float64.
    """

    rows: tuple[ScaledGradients, ...]
    total: ScaledGradients
    used: tuple[float, ...]
    source: str

    def at(self, power: int) -> Fate:
        """Return what a loss scale of 2^power does to all of them."""
        return self.total.at(power)

    def powers(self, *, normal: bool = False) -> tuple[int, int] | None:
        """Return the range of powers of two that lose nothing of any gradient, or None."""
        return self.total.powers(normal=normal)

    def table(self) -> list[tuple[int, Fate]]:
        """Return (power, what it does) for each power between losing everything on either side."""
        low, high = self.total.span
        return [(power, self.at(power)) for power in range(low, high + 1)]

    def plot(self, ax: Any = None) -> Any:
        """Draw the table: a bar for each power of two, in shares of all gradients; return the Axes.

        Args:
            ax: the matplotlib Axes to draw on; None makes a figure of pyplot's.

        Raises:
            SettingError: there is no gradient to draw; or matplotlib is not installed.
        """
        whole, form = self.total.nonzero, self.total.format.name
        if not whole:
            raise SettingError("all gradients were 0 or not finite", op="trace.gradients_at_scales")
        title = f"{whole:,} gradients in {form} at each loss scale ({self.source})"
        return plot_fates(self.table(), whole, title, used=self.used, good=self.powers(), ax=ax)

    def __str__(self) -> str:
        total = self.total
        head = (
            f"{total.nonzero:,} non-zero gradients in {total.format.name} at loss scale 2^k ({self.source})"
        )
        if not total.nonzero:
            return f"{head}: no scale can be told from them\n  {self._lost_text()}".rstrip()
        lines = [head, f"{'k':>5} {'flushed':>9} {'subnormal':>10} {'overflow':>9}"]
        rows = self._worth_showing()
        for power, fate in rows:
            parts = (fate.flushed, fate.subnormal, fate.overflowed)
            cells = " ".join(f"{share(part, total.nonzero):{width}.2%}"
                             for part, width in zip(parts, (9, 10, 9), strict=True))  # fmt: skip
            lines.append(f"{power:5} {cells}  {_bar(fate, total.nonzero)}".rstrip())
        lines.append("  .: flushed to 0   -: subnormal   #: kept whole   !: overflow")
        lines.append(f"  {_range_text('nothing is lost', self.powers())}; "
                     f"{_range_text('all stay normal', self.powers(normal=True))}")  # fmt: skip
        if self.used:
            lines.append(f"  recorded at {', '.join(f'{scale:g}' for scale in self.used[:8])}")
        if total.lost:
            lines.append(f"  {self._lost_text()}")
        width = max((len(row.name) for row in self.rows), default=0)
        for row in self.rows[:SHOWN]:
            name = row.name if width <= 60 else row.name[-60:]
            lines.append(f"  {name:{min(width, 60)}}  {_range_text('', row.powers())}")
        if len(self.rows) > SHOWN:
            lines.append(f"  ... and {len(self.rows) - SHOWN} more")
        return "\n".join(lines)

    def _lost_text(self) -> str:
        lost = self.total.lost
        return f"{lost:,} more were lost before they were recorded; the shadow has them" if lost else ""

    def _worth_showing(self) -> list[tuple[int, Fate]]:
        """Leave out powers at which all is lost, and thin out the rest."""
        rows = [(p, f) for p, f in self.table() if max(f.flushed, f.overflowed) < self.total.nonzero]
        step = -(-len(rows) // 24) or 1
        return rows[::step]


def gradients_at_scales(
    events: Sequence[TraceEvent], *, by: str, into: Format | str | None, source: str
) -> GradientScales:
    """Gather the gradients of a trace; see :meth:`minimp.trace.Trace.gradients_at_scales`."""
    if by not in ("place", "parameter") or source not in ("recorded", "shadow"):
        raise SettingError(
            f"expected by 'place' or 'parameter' and source 'recorded' or 'shadow', got {by!r}, {source!r}",
            op="trace.gradients_at_scales",
        )
    scales = scales_by_step(events)
    groups: dict[tuple[str, Format], list[tuple[Stats, int, int]]] = {}
    found = list(_gradients(events, by, source))
    if into is None and any(form.bits <= 16 for *_, form, _ in found):
        found = [each for each in found if each[3].bits <= 16]
    for event, name, stats, form, lost in found:
        fmt = _target(form, into, stats)
        power = _power(carried(event, scales))
        groups.setdefault((name, fmt), []).append((stats, power, lost))
    if not groups:
        hint = "record(shadow=True)" if source == "shadow" else "record a backward with statistics"
        raise SettingError("no gradients in this trace", op="trace.gradients_at_scales", help=hint)
    rows = [_joined(name, fmt, parts) for (name, fmt), parts in groups.items()]
    rows.sort(key=lambda row: -(row.powers() or (999, 0))[0])
    narrowest = max((row.format for row in rows), key=lambda fmt: fmt.smallest_subnormal)
    every = [part for (_, fmt), parts in groups.items() if fmt is narrowest for part in parts]
    seen = (carried(event, scales) for event, *_ in found if "loss_scale" in event.facts)
    used = tuple(dict.fromkeys([*scales.values(), *seen]))
    return GradientScales(tuple(rows), _joined("all", narrowest, every), used, source)


def _gradients(
    events: Iterable[TraceEvent], by: str, source: str
) -> Iterator[tuple[TraceEvent, str, Stats, Format, int]]:
    """Yield (event, name, statistics, format, lost elements) of each gradient."""
    for event in events:
        wanted = (
            event.phase == "backward" if by == "place" else (event.phase, event.op) == ("stage", "backward")
        )
        if not wanted:
            continue
        for i, side in enumerate(event.outputs):
            stats = None if side is None else side.stats
            error = event.errors[i] if i < len(event.errors) else None
            if source == "shadow":
                stats = None if error is None else error.unrounded
            if side is None or stats is None or not stats.cuts:
                continue
            name = side.name or f"{event.where} {event.op}, by {_by(side, i)}"
            yield event, name, stats, formats.get(side.format), side.flushed + stats.nonfinite


def _by(side: object, i: int) -> str:
    links = [link for link in getattr(side, "links", ()) if isinstance(link, str)]
    return links[0] if links else f"input {i}"


def _target(form: Format, into: Format | str | None, stats: Stats) -> Format:
    """Return the format to fit: the gradient's own, float16 for wide ones, or what was asked for."""
    usual = next((f for f in (form, *WIDE) if f.bits <= 16 and set(cuts_of(f)) <= set(stats.cuts)), form)
    fmt = usual if into is None else formats.get(into)
    if not set(cuts_of(fmt)) <= set(stats.cuts):
        raise SettingError(
            f"gradients in {form.name} were not counted for {fmt.name}", op="trace.gradients_at_scales",
            help="16-bit gradients are counted for their own format, wider ones for float16 and bfloat16",
        )  # fmt: skip
    return fmt


def _power(scale: float) -> int:
    if scale <= 0 or frexp(scale)[0] != 0.5:
        raise SettingError(
            f"the loss scale {scale:g} is no power of two: binades do not move by whole numbers",
            op="trace.gradients_at_scales",
        )
    return frexp(scale)[1] - 1


def _joined(name: str, fmt: Format, parts: Sequence[tuple[Stats, int, int]]) -> ScaledGradients:
    """Add histograms up, each moved back to a loss scale of 1."""
    binades: Binades = Counter()
    cuts: dict[int, Binades] = {n: Counter() for n in cuts_of(fmt)}
    for stats, power, _ in parts:
        binades.update({exponent - power: count for exponent, count in stats.binades.items()})
        for n, found in cuts.items():
            found.update({exponent - power: count for exponent, count in stats.cuts[n].items()})
    elements, lost = sum(stats.size for stats, *_ in parts), sum(lost for *_, lost in parts)
    return ScaledGradients(
        name, fmt, elements, sum(binades.values()), lost, dict(sorted(binades.items())),
        {n: dict(sorted(found.items())) for n, found in cuts.items()},
    )  # fmt: skip


def _fate(binades: dict[int, int], cuts: Cuts, fmt: Format, power: int) -> Fate:
    """Count what rounding 2^power times the values to nearest even would do."""
    bottom = round(log2(fmt.smallest_subnormal)) - 1 - power  # the binade below the smallest number
    normal = round(log2(fmt.smallest_normal)) - 1 - power  # the highest binade of subnormal numbers
    top = frexp(fmt.max)[1] - 1 - power
    tie, up, over = (cuts.get(n, {}) for n in cuts_of(fmt))
    flushed = sum(count for e, count in binades.items() if e < bottom) + tie.get(bottom, 0)
    below = sum(count for e, count in binades.items() if e <= normal) - up.get(normal, 0)
    overflowed = sum(count for e, count in binades.items() if e > top) + over.get(top, 0)
    return Fate(flushed, below - flushed, overflowed)


def _bar(fate: Fate, whole: int) -> str:
    kept = whole - fate.flushed - fate.subnormal - fate.overflowed
    parts = [(".", fate.flushed), ("-", fate.subnormal), ("#", kept), ("!", fate.overflowed)]
    ends, total = [], 0
    for _, count in parts:
        total += count
        ends.append(round(BAR * share(total, whole)))
    starts = [0, *ends[:-1]]
    return "".join(mark * (end - start) for (mark, _), start, end in zip(parts, starts, ends, strict=True))


def _range_text(what: str, powers: tuple[int, int] | None) -> str:
    lead = f"{what} " if what else ""
    if powers is None:
        return f"{lead}at no scale"
    return f"{lead}from 2^{powers[0]} to 2^{powers[1]}"
