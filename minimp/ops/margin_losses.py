"""Losses with targets of 1 and -1: float32 under autocast, one rounding."""

from __future__ import annotations

import math

from minimp.door import op
from minimp.errors import DataError
from minimp.ops.broadcasting import to_shape_of
from minimp.ops.reducing import over, reduced, spread_over
from minimp.policy import CastClass, Mixed
from minimp.refusals import refuse_if
from minimp.tape import Array, Node

__all__ = ["hinge_embedding_loss", "margin_ranking_loss", "soft_margin_loss"]


@op(cast=CastClass.FP32, mixed=Mixed.KEEP, bound="sum")
def soft_margin_loss(ctx: Node, x: Array, target: Array, *, reduction: str = "mean") -> Array:
    """ln(1 + e^(-t x)), t of 1 and -1; (...), (...) -> () or the broadcast shape.

    The target gets no gradient, and may have a format of its own. Taken as max(z, 0) + ln(1 + e^-|z|) with
    z = -t x; torch overflows to infinity from z = 89 on.
    """
    ctx.save(x, target)
    xp = ctx.backend.xp
    z = -(ctx.wide(x) * ctx.wide(target))
    return reduced(ctx, xp.where(z > 0, z, xp.zeros_like(z)) + xp.log1p(xp.exp(-abs(z))), reduction)


@soft_margin_loss.gradient
def _(ctx: Node, grad: Array, *, reduction: str = "mean") -> tuple[Array | None, ...]:
    x, target = ctx.saved
    xp, t = ctx.backend.xp, ctx.wide(target)
    z = -(ctx.wide(x) * t)
    small = xp.exp(-abs(z))
    sigmoid = xp.where(z >= 0, 1 / (1 + small), small / (1 + small))
    slope = -(spread_over(ctx, grad, reduction, z.size) * t) * sigmoid
    return to_shape_of(ctx, 0, ctx.round(slope)), None


@op(cast=CastClass.FP32, mixed=Mixed.KEEP, bound="sum")
def hinge_embedding_loss(
    ctx: Node, x: Array, target: Array, *, margin: float = 1.0, reduction: str = "mean"
) -> Array:
    """x where t = 1, max(0, margin - x) where t = -1; (...), (...) -> () or the broadcast shape.

    Another target is an error (torch adds both branches). The target gets no gradient, and may have a format
    of its own.
    """
    check_signs("hinge_embedding_loss", ctx.wide(target))
    ctx.save(x, target)
    xp, wide = ctx.backend.xp, ctx.wide(x)
    gap = margin - wide
    far = xp.where(gap < 0, xp.zeros_like(gap), gap)
    return reduced(ctx, xp.where(ctx.wide(target) > 0, wide, far), reduction)


@hinge_embedding_loss.gradient
def _(ctx: Node, grad: Array, *, margin: float = 1.0, reduction: str = "mean") -> tuple[Array | None, ...]:
    x, target = ctx.saved
    xp, positive = ctx.backend.xp, ctx.wide(target) > 0
    shape = xp.broadcast_shapes(x.shape, target.shape)
    sign = xp.where(positive, 1.0, -1.0 * ~(ctx.wide(x) > margin))
    g = spread_over(ctx, grad, reduction, math.prod(shape))
    slope = g * over(ctx, sign, shape).astype(g.dtype)
    return to_shape_of(ctx, 0, ctx.round(slope)), None


@op(cast=CastClass.FP32, bound="sum")
def margin_ranking_loss(
    ctx: Node, a: Array, b: Array, target: Array, *, margin: float = 0.0, reduction: str = "mean"
) -> Array:
    """max(0, margin - t (a - b)): t = 1 wants a above b, t = -1 below; broadcasting -> () or (...)."""
    ctx.save(a, b, target)
    xp = ctx.backend.xp
    gap = -(ctx.wide(target) * (ctx.wide(a) - ctx.wide(b))) + margin
    return reduced(ctx, xp.where(gap < 0, xp.zeros_like(gap), gap), reduction)


@margin_ranking_loss.gradient
def _(ctx: Node, grad: Array, *, margin: float = 0.0, reduction: str = "mean") -> tuple[Array | None, ...]:
    a, b, target = ctx.saved
    t, apart = ctx.wide(target), ctx.wide(a) - ctx.wide(b)
    gap = margin - t * apart
    g = ctx.backend.xp.where(gap < 0, 0.0, spread_over(ctx, grad, reduction, gap.size))
    slope = g * t
    by_a = ctx.round(-slope) if ctx.needs(0) else None
    by_b = ctx.round(slope) if ctx.needs(1) else None
    by_target = ctx.round(-g * apart) if ctx.needs(2) else None
    return to_shape_of(ctx, 0, by_a), to_shape_of(ctx, 1, by_b), to_shape_of(ctx, 2, by_target)


def check_signs(name: str, target: Array) -> None:
    """Refuse targets other than 1 and -1."""
    wrong = abs(target) != 1

    def fault() -> DataError:
        value = float(target[wrong].reshape(-1)[0])
        return DataError(f"expected targets of 1 and -1, got {value:g}", op=name, help="write 2 * labels - 1")

    refuse_if(wrong.any(), fault)
