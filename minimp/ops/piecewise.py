"""Activations made of straight pieces and an exponential: computed in float32, rounded once."""

from __future__ import annotations

from typing import Any

from minimp.door import op
from minimp.errors import ShapeError
from minimp.policy import CastClass, Mixed
from minimp.tape import Array, Node

__all__ = ["elu", "hardsigmoid", "hardswish", "hardtanh", "leaky_relu", "prelu"]


@op(bound="rounded")
def leaky_relu(ctx: Node, x: Array, *, negative_slope: float = 0.01) -> Array:
    """x for x > 0, else a x, a the slope (Maas, Hannun and Ng 2013, section 2).

    The gradient is g for x > 0, else a g; at 0 it is a g (as in torch). One byte an element is kept.
    """
    ctx.save(ctx.wide(x) > 0)
    return ctx.backend.pointwise(
        "leaky_relu", lambda b, x: b.select(x > 0, x, x * negative_slope), ctx.format, x, slope=negative_slope
    )


@leaky_relu.gradient
def _(ctx: Node, grad: Array, *, negative_slope: float = 0.01) -> Array:
    (positive,) = ctx.saved
    return ctx.backend.pointwise(
        "leaky_relu_gradient", lambda b, g, positive: b.select(positive, g, g * negative_slope), ctx.format,
        grad, positive, short=True, slope=negative_slope,
    )  # fmt: skip


@op(mixed=Mixed.FLOAT, bound="function")
def elu(ctx: Node, x: Array, *, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> Array:
    """s x for x > 0, else s a (e^(c x) - 1): alpha a, scale s, input_scale c.

    Clevert, Unterthiner and Hochreiter 2016 (arXiv 1511.07289), equation 15, for s = c = 1. The gradient at 0
    is that from below, s a c.
    """
    ctx.save(x)

    def formula(backend: Any, x: Array) -> Array:
        below = backend.xp.expm1(backend.xp.minimum(x, 0) * input_scale) * (alpha * scale)
        return backend.select(x > 0, x * scale, below)

    return ctx.round(ctx.backend.elementwise(formula, ctx.wide(x)))


@elu.gradient
def _(ctx: Node, grad: Array, *, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> Array:
    (x,) = ctx.saved

    def formula(backend: Any, g: Array, x: Array) -> Array:
        slope = backend.xp.exp(backend.select(x > 0, backend.xp.zeros_like(x), x) * input_scale)
        return backend.select(x > 0, g * scale, g * slope * (alpha * scale * input_scale))

    return ctx.round(ctx.backend.elementwise(formula, ctx.wide(grad), ctx.wide(x)))


@op(bound="exact")
def hardtanh(ctx: Node, x: Array, *, min_val: float = -1.0, max_val: float = 1.0) -> Array:
    """x between the two limits, and the nearer limit beyond them; limits are numbers of the format.

    The gradient is g strictly between them, 0 at them (as in torch) and at NaN. One byte an element is kept.
    """
    xp, wide = ctx.backend.xp, ctx.wide(x)
    ctx.save((wide > min_val) & (wide < max_val))
    return ctx.round(xp.minimum(xp.maximum(wide, min_val), max_val))


@hardtanh.gradient
def _(ctx: Node, grad: Array, *, min_val: float = -1.0, max_val: float = 1.0) -> Array:
    (inside,) = ctx.saved
    return ctx.backend.keep_where(grad, inside)


@op(mixed=Mixed.FLOAT, bound="function")
def hardsigmoid(ctx: Node, x: Array) -> Array:
    """min(max(x + 3, 0), 6) / 6 (Howard et al. 2019, arXiv 1905.02244, section 5.2).

    The gradient is g / 6 strictly between -3 and 3, else 0. One byte an element is kept.
    """
    xp, wide = ctx.backend.xp, ctx.wide(x)
    ctx.save((wide > -3) & (wide < 3))
    return ctx.round(xp.minimum(xp.maximum(wide + 3, 0), 6) / 6)


@hardsigmoid.gradient
def _(ctx: Node, grad: Array) -> Array:
    (inside,) = ctx.saved
    g = ctx.wide(grad)
    return ctx.round(ctx.backend.select(inside, g / 6, ctx.backend.xp.zeros_like(g)))


@op(mixed=Mixed.FLOAT, bound="function")
def hardswish(ctx: Node, x: Array) -> Array:
    """x min(max(x + 3, 0), 6) / 6 (Howard et al. 2019, arXiv 1905.02244, section 5.2).

    The gradient is 0 for x <= -3, g (x / 3 + 1/2) up to 3, and g from 3 on.
    """
    ctx.save(x)

    def formula(backend: Any, x: Array) -> Array:
        return x * (backend.xp.minimum(backend.xp.maximum(x + 3, 0), 6) / 6)

    return ctx.round(ctx.backend.elementwise(formula, ctx.wide(x)))


@hardswish.gradient
def _(ctx: Node, grad: Array) -> Array:
    (x,) = ctx.saved

    def formula(backend: Any, g: Array, x: Array) -> Array:
        rising = backend.select(x >= 3, g, g * (x / 3 + 0.5))
        return backend.select(x <= -3, backend.xp.zeros_like(g), rising)

    return ctx.round(ctx.backend.elementwise(formula, ctx.wide(grad), ctx.wide(x)))


@op(cast=CastClass.LOWER, mixed=Mixed.SAME, bound="rounded")
def prelu(ctx: Node, x: Array, weight: Array) -> Array:
    """x for x > 0, else a x, with one slope a, or one a channel (He et al. 2015, arXiv 1502.01852).

    (N, C, ...), (1,) or (C,) -> the shape of x. dx = g or a g, da = sum of g x over x <= 0.
    """
    ctx.save(x, weight)
    wide = ctx.wide(x)
    return ctx.round(ctx.backend.select(wide > 0, wide, wide * _slopes(ctx, x, weight)))


@prelu.gradient
def _(ctx: Node, grad: Array) -> tuple[Array | None, ...]:
    x, weight = ctx.saved
    xp, g, wide = ctx.backend.xp, ctx.wide(grad), ctx.wide(x)
    by_x = by_weight = None
    if ctx.needs(0):
        by_x = ctx.round(xp.where(wide > 0, g, g * _slopes(ctx, x, weight)))
    if ctx.needs(1):
        terms = xp.where(wide > 0, xp.zeros_like(wide), g * wide)
        axes = tuple(i for i in range(terms.ndim) if i != 1 or weight.size == 1)
        total = ctx.backend.sum(terms, axis=axes, accumulate=ctx.accumulate) if axes else terms
        by_weight = ctx.round(total).reshape(ctx.shape_of(1))
    return by_x, by_weight


def _slopes(ctx: Node, x: Array, weight: Array) -> Array:
    """The slopes, along the axis of channels, which is axis 1."""
    channels = x.shape[1] if x.ndim > 1 else 1
    if weight.ndim > 1 or weight.size not in (1, channels):
        text = f"expected one slope or {channels}, got {weight.shape}"
        raise ShapeError(text, op="prelu", shapes=[x.shape, weight.shape])
    return ctx.wide(weight).reshape(tuple(weight.size if i == 1 else 1 for i in range(x.ndim)))
