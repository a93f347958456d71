"""The state of training between two stages: kept, put back, and told by a fingerprint of its bits."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import numpy as np

from minimp import fp8
from minimp.bisecting.memento import Memento
from minimp.rng import get_rng_state

if TYPE_CHECKING:
    from minimp.step import TrainStep

__all__ = ["Snapshots", "fingerprint", "state_bytes"]


def fingerprint(step: TrainStep) -> str:
    """Return the SHA-256 of every bit that a training step can change, as hexadecimal text.

    Weights, buffers, gradients, the optimizer's state with its masters and options, the loss scaler, FP8
    scales and their histories, the random generator; and which policy and formats are in force.
    """
    leaves = {**dict(step.model.named_parameters()), **dict(step.model.named_buffers())}
    held = {
        "leaves": {name: leaf.backend.to_host(leaf.array) for name, leaf in leaves.items()},
        "gradients": {
            name: leaf.backend.to_host(leaf.grad.array)
            for name, leaf in leaves.items()
            if leaf.grad is not None
        },
        "optimizer": step.optimizer.state_dict(),
        "counts": [step.optimizer.steps_taken, step.optimizer.steps_skipped],
        "scaler": step.scaler.state_dict(),
        "machine": repr(step.scaler.state),
        "fp8": fp8.state_dict(step.model),
        "rng": get_rng_state(),
        "recipe": repr(step.recipe),
    }
    made = sha256()
    _take_in(made, held)
    return made.hexdigest()


def _take_in(made: Any, value: Any) -> None:
    """Feed a nested value to a hash: its kinds, names, shapes and bits."""
    if isinstance(value, Mapping):
        made.update(b"{")
        for name, each in value.items():
            made.update(repr(name).encode())
            _take_in(made, each)
        made.update(b"}")
    elif isinstance(value, list | tuple):
        made.update(b"[")
        for each in value:
            _take_in(made, each)
        made.update(b"]")
    elif isinstance(value, np.ndarray):
        made.update(f"{value.dtype}{value.shape}".encode())
        made.update(np.ascontiguousarray(value).tobytes())
    else:
        made.update(f"{type(value).__name__}:{value!r};".encode())


def state_bytes(step: TrainStep) -> int:
    """Return about how many bytes a snapshot of a training step holds."""
    weights = sum(int(leaf.array.nbytes) for leaf in (*step.model.parameters(), *step.model.buffers()))
    return 2 * weights + sum(step.optimizer.nbytes().values())  # gradients are as large as the weights


class Snapshots:
    """The states at the beginnings of steps: the first, and the newest within a bound.

    Args:
        step: the training step.
        most: how many are kept at most, the first one aside.
        most_bytes: the same by bytes; two are kept always.
    """

    def __init__(self, step: TrainStep, *, most: int, most_bytes: int) -> None:
        self.step, self.most, self.most_bytes = step, most, most_bytes
        self._held: dict[int, Memento] = {}
        self._first: int | None = None

    def __contains__(self, number: int) -> bool:
        """Tell whether the beginning of a step can be gone back to."""
        return number in self._held

    @property
    def oldest(self) -> int:
        """The earliest step, the first one aside, that can be gone back to."""
        return min((n for n in self._held if n != self._first), default=self._first or 0)

    def keep(self, number: int) -> None:
        """Keep the state as it is now, as the beginning of a step."""
        if self._first is None:
            self._first = number
        self._held[number] = Memento([self.step])
        allowed = min(self.most, max(self.most_bytes // max(state_bytes(self.step), 1), 2))
        for old in sorted(n for n in self._held if n != self._first)[:-allowed]:
            del self._held[old]

    def restore(self, number: int) -> None:
        """Put the state back in which a step began, every bit of it."""
        self._held[number].restore()

    def forget_after(self, number: int) -> None:
        """Let go of the beginnings of later steps: they will not come about so."""
        for later in [n for n in self._held if n > number]:
            del self._held[later]
