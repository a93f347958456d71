"""How a step went, in figures, and two of them side by side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import frexp, isfinite
from typing import TYPE_CHECKING, Any

from minimp.trace.questions.chains import first_nonfinite
from minimp.trace.questions.tables import number

if TYPE_CHECKING:
    from minimp.stepper.running import Run

__all__ = ["Outcome", "beside", "outcome_of", "scale_text"]


@dataclass(frozen=True)
class Outcome:
    """How a whole step went.

    Attributes:
        loss: the loss, undivided.
        loss_scale, next_scale: the scale that the step used, and that of the next one.
        skipped: whether the update was left out.
        grad_norm: the norm of the unscaled gradients; NaN where one is not finite.
        nonfinite: the names of the parameters whose gradient is not finite.
        flushed, overflowed: results that ops made 0, and infinite.
        first: the first op, gradient or stage with a value that is not finite; "" if there is none.
        formats: how many ops and gradients there were by the format of their first result.
    """

    loss: float
    loss_scale: float
    next_scale: float
    skipped: bool
    grad_norm: float
    nonfinite: tuple[str, ...]
    flushed: int
    overflowed: int
    first: str
    formats: tuple[tuple[str, int], ...]


def outcome_of(run: Run) -> Outcome:
    """Return how a run whose stages are done went."""
    facts: dict[str, Any] = {}
    for stage in run.stages:
        facts |= {f"{stage.name}.{name}": value for name, value in stage.facts.items()}
    events = [moment.event for moment in run.moments]
    ops = [event for event in events if event.phase != "stage"]
    found = first_nonfinite(events)
    formats: dict[str, int] = {}
    for event in ops:
        side = next((side for side in event.outputs if side is not None), None)
        if side is not None:
            formats[side.format] = formats.get(side.format, 0) + 1
    state = run.state
    return Outcome(
        state.loss.item() * facts["loss.micro_batches"], state.scale, facts["update_scale.loss_scale"],
        state.skipped, state.norm, state.nonfinite, sum(event.flushed for event in ops),
        sum(event.overflowed for event in ops), "" if found is None else _named(found.event),
        tuple(sorted(formats.items())),
    )  # fmt: skip


def _named(event: Any) -> str:
    return f"#{event.number} {event.title}" + (f" in {event.module}" if event.module else "")


def scale_text(scale: float) -> str:
    """Return a loss scale as a power of two, where it is one."""
    part, power = frexp(scale)
    return f"2^{power - 1}" if isfinite(scale) and part == 0.5 and scale != 1 else number(scale)


def beside(before: Outcome, after: Outcome) -> list[tuple[str, str, str]]:
    """Return rows of (what, before, after)."""
    rows: dict[str, Callable[[Outcome], str]] = {
        "loss": lambda o: f"{o.loss:.9g}",
        "loss scale": lambda o: scale_text(o.loss_scale),
        "flushed to 0": lambda o: number(o.flushed),
        "overflowed": lambda o: number(o.overflowed),
        "first non-finite": lambda o: o.first or "none",
        "gradients not finite": lambda o: number(len(o.nonfinite)),
        "gradient norm": lambda o: f"{o.grad_norm:.9g}",
        "update": lambda o: "skipped" if o.skipped else "made",
        "next loss scale": lambda o: scale_text(o.next_scale),
        "ops by format": lambda o: ", ".join(f"{name} {count}" for name, count in o.formats),
    }
    return [(name, say(before), say(after)) for name, say in rows.items()]
