"""Losses of rows of scores in one pass over them, for backends that have kernels for it."""

from __future__ import annotations

from typing import Any, Protocol

__all__ = ["LossKernels", "RowLosses"]

Array = Any


class RowLosses(Protocol):
    """Cross-entropy from scores, to the bits of log_softmax and nll_loss one after the other."""

    def loss(
        self, scores: Array, labels: Array, weight: Array | None, smoothing: float
    ) -> tuple[Array, Array, Array]:
        """Return the loss of each row, wide, and two numbers of each row that the gradient wants.

        Args:
            scores: (N, C), a storage array.
            labels: (N,), integers below C; less than 0: the row counts for nothing.
            weight: (C,), a storage array, or None.
            smoothing: e: the target is (1 - e) onehot + e / C.
        """
        ...

    def gradient(
        self, grad: Array, scores: Array, labels: Array, weight: Array | None, kept: tuple[Array, Array],
        smoothing: float,
    ) -> Array:  # fmt: skip
        """Return the gradient of the scores, rounded once to their format.

        Args:
            grad: the gradient of each row's loss, wide, (N,), or () where it is the same for all.
            scores, labels, weight, smoothing: as of :meth:`loss`.
            kept: its two numbers of each row.
        """
        ...


class LossKernels:
    """What a backend has for losses."""

    def row_losses(self, scores: Array, accumulate: str) -> RowLosses | None:  # noqa: ARG002 - those of kernels
        """Return the kernels that take such scores; None where log_softmax and nll_loss are to do it."""
        return None
