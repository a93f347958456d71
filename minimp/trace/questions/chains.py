"""The first value that is not finite, and how it came about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import wrap

from minimp import formats
from minimp.errors import FormatError
from minimp.trace.events import Side, TraceEvent
from minimp.trace.questions.tables import number
from minimp.trace.scales import carried, scale_of, scales_by_step

__all__ = ["NonFinite", "came_in", "cause_of", "counted", "first_nonfinite", "met", "overflowed_by_scale"]

LONGEST = 12
WIDTH = 100


@dataclass(frozen=True)
class NonFinite:
    """The first value that is not finite.

    Attributes:
        event: the op, gradient or stage that made it, or that it came into from outside.
        cause: what happened, in words.
        chain: the events that led to it, the nearest first: along the input that is largest for its format.
        by_scaling: whether it is an overflow of gradients that were multiplied by a loss scale: a dynamic
            scaler skips such a step, and lowers the scale.
        finite_at_one: whether it would be finite at a loss scale of 1; None where that is not known.
    """

    event: TraceEvent
    cause: str
    chain: tuple[TraceEvent, ...]
    by_scaling: bool = False
    finite_at_one: bool | None = None

    def __str__(self) -> str:
        lines = [f"first non-finite: {self.event}", *wrap(self.cause, WIDTH, initial_indent="  ",
                                                          subsequent_indent="  ")]  # fmt: skip
        if self.by_scaling:
            lines.append("  gradients carry a loss scale: a dynamic scaler skips this step and backs off")
        if self.finite_at_one is not None:
            verb = "would be finite" if self.finite_at_one else "would not be finite either"
            lines.append(f"  at a loss scale of 1 it {verb}")
        lines += [_told(each) for each in self.chain]
        return "\n".join(line if len(line) <= WIDTH else line[: WIDTH - 3] + "..." for line in lines)


def first_nonfinite(events: Sequence[TraceEvent]) -> NonFinite | None:
    """Return the first non-finite value of the events, or None."""
    known = {event.number: event for event in events}
    for event in events:
        came = came_in(event)
        if came is None and not event.nonfinite:
            continue
        scale = scale_of(event, events)
        made = came is None and event.phase == "backward"
        cause = came or cause_of(event)
        at_one = None
        if made and event.overflowed:
            at_one = _finite_at(event, scale) if scale else None
        return NonFinite(event, cause, _chain(event, known), made and bool(scale and scale != 1), at_one)
    return None


def overflowed_by_scale(events: Sequence[TraceEvent]) -> list[TraceEvent]:
    """Return the gradients that overflowed, and would have fitted at a loss scale of 1."""
    scales = scales_by_step(events)
    return [
        event
        for event in events
        if event.phase == "backward" and event.overflowed and _finite_at(event, carried(event, scales))
    ]


def came_in(event: TraceEvent) -> str | None:
    """Say which input was not finite already, having been made by no event; None if there is none."""
    for i, side in enumerate(event.inputs):
        if side is None or side.stats is None or not side.stats.nonfinite:
            continue
        if any(isinstance(link, int) for link in side.links):
            continue
        names = [link for link in side.links if isinstance(link, str)]
        what = f"parameter {names[0]}" if names else f"input {i}, which came from outside"
        return f"{what} holds {_counted(side)}"
    return None


def met(event: TraceEvent) -> bool:
    """Tell whether gradients that came from several events are not finite as the sum that they are."""
    grad = event.inputs[0] if event.phase == "backward" and event.inputs else None
    return grad is not None and len(grad.links) > 1 and bool(grad.stats and grad.stats.nonfinite)


def cause_of(event: TraceEvent) -> str:
    """Say how a value came to be not finite, in an event whose inputs no other event made so."""
    if met(event):
        return "gradients that met here overflowed when they were added up"
    side = next(s for s in event.outputs if s is not None and s.stats is not None and s.stats.nonfinite)
    what = f"{side.name}: " if side.name else ""
    if side.overflowed and side.reach is not None and side.reach < float("inf"):
        return (
            f"{what}{side.overflowed:,} of {_size(side):,} results overflowed {side.format}, whose largest "
            f"number is {_plain(_largest(side.format))}: they reached {_plain(side.reach)} before rounding"
        )
    zeros = [i for i, s in enumerate(event.inputs) if s is not None and s.stats is not None and s.stats.zeros]
    hint = (
        f" (input {zeros[0]} has zeros)"
        if zeros and event.op in ("div", "log", "rsqrt", "reciprocal", "power")
        else ""
    )
    return f"{what}{_counted(side)} made of finite numbers{hint}"


def _plain(size: float) -> str:
    """Return 65,504 rather than 6.55e+04: it is the number that a reader knows."""
    return f"{size:,.0f}" if 1000 <= size < 1e9 else number(size)


def _counted(side: Side) -> str:
    assert side.stats is not None
    counts = (("infinite", side.stats.inf), ("NaN", side.stats.nan))
    told = " and ".join(f"{count:,} {name}" for name, count in counts if count)
    return f"{told} of {side.stats.size:,} elements"


def counted(event: TraceEvent) -> str:
    """Say how many results of an event are infinite, and how many NaN."""
    return " and ".join(_counted(s) for s in event.outputs if s and s.stats and s.stats.nonfinite)


def _size(side: Side) -> int:
    return side.stats.size if side.stats is not None else 0


def _largest(name: str) -> float:
    try:
        return float(formats.get(name).max)
    except FormatError:
        return float("inf")


def _finite_at(event: TraceEvent, scale: float) -> bool | None:
    """Tell whether every overflow of a gradient would fit its format without the loss scale."""
    reached = [side for side in event.outputs if side is not None and side.overflowed]
    if any(side.reach is None or side.reach == float("inf") for side in reached):
        return None
    return all((side.reach or 0.0) / scale <= _largest(side.format) for side in reached)


def _chain(event: TraceEvent, known: dict[int, TraceEvent]) -> tuple[TraceEvent, ...]:
    """Walk back along the inputs that are largest for their formats."""
    found: list[TraceEvent] = []
    seen = {event.number}
    here: TraceEvent | None = event
    while here is not None and len(found) < LONGEST:
        sides = [side for side in (here.inputs or here.outputs) if side is not None]
        sides.sort(key=_load, reverse=True)
        links = [link for side in sides for link in reversed(side.links) if isinstance(link, int)]
        if not links and here.forward is not None:
            links = [here.forward]
        here = next((known[link] for link in links if link in known and link not in seen), None)
        if here is not None:
            found.append(here)
            seen.add(here.number)
    return tuple(found)


def _load(side: Side) -> float:
    """How near an array is to its format's largest number; non-finite ones are beyond."""
    if side.stats is None or side.stats.amax is None:
        return 0.0 if side.stats is None or not side.stats.nonfinite else float("inf")
    return float("inf") if side.stats.nonfinite else side.stats.amax / _largest(side.format)


def _told(event: TraceEvent) -> str:
    largest = max((s.stats.amax for s in event.outputs if s and s.stats and s.stats.amax is not None),
                  default=None)  # fmt: skip
    made = "/".join(dict.fromkeys(side.format for side in event.outputs if side is not None))
    return f"  <- #{event.number} {event.title}{event.within}{event.at}: {made}, up to {number(largest)}"
