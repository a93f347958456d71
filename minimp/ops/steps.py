"""Functions that are flat between jumps, and the remainder of a division.

Where the flat ones have a derivative it is 0, and so is the gradient (as in torch).
"""

from __future__ import annotations

from minimp.door import op
from minimp.ops.broadcasting import to_shape_of
from minimp.tape import Array, Node

__all__ = ["ceil", "floor", "remainder", "round_", "sign", "trunc"]


def _nothing(ctx: Node, grad: Array) -> Array:
    return ctx.backend.xp.zeros(grad.shape, grad.dtype)


def _whole(ctx: Node, x: Array, name: str) -> Array:
    """Call NumPy's function of that name; integers are whole already."""
    return x.copy() if ctx.format is None else ctx.round(getattr(ctx.backend.xp, name)(ctx.wide(x)))


@op(bound="exact")
def sign(ctx: Node, x: Array) -> Array:
    """-1, 0 or 1; NaN stays NaN (torch gives 0)."""
    return ctx.round(ctx.backend.xp.sign(ctx.wide(x)))


@op(bound="exact")
def floor(ctx: Node, x: Array) -> Array:
    """The largest whole number not above x."""
    return _whole(ctx, x, "floor")


@op(bound="exact")
def ceil(ctx: Node, x: Array) -> Array:
    """The smallest whole number not below x."""
    return _whole(ctx, x, "ceil")


@op(bound="exact")
def round_(ctx: Node, x: Array) -> Array:
    """The nearest whole number, the even one of two."""
    return _whole(ctx, x, "rint")


@op(bound="exact")
def trunc(ctx: Node, x: Array) -> Array:
    """x without its fraction."""
    return _whole(ctx, x, "trunc")


for _step in (sign, floor, ceil, round_, trunc):
    _step.gradient(_nothing)


@op(bound="function")
def remainder(ctx: Node, a: Array, b: Array) -> Array:
    """a - b floor(a / b), which has the sign of b; NaN for b = 0. (...), (...) -> broadcast shape.

    da = g, db = -g floor(a / b), the whole number that was taken: -1 for a small a of the other sign, however
    large b is.
    """
    ctx.save(a if ctx.needs(1) else None, b if ctx.needs(1) else None)
    return ctx.round(ctx.backend.xp.remainder(ctx.wide(a), ctx.wide(b)))


@remainder.gradient
def _(ctx: Node, grad: Array) -> tuple[Array | None, ...]:
    by_b = None
    if ctx.needs(1):
        a, b = (ctx.wide(each) for each in ctx.saved)
        by_b = ctx.round(-ctx.wide(grad) * ctx.backend.xp.floor_divide(a, b))
    return to_shape_of(ctx, 0, grad), to_shape_of(ctx, 1, by_b)
