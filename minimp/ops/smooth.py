"""Smooth activations: computed in float32, rounded once."""

from __future__ import annotations

from minimp.door import op
from minimp.errors import SettingError
from minimp.policy import CastClass, Mixed
from minimp.tape import Array, Node

__all__ = ["silu", "softplus"]


def logistic(ctx: Node, x: Array) -> Array:
    """1 / (1 + e^-x) of wide values, without overflow for large |x|."""
    xp = ctx.backend.xp
    small = xp.exp(xp.where(x >= 0, -x, x))  # in (0, 1]; unlike -|x|, it has its derivative at 0
    return xp.where(x >= 0, 1 / (1 + small), small / (1 + small))


@op(mixed=Mixed.FLOAT, bound="function")
def silu(ctx: Node, x: Array) -> Array:
    """x s, with s = 1 / (1 + e^-x); y' = s (1 + x (1 - s)) (Elfwing, Uchibe and Doya 2018, equation 8)."""
    ctx.save(x)
    wide = ctx.wide(x)
    return ctx.round(wide * logistic(ctx, wide))


@silu.gradient
def _(ctx: Node, grad: Array) -> Array:
    (x,) = ctx.saved
    wide = ctx.wide(x)
    s = logistic(ctx, wide)
    return ctx.round(ctx.wide(grad) * (s * (1 + wide * (1 - s))))


@op(cast=CastClass.FP32, mixed=Mixed.FLOAT, bound="function")
def softplus(ctx: Node, x: Array, *, beta: float = 1.0, threshold: float = 20.0) -> Array:
    """ln(1 + e^(b x)) / b, and x itself where b x > threshold; y' = e^(b x) / (1 + e^(b x)), or 1.

    (Dugas et al. 2001, equation 4, for b = 1.)
    """
    if beta == 0:
        raise SettingError("softplus: expected a beta other than 0, got 0")
    ctx.save(x)
    xp, wide = ctx.backend.xp, ctx.wide(x)
    scaled = wide * beta
    curved = xp.log1p(xp.exp(xp.minimum(scaled, threshold))) / beta
    return ctx.round(xp.where(scaled > threshold, wide, curved))


@softplus.gradient
def _(ctx: Node, grad: Array, *, beta: float = 1.0, threshold: float = 20.0) -> Array:
    (x,) = ctx.saved
    xp, g = ctx.backend.xp, ctx.wide(grad)
    scaled = ctx.wide(x) * beta
    e = xp.exp(xp.minimum(scaled, threshold))
    return ctx.round(xp.where(scaled > threshold, g, g * (e / (1 + e))))
