"""Losses with targets of 1 and -1, and a margin.

Inputs broadcast where torch's do without a warning. Targets other than 1 and -1 are refused where torch would
take them for something else.
"""

from __future__ import annotations

from typing import Any

from minimp import ops
from minimp.errors import ShapeError
from minimp.tensors import Tensor

__all__ = ["hinge_embedding_loss", "margin_ranking_loss", "soft_margin_loss"]


def soft_margin_loss(input: Any, target: Any, reduction: str = "mean") -> Tensor:
    """ln(1 + e^(-t x)), t of 1 and -1; broadcasting. No gradient by the target.

    Finite for every finite x (torch overflows to infinity where t x < -88).
    """
    return ops.soft_margin_loss(input, target, reduction=reduction)


def hinge_embedding_loss(input: Any, target: Any, margin: float = 1.0, reduction: str = "mean") -> Tensor:
    """x where t = 1, max(0, margin - x) where t = -1; broadcasting.

    Raises:
        DataError: a target is neither 1 nor -1 (torch adds both branches).
    """
    return ops.hinge_embedding_loss(input, target, margin=margin, reduction=reduction)


def margin_ranking_loss(
    input1: Any, input2: Any, target: Any, margin: float = 0.0, reduction: str = "mean"
) -> Tensor:
    """max(0, margin - t (x1 - x2)): t = 1 wants x1 above x2, t = -1 below; all of as many axes, broadcasting.

    Raises:
        ShapeError: they do not have the same number of axes.
    """
    axes = [len(getattr(x, "shape", ())) for x in (input1, input2, target)]
    if len(set(axes)) > 1:
        raise ShapeError(f"expected three inputs of as many axes, got {axes}", op="margin_ranking_loss")
    return ops.margin_ranking_loss(input1, input2, target, margin=margin, reduction=reduction)
