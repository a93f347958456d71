"""Where and when numbers were lost: modules down, training steps across."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from minimp.trace.events import TraceEvent
from minimp.trace.reporting.texts import count, counted, percent, printable

__all__ = ["LEVELS", "heat_maps", "place_of"]

LEVELS = ((0.001, "below 0.1 %"), (0.01, "to 1 %"), (0.1, "to 10 %"), (0.5, "to 50 %"), (1.1, "above 50 %"))
"""Shares below each of these have a shade; 0 has none."""
KINDS = {"under": ("flushed", "became 0"), "over": ("overflowed", "became infinite")}
"""Map -> what an event counts, and what it is called."""
Counts = dict[tuple[str, int], list[int]]


def heat_maps(events: Sequence[TraceEvent], *, rows: int, columns: int) -> list[dict[str, Any]]:
    """Return the maps of underflow and overflow: in each place and step, what was lost."""
    steps = sorted({event.step for event in events if event.phase != "stage"})
    groups = _grouped_steps(steps, columns)
    bucket = {step: i for i, group in enumerate(groups) for step in group}
    found: Counts = {}
    order: dict[str, None] = {}
    for event in events:
        if event.phase == "stage":
            continue
        place = place_of(event)
        order.setdefault(place)
        held = found.setdefault((place, bucket[event.step]), [0, 0, 0, 0])
        held[0] += event.flushed
        held[1] += event.overflowed
        held[2] += sum(side.stats.nonzero + side.flushed for side in event.outputs if side and side.stats)
        held[3] += sum(side.stats.size for side in event.outputs if side and side.stats)
    return [_map(kind, i, found, list(order), groups, rows) for i, kind in enumerate(KINDS)]


def place_of(event: TraceEvent) -> str:
    """Return where an event was, its module if it had one, and the direction."""
    return f"{event.where or '(no module)'} {event.phase}"


def _grouped_steps(steps: Sequence[int], most: int) -> list[Sequence[int]]:
    number = min(most, len(steps))
    return [steps[len(steps) * i // number : len(steps) * (i + 1) // number] for i in range(number)]


def _map(
    kind: str, i: int, found: Counts, order: list[str], groups: list[Sequence[int]], most: int
) -> dict[str, Any]:
    totals: dict[str, int] = {}
    for (place, _), held in found.items():
        totals[place] = totals.get(place, 0) + held[i]
    losing = [place for place in order if totals[place]]
    counted_in = {place for (place, _), held in found.items() if held[3]}
    empty = counted_in - {place for (place, _), held in found.items() if held[2]}
    kept = set(sorted(losing, key=lambda place: -totals[place])[:most])
    every = max(1, -(-len(groups) // 6))
    return {
        "kind": kind, "word": KINDS[kind][1],
        "heads": [_steps(group, short=True) if j % every == 0 else "" for j, group in enumerate(groups)],
        "rows": [
            (printable(place, 60),
             [_cell(kind, found.get((place, j)), i, group, place) for j, group in enumerate(groups)])
            for place in losing if place in kept
        ],
        "more": len(losing) - len(kept), "quiet": _quiet(len(order) - len(losing), len(empty)),
        "levels": [(level, text) for level, (_, text) in enumerate(LEVELS, 1)],
    }  # fmt: skip


def _quiet(places: int, empty: int) -> str:
    """Say how many places lost nothing, and how many of those had nothing to lose."""
    if not places:
        return ""
    told = f"{counted(places, 'place')} lost nothing and {'is' if places == 1 else 'are'} not shown"
    return f"{told}; {count(empty)} of them gave nothing but 0." if empty else f"{told}."


def _cell(kind: str, held: list[int] | None, i: int, group: Sequence[int], place: str) -> tuple[int, str]:
    """Return the shade, and what the number is in words; "" where nothing was lost."""
    if held is None or not held[i]:
        return 0, ""
    share = held[i] / (held[2] or 1)
    level = next(n for n, (end, _) in enumerate(LEVELS, 1) if share < end or n == len(LEVELS))
    told = (
        f"{percent(held[i], max(held[2], held[i]))} {KINDS[kind][1]} ({count(held[i])} of {count(held[2])})"
    )
    return level, f"{printable(place, 60)}, {_steps(group)}: {told}"


def _steps(group: Iterable[int], *, short: bool = False) -> str:
    ends = list(group)
    if ends == [0]:
        return "–" if short else "outside of training steps"
    if short or len(ends) == 1:
        return f"{ends[0]}" if short else f"step {ends[0]:,}"
    return f"steps {ends[0]:,} to {ends[-1]:,}"
