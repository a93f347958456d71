"""Norms of vectors, and distances and angles between them, composed of other ops as in torch."""

from __future__ import annotations

import math
from typing import Any

from minimp import ops
from minimp.errors import SettingError
from minimp.functional.common import as_the_policy_asks, format_or_none, tensor_of
from minimp.tensors import Tensor

__all__ = ["cosine_similarity", "norm", "normalize", "pairwise_distance"]


def norm(
    input: Any, p: float | str | None = "fro", dim: Any = None, keepdim: bool = False, dtype: Any = None
) -> Tensor:
    """The p-norm of all elements, or of the vectors along `dim` (torch.norm).

    Args:
        input: a floating tensor.
        p: a number, inf, -inf, or "fro" (and None), which is 2: the root of the sum of squares. The sum of
            singular values, "nuc", is not offered.
        dim, keepdim: the axes, and whether they stay, of length 1.
        dtype: the format computed in and of the result.
    """
    if isinstance(p, str) and p != "fro":
        raise SettingError(f"norm: expected a number or 'fro', got {p!r}")
    order = 2.0 if p is None or isinstance(p, str) else p
    dims = tuple(dim) if isinstance(dim, list) else dim
    return ops.linalg_vector_norm(input, p=order, dim=dims, keepdim=keepdim, dtype=format_or_none(dtype))


def normalize(input: Any, p: float = 2.0, dim: int = 1, eps: float = 1e-12) -> Tensor:
    """x / max(|x|_p, eps) over `dim`, |x|_p the p-norm."""
    x = tensor_of(input)
    return x / norm(x, p, dim, keepdim=True).clamp(min=eps)


def pairwise_distance(x1: Any, x2: Any, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> Tensor:
    """The p-norm of x1 - x2 + eps over the last axis; (..., D), (..., D) -> (...)."""
    return norm(tensor_of(x1) - x2 + eps, p, -1, keepdim)


def cosine_similarity(x1: Any, x2: Any, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """Sum of x1 x2 / (max(|x1|, eps) max(|x2|, eps)) over `dim` of their broadcast shape.

    Under autocast it is computed in float32. In float16, an eps below its smallest number counts as 0. Of a
    norm between 0 and eps, torch's gradient goes on as if eps did not act; here it is 0.
    """
    a, b = (as_the_policy_asks("cosine_similarity", tensor_of(x)) for x in (x1, x2))
    if not math.isfinite(eps) or eps < 0:
        raise SettingError(f"cosine_similarity: expected eps >= 0, got {eps}")
    shape = a.backend.xp.broadcast_shapes(a.shape, b.shape)
    alike = (tensor_of(x) if x.shape == shape else tensor_of(x).expand(shape) for x in (a, b))
    first, second = (x / norm(x, 2, dim, keepdim=True).clamp(min=eps) for x in alike)
    return (first * second).sum(dim)
