"""Elementary functions: computed in float32, rounded once.

The autocast classes are PyTorch's: tan, sinh, cosh, asin, acos, rsqrt and the functions of exp and log are
float32's, sin, cos, atan and erf compute in what they are given.
"""

from __future__ import annotations

import math

from minimp.door import op
from minimp.ops.broadcasting import to_shape_of
from minimp.policy import CastClass, Mixed
from minimp.tape import Array, Node

__all__ = [
    "acos", "asin", "atan", "atan2", "cos", "cosh", "erf", "expm1", "log1p", "log2", "log10", "rsqrt",
    "sin", "sinh", "tan",
]  # fmt: skip


# ---- powers and logarithms ------------------------------------------------------------------------------


@op(cast=CastClass.FP32, mixed=Mixed.FLOAT, bound="function")
def expm1(ctx: Node, x: Array) -> Array:
    """e^x - 1, accurate near 0; y' = y + 1."""
    y = ctx.round(ctx.backend.xp.expm1(ctx.wide(x)))
    ctx.save(y)
    return y


@expm1.gradient
def _(ctx: Node, grad: Array) -> Array:
    (y,) = ctx.saved
    return ctx.round(ctx.wide(grad) * (ctx.wide(y) + 1))


@op(cast=CastClass.FP32, mixed=Mixed.FLOAT, bound="function")
def log1p(ctx: Node, x: Array) -> Array:
    """ln(1 + x), accurate near 0; -inf at -1, NaN below. y' = 1 / (1 + x)."""
    ctx.save(x)
    return ctx.round(ctx.backend.xp.log1p(ctx.wide(x)))


@log1p.gradient
def _(ctx: Node, grad: Array) -> Array:
    (x,) = ctx.saved
    return ctx.round(ctx.wide(grad) / (ctx.wide(x) + 1))


@op(cast=CastClass.FP32, mixed=Mixed.FLOAT, bound="function")
def log2(ctx: Node, x: Array) -> Array:
    """The logarithm to the base 2; y' = 1 / (x ln 2)."""
    ctx.save(x)
    return ctx.round(ctx.backend.xp.log2(ctx.wide(x)))


@log2.gradient
def _(ctx: Node, grad: Array) -> Array:
    (x,) = ctx.saved
    return ctx.round(ctx.wide(grad) / (ctx.wide(x) * math.log(2)))


@op(cast=CastClass.FP32, mixed=Mixed.FLOAT, bound="function")
def log10(ctx: Node, x: Array) -> Array:
    """The logarithm to the base 10; y' = 1 / (x ln 10)."""
    ctx.save(x)
    return ctx.round(ctx.backend.xp.log10(ctx.wide(x)))


@log10.gradient
def _(ctx: Node, grad: Array) -> Array:
    (x,) = ctx.saved
    return ctx.round(ctx.wide(grad) / (ctx.wide(x) * math.log(10)))


@op(cast=CastClass.FP32, mixed=Mixed.FLOAT, bound="function")
def rsqrt(ctx: Node, x: Array) -> Array:
    """1 / sqrt x; infinite at 0, NaN below. y' = -y^3 / 2."""
    y = ctx.round(1 / ctx.backend.xp.sqrt(ctx.wide(x)))
    ctx.save(y)
    return y


@rsqrt.gradient
def _(ctx: Node, grad: Array) -> Array:
    (y,) = ctx.saved
    wide = ctx.wide(y)
    return ctx.round(ctx.wide(grad) * -0.5 * (wide * wide * wide))


@op(mixed=Mixed.FLOAT, bound="function")
def erf(ctx: Node, x: Array) -> Array:
    """The error function, 2 / sqrt(pi) times the integral of e^(-t^2) from 0 to x."""
    ctx.save(x)
    return ctx.round(ctx.backend.erf(ctx.wide(x)))


@erf.gradient
def _(ctx: Node, grad: Array) -> Array:
    (x,) = ctx.saved
    wide = ctx.wide(x)
    return ctx.round(ctx.wide(grad) * (2 / math.sqrt(math.pi)) * ctx.backend.xp.exp(-(wide * wide)))


# ---- circular functions ---------------------------------------------------------------------------------


@op(mixed=Mixed.FLOAT, bound="function")
def sin(ctx: Node, x: Array) -> Array:
    """The sine of x radians; y' = cos x."""
    ctx.save(x)
    return ctx.round(ctx.backend.xp.sin(ctx.wide(x)))


@sin.gradient
def _(ctx: Node, grad: Array) -> Array:
    (x,) = ctx.saved
    return ctx.round(ctx.wide(grad) * ctx.backend.xp.cos(ctx.wide(x)))


@op(mixed=Mixed.FLOAT, bound="function")
def cos(ctx: Node, x: Array) -> Array:
    """The cosine of x radians; y' = -sin x."""
    ctx.save(x)
    return ctx.round(ctx.backend.xp.cos(ctx.wide(x)))


