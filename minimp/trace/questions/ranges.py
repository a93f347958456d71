"""Where values were lost to a format's range: underflow and overflow by op, module or stage."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from minimp.errors import SettingError, unknown_name
from minimp.trace.events import TraceEvent
from minimp.trace.questions.tables import Table, share

__all__ = ["BY", "check_grouping", "overflow_table", "underflow_table"]

BY: dict[str, Callable[[TraceEvent], tuple[str, ...]]] = {
    "op": lambda event: (event.title,),
    "module": lambda event: (event.module or "(no module)", event.phase),
    "stage": lambda event: (event.stage or "(no stage)",),
    "step": lambda event: (str(event.step),),
    "place": lambda event: (event.where, event.title),
}
"""What events are put together by -> the names of a group."""
HEADS = {"op": ("op",), "module": ("module", "phase"), "stage": ("stage",), "step": ("step",),
         "place": ("where", "op")}  # fmt: skip


@dataclass
class _Group:
    events: int = 0
    lost: int = 0
    of: int = 0
    subnormal: int = 0
    reach: float | None = None
    worst: int = -1
    most: int = 0


def underflow_table(events: Iterable[TraceEvent], by: str) -> Table:
    """Return, of each group, what its ops flushed to zero; the largest loss first."""
    rows: list[tuple[Any, ...]] = []
    for names, group in _grouped(events, by, "flushed").items():
        if group.lost or group.subnormal:
            part = share(group.lost, group.of)
            rows.append((*names, group.events, group.of, group.lost, part, group.subnormal, group.worst))
    place = len(HEADS[by])
    rows.sort(key=lambda row: (-row[place + 2], -row[place + 4]))
    columns = (*HEADS[by], "events", "non-zero", "flushed", "share", "subnormal", "worst event")
    return Table(
        f"underflow by {by}: non-zero results that rounding made 0", columns, tuple(rows),
        ("share: flushed of the results that were not 0; subnormal: kept with fewer digits",),
    )  # fmt: skip


def overflow_table(events: Iterable[TraceEvent], by: str) -> Table:
    """Return, of each group, what its ops made infinite; the largest loss first."""
    rows: list[tuple[Any, ...]] = []
    for names, group in _grouped(events, by, "overflowed").items():
        if group.lost:
            rows.append((*names, group.events, group.of, group.lost, share(group.lost, group.of),
                         group.reach, group.worst))  # fmt: skip
    rows.sort(key=lambda row: -row[len(HEADS[by]) + 2])
    columns = (*HEADS[by], "events", "non-zero", "overflowed", "share", "reached", "worst event")
    return Table(
        f"overflow by {by}: infinities made of finite numbers", columns, tuple(rows),
        ("reached: the largest magnitude before rounding, where an op rounds to 16 bits",),
    )  # fmt: skip


def check_grouping(by: str) -> None:
    """Refuse a grouping that does not exist."""
    if by not in BY:
        raise SettingError(unknown_name("grouping", by, BY), op="trace")


def _grouped(events: Iterable[TraceEvent], by: str, what: str) -> dict[tuple[str, ...], _Group]:
    check_grouping(by)
    found: dict[tuple[str, ...], _Group] = {}
    for event in events:
        if event.phase == "stage":  # what stages show was made by ops, or is in float32
            continue
        group = found.setdefault(BY[by](event), _Group())
        group.events += 1
        lost = getattr(event, what)
        group.lost += lost
        if lost > group.most or group.worst < 0:
            group.most, group.worst = lost, event.number
        for side in event.outputs:
            if side is None or side.stats is None:
                continue
            group.of += side.stats.nonzero + side.flushed
            group.subnormal += side.stats.subnormals
            if side.reach is not None:
                group.reach = max(group.reach or 0.0, side.reach)
    return found
