"""Cross-entropy on the GPU: our kernels, one pass over the scores forward and one backward.

Nothing of their size is written between them, and the scores are what is kept: the gradient takes the
logarithms of the probabilities again. What the kernels do not take (float64, sums by another name,
``use_route("arrays")``, 16-bit scores while a recording counts what is lost) goes through log_softmax and
nll_loss, to the same bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from minimp import formats
from minimp_backends.accumulating import name_for_sums
from minimp_backends.array_backend import FLOAT32, Array
from minimp_backends.cupy_casts import CupyCasts
from minimp_backends.gpu import Kernels
from minimp_backends.kernels.calls import SPELLINGS
from minimp_backends.kernels.families.losses import KINDS_SERVED
from minimp_backends.row_losses import RowLosses

__all__ = ["CupyLosses"]


class CupyLosses(CupyCasts):
    """The kernels of losses."""

    def row_losses(self, scores: Array, accumulate: str) -> RowLosses | None:
        """Return the kernels, where they take such scores."""
        kernels, kind = self.kernels_in_force(), SPELLINGS.get(scores.dtype.name)
        if kernels is None or kind not in KINDS_SERVED or not scores.size:
            return None
        if name_for_sums(accumulate) != "float32":
            return None
        return None if self.rounds_apart(formats.get(scores.dtype)) else _OnGpu(self, kernels, kind)


@dataclass(frozen=True, slots=True)
class _OnGpu:
    """The kernels of one format of scores."""

    backend: CupyLosses
    kernels: Kernels
    kind: str

    def loss(
        self, scores: Array, labels: Array, weight: Array | None, smoothing: float
    ) -> tuple[Array, Array, Array]:
        """Return the losses; the largest score of each row, and the logarithm of the sum of e^(x - it)."""
        made = tuple(self.backend.xp.empty(len(scores), FLOAT32) for _ in range(3))
        self.kernels(
            f"cross_entropy_{self.kind}", **self._given(scores, labels, weight, smoothing),
            **dict(zip(("losses", "tops", "log_sums"), made, strict=True)),
        )  # fmt: skip
        return made

    def gradient(
        self, grad: Array, scores: Array, labels: Array, weight: Array | None, kept: tuple[Array, Array],
        smoothing: float,
    ) -> Array:  # fmt: skip
        """Return the gradient of the scores."""
        xp = self.backend.xp
        dx = xp.empty(scores.shape, scores.dtype)
        self.kernels(
            f"cross_entropy_gradient_{self.kind}", **self._given(scores, labels, weight, smoothing),
            tops=kept[0], log_sums=kept[1], grads=xp.ascontiguousarray(grad.reshape(-1)), dx=dx,
            each=grad.ndim,
        )  # fmt: skip
        return dx

    def _given(self, scores: Array, labels: Array, weight: Array | None, smoothing: float) -> dict[str, Any]:
        """What both kernels are told."""
        xp, (rows, length) = self.backend.xp, scores.shape
        spread = np.float32(smoothing / length)
        return {
            "x": xp.ascontiguousarray(scores),
            "labels": xp.ascontiguousarray(labels.astype(np.int64, copy=False)),
            "weight": [] if weight is None else [xp.ascontiguousarray(self.backend.wide(weight))],
            "peak": float(spread + np.float32(1 - smoothing)), "spread": float(spread),
            "rows": rows, "length": length,
        }  # fmt: skip
