"""What ran in which format, and which updates were swallowed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from minimp.trace.events import TraceEvent
from minimp.trace.questions.tables import Table, share

__all__ = ["counts_table", "swallowed_table"]


def counts_table(events: Iterable[TraceEvent]) -> Table:
    """Return how often each op ran in each format."""
    found: Counter[tuple[str, str, str]] = Counter()
    for event in events:
        if event.phase == "stage":
            continue
        came = dict.fromkeys(side.format for side in event.inputs if side is not None)
        made = dict.fromkeys(side.format for side in event.outputs if side is not None)
        if made:  # a gradient that nobody needed makes nothing
            found[event.title, ", ".join(came), ", ".join(made)] += 1
    rows = tuple((*key, count) for key, count in sorted(found.items()))
    return Table("ops by format", ("op", "inputs", "outputs", "events"), rows)


def swallowed_table(events: Iterable[TraceEvent]) -> Table:
    """Return, of each parameter, how many updates left the weight as it was; the largest share first."""
    found: dict[str, list[int]] = {}
    steps: Counter[str] = Counter()
    for event in events:
        for name, row in event.facts.get("updates", {}).items():
            held = found.setdefault(name, [0, 0, 0])
            found[name] = [a + b for a, b in zip(held, row, strict=True)]
            steps[name] += 1
    rows = [
        (name, steps[name], size, nonzero, swallowed, share(swallowed, nonzero))
        for name, (size, nonzero, swallowed) in found.items()
    ]
    rows.sort(key=lambda row: (-row[-1], row[0]))
    columns = ("parameter", "steps", "elements", "non-zero", "swallowed", "share")
    return Table(
        "swallowed updates: w + delta == w", columns, tuple(rows),
        ("of all steps together; share: swallowed of the updates that were not 0",),
    )  # fmt: skip
