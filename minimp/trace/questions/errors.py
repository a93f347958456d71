"""Where error is made, and where it grows: from the float64 shadow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from textwrap import wrap

from minimp import formats
from minimp.errors import SettingError
from minimp.trace.events import OpError, TraceEvent
from minimp.trace.questions.ranges import BY, HEADS, check_grouping
from minimp.trace.questions.tables import WIDTH, Table

__all__ = ["amplifiers_table", "errors_table"]

NO_DIGITS = (
    "leaving above 1: no digit is right; a sum whose terms cancel to 0, as a bias's before a batch norm",
)
SMALLEST = 2.0**-40
"""A relative error of the inputs below this is float64's own, and nothing to multiply."""


def errors_table(events: Sequence[TraceEvent], by: str, without: Iterable[str] = ()) -> Table:
    """Return the largest errors of each group: made there, inherited, and both together.

    Args:
        events: of a trace.
        by: a grouping.
        without: the ops that have no shadow.
    """
    check_grouping(by)
    found: dict[tuple[str, ...], list[float]] = {}
    for event, error, ulp in _errors(events):
        held = found.setdefault(BY[by](event), [0.0] * 6)
        came = error.inherited.relative
        now = (error.made.max_ulp, error.made.mean_ulp, error.made.relative, came / ulp, came,
               error.total.relative)  # fmt: skip
        found[BY[by](event)] = [max(pair) for pair in zip(held, now, strict=True)]
    rows = [(*names, *found[names]) for names in sorted(found, key=lambda names: -found[names][-1])]
    columns = (*HEADS[by], "made ulp", "mean ulp", "made rel", "inh. ulp", "inh. rel", "total rel")
    return Table(
        f"errors against float64 by {by}, the largest of each", columns, tuple(rows),
        ("made: same inputs; inherited: from inputs never rounded; rel: norm of errors / norm of values",
         "made ulp: the worst element, at its own size; inh. ulp: inh. rel by 2^-m, m the format's digits",
         *_without(without)),
    )  # fmt: skip


def _without(names: Iterable[str]) -> list[str]:
    told = ", ".join(names)
    return wrap(f"taken as exact, having no shadow: {told}", WIDTH, subsequent_indent="  ") if told else []


def amplifiers_table(events: Sequence[TraceEvent], without: Iterable[str] = ()) -> Table:
    """Return the events that multiply the relative error of their inputs most; arguments as of errors."""
    rows = [
        (event.number, event.title, event.where, error.amplification, error.jumped, error.entering,
         error.made.relative, error.total.relative)
        for event, error, _ in _errors(events)
        if event.phase != "stage" and error.entering > SMALLEST
    ]  # fmt: skip
    rows.sort(key=lambda row: -float(row[3]))
    columns = ("event", "op", "where", "times", "jumped", "entering", "made", "leaving")
    return Table(
        "ops that multiply relative error", columns, tuple(rows),
        ("times: inherited error of the result by the largest of its inputs; all as norms, relative",
         "jumped: elements on the other side of a kink (relu's at 0) than unrounded; not in times",
         *(NO_DIGITS if any(row[-1] > 1 for row in rows) else ()), *_without(without)),
    )  # fmt: skip


def _errors(events: Iterable[TraceEvent]) -> Iterator[tuple[TraceEvent, OpError, float]]:
    """Yield (event, error, one ulp of 1 in its format) of each output that has a shadow.

    Raises:
        SettingError: none has.
    """
    none = True
    for event in events:
        for side, error in zip(event.outputs, event.errors, strict=False):
            if error is not None and side is not None:
                none = False
                yield event, error, formats.get(side.format).eps
    if none:
        raise SettingError(
            "this trace has no shadow", op="trace", help="record it with trace.record(shadow=True)"
        )
