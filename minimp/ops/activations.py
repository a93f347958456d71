"""Activation functions: computed in float32, rounded once."""

from __future__ import annotations

import math

from minimp.door import op
from minimp.errors import SettingError, unknown_name
from minimp.policy import CastClass, Mixed
from minimp.tape import Array, Node

__all__ = ["gelu", "relu", "sigmoid", "tanh"]


@op(bound="exact")
def relu(ctx: Node, x: Array) -> Array:
    """max(x, 0), NaN stays NaN; nothing is rounded. The gradient is 0 at 0, and passes at NaN (as torch's).

    Only the sign of the result is needed for backward: the result itself is what is saved.
    """
    y = ctx.backend.positive_part(x)
    ctx.save(y)
    return y


@relu.gradient
def _(ctx: Node, grad: Array) -> Array:
    (y,) = ctx.saved
    return ctx.backend.keep_where(grad, ~(ctx.wide(y) <= 0))


@op(mixed=Mixed.FLOAT, bound="function")
def tanh(ctx: Node, x: Array) -> Array:
    """tanh x, elementwise; y' = 1 - y^2."""
    y = ctx.round(ctx.backend.xp.tanh(ctx.wide(x)))
    ctx.save(y)
    return y


@tanh.gradient
def _(ctx: Node, grad: Array) -> Array:
    (y,) = ctx.saved
    wide = ctx.wide(y)
    return ctx.round(ctx.wide(grad) * (1 - wide * wide))


@op(mixed=Mixed.FLOAT, bound="function")
def sigmoid(ctx: Node, x: Array) -> Array:
    """1 / (1 + e^-x), elementwise, without overflow for large |x|; y' = y (1 - y)."""
    xp = ctx.backend.xp
    wide = ctx.wide(x)
    small = xp.exp(-abs(wide))  # in (0, 1]
    y = ctx.round(xp.where(wide >= 0, 1 / (1 + small), small / (1 + small)))
    ctx.save(y)
    return y


@sigmoid.gradient
def _(ctx: Node, grad: Array) -> Array:
    (y,) = ctx.saved
    wide = ctx.wide(y)
    return ctx.round(ctx.wide(grad) * wide * (1 - wide))


@op(cast=CastClass.KEEP, mixed=Mixed.FLOAT, bound="function")
def gelu(ctx: Node, x: Array, *, approximate: str = "none") -> Array:
    """x Phi(x), Phi the normal distribution function (Hendrycks and Gimpel 2016, arXiv 1606.08415).

    approximate="none": Phi(x) = (1 + erf(x / sqrt 2)) / 2; "tanh": section 2's
    (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2.
    """
    ctx.save(x)
    wide = ctx.wide(x)
    return ctx.round(wide * _phi(ctx, wide, approximate)[0])


@gelu.gradient
def _(ctx: Node, grad: Array, *, approximate: str = "none") -> Array:
    (x,) = ctx.saved
    wide = ctx.wide(x)
    phi, density = _phi(ctx, wide, approximate)
    return ctx.round(ctx.wide(grad) * (phi + wide * density))


def _phi(ctx: Node, x: Array, approximate: str) -> tuple[Array, Array]:
    """Return Phi(x) and its derivative."""
    xp = ctx.backend.xp
    if approximate == "none":
        density = xp.exp(-0.5 * x * x) * (1 / math.sqrt(2 * math.pi))
        return 0.5 * (1 + ctx.backend.erf(x * math.sqrt(0.5))), density
    if approximate == "tanh":
        c = math.sqrt(2 / math.pi)
        t = xp.tanh(c * (x + 0.044715 * x * x * x))
        return 0.5 * (1 + t), 0.5 * (1 - t * t) * c * (1 + 3 * 0.044715 * x * x)
    raise SettingError(unknown_name("approximation", approximate, ["none", "tanh"]))
