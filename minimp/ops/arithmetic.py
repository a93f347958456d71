"""Elementwise arithmetic: one rounding each, broadcasting as NumPy and PyTorch do."""

from __future__ import annotations

from minimp.door import op
from minimp.ops.broadcasting import to_shape_of
from minimp.policy import CastClass, Mixed
from minimp.tape import Array, Node

__all__ = ["abs_", "add", "div", "exp", "log", "mul", "neg", "pow_", "reciprocal", "sqrt", "sub"]


@op(bound="rounded")
def add(ctx: Node, a: Array, b: Array) -> Array:
    """a + b, elementwise; (...), (...) -> broadcast shape."""
    return ctx.round(ctx.wide(a) + ctx.wide(b))


@add.gradient
def _(ctx: Node, grad: Array) -> tuple[Array | None, ...]:
    return to_shape_of(ctx, 0, grad), to_shape_of(ctx, 1, grad)


@op(bound="rounded")
def sub(ctx: Node, a: Array, b: Array) -> Array:
    """a - b, elementwise; (...), (...) -> broadcast shape."""
    return ctx.round(ctx.wide(a) - ctx.wide(b))


@sub.gradient
def _(ctx: Node, grad: Array) -> tuple[Array | None, ...]:
    minus = ctx.round(-ctx.wide(grad)) if ctx.needs(1) else None
    return to_shape_of(ctx, 0, grad), to_shape_of(ctx, 1, minus)


@op(bound="rounded")
def mul(ctx: Node, a: Array, b: Array) -> Array:
    """a * b, elementwise; (...), (...) -> broadcast shape."""
    ctx.save(a if ctx.needs(1) else None, b if ctx.needs(0) else None)
    return ctx.round(ctx.wide(a) * ctx.wide(b))


@mul.gradient
def _(ctx: Node, grad: Array) -> tuple[Array | None, ...]:
    a, b = ctx.saved  # None where the other's gradient is not needed
    g = ctx.wide(grad)
    by_a = None if b is None else to_shape_of(ctx, 0, ctx.round(g * ctx.wide(b)))
    by_b = None if a is None else to_shape_of(ctx, 1, ctx.round(g * ctx.wide(a)))
    return by_a, by_b


@op(mixed=Mixed.FLOAT, bound="rounded")
def div(ctx: Node, a: Array, b: Array) -> Array:
    """a / b, elementwise, integers as float32; (...), (...) -> broadcast shape."""
    ctx.save(a if ctx.needs(1) else None, b)
    return ctx.round(ctx.wide(a) / ctx.wide(b))


@div.gradient
def _(ctx: Node, grad: Array) -> tuple[Array | None, ...]:
    a, b = ctx.saved
    g, wide_b = ctx.wide(grad), ctx.wide(b)
    by_a = ctx.round(g / wide_b) if ctx.needs(0) else None
    by_b = ctx.round(-g * (ctx.wide(a) / wide_b / wide_b)) if ctx.needs(1) else None  # b^2 may overflow
    return to_shape_of(ctx, 0, by_a), to_shape_of(ctx, 1, by_b)


@op(bound="exact")
def neg(ctx: Node, x: Array) -> Array:
    """-x; exact."""
    return ctx.round(-ctx.wide(x))


@neg.gradient
def _(ctx: Node, grad: Array) -> Array:
    return ctx.round(-ctx.wide(grad))


@op(bound="exact")
def abs_(ctx: Node, x: Array) -> Array:
    """|x|; exact. The gradient at 0 is 0, as in PyTorch."""
    ctx.save(x)
    return ctx.round(abs(ctx.wide(x)))


@abs_.gradient
def _(ctx: Node, grad: Array) -> Array:
    (x,) = ctx.saved
    return ctx.round(ctx.wide(grad) * ctx.backend.xp.sign(ctx.wide(x)))


@op(cast=CastClass.FP32, mixed=Mixed.FLOAT, bound="function")
def exp(ctx: Node, x: Array) -> Array:
    """e^x, elementwise."""
    y = ctx.round(ctx.backend.xp.exp(ctx.wide(x)))
    ctx.save(y)
    return y


@exp.gradient
def _(ctx: Node, grad: Array) -> Array:
    (y,) = ctx.saved
    return ctx.round(ctx.wide(grad) * ctx.wide(y))


