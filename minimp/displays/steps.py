"""Stages of a training step, what their checks found, and what the step did."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

from minimp.displays.elements import (
    FAINT,
    MONO,
    Html,
    badge,
    box,
    clipped,
    head,
    number,
    paragraph,
    rows,
    tag,
)
from minimp.displays.values import look

__all__ = ["findings_html", "report_html", "stage_html"]

MOST_TENSORS, MOST_OPS, MOST_FINDINGS = 16, 12, 10
BAD, GOOD = "220,38,38", "22,163,74"
COLUMNS = ("tensor", "format", "shape", "smallest", "largest", "zeros", "subnormal", "flushed", "inf", "nan")


def stage_html(stage: Any) -> Html:
    """Return a stage: equation, facts, its tensors with their statistics, and the ops that ran in it."""
    facts = [badge(f"{name} = {_fact(value)}") for name, value in stage.facts.items()]
    parts = [head(stage.name, stage.equation, facts)]
    tensors = list(stage.tensors.items())
    if tensors:
        with np.errstate(all="ignore"):
            cells = [_statistics(name, each) for name, each in tensors[:MOST_TENSORS]]
        parts.append(rows(COLUMNS, cells, right=range(3, len(COLUMNS))))
    if len(tensors) > MOST_TENSORS:
        parts.append(paragraph(f"and {len(tensors) - MOST_TENSORS} more tensors, see .tensors"))
    if stage.events:
        parts.append(paragraph(f"ran {_ops(stage.events)}"))
    parts.append(paragraph("prove it in a cell: stage.check()"))
    return box(f"stage {stage.name}", *parts)


def _fact(value: Any) -> str:
    return clipped(number(value) if type(value) in (int, float) else value, 60)


def _statistics(name: str, tensor: Any) -> tuple[Any, ...]:
    seen = look(tensor)
    form = tensor.format.name if tensor.format is not None else str(seen.host.dtype)
    ends = seen.extremes()
    low, high = ("-", "-") if ends is None else map(number, ends)
    counts = [
        seen.count("zero", "flushed to 0"),
        seen.count("subnormal"),
        "-" if seen.before is None else seen.count("flushed to 0"),
        seen.count("inf", "overflowed to inf"),
        seen.count("nan"),
    ]
    told = [_count(each, alarm=i >= 2) for i, each in enumerate(counts)]
    return clipped(name, 40), form, str(tuple(seen.host.shape)), low, high, *told


def _count(value: int | str, *, alarm: bool) -> Html | str:
    text = value if isinstance(value, str) else f"{value:,}"
    if not alarm or not isinstance(value, int) or not value:
        return text
    return tag("span", f"background:rgba({BAD},.3);border-radius:3px;padding:0 4px", text)


def _ops(events: Any) -> str:
    """Return "3 linear float16, 2 cast float16 -> float32, ..."."""
    found: Counter[str] = Counter()
    for event in events:
        node = event.node
        into = node.options.get("format")
        form = "" if node.format is None else f" {node.format.name}"
        form += f" -> {into.name}" if node.op.name == "cast" and into is not None else ""
        found[f"{node.op.name}{form}{'' if event.phase == 'forward' else ' backward'}"] += 1
    most = found.most_common(MOST_OPS)
    more = f", and {len(found) - MOST_OPS} other kinds" if len(found) > MOST_OPS else ""
    return ", ".join(f"{count} x {name}" for name, count in most) + more


def findings_html(findings: Any) -> Html:
    """Return what a check found."""
    good = not findings.wrong
    verdict = badge("ok" if good else f"WRONG: {len(findings.wrong)}", GOOD if good else BAD)
    first = head("check", findings.claim, [verdict, badge(f"{findings.checked:,} values")])
    return box("check", first, *_found(findings))


def _found(findings: Any) -> Iterator[Html]:
    for each in findings.wrong[:MOST_FINDINGS]:
        where = f"{clipped(each.where)}: " if each.where else ""
        words = (
            f"{where}{clipped(each.what, 200)}; expected {clipped(each.expected)}, got {clipped(each.got)}"
        )
        yield tag("div", f"border-left:3px solid rgba({BAD},.8);padding-left:8px;margin:3px 0", words)
    if len(findings.wrong) > MOST_FINDINGS:
        yield paragraph(f"and {len(findings.wrong) - MOST_FINDINGS} more")
    for note in findings.notes[:MOST_FINDINGS]:
        yield paragraph(f"note: {clipped(note, 300)}")


def report_html(report: Any) -> Html:
    """Return what a step did."""
    verdict = badge("skipped", BAD) if report.skipped else badge("updated", GOOD)
    facts = [
        ("loss", number(report.loss)),
        ("loss scale", number(report.loss_scale)),
        ("gradient norm", number(report.grad_norm)),
    ]
    table = rows(("", ""), [(tag("span", FAINT, name), value) for name, value in facts], right=(1,))
    parts = [head("step", "", [verdict]), table]
    if report.nonfinite:
        names = ", ".join(clipped(name, 40) for name in report.nonfinite[:MOST_TENSORS])
        more = len(report.nonfinite) - MOST_TENSORS
        names += f" and {more} more" if more > 0 else ""
        parts.append(tag("div", "margin-top:6px", "gradient not finite: ", tag("span", MONO, names)))
    return box("step", *parts)
