"""What a recording shows, in sentences and in a few figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from minimp.trace.events import TraceEvent
from minimp.trace.questions.chains import NonFinite
from minimp.trace.questions.tables import Table
from minimp.trace.reporting.heat import place_of
from minimp.trace.reporting.history import History
from minimp.trace.reporting.texts import count, counted, percent, printable

__all__ = ["figures", "has_statistics", "lead", "sentences", "vanished", "verdict"]

PHASES = {
    "forward": "ops and casts",
    "recompute": "ops run again",
    "backward": "gradients",
    "stage": "stages",
}


def lead(events: Sequence[TraceEvent], history: History, dropped: int) -> str:
    """Say what was recorded."""
    if not events:
        return "Nothing was recorded: no op ran while the recording was open."
    phases = Counter(event.phase for event in events)
    told = ", ".join(f"{count(phases[phase])} {word}" for phase, word in PHASES.items() if phases[phase])
    text = (
        f"{counted(len(events), 'event')} were recorded: {told}"
        if len(events) > 1
        else f"One event was recorded: {told}"
    )
    if history.steps:
        text += f", in {counted(len(history.steps), 'training step')}"
    formats = Counter(side.format for event in events for side in event.outputs if side is not None)
    names = ", ".join(printable(name) for name, _ in formats.most_common(4))
    text += f". Results were in {names}." if names else "."
    return f"{text} {counted(dropped, 'older event')} had been let go." if dropped else text


def has_statistics(events: Sequence[TraceEvent]) -> bool:
    """Return whether the numbers of any array were looked at."""
    return any(
        side is not None and side.stats is not None
        for event in events
        for side in (*event.inputs, *event.outputs)
    )


def vanished(events: Sequence[TraceEvent]) -> tuple[list[str], int]:
    """Return the places of the backward pass that gave nothing but 0, in order, and how many there are."""
    alive: dict[str, bool] = {}
    for event in events:
        stats = [side.stats for side in event.outputs if side is not None and side.stats is not None]
        if event.phase == "backward" and any(each.size for each in stats):
            place = place_of(event).removesuffix(" backward")
            alive[place] = alive.get(place, False) or event.flushed > 0 or any(each.nonzero for each in stats)
    return [place for place, is_alive in alive.items() if not is_alive], len(alive)


def verdict(
    events: Sequence[TraceEvent], first: NonFinite | None, underflow: Table, dropped: int
) -> dict[str, Any]:
    """Return what went wrong first and why: a heading, sentences, and the events that led to it.

    Args:
        events: of the recording.
        first: the first value that is not finite.
        underflow: by op.
        dropped: how many older events were let go.
    """
    if not has_statistics(events):
        head = "No statistics were taken" if events else "There is nothing to judge"
        said = ["Whether anything went wrong is not known."] if events else []
        return {"kind": "care", "head": head, "said": said, "chain": []}
    if first is None:
        return _all_finite(events, underflow, dropped)
    event = first.event
    where = f" in module {printable(event.module)}" if event.module else ""
    step = f", step {event.step:,}" if event.step else ""
    said = [f"{printable(first.cause, 400)[:1].upper()}{printable(first.cause, 400)[1:]}."]
    if first.by_scaling:
        said.append(
            "Gradients carry a loss scale: a dynamic scaler skips this step and lowers the scale, "
            "which is no fault."
        )
    if first.finite_at_one is not None:
        said.append(
            f"At a loss scale of 1 it would {'be finite' if first.finite_at_one else 'not be finite either'}."
        )
    called = f"Called at {printable(event.source)}; e" if event.source else "E"
    return {
        "kind": "care" if first.by_scaling and first.finite_at_one else "faulty",
        "head": f"First value that is not finite: {printable(event.title)}{where}{step}",
        "said": [*said, f"{called}vent {event.number:,} of the recording."],
        "chain": [printable(str(each), 200) for each in first.chain],
    }  # fmt: skip


def _all_finite(events: Sequence[TraceEvent], underflow: Table, dropped: int) -> dict[str, Any]:
    """Return the verdict on a recording without infinities and NaN."""
    (lost, of), (empty, places) = _flushed(events), vanished(events)
    zeros = _vanished_words(empty, places)
    left = " in what is left of the recording" if dropped else ""
    if not lost and not empty:
        return {
            "kind": "",
            "head": f"Nothing went wrong{left}: all values are finite, and none was flushed to 0",
            "said": [],
            "chain": [],
        }
    told = []
    if lost:
        share = f"{percent(lost, of)} of the results that were not 0 became 0 ({count(lost)})"
        told.append(f"{share}, most of them in {printable(next(iter(underflow))['op'])}.")
    return {
        "kind": "care" if empty or lost >= 0.01 * of else "",
        "head": f"All values are finite{left}",
        "said": told + zeros,
        "chain": [],
    }


def _vanished_words(empty: Sequence[str], places: int) -> list[str]:
    if not empty:
        return []
    told = f"No gradient was left in {count(len(empty))} of {counted(places, 'place')} of the backward pass"
    return [f"{told}: nothing but 0 came out, first in {printable(empty[0])}."]


def figures(events: Sequence[TraceEvent], history: History, overflow: Table) -> list[tuple[str, str]]:
    """Return the figures at the head of the page: (what, number)."""
    lost, of = _flushed(events)
    made = [("events", count(len(events)))]
    if history.steps:
        made += [
            ("training steps", count(len(history.steps))),
            ("updates skipped", count(len(history.skipped))),
        ]
    if history.scales:
        made.append(("loss scale", history.scale_words))
    known = has_statistics(events)
    return [
        *made,
        ("flushed to 0", percent(lost, of) if known else "not counted"),
        ("overflows", count(sum(overflow.column("overflowed"))) if known else "not counted"),
    ]


def sentences(
    events: Sequence[TraceEvent],
    history: History,
    overflow: Table,
    swallowed: Table,
    gradients: str,
) -> list[str]:
    """Return what else to know, one sentence each."""
    lost, of = _flushed(events)
    said = []
    if lost:
        said.append(
            f"Underflow: {count(lost)} of {count(of)} results that were not 0 became 0 ({percent(lost, of)})."
        )
    if overflow:
        worst = next(iter(overflow))
        said.append(f"Overflow: most in {printable(worst['op'])}, {counted(worst['overflowed'], 'result')}.")
    if history.skipped:
        said.append(
            f"{counted(len(history.skipped), 'update')} of {count(len(history.steps))} skipped, "
            f"first in step {history.skipped[0]:,}."
        )
    if gradients:
        said.append(gradients)
    if swallowed:
        worst = next(iter(swallowed))
        if worst["swallowed"]:
            said.append(
                f"Updates swallowed (w + delta = w): most in {printable(worst['parameter'])}, "
                f"{percent(worst['swallowed'], worst['non-zero'])} of those not 0."
            )
    widths = Counter(side.format for event in events for side in event.outputs if side is not None)
    if (
        widths
        and not any(name in widths for name in ("float16", "bfloat16"))
        and not any("float8" in name for name in widths)
    ):
        said.append("Nothing was rounded to 16 bits or fewer.")
    return said


def _flushed(events: Sequence[TraceEvent]) -> tuple[int, int]:
    """Return flushed results, and those that were not 0 before they were rounded, of all ops together."""
    sides = [(e, side) for e in events if e.phase != "stage" for side in e.outputs if side is not None]
    of = sum(side.stats.nonzero + side.flushed for _, side in sides if side.stats is not None)
    return sum(side.flushed for _, side in sides), of
