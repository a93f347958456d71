"""What a count of bytes says: by cause, in two columns, at the moments of a step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

__all__ = ["CAUSES", "MOMENTS", "Bytes", "Ledger"]

CAUSES: Mapping[str, str] = {
    "parameters": "the model's weights, where they are no FP32 masters of low copies; its buffers and FP8 "
    "scales",
    "masters": "FP32 weights that updates accumulate in, beside or under low copies",
    "low_copies": "16-bit casts of FP32 weights that autocast keeps for one step, and FP8 copies of weights",
    "gradients": "the parameters' gradients, as backward leaves them and as the update reads them",
    "optimizer": "momentum, moments and compensation terms",
    "activations": "arrays that the forward saved for backward, weights and their casts left out",
    "workspaces": "the batch and the results that a step holds, and scratch that kernels keep",
}
"""Cause -> what is counted under it."""

MOMENTS: Mapping[str, str] = {
    "forward": "the loss is there, backward has not begun",
    "backward": "every gradient is there, what was saved is gone",
    "update": "the weights are new, the gradients and the step's low copies not yet dropped",
}
"""Moments of a step at which bytes are counted -> what holds then."""


@dataclass(frozen=True)
class Bytes:
    """Bytes by cause; :data:`CAUSES` says what each is."""

    parameters: int = 0
    masters: int = 0
    low_copies: int = 0
    gradients: int = 0
    optimizer: int = 0
    activations: int = 0
    workspaces: int = 0

    @property
    def total(self) -> int:
        """The sum of all causes."""
        return sum(self.as_dict().values())

    def as_dict(self) -> dict[str, int]:
        """Return cause -> bytes."""
        return asdict(self)

    def highest(self, other: Bytes) -> Bytes:
        """Return the larger count of each cause."""
        return Bytes(**{each.name: max(getattr(self, each.name), getattr(other, each.name))
                        for each in fields(self)})  # fmt: skip


@dataclass(frozen=True)
class Ledger:
    """Bytes that one training step holds, by cause.

    The *logical* column is what hardware with real 16-bit arithmetic would hold: every array in its own
    format, each cause at its height (activations at the end of the forward, or in backward, when a part under
    `recompute` has just run again; gradients at the end of the backward). The *physical* column is what this
    process holds: also the float32 twins of 16-bit arrays, the float32 gradients that the update reads, the
    weights that an update has just replaced, and scratch.

    Attributes:
        logical: the logical column.
        moments: moment -> what the process holds then; :data:`MOMENTS` says when that is.
        elements: the number of parameters.
    """

    logical: Bytes
    moments: Mapping[str, Bytes] = field(default_factory=dict)
    elements: int = 0

    @property
    def physical(self) -> Bytes:
        """The physical column: the most that each cause holds at any of the moments."""
        height = Bytes()
        for found in self.moments.values():
            height = height.highest(found)
        return height

    @property
    def peak(self) -> int:
        """The most bytes that all causes together hold in the process at one of the moments."""
        return max((found.total for found in self.moments.values()), default=0)

    # ---- five logical figures, as logs and comparisons show them ----------------------------------------

    @property
    def weights(self) -> int:
        """The weights that products read: low copies under autocast, else the parameters."""
        return self.logical.low_copies or self.logical.parameters

    @property
    def master(self) -> int:
        """FP32 weights that updates accumulate in, where `weights` are low copies of them."""
        return self.logical.masters

    @property
    def gradients(self) -> int:
        """The parameters' `.grad`."""
        return self.logical.gradients

    @property
    def optimizer(self) -> int:
        """Momentum, moments and compensation terms."""
        return self.logical.optimizer

    @property
    def activations(self) -> int:
        """Arrays saved by the forward for backward, without weights and their casts."""
        return self.logical.activations

    @property
    def total(self) -> int:
        """The sum of the logical column, in bytes."""
        return self.logical.total

    def as_dict(self) -> dict[str, int]:
        """Return the five logical figures: name -> bytes."""
        names = ("weights", "master", "gradients", "optimizer", "activations")
        return {name: getattr(self, name) for name in names}

    def details(self) -> dict[str, Any]:
        """Return both columns and the moments as plain data, for JSON."""
        return {
            "parameters": self.elements,
            "logical": {**self.logical.as_dict(), "total": self.logical.total},
            "physical": {**self.physical.as_dict(), "peak": self.peak},
            "moments": {
                name: {**found.as_dict(), "total": found.total} for name, found in self.moments.items()
            },
        }

    def __str__(self) -> str:
        held = self.physical.as_dict()
        lines = [f"{'bytes':13}{'logical':>18}{'physical':>18}"]
        lines += [f"{name:13}{count:18,}{held[name]:18,}" for name, count in self.logical.as_dict().items()]
        return "\n".join([*lines, f"{'total, peak':13}{self.total:18,}{self.peak:18,}"])
