"""Activations made of straight pieces and an exponential: computed in float32, rounded once."""

from __future__ import annotations

from minimp.door import op
from minimp.policy import Mixed
from minimp.tape import Array, Node

__all__ = ["elu", "leaky_relu"]


@op(bound="rounded")
def leaky_relu(ctx: Node, x: Array, *, negative_slope: float = 0.01) -> Array:
    """x for x > 0, else a x, a the slope (Maas, Hannun and Ng 2013, section 2).

    The gradient is g for x > 0, else a g; at 0 it is a g (as in torch). One byte an element is kept.
    """
    wide = ctx.wide(x)
    positive = wide > 0
    ctx.save(positive)
    return ctx.round(ctx.backend.xp.where(positive, wide, wide * negative_slope))


@leaky_relu.gradient
def _(ctx: Node, grad: Array, *, negative_slope: float = 0.01) -> Array:
    (positive,) = ctx.saved
    g = ctx.wide(grad)
    return ctx.round(ctx.backend.xp.where(positive, g, g * negative_slope))


@op(mixed=Mixed.FLOAT, bound="function")
def elu(ctx: Node, x: Array, *, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> Array:
    """s x for x > 0, else s a (e^(c x) - 1): alpha a, scale s, input_scale c.

    Clevert, Unterthiner and Hochreiter 2016 (arXiv 1511.07289), equation 15, for s = c = 1. The gradient at 0
    is that from below, s a c.
    """
    ctx.save(x)
    xp, wide = ctx.backend.xp, ctx.wide(x)
    below = xp.expm1(xp.minimum(wide, 0) * input_scale) * (alpha * scale)
    return ctx.round(xp.where(wide > 0, wide * scale, below))


@elu.gradient
def _(ctx: Node, grad: Array, *, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> Array:
    (x,) = ctx.saved
    xp, g, wide = ctx.backend.xp, ctx.wide(grad), ctx.wide(x)
    slope = xp.exp(xp.where(wide > 0, xp.zeros_like(wide), wide) * input_scale)
    return ctx.round(xp.where(wide > 0, g * scale, g * slope * (alpha * scale * input_scale)))
