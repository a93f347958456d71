"""Bytes by cause: what a training step holds, and why.

The figures are *logical*: what hardware with real 16-bit arithmetic would hold. This process holds more:
the NumPy backend keeps float32 twins of 16-bit arrays as a cache (:mod:`minimp_backends.twins`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from minimp import rng
from minimp.recipe import Recipe
from minimp.tape import Array, Node

if TYPE_CHECKING:
    from minimp.step import TrainStep

__all__ = ["Ledger", "ledger", "saved_arrays"]


@dataclass(frozen=True)
class Ledger:
    """Bytes held at the end of a step's backward, by cause.

    Attributes:
        weights: the weights that products read: low copies under autocast, else the parameters.
        master: FP32 weights that updates accumulate in, where `weights` are low copies of them.
        gradients: the parameters' `.grad`.
        optimizer: momentum, moments and compensation terms.
        activations: arrays saved by the forward for backward, without weights and their casts.
    """

    weights: int
    master: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        """The sum of all causes, in bytes."""
        return sum(self.as_dict().values())

    def as_dict(self) -> dict[str, int]:
        """Return cause -> bytes."""
        return asdict(self)

    def __str__(self) -> str:
        rows = [*self.as_dict().items(), ("total", self.total)]
        return "\n".join(f"{cause:12} {count:>15,} bytes" for cause, count in rows)


def ledger(step: TrainStep, inputs: Any, targets: Any) -> Ledger:
    """Run a step up to its backward, and count what it holds then.

    Weights, buffers, gradients, optimizer state and the random generator are left as they were. Optimizer
    state is made at an optimizer's first update: before that, its bytes are 0.

    Args:
        step: a training step.
        inputs, targets: one batch, as for `step(inputs, targets)`.
    """
    before = [(p, p.grad) for p in step.model.parameters()]
    buffers = [(b, b.array) for b in step.model.buffers()]  # batch norm's move in every forward
    state = rng.get_rng_state()
    try:
        return _count(step, inputs, targets)
    finally:
        rng.set_rng_state(state)
        for p, grad in before:
            p.grad = grad
        for b, array in buffers:
            b.array = array


def _count(step: TrainStep, inputs: Any, targets: Any) -> Ledger:
    nodes: list[Node] = []
    parameters = list(step.model.parameters())
    held = {id(owner(p.array)) for p in parameters}
    low_bytes = activations = 0
    for stage in step.stages(inputs, targets):
        nodes += [event.node for event in stage.events]
        if stage.name == "cast_weights":
            casts = [t.array for t in stage.tensors.values()]
            held |= {id(owner(a)) for a in casts}
            low_bytes = sum(a.nbytes for a in casts)
        if stage.name == "loss":
            activations = sum(a.nbytes for key, a in saved_arrays(nodes).items() if key not in held)
        if stage.name == "backward":
            break
    gradients = sum(p.grad.nbytes for p in parameters if p.grad is not None)
    kept = step.optimizer.nbytes()
    masters = kept["master"]
    if step.recipe.master_weights and not Recipe.low(step.recipe.param_dtype):
        masters = sum(p.array.nbytes for p in parameters)
    return Ledger(low_bytes, masters, gradients, kept["state"], activations)


def saved_arrays(nodes: Iterable[Node]) -> dict[int, Array]:
    """Return the arrays that nodes keep for backward, each memory once: id of the owner -> owner."""
    found = {}
    for node in nodes:
        for array in node.saved:
            if array is not None and hasattr(array, "nbytes"):
                found[id(owner(array))] = owner(array)
    return found


def owner(array: Array) -> Array:
    """Return the array that owns the memory of a view."""
    while hasattr(getattr(array, "base", None), "nbytes"):
        array = array.base
    return array