@op(cast=CastClass.FP32, mixed=Mixed.FLOAT, bound="function")
def log(ctx: Node, x: Array) -> Array:
    """ln x, elementwise; -inf at 0, NaN below."""
    ctx.save(x)
    return ctx.round(ctx.backend.xp.log(ctx.wide(x)))


@log.gradient
def _(ctx: Node, grad: Array) -> Array:
    (x,) = ctx.saved
    return ctx.round(ctx.wide(grad) / ctx.wide(x))


@op(mixed=Mixed.FLOAT, bound="function")
def sqrt(ctx: Node, x: Array) -> Array:
    """The square root, elementwise; NaN below 0. y' = 1 / (2 y)."""
    y = ctx.round(ctx.backend.xp.sqrt(ctx.wide(x)))
    ctx.save(y)
    return y


@sqrt.gradient
def _(ctx: Node, grad: Array) -> Array:
    (y,) = ctx.saved
    return ctx.round(ctx.wide(grad) / (2 * ctx.wide(y)))


@op(cast=CastClass.FP32, mixed=Mixed.FLOAT, bound="function")
def reciprocal(ctx: Node, x: Array) -> Array:
    """1 / x, elementwise; y' = -y^2."""
    y = ctx.round(1 / ctx.wide(x))
    ctx.save(y)
    return y


@reciprocal.gradient
def _(ctx: Node, grad: Array) -> Array:
    (y,) = ctx.saved
    wide = ctx.wide(y)
    return ctx.round(-ctx.wide(grad) * wide * wide)


@op(cast=CastClass.FP32, bound="function")
def pow_(ctx: Node, x: Array, exponent: Array) -> Array:
    """x^p, elementwise; (...), (...) -> broadcast shape.

    The gradient by p is y ln x, and 0 where x = 0 and p >= 0, as in PyTorch.
    """
    y = ctx.round(_power(ctx, ctx.wide(x), ctx.wide(exponent)))
    ctx.save(x, exponent, y if ctx.needs(1) else None)
    return y


@pow_.gradient
def _(ctx: Node, grad: Array) -> tuple[Array | None, ...]:
    x, exponent, y = ctx.saved
    xp, g = ctx.backend.xp, ctx.wide(grad)
    base, p = ctx.wide(x), ctx.wide(exponent)
    base = xp.asarray(base, g.dtype) if isinstance(base, int | float) else base
    by_x = by_p = None
    if ctx.needs(0):
        by_x = ctx.round(_slope(ctx, g, base, p))
    if ctx.needs(1):
        flat = (base == 0) & (p >= 0)
        by_p = ctx.round(xp.where(flat, xp.zeros_like(g), g * ctx.wide(y) * xp.log(base)))
    return to_shape_of(ctx, 0, by_x), to_shape_of(ctx, 1, by_p)


def _slope(ctx: Node, g: Array, x: Array, p: Array) -> Array:
    """g p x^(p - 1), and 0 where p = 0 (`where` of CuPy takes arrays alone, no bool of the host)."""
    if p.__class__ in (int, float) and p == 0:
        return ctx.backend.xp.zeros_like(g)
    slope = g * p * _power(ctx, x, p - 1)
    if p.__class__ in (int, float):
        return slope
    return ctx.backend.xp.where(p == 0, ctx.backend.xp.zeros_like(g), slope)


def _is_whole(x: Array) -> bool:
    return isinstance(x, int) or (hasattr(x, "dtype") and x.dtype.kind in "iu")


def _power(ctx: Node, x: Array, p: Array) -> Array:
    """x^p; a cube and a fourth power by products, thirty times as fast, and no further off.

    x^2 overflows or falls below the normal numbers only where these powers do.

    Raises:
        ValueError: whole numbers to a negative power, for which CuPy alone has an answer, which is 0.
    """
    if _is_whole(x) and _is_whole(p) and (p < 0 if isinstance(p, int) else bool((p < 0).any())):
        raise ValueError("Integers to negative integer powers are not allowed.")
    if p.__class__ in (int, float) and p in (3, 4):
        square = x * x
        return square * (x if p == 3 else square)
    return ctx.backend.xp.power(x, p)
