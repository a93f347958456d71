"""Counting the bytes of a real step: with its update, or up to it with everything left as it was."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from minimp import rng
from minimp.fp8.states import drop_staged
from minimp.memory.counting import held_by, logical_of, saved_of
from minimp.memory.records import Bytes, Ledger
from minimp.rerun import after_each_rerun
from minimp.scaler import GradScaler, LayerwiseScaler
from minimp.step import TrainStep

__all__ = ["ledger", "measure"]

AFTER = {"loss": "forward", "backward": "backward", "update": "update"}
"""The stage after which a moment is counted."""


def ledger(step: TrainStep, inputs: Any, targets: Any) -> Ledger:
    """Run a step up to its backward, and count what it holds; nothing changes.

    Weights, buffers, gradients, FP8 scales, optimizer state and the random generator are left as they were.
    The moment "update" is missing: :func:`measure` has it. Optimizer state is made at an optimizer's first
    update: before that, its bytes are 0.

    Args:
        step: a training step.
        inputs, targets: one batch, as for `step(inputs, targets)`.
    """
    before = [(p, p.grad) for p in step.model.parameters()]
    buffers = [(b, b.array) for b in step.model.buffers()]
    state, scaler = rng.get_rng_state(), step.scaler
    step.scaler = _that_may_learn(step)
    try:
        return count(step, inputs, targets, last="backward")
    finally:
        step.scaler = scaler
        rng.set_rng_state(state)
        for p, grad in before:
            p.grad = grad
        for buffer, array in buffers:
            buffer.array = array
        drop_staged(step.fp8_layers.values())


def _that_may_learn(step: TrainStep) -> GradScaler | LayerwiseScaler:
    """Return the step's scaler; for one that learns in backward, another that knows the same."""
    if not isinstance(step.scaler, LayerwiseScaler):
        return step.scaler
    made = LayerwiseScaler().name_parameters(step.model)
    made.load_state_dict(step.scaler.state_dict())
    return made


def measure(
    step: TrainStep, inputs: Any, targets: Any, *, on_moment: Callable[[str], None] | None = None
) -> Ledger:
    """Take one step of training, and count what it holds at each moment.

    The step is the one that `step(inputs, targets)` takes, to the bit. The optimizer's state is counted as it
    is after the update, so the first step has the logical column of all others; a step that is skipped before
    the first update has none.

    Args:
        step: a training step.
        inputs, targets: one batch, as for `step(inputs, targets)`.
        on_moment: called with the name of each moment, when its bytes are counted.
    """
    return count(step, inputs, targets, last="update_scale", on_moment=on_moment)


def count(
    step: TrainStep, inputs: Any, targets: Any, *, last: str, on_moment: Callable[[str], None] | None = None
) -> Ledger:
    """Run the stages up to `last`, unrecorded, and count at the moments between them."""
    moments: dict[str, Bytes] = {}
    logical, saved = Bytes(), (0, 0)

    def rise() -> None:
        nonlocal saved
        here, copies = saved_of(step, state)
        saved = max(saved[0], here), max(saved[1], copies)

    with after_each_rerun(rise):
        for name, state in step.walk(inputs, targets):
            if name == "loss":
                saved = saved_of(step, state)
            if name in AFTER:
                moments[AFTER[name]] = held_by(step, state)
                logical = logical_of(step, state, saved).highest(logical)
                if on_moment is not None:
                    on_moment(AFTER[name])
            if name == last:
                break
    elements = sum(p.array.size for p in step.model.parameters())
    return Ledger(logical, moments, elements)
