"""Losses of distances between vectors, composed of other ops, each of which rounds."""

from __future__ import annotations

from typing import Any

from minimp import ops
from minimp.errors import SettingError, ShapeError
from minimp.functional.common import as_the_policy_asks
from minimp.functional.lifting import lifted_beside
from minimp.functional.normalization import vector_norm
from minimp.functional.selection import clamp
from minimp.modes import setting
from minimp.ops.margin_losses import check_signs
from minimp.ops.reducing import check_reduction
from minimp.tape import Value
from minimp.tensors import Tensor

__all__ = ["cosine_embedding_loss", "triplet_margin_loss"]

TINY = 1e-12
"""What torch adds to each squared length of cosine_embedding_loss."""


def cosine_embedding_loss(
    input1: Any, input2: Any, target: Any, margin: float = 0.0, reduction: str = "mean"
) -> Tensor:
    """1 - c where t = 1, max(0, c - margin) where t = -1, c the cosine of the rows; (N, D) or (D,).

    c = x1 . x2 / sqrt((|x1|^2 + 1e-12) (|x2|^2 + 1e-12)). Composed of other ops, each of which rounds; under
    autocast all of it is float32's.

    Args:
        input1, input2: (N, D) and (N, D), or (D,) and (D,).
        target: 1 and -1: (N,), or ().
        margin: from -1 to 1; 0 to 0.5 is advised.
        reduction: "mean", "sum" or "none".

    Raises:
        DataError: a target is neither 1 nor -1. ShapeError: the shapes are others.
    """
    name = "cosine_embedding_loss"
    check_reduction(name, reduction)
    a = as_the_policy_asks(name, input1 if isinstance(input1, Value) else Value.lift(input1, None))
    b = as_the_policy_asks(name, lifted_beside(a, input2))
    t = lifted_beside(a, target)
    if not 1 <= len(a.shape) <= 2 or len(b.shape) != len(a.shape) or len(t.shape) != len(a.shape) - 1:
        raise ShapeError(
            f"expected (N, D), (N, D) and (N,), or (D,), (D,) and (), got {a.shape}, {b.shape} and {t.shape}",
            op=name, shapes=[a.shape, b.shape, t.shape],
        )  # fmt: skip
    signs = t.backend.wide(t.array)
    check_signs(name, signs)
    with setting(autocast=None):
        lengths = [ops.add(ops.sum_(ops.mul(x, x), dim=-1), TINY) for x in (a, b)]
        cosine = ops.div(ops.sum_(ops.mul(a, b), dim=-1), ops.sqrt(ops.mul(*lengths)))
        near, far = ops.sub(1, cosine), clamp(ops.sub(cosine, margin), min=0)
        terms = ops.where(Value.make(signs > 0, t.backend), near, far)
        return _reduced(terms, reduction)


def triplet_margin_loss(
    anchor: Any, positive: Any, negative: Any, margin: float = 1.0, p: float = 2, eps: float = 1e-6,
    swap: bool = False, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """max(0, |a - p| - |a - n| + margin), distances by the p-norm of x1 - x2 + eps; (N, D) or (D,).

    With swap the smaller of |a - n| and |p - n| counts (Balntas et al. 2016). Composed of other ops, each of
    which rounds; under autocast all of it is float32's.

    Args:
        anchor, positive, negative: (N, D) or (D,), broadcasting.
        margin: above 0.
        p: of the norm, above 0.
        eps: added to each difference, so that the norm of 0 has a gradient.
        swap: see above.
        reduction: "mean", "sum" or "none".

    Raises:
        SettingError: margin not above 0. ShapeError: other numbers of axes.
    """
    name = "triplet_margin_loss"
    check_reduction(name, reduction)
    if not margin > 0:
        raise SettingError(f"{name}: expected a margin above 0, got {margin}")
    a = as_the_policy_asks(name, anchor if isinstance(anchor, Value) else Value.lift(anchor, None))
    near, far = (as_the_policy_asks(name, lifted_beside(a, x)) for x in (positive, negative))
    shapes = [x.shape for x in (a, near, far)]
    if len({len(shape) for shape in shapes}) > 1:
        raise ShapeError(f"expected three inputs of as many axes, got {shapes}", op=name, shapes=shapes)
    with setting(autocast=None):

        def distance(x: Value, y: Value) -> Tensor:
            return vector_norm(ops.add(ops.sub(x, y), eps), p, dim=-1)

        apart = distance(a, far)
        if swap:
            apart = ops.minimum(apart, distance(near, far))
        return _reduced(clamp(ops.add(ops.sub(distance(a, near), apart), margin), min=0), reduction)


def _reduced(terms: Tensor, reduction: str) -> Tensor:
    if reduction == "none":
        return terms
    return ops.mean(terms) if reduction == "mean" else ops.sum_(terms)