@cos.gradient
def _(ctx: Node, grad: Array) -> Array:
    (x,) = ctx.saved
    return ctx.round(-ctx.wide(grad) * ctx.backend.xp.sin(ctx.wide(x)))


@op(cast=CastClass.FP32, mixed=Mixed.FLOAT, bound="function")
def tan(ctx: Node, x: Array) -> Array:
    """The tangent of x radians; y' = 1 + y^2."""
    y = ctx.round(ctx.backend.xp.tan(ctx.wide(x)))
    ctx.save(y)
    return y


@tan.gradient
def _(ctx: Node, grad: Array) -> Array:
    (y,) = ctx.saved
    wide = ctx.wide(y)
    return ctx.round(ctx.wide(grad) * (wide * wide + 1))


@op(cast=CastClass.FP32, mixed=Mixed.FLOAT, bound="function")
def asin(ctx: Node, x: Array) -> Array:
    """The angle from -pi/2 to pi/2 of which x is the sine, NaN beyond 1; y' = 1 / sqrt(1 - x^2)."""
    ctx.save(x)
    return ctx.round(ctx.backend.xp.arcsin(ctx.wide(x)))


@asin.gradient
def _(ctx: Node, grad: Array) -> Array:
    (x,) = ctx.saved
    wide = ctx.wide(x)
    return ctx.round(ctx.wide(grad) / ctx.backend.xp.sqrt((1 - wide) * (1 + wide)))


@op(cast=CastClass.FP32, mixed=Mixed.FLOAT, bound="function")
def acos(ctx: Node, x: Array) -> Array:
    """The angle from 0 to pi of which x is the cosine, NaN beyond 1; y' = -1 / sqrt(1 - x^2)."""
    ctx.save(x)
    return ctx.round(ctx.backend.xp.arccos(ctx.wide(x)))


@acos.gradient
def _(ctx: Node, grad: Array) -> Array:
    (x,) = ctx.saved
    wide = ctx.wide(x)
    return ctx.round(-ctx.wide(grad) / ctx.backend.xp.sqrt((1 - wide) * (1 + wide)))


@op(mixed=Mixed.FLOAT, bound="function")
def atan(ctx: Node, x: Array) -> Array:
    """The angle from -pi/2 to pi/2 of which x is the tangent; y' = 1 / (1 + x^2)."""
    ctx.save(x)
    return ctx.round(ctx.backend.xp.arctan(ctx.wide(x)))


@atan.gradient
def _(ctx: Node, grad: Array) -> Array:
    (x,) = ctx.saved
    wide = ctx.wide(x)
    return ctx.round(ctx.wide(grad) / (wide * wide + 1))


@op(cast=CastClass.PROMOTE, mixed=Mixed.FLOAT, bound="function")
def atan2(ctx: Node, a: Array, b: Array) -> Array:
    """The angle from -pi to pi of the point (b, a), b to the right; (...), (...) -> broadcast shape.

    da = g b / (a^2 + b^2), db = -g a / (a^2 + b^2).
    """
    ctx.save(a, b)
    return ctx.round(ctx.backend.xp.arctan2(ctx.wide(a), ctx.wide(b)))


@atan2.gradient
def _(ctx: Node, grad: Array) -> tuple[Array | None, ...]:
    a, b = (ctx.wide(each) for each in ctx.saved)
    share = ctx.wide(grad) / (a * a + b * b)
    by_a = ctx.round(share * b) if ctx.needs(0) else None
    by_b = ctx.round(-share * a) if ctx.needs(1) else None
    return to_shape_of(ctx, 0, by_a), to_shape_of(ctx, 1, by_b)


# ---- hyperbolic functions -------------------------------------------------------------------------------


@op(cast=CastClass.FP32, mixed=Mixed.FLOAT, bound="function")
def sinh(ctx: Node, x: Array) -> Array:
    """(e^x - e^-x) / 2; y' = cosh x."""
    ctx.save(x)
    return ctx.round(ctx.backend.xp.sinh(ctx.wide(x)))


@sinh.gradient
def _(ctx: Node, grad: Array) -> Array:
    (x,) = ctx.saved
    return ctx.round(ctx.wide(grad) * ctx.backend.xp.cosh(ctx.wide(x)))


@op(cast=CastClass.FP32, mixed=Mixed.FLOAT, bound="function")
def cosh(ctx: Node, x: Array) -> Array:
    """(e^x + e^-x) / 2; y' = sinh x."""
    ctx.save(x)
    return ctx.round(ctx.backend.xp.cosh(ctx.wide(x)))


@cosh.gradient
def _(ctx: Node, grad: Array) -> Array:
    (x,) = ctx.saved
    return ctx.round(ctx.wide(grad) * ctx.backend.xp.sinh(ctx.wide(x)))
