"""Charts for pages: from numbers to the places where a template draws them.

A chart is drawn in a box of 1000 x 1000 units that is stretched to the page's width; labels stand beside it
as text at percentages of its sides, so that they keep their size on a telephone. Numbers that are not finite
become gaps and marks: no path ever holds one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor, isfinite, log2, log10
from typing import Any

from minimp.errors import SettingError

__all__ = [
    "Axis",
    "Curve",
    "bars",
    "curves",
    "linear",
    "logarithmic",
    "power_text",
    "powers_of_two",
    "thinned",
]

BOX = 1000.0
POINTS = 240
"""A longer curve is drawn by the extremes of so many pieces."""
MOST_WIDTH = 3.0
"""The widest of several curves is so many pixels wider than the thinnest, at most."""
PALETTE = 7
"""So many colours there are; curves beyond begin anew with another dash."""
Point = tuple[float, float | None]


@dataclass(frozen=True)
class Axis:
    """A scale along one side.

    Attributes:
        low, high: its ends, transformed.
        transform: from a number to its place.
        ticks: (place, label).
    """

    low: float
    high: float
    transform: Callable[[float], float]
    ticks: tuple[tuple[float, str], ...]

    def part(self, place: float) -> float:
        """Return how far along the axis a transformed number is, from 0 to 1."""
        return min(max((place - self.low) / ((self.high - self.low) or 1.0), 0.0), 1.0)

    def of(self, value: float) -> float:
        """Return how far along the axis a number is, from 0 to 1."""
        return self.part(self.transform(value))

    def labels(self) -> list[tuple[str, str]]:
        """Return (percent, label) of each tick."""
        return [(f"{100 * self.part(place):.2f}", label) for place, label in self.ticks]


@dataclass(frozen=True)
class Curve:
    """One line: its name and its points; a y of None, infinity or NaN is a gap with a mark."""

    name: str
    points: Sequence[Point]


def linear(low: float, high: float, most: int = 5) -> Axis:
    """Return an evenly spaced axis that holds both numbers, with at most about `most` ticks."""
    if high <= low:
        pad = abs(low) / 10 or 0.5
        low, high = low - pad, high + pad
    rough = high / most - low / most
    size = 10.0 ** floor(log10(rough)) if rough > 0 else 1.0
    step = next(size * each for each in (1, 2, 5, 10) if size * each >= rough)
    first, last = floor(low / step), ceil(high / step)
    places = [step * i for i in range(first, last + 1)]
    return Axis(places[0], places[-1], lambda x: x, tuple((place, _plain(place)) for place in places))


def whole(low: float, high: float, most: int = 5) -> Axis:
    """Return an axis of whole numbers (steps) that ends where they end."""
    if high <= low:
        low, high = low - 0.5, high + 0.5
    rough = max((high - low) / most, 1.0)
    size = 10.0 ** floor(log10(rough))
    step = next(size * each for each in (1, 2, 5, 10) if size * each >= rough)
    places = [step * i for i in range(ceil(low / step), floor(high / step) + 1)]
    return Axis(low, high, lambda x: x, tuple((place, f"{place:,.0f}") for place in places))


def logarithmic(low: float, high: float, most: int = 5) -> Axis:
    """Return an axis of powers of ten that holds two positive numbers."""
    first, last = floor(log10(low)), ceil(log10(high))
    last = last if last > first else first + 1
    step = -(-(last - first) // most)
    ticks = tuple((float(e), _power_of_ten(e)) for e in range(first, last + 1, step))
    return Axis(float(first), float(last), _log10, ticks)


def powers_of_two(low: float, high: float, most: int = 5) -> Axis:
    """Return an axis of powers of two that holds two positive numbers."""
    first, last = floor(log2(low)), ceil(log2(high))
    first, last = (first, last) if last > first else (first - 1, first + 1)
    step = -(-(last - first) // most)
    ticks = tuple((float(e), f"2{power_text(e)}") for e in range(first, last + 1, step))
    return Axis(float(first), float(last), _log2, ticks)


def curves(
    lines: Sequence[Curve], *, label: str, y_label: str, x_label: str,
    y_axis: Callable[[float, float], Axis] = linear, marks: Mapping[str, Sequence[float]] | None = None,
) -> dict[str, Any] | None:  # fmt: skip
    """Return a line chart for the template `charts`, or None if no curve has a finite point.

    Args:
        lines: the curves; those of many points are thinned, extremes kept.
        label: what it shows, in words, for those who do not see it.
        y_label, x_label: what the axes are, with their units.
        y_axis: :func:`linear`, :func:`logarithmic` or :func:`powers_of_two`. The last two leave out what is
            not greater than 0.
        marks: what happened -> the x at which it did; drawn along the lower edge.
    """
    positive = y_axis is not linear
    known = [(x, y) for line in lines for x, y in line.points if _shown(y, positive)]
    if not known:
        return None
    everywhere = [x for line in lines for x, _ in line.points]
    x_axis = whole(min(everywhere), max(everywhere))
    heights = [y for _, y in known if y is not None]
    y = y_axis(min(heights), max(heights))
    drawn = [_line(i, line, x_axis, y, positive) for i, line in enumerate(lines)]
    # the first are the widest, so that those drawn over them do not hide them
    more = min(1.1, MOST_WIDTH / max(len(drawn) - 1, 1)) if len(drawn) <= PALETTE else 0.0
    for i, each in enumerate(drawn):
        each["width"] = f"{1.75 + more * (len(drawn) - 1 - i):.3g}"
    return {
        "label": label, "y_label": y_label, "x_label": x_label,
        "x_ticks": x_axis.labels(), "y_ticks": _from_top(y), "lines": drawn,
        "marks": [{"name": name, "path": _dots(x_axis, places, BOX - 14), "count": len(places)}
                  for name, places in (marks or {}).items() if places],
    }  # fmt: skip


def bars(
    counts: Mapping[int, int], low: int, high: int, *, label: str, y_label: str, x_label: str
) -> dict[str, Any]:
    """Return a histogram by binade: bars of counts from 2^low to 2^high, the counts on a logarithmic axis.

    Args:
        counts: exponent e -> how many numbers with 2^e <= |x| < 2^(e+1).
        low, high: the exponents at the left and the right end.
        label, y_label, x_label: as of :func:`curves`.

    Raises:
        SettingError: `high` is not greater than `low`.
    """
    if high <= low:
        raise SettingError(f"expected a range of exponents, got {low} to {high}", op="pages.bars")
    y = logarithmic(0.5, max(counts.values(), default=1))
    width = BOX / (high - low)
    step = max(4, 4 * -(-(high - low) // 24))
    ticks = [e for e in range(low, high + 1) if e % step == 0]
    drawn = [(e, _u((e - low) * width), _u(BOX * (1 - y.of(count))), _u(BOX * y.of(count)))
             for e, count in counts.items() if count]  # fmt: skip
    return {
        "label": label, "y_label": y_label, "x_label": x_label, "unit": _u(width), "width": _u(0.86 * width),
        "x_ticks": [(f"{100 * (e - low) / (high - low):.2f}", f"2{power_text(e)}") for e in ticks],
        "y_ticks": [tick for tick in _from_top(y) if tick[0] != "100.00"], "bars": drawn,
    }  # fmt: skip


def thinned(points: Sequence[Point], most: int = POINTS) -> list[Point]:
    """Return points in order: all, or the lowest, the highest and one gap of each of so many pieces."""
    if len(points) <= 2 * most:
        return list(points)
    found: list[Point] = []
    for i in range(most):
        piece = points[len(points) * i // most : len(points) * (i + 1) // most]
        known = [place for place, (_, y) in enumerate(piece) if _finite(y)]
        gap = next((place for place, (_, y) in enumerate(piece) if not _finite(y)), None)
        kept = (
            {min(known, key=lambda p: piece[p][1] or 0.0), max(known, key=lambda p: piece[p][1] or 0.0)}
            if known
            else set()
        )
        found += [piece[place] for place in sorted(kept | ({gap} if gap is not None else set()))]
    return found


def power_text(exponent: int) -> str:
    """Return an exponent in raised digits."""
    return str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _line(i: int, line: Curve, x_axis: Axis, y_axis: Axis, positive: bool) -> dict[str, Any]:
    parts: list[str] = []
    gaps: list[float] = []
    pen = False
    for x, y in thinned(line.points):
        if y is None or not _shown(y, positive):
            gaps += [] if _finite(y) else [x]
            pen = False
            continue
        place = f"{_u(BOX * x_axis.of(x))} {_u(BOX * (1 - y_axis.of(y)))}"
        parts.append(f"L{place}" if pen else f"M{place}h0")
        pen = True
    return {
        "lone": "".join(run for run in _runs(parts) if "L" not in run),
        "name": line.name, "colour": i % PALETTE, "dash": i // PALETTE % 3 + (i % 2), "path": "".join(parts),
        "gaps": _dots(x_axis, gaps, 14.0), "missing": sum(not _finite(y) for _, y in line.points),
    }  # fmt: skip


def _runs(parts: Sequence[str]) -> list[str]:
    """Return the pieces of a path between gaps; a piece of one point would hardly be seen as a line."""
    return [f"M{run}" for run in "".join(parts).split("M")[1:]]


def _dots(axis: Axis, places: Sequence[float], y: float) -> str:
    """Return a path of points: a line of no length, which a round cap makes a dot of any stretched box."""
    seen = dict.fromkeys(_u(BOX * axis.of(x)) for x in places)
    return "".join(f"M{x} {_u(y)}h0" for x in list(seen)[:POINTS])


def _from_top(axis: Axis) -> list[tuple[str, str]]:
    return [(f"{100 * (1 - axis.part(place)):.2f}", label) for place, label in axis.ticks]


def _finite(y: float | None) -> bool:
    return y is not None and isfinite(y)


def _shown(y: float | None, positive: bool) -> bool:
    return y is not None and isfinite(y) and (y > 0 or not positive)


def _log10(x: float) -> float:
    return log10(x) if x > 0 else -400.0


def _log2(x: float) -> float:
    return log2(x) if x > 0 else -1200.0


def _power_of_ten(exponent: int) -> str:
    return f"{10**exponent:,}" if 0 <= exponent <= 3 else f"10{power_text(exponent)}"


def _plain(value: float) -> str:
    return f"{value:.6g}"


def _u(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
