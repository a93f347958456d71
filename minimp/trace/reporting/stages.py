"""The stages of a training step as a table: what each computes, what it took, whether its check held."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from minimp.trace.events import Span, TraceEvent
from minimp.trace.reporting.texts import count, printable

__all__ = ["STAGES", "memory_rows", "stage_rows"]

STAGES = {
    "cast_weights": ("w16 = round16(w32)", "copies the weights into the compute format"),
    "forward": ("y = f(x16, w16)", "runs the model"),
    "loss": ("L = loss(y) / n in FP32", "computes the loss of n micro-batches"),
    "scale_loss": ("L' = S L", "multiplies the loss by the loss scale S"),
    "backward": ("g16 = dL'/dw16", "computes the gradients, S times as large"),
    "unscale": ("g32 = n g16 / S", "divides them by S, in FP32"),
    "check_finite": ("found_inf = any non-finite", "looks for gradients that overflowed"),
    "clip": ("g32 <- g32 min(1, c / |g|)", "limits their norm to c, where one is set"),
    "update": ("w32 <- w32 - lr u(g32), or skip", "changes the weights, or skips the step"),
    "update_scale": ("S <- 2 S, S / 2 or S", "adapts the loss scale"),
}
"""Stage -> (equation, what it does): Micikevicius et al. 2018, arXiv 1710.03740, section 3."""


def stage_rows(
    events: Sequence[TraceEvent], spans: Sequence[Span], checks: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return a row for each stage that was seen or checked.

    Args:
        events, spans: of the recording.
        checks: stage -> what `Stage.check()` returned.
    """
    seen = {event.stage for event in events if event.stage}
    names = [*STAGES, *sorted((seen | set(checks)) - set(STAGES))]
    times: dict[str, list[int]] = {}
    ops: dict[str, int] = {}
    for span in spans:
        if span.kind == "stage":
            times.setdefault(span.name, []).append(span.end - span.start)
    for event in events:
        if event.phase != "stage":
            ops[event.stage] = ops.get(event.stage, 0) + 1
    return [_row(name, times.get(name, []), ops.get(name, 0), checks.get(name)) for name in names
            if name in seen or name in checks]  # fmt: skip


def _row(name: str, times: list[int], ops: int, findings: Any) -> dict[str, Any]:
    equation, words = STAGES.get(name, ("", ""))
    state, told = (
        ("soft", "not run") if findings is None else ("good", "holds") if findings else ("bad", "wrong")
    )
    said = "" if findings is None else printable(" ".join(str(findings).split()), 400)
    return {
        "name": printable(name), "equation": equation, "words": words, "state": state,
        "told": told, "said": said,
        "time": f"{median(times) / 1e6:,.3g}" if times else "–", "ops": count(ops),
    }  # fmt: skip


def memory_rows(memory: Any) -> tuple[list[str], list[tuple[str, list[int]]]]:
    """Return (columns, rows of cause and bytes) of a ledger, or of plain cause -> bytes."""
    if memory is None:
        return [], []
    if hasattr(memory, "logical") and hasattr(memory, "physical"):
        columns = [each.as_dict() for each in (memory.logical, memory.physical)]
        return ["in their own formats", "in this process"], [
            (name, [each[name] for each in columns]) for name in columns[0]
        ]
    held = memory.as_dict() if hasattr(memory, "as_dict") else dict(memory)
    return ["bytes"], [(str(name), [int(value)]) for name, value in held.items()]
