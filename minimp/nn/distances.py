"""Distances and angles between vectors."""

from __future__ import annotations

from typing import Any

from minimp import functional
from minimp.nn.module import Module
from minimp.tensors import Tensor

__all__ = ["CosineSimilarity", "PairwiseDistance"]


class CosineSimilarity(Module):
    """x1 . x2 / (max(|x1|, eps) max(|x2|, eps)) along an axis.

    Args:
        dim: the axis.
        eps: what a norm is at least.
    """

    def __init__(self, dim: int = 1, eps: float = 1e-8) -> None:
        super().__init__()
        self.dim, self.eps = dim, eps

    def forward(self, x1: Any, x2: Any) -> Tensor:
        """Return the cosines of the angles."""
        return functional.cosine_similarity(x1, x2, self.dim, self.eps)


class PairwiseDistance(Module):
    """|x1 - x2 + eps| along the last axis, a p-norm; see :func:`minimp.functional.pairwise_distance`.

    Args:
        p: of the norm.
        eps: added to each difference.
        keepdim: whether the axis stays, of length 1.
    """

    def __init__(self, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> None:
        super().__init__()
        self.norm, self.eps, self.keepdim = p, eps, keepdim

    def forward(self, x1: Any, x2: Any) -> Tensor:
        """Return the distances."""
        return functional.pairwise_distance(x1, x2, self.norm, self.eps, self.keepdim)
