"""Sums of a tensor and a product, a quotient or a part of the way to another: one rounding at the end."""

from __future__ import annotations

from minimp.door import op
from minimp.ops.broadcasting import to_shape_of
from minimp.policy import CastClass, Mixed
from minimp.tape import Array, Node

__all__ = ["addcdiv", "addcmul", "lerp"]


@op(mixed=Mixed.SAME, bound="function")
def lerp(ctx: Node, start: Array, end: Array, weight: Array) -> Array:
    """a + w (b - a), from the nearer end: b - (1 - w) (b - a) for w >= 1/2; (...) x 3 -> broadcast shape.

    da = g (1 - w), db = g w, dw = g (b - a).
    """
    either = ctx.needs(0) or ctx.needs(1)
    ends = (start, end) if ctx.needs(2) else (None, None)
    ctx.save(*ends, weight if either else None)
    a, b, w = ctx.wide(start), ctx.wide(end), ctx.wide(weight)
    if isinstance(w, int | float):  # CuPy's where takes no bool of the host
        return ctx.round(a + w * (b - a) if abs(w) < 0.5 else b - (b - a) * (1 - w))
    return ctx.round(ctx.backend.xp.where(abs(w) < 0.5, a + w * (b - a), b - (b - a) * (1 - w)))


@lerp.gradient
def _(ctx: Node, grad: Array) -> tuple[Array | None, ...]:
    start, end, weight = ctx.saved
    g = ctx.wide(grad)
    by_a = ctx.round(g * (1 - ctx.wide(weight))) if ctx.needs(0) else None
    by_b = ctx.round(g * ctx.wide(weight)) if ctx.needs(1) else None
    by_w = ctx.round(g * (ctx.wide(end) - ctx.wide(start))) if ctx.needs(2) else None
    return tuple(to_shape_of(ctx, i, by) for i, by in enumerate((by_a, by_b, by_w)))


@op(cast=CastClass.PROMOTE, bound="function")
def addcmul(ctx: Node, x: Array, a: Array, b: Array, *, value: float = 1) -> Array:
    """x + v a b, elementwise; (...) x 3 -> broadcast shape. dx = g, da = g v b, db = g v a."""
    ctx.save(a if ctx.needs(2) else None, b if ctx.needs(1) else None)
    return ctx.round(ctx.wide(x) + ctx.wide(a) * value * ctx.wide(b))


@addcmul.gradient
def _(ctx: Node, grad: Array, *, value: float = 1) -> tuple[Array | None, ...]:
    a, b = ctx.saved
    g = ctx.wide(grad) * value
    by_a = ctx.round(g * ctx.wide(b)) if ctx.needs(1) else None
    by_b = ctx.round(g * ctx.wide(a)) if ctx.needs(2) else None
    return to_shape_of(ctx, 0, grad), to_shape_of(ctx, 1, by_a), to_shape_of(ctx, 2, by_b)


@op(cast=CastClass.PROMOTE, bound="function")
def addcdiv(ctx: Node, x: Array, a: Array, b: Array, *, value: float = 1) -> Array:
    """x + v a / b, elementwise; (...) x 3 -> broadcast shape. dx = g, da = g v / b, db = -g v a / b^2."""
    ctx.save(a if ctx.needs(2) else None, b)
    return ctx.round(ctx.wide(x) + ctx.wide(a) * value / ctx.wide(b))


@addcdiv.gradient
def _(ctx: Node, grad: Array, *, value: float = 1) -> tuple[Array | None, ...]:
    a, b = ctx.saved
    g, below = ctx.wide(grad) * value, ctx.wide(b)
    by_a = ctx.round(g / below) if ctx.needs(1) else None
    by_b = ctx.round(-g * (ctx.wide(a) / below / below)) if ctx.needs(2) else None  # b^2 may overflow
    return to_shape_of(ctx, 0, grad), to_shape_of(ctx, 1, by_a), to_shape_of(ctx, 2, by_b)
