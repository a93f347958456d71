"""What `minimp trace` answers, and the same as plain data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from minimp.trace import Divergence, GradientScales, NonFinite, Table
from minimp.trace.codec import plain
from minimp.trace.conditions import parse

if TYPE_CHECKING:
    from minimp.trace import Fate, Trace, TraceEvent
    from minimp.trace.questions.diffs import Difference

__all__ = ["ANSWERS", "as_data"]


@dataclass(frozen=True)
class Summary:
    """How much there is in a trace."""

    trace: Trace

    def __str__(self) -> str:
        return str(self.trace)

    def as_data(self) -> dict[str, Any]:
        """Return it as plain data."""
        events = self.trace.events
        phases: dict[str, int] = {}
        for event in events:
            phases[event.phase] = phases.get(event.phase, 0) + 1
        return {
            "events": len(events), "dropped": self.trace.dropped, "phases": phases, "info": self.trace.info,
            "flushed": sum(event.flushed for event in events),
            "overflowed": sum(event.overflowed for event in events),
            "first_nonfinite": as_data(First(self.trace.first_nonfinite())),
        }  # fmt: skip


@dataclass(frozen=True)
class First:
    """The first value that is not finite, if there is one."""

    found: NonFinite | None

    def __str__(self) -> str:
        return "all values whose statistics were taken are finite" if self.found is None else str(self.found)

    def as_data(self) -> dict[str, Any] | None:
        """Return it as plain data; None where all is finite."""
        if self.found is None:
            return None
        return {
            "event": plain(self.found.event), "cause": self.found.cause,
            "chain": [each.number for each in self.found.chain], "by_scaling": self.found.by_scaling,
            "finite_at_one": self.found.finite_at_one,
        }  # fmt: skip


@dataclass(frozen=True)
class Events:
    """Some events."""

    found: tuple[TraceEvent, ...]
    limit: int | None

    def __str__(self) -> str:
        if not self.found:
            return "no events"
        lines = [str(event) for event in self.found[: self.limit]]
        more = len(self.found) - len(lines)
        return "\n".join([*lines, *([f"... and {more:,} more; --limit N shows more"] if more else [])])

    def as_data(self) -> list[Any]:
        """Return them as plain data, by the names of their fields."""
        return [plain(event) for event in self.found[: self.limit]]


def _events(trace: Trace, *, where: str | None = None, limit: int | None = None) -> Events:
    condition = None if where is None else parse(where)
    return Events(tuple(trace.select(condition=condition)), limit)


ANSWERS: Mapping[str, Callable[..., Any]] = {
    "summary": Summary,
    "nonfinite": lambda trace: First(trace.first_nonfinite()),
    "underflow": lambda trace, **given: trace.underflow(**given),
    "overflow": lambda trace, **given: trace.overflow(**given),
    "scales": lambda trace, **given: trace.gradients_at_scales(**given),
    "swallowed": lambda trace: trace.swallowed(),
    "errors": lambda trace, **given: trace.errors(**given),
    "amplifiers": lambda trace: trace.amplifiers(),
    "counts": lambda trace: trace.counts(),
    "events": _events,
    "diff": lambda trace, other, **given: trace.diff(other, **given),
}
"""Question -> from a trace and the options that were given to the answer."""


def as_data(answer: Any) -> Any:
    """Return an answer as plain data."""
    for kind, convert in DATA.items():
        if isinstance(answer, kind):
            return convert(answer)
    return answer.as_data()


def _table(table: Table) -> dict[str, Any]:
    return {"title": table.title, "rows": list(table), "notes": list(table.notes)}


def _scales(found: GradientScales) -> dict[str, Any]:
    return {
        "source": found.source, "used": list(found.used), "format": found.total.format.name,
        "nonzero": found.total.nonzero, "lost_before": found.total.lost,
        "without_loss": found.powers(), "without_subnormals": found.powers(normal=True),
        "powers": [{"power": power, **_fate(fate)} for power, fate in found.table()],
        "gradients": [
            {"name": row.name, "format": row.format.name, "nonzero": row.nonzero,
             "without_loss": row.powers()}
            for row in found.rows
        ],
    }  # fmt: skip


def _fate(fate: Fate) -> dict[str, int]:
    return {"flushed": fate.flushed, "subnormal": fate.subnormal, "overflowed": fate.overflowed}


def _divergence(found: Divergence) -> dict[str, Any]:
    return {
        "same": found.same, "ulps": found.ulps, "at": found.at,
        "first": None if found.first is None else _pair(found.first),
        "pairs": [_pair(pair) for pair in found.pairs],
        "only_ours": [event.number for event in found.only_ours],
        "only_theirs": [event.number for event in found.only_theirs],
    }  # fmt: skip


def _pair(pair: Difference) -> dict[str, Any]:
    return {
        "ours": pair.ours.number, "theirs": pair.theirs.number, "title": pair.ours.title,
        "where": pair.ours.where, "ulps": pair.ulps, "by": pair.by,
        "formats": [pair.ours_format, pair.theirs_format], "name": pair.name,
    }  # fmt: skip


DATA: Mapping[type[Any], Callable[[Any], Any]] = {
    Table: _table, GradientScales: _scales, Divergence: _divergence,
}  # fmt: skip
