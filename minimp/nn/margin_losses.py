"""Losses with targets of 1 and -1, and of distances, as modules; the maths is in :mod:`minimp.functional`."""

from __future__ import annotations

from typing import Any

from minimp import functional
from minimp.errors import SettingError
from minimp.nn.losses import Loss
from minimp.tensors import Tensor

__all__ = [
    "CosineEmbeddingLoss", "HingeEmbeddingLoss", "MarginRankingLoss", "SoftMarginLoss", "TripletMarginLoss",
]  # fmt: skip


class _MarginLoss(Loss):
    """What losses with a margin share."""

    def __init__(self, margin: float, reduction: str) -> None:
        super().__init__(reduction)
        self.margin = margin


class CosineEmbeddingLoss(_MarginLoss):
    """1 - c where t = 1, max(0, c - margin) where t = -1, c the cosine of the rows.

    Args:
        margin: from -1 to 1; 0 to 0.5 is advised.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Raises:
        SettingError: another reduction.
    """

    def __init__(self, margin: float = 0.0, *, reduction: str = "mean") -> None:
        super().__init__(margin, reduction)

    def forward(self, input1: Any, input2: Any, target: Any) -> Tensor:
        """Return the loss of (N, D), (N, D) and (N,), or (D,), (D,) and ()."""
        return functional.cosine_embedding_loss(input1, input2, target, self.margin, self.reduction)


class HingeEmbeddingLoss(_MarginLoss):
    """x where t = 1, max(0, margin - x) where t = -1.

    Args:
        margin: how far apart what is unlike should be.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Raises:
        SettingError: another reduction.
    """

    def __init__(self, margin: float = 1.0, *, reduction: str = "mean") -> None:
        super().__init__(margin, reduction)

    def forward(self, input: Any, target: Any) -> Tensor:
        """Return the loss of distances and signs."""
        return functional.hinge_embedding_loss(input, target, self.margin, self.reduction)


class MarginRankingLoss(_MarginLoss):
    """max(0, margin - t (x1 - x2)).

    Args:
        margin: how far above the other the one should be.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Raises:
        SettingError: another reduction.
    """

    def __init__(self, margin: float = 0.0, *, reduction: str = "mean") -> None:
        super().__init__(margin, reduction)

    def forward(self, input1: Any, input2: Any, target: Any) -> Tensor:
        """Return the loss of two tensors and signs."""
        return functional.margin_ranking_loss(input1, input2, target, self.margin, self.reduction)


class SoftMarginLoss(Loss):
    """ln(1 + e^(-t x)), t of 1 and -1.

    Args:
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Raises:
        SettingError: another reduction.
    """

    def __init__(self, *, reduction: str = "mean") -> None:
        super().__init__(reduction)

    def forward(self, input: Any, target: Any) -> Tensor:
        """Return the loss of scores and signs."""
        return functional.soft_margin_loss(input, target, self.reduction)


class TripletMarginLoss(_MarginLoss):
    """max(0, |a - p| - |a - n| + margin); see :func:`minimp.functional.triplet_margin_loss`.

    Args:
        margin: above 0.
        p: of the norm, above 0.
        eps: added to each difference.
        swap: whether the smaller of |a - n| and |p - n| counts.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Raises:
        SettingError: another reduction, or a margin not above 0.
    """

    def __init__(
        self, margin: float = 1.0, p: float = 2.0, eps: float = 1e-6, swap: bool = False, *,
        reduction: str = "mean",
    ) -> None:  # fmt: skip
        if not margin > 0:
            raise SettingError(f"expected a margin above 0, got {margin}", op="TripletMarginLoss")
        super().__init__(margin, reduction)
        self.p = p
        self.eps = eps
        self.swap = swap

    def forward(self, anchor: Any, positive: Any, negative: Any) -> Tensor:
        """Return the loss of (N, D) or (D,) each."""
        return functional.triplet_margin_loss(
            anchor, positive, negative, self.margin, self.p, self.eps, self.swap, self.reduction
        )
