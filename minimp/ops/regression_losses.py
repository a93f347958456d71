"""Losses of numbers: how far a prediction lies from its target. float32 under autocast, one rounding."""

from __future__ import annotations

import math
from typing import Any

from minimp.door import op
from minimp.errors import SettingError
from minimp.ops.broadcasting import to_shape_of
from minimp.ops.reducing import check_one_shape, opposite, over, reduced, spread_over, times_slope
from minimp.policy import CastClass
from minimp.tape import Array, Node

__all__ = ["huber_loss", "l1_loss", "poisson_nll_loss", "smooth_l1_loss"]


@op(cast=CastClass.FP32, bound="sum")
def l1_loss(ctx: Node, x: Array, target: Array, *, reduction: str = "mean") -> Array:
    """mean |x - t|; both (...), of one shape; reduction mean, sum or none.

    The gradient is sign(x - t), 0 at 0; its derivative is 0 everywhere.
    """
    check_one_shape("l1_loss", x, target)
    ctx.save(x, target)
    terms = ctx.backend.elementwise(lambda _, x, t: abs(x - t), ctx.wide(x), ctx.wide(target))
    return reduced(ctx, terms, reduction)


@l1_loss.gradient
def _(ctx: Node, grad: Array, *, reduction: str = "mean") -> tuple[Array | None, ...]:
    x, target = ctx.saved
    g = spread_over(ctx, grad, reduction, x.size)
    return opposite(ctx, times_slope(ctx, g, lambda b, x, t: b.xp.sign(x - t), ctx.wide(x), ctx.wide(target)))


@op(cast=CastClass.FP32, bound="sum")
def smooth_l1_loss(
    ctx: Node, x: Array, target: Array, *, beta: float = 1.0, reduction: str = "mean"
) -> Array:
    """d^2 / (2 beta) where |d| < beta, else |d| - beta / 2, with d = x - t (Girshick 2015, section 2.3).

    Both (...), of one shape; beta > 0. The slope is d / beta, held within -1 and 1.
    """
    check_one_shape("smooth_l1_loss", x, target)
    _check_positive("smooth_l1_loss", "beta", beta)
    ctx.save(x, target)

    def term(backend: Any, x: Array, t: Array) -> Array:
        gap = x - t
        size = abs(gap)
        return backend.select(size < beta, 0.5 * gap * gap / beta, size - 0.5 * beta)

    return reduced(ctx, ctx.backend.elementwise(term, ctx.wide(x), ctx.wide(target)), reduction)


@smooth_l1_loss.gradient
def _(ctx: Node, grad: Array, *, beta: float = 1.0, reduction: str = "mean") -> tuple[Array | None, ...]:
    x, target = ctx.saved

    def slope(backend: Any, x: Array, t: Array) -> Array:
        gap = x - t
        return backend.select(abs(gap) < beta, gap / beta, backend.xp.sign(gap))

    g = spread_over(ctx, grad, reduction, x.size)
    return opposite(ctx, times_slope(ctx, g, slope, ctx.wide(x), ctx.wide(target)))


@op(cast=CastClass.FP32, bound="sum")
def huber_loss(ctx: Node, x: Array, target: Array, *, delta: float = 1.0, reduction: str = "mean") -> Array:
    """d^2 / 2 where |d| < delta, else delta (|d| - delta / 2), with d = x - t (Huber 1964).

    Both (...), of one shape; delta > 0. The slope is d, held within -delta and delta.
    """
    check_one_shape("huber_loss", x, target)
    _check_positive("huber_loss", "delta", delta)
    ctx.save(x, target)

    def term(backend: Any, x: Array, t: Array) -> Array:
        gap = x - t
        size = abs(gap)
        return backend.select(size < delta, 0.5 * gap * gap, delta * (size - 0.5 * delta))

    return reduced(ctx, ctx.backend.elementwise(term, ctx.wide(x), ctx.wide(target)), reduction)


@huber_loss.gradient
def _(ctx: Node, grad: Array, *, delta: float = 1.0, reduction: str = "mean") -> tuple[Array | None, ...]:
    x, target = ctx.saved

    def slope(backend: Any, x: Array, t: Array) -> Array:
        gap = x - t
        return backend.select(abs(gap) < delta, gap, backend.xp.sign(gap) * delta)

    g = spread_over(ctx, grad, reduction, x.size)
    return opposite(ctx, times_slope(ctx, g, slope, ctx.wide(x), ctx.wide(target)))


@op(cast=CastClass.FP32, bound="sum")
def poisson_nll_loss(
    ctx: Node, x: Array, target: Array, *, log_input: bool = True, full: bool = False, eps: float = 1e-8,
    reduction: str = "mean",
) -> Array:  # fmt: skip
    """e^x - t x, or x - t ln(x + eps) without log_input; (...), (...) -> (), or the broadcast shape.

    full adds Stirling's t ln t - t + ln(2 pi t) / 2, an approximation of ln t!, where t > 1.
    """
    ctx.save(x, target)
    xp = ctx.backend.xp
    wide, t = ctx.wide(x), ctx.wide(target)
    terms = xp.exp(wide) - t * wide if log_input else wide - t * xp.log(wide + eps)
    if full:
        stirling = t * xp.log(t) - t + 0.5 * xp.log(2 * math.pi * t)
        terms = terms + xp.where(t > 1, stirling, xp.zeros_like(stirling))
    return reduced(ctx, terms, reduction)


@poisson_nll_loss.gradient
def _(
    ctx: Node, grad: Array, *, log_input: bool = True, full: bool = False, eps: float = 1e-8,
    reduction: str = "mean",
) -> tuple[Array | None, ...]:  # fmt: skip
    x, target = ctx.saved
    xp = ctx.backend.xp
    wide, t = ctx.wide(x), ctx.wide(target)
    shape = xp.broadcast_shapes(wide.shape, t.shape)
    g = spread_over(ctx, grad, reduction, math.prod(shape))
    by_x = by_target = None
    if ctx.needs(0):
        by_x = ctx.round(g * (xp.exp(wide) - t if log_input else 1 - t / (wide + eps)))
    if ctx.needs(1):
        slope = -wide if log_input else -xp.log(wide + eps)
        if full:
            slope = slope + xp.where(t > 1, xp.log(t) + 0.5 / t, xp.zeros_like(t))
        by_target = ctx.round(over(ctx, g * slope, shape))
    return to_shape_of(ctx, 0, by_x), to_shape_of(ctx, 1, by_target)


def _check_positive(name: str, setting: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise SettingError(f"{name}: expected {setting} above 0, got {value}")
