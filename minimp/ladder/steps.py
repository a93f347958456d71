"""The lines of training steps and loss scales."""

from __future__ import annotations

from collections.abc import Iterator
from math import isfinite
from typing import Any

from minimp.errors import MinimpError
from minimp.ladder.lines import nonfinite
from minimp.scaler import LayerwiseScaler, ScaleState
from minimp.scaler.naming import named_parameters
from minimp.tape.scales import shown

__all__ = ["of_layers", "of_scale", "of_scaler", "of_train_step"]

MOST_NAMES = 8
"""So many parameters get a line of their own in a skipped step; the others are counted."""


def of_train_step(number: int, step: Any, state: Any) -> Iterator[str]:
    """Yield the lines of a step of a TrainStep, after its update."""
    scale = f"loss scale {shown(state.scale)}" if step.scaler.is_enabled() else "no loss scale"
    if isinstance(step.scaler, LayerwiseScaler):
        scale = "a scale by layer"
    loss = float(state.loss.detach().float().item()) * step.micro_batches
    bad, count = len(state.nonfinite), len(state.gradients)
    ending = f"updated, gradient norm {state.norm:.4g}"
    if bad:
        ending = f"{'SKIPPED' if state.skipped else 'updated'}, {bad} of {count} gradients not finite"
    yield f"minimp 1 step  {number:<5} loss {loss:<10.5g} {scale}: {ending}"
    if bad:
        yield f"minimp 1 why   {number:<5} {_reason(state)}"
        grads = [(name, state.gradients[name], state.backend) for name in state.nonfinite]
        yield from _culprits(number, grads)


def _reason(state: Any) -> str:
    """Say where the first infinity or NaN came from, as far as the step itself knows."""
    loss, scaled = (float(each.detach().float().item()) for each in (state.loss, state.scaled))
    if not isfinite(loss):
        return f"the loss itself is {loss:g}: the loss scale is not the cause"
    if not isfinite(scaled):
        return f"the loss {loss:.5g} times the loss scale {shown(state.scale)} is not finite"
    return f"the loss {loss:.5g} is finite, also times {shown(state.scale)}: made in backward"


def of_scaler(number: int, scaler: Any, optimizer: Any, report: Any) -> Iterator[str]:
    """Yield the lines of one `scaler.step(optimizer)`."""
    scale = f"loss scale {shown(report.scale)}" if scaler.is_enabled() else "no loss scale"
    bad = report.nonfinite
    ending = f"SKIPPED, {len(bad)} of {report.checked} gradients not finite" if report.skipped else "updated"
    yield f"minimp 1 step  {number:<5} {report.optimizer}, {scale}: {ending}"
    if bad:
        yield from _culprits(number, _bad_gradients(scaler, optimizer, bad))


def _bad_gradients(scaler: Any, optimizer: Any, bad: tuple[str, ...]) -> list[tuple[str, Any, Any]]:
    """Return name, gradient and backend of the parameters with these names; gradients that are gone: None."""
    try:
        held = dict(named_parameters(optimizer, scaler._names))
    except (MinimpError, AttributeError):  # an optimizer of someone's own
        held = {}
    found = [(name, held.get(name)) for name in bad]
    return [
        (name, None, None) if p is None or p.grad is None else (name, p.grad.array, p.backend)
        for name, p in found
    ]


def _culprits(number: int, grads: list[tuple[str, Any, Any]]) -> Iterator[str]:
    for name, grad, backend in grads[:MOST_NAMES]:
        if grad is None:
            yield f"minimp 1 skip  {number:<5} {name}"
            continue
        wide = backend.wide(grad)
        inf, nan = (int(test(wide).sum()) for test in (backend.xp.isinf, backend.xp.isnan))
        count = f"{nonfinite(inf, nan) or 'none bad now'} of {wide.size:,} values"
        yield f"minimp 1 skip  {number:<5} {count:32} {name}"
    if len(grads) > MOST_NAMES:
        yield f"minimp 1 skip  {number:<5} and {len(grads) - MOST_NAMES} more parameters"


def of_scale(scale: Any, before: ScaleState, after: ScaleState) -> Iterator[str]:
    """Yield the line of a scale that moved; none of one that stayed."""
    if before.scale == after.scale:
        return
    if after.skips:
        why = f"{after.skips} bad {'steps in a row' if after.skips > 1 else 'step'}"
    else:
        why = f"{before.growth_tracker + 1} good steps in a row"
    label = "" if scale._label == "GradScaler" else f" {scale._label}"
    yield f"minimp 1 scale{label} {shown(before.scale)} -> {shown(after.scale)}, after {why}"


def of_layers(scaler: Any) -> Iterator[str]:
    """Yield the lines of the layers that overflowed, where each layer has a scale."""
    if isinstance(scaler, LayerwiseScaler):
        for name in scaler.overflowed:
            yield f"minimp 1 scale of layer {name} halved, unless fixed: it overflowed"
