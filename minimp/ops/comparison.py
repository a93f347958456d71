"""Comparisons and indices: their results are booleans or integers and carry no gradient."""

from __future__ import annotations

from minimp.door import op
from minimp.ops.reductions import axes_of, check_dims, check_some
from minimp.policy import CastClass
from minimp.tape import Array, Node

__all__ = ["argmax", "eq", "ge", "gt", "isfinite", "le", "lt", "ne"]


@op(cast=CastClass.KEEP, bound="exact")
def eq(ctx: Node, a: Array, b: Array) -> Array:
    """a == b, elementwise."""
    return ctx.wide(a) == ctx.wide(b)


@op(cast=CastClass.KEEP, bound="exact")
def ne(ctx: Node, a: Array, b: Array) -> Array:
    """a != b, elementwise."""
    return ctx.wide(a) != ctx.wide(b)


@op(cast=CastClass.KEEP, bound="exact")
def lt(ctx: Node, a: Array, b: Array) -> Array:
    """a < b, elementwise."""
    return ctx.wide(a) < ctx.wide(b)


@op(cast=CastClass.KEEP, bound="exact")
def le(ctx: Node, a: Array, b: Array) -> Array:
    """a <= b, elementwise."""
    return ctx.wide(a) <= ctx.wide(b)


@op(cast=CastClass.KEEP, bound="exact")
def gt(ctx: Node, a: Array, b: Array) -> Array:
    """a > b, elementwise."""
    return ctx.wide(a) > ctx.wide(b)


@op(cast=CastClass.KEEP, bound="exact")
def ge(ctx: Node, a: Array, b: Array) -> Array:
    """a >= b, elementwise."""
    return ctx.wide(a) >= ctx.wide(b)


@op(bound="exact")
def isfinite(ctx: Node, x: Array) -> Array:
    """Whether each element is neither infinite nor NaN."""
    return ctx.backend.xp.isfinite(ctx.wide(x))


@op(bound="exact")
def argmax(ctx: Node, x: Array, *, dim: int | None = None, keepdim: bool = False) -> Array:
    """The index of the largest element (the first of equal ones) over `dim`, or of the flattened tensor."""
    check_dims("argmax", x, dim)
    check_some("argmax", x, dim, "largest")
    return ctx.backend.xp.asarray(ctx.backend.xp.argmax(ctx.wide(x), axis=axes_of(x, dim), keepdims=keepdim))
