"""Truth: results are booleans, counts or the bits of integers, and carry no gradient."""

from __future__ import annotations

from minimp.door import op
from minimp.errors import FormatError
from minimp.ops.reductions import Dim, axes_of, check_dims
from minimp.policy import Mixed
from minimp.tape import Array, Node

__all__ = [
    "all_", "any_", "bitwise_and", "bitwise_not", "bitwise_or", "bitwise_xor", "count_nonzero", "isinf",
    "isnan", "logical_and", "logical_not", "logical_or", "logical_xor",
]  # fmt: skip


@op(mixed=Mixed.KEEP, bound="exact")
def isnan(ctx: Node, x: Array) -> Array:
    """Whether each element is NaN."""
    return ctx.backend.xp.isnan(ctx.wide(x))


@op(mixed=Mixed.KEEP, bound="exact")
def isinf(ctx: Node, x: Array) -> Array:
    """Whether each element is infinite."""
    return ctx.backend.xp.isinf(ctx.wide(x))


@op(mixed=Mixed.KEEP, bound="exact")
def logical_not(ctx: Node, x: Array) -> Array:
    """Whether each element is 0."""
    return ctx.wide(x) == 0


@op(mixed=Mixed.KEEP, bound="exact")
def logical_and(ctx: Node, a: Array, b: Array) -> Array:
    """Whether neither element is 0; (...), (...) -> broadcast shape."""
    return (ctx.wide(a) != 0) & (ctx.wide(b) != 0)


@op(mixed=Mixed.KEEP, bound="exact")
def logical_or(ctx: Node, a: Array, b: Array) -> Array:
    """Whether either element is not 0; (...), (...) -> broadcast shape."""
    return (ctx.wide(a) != 0) | (ctx.wide(b) != 0)


@op(mixed=Mixed.KEEP, bound="exact")
def logical_xor(ctx: Node, a: Array, b: Array) -> Array:
    """Whether one element is 0 and the other is not; (...), (...) -> broadcast shape."""
    return (ctx.wide(a) != 0) ^ (ctx.wide(b) != 0)


@op(mixed=Mixed.KEEP, bound="exact")
def bitwise_not(ctx: Node, x: Array) -> Array:
    """~x: every bit of integers turned, or every truth."""
    _check_bits("bitwise_not", x)
    return ctx.backend.xp.invert(x)


@op(mixed=Mixed.KEEP, bound="exact")
def bitwise_and(ctx: Node, a: Array, b: Array) -> Array:
    """a & b, of integers or booleans; (...), (...) -> broadcast shape."""
    _check_bits("bitwise_and", a, b)
    return ctx.backend.xp.bitwise_and(a, b)


@op(mixed=Mixed.KEEP, bound="exact")
def bitwise_or(ctx: Node, a: Array, b: Array) -> Array:
    """a | b, of integers or booleans; (...), (...) -> broadcast shape."""
    _check_bits("bitwise_or", a, b)
    return ctx.backend.xp.bitwise_or(a, b)


@op(mixed=Mixed.KEEP, bound="exact")
def bitwise_xor(ctx: Node, a: Array, b: Array) -> Array:
    """a ^ b, of integers or booleans; (...), (...) -> broadcast shape."""
    _check_bits("bitwise_xor", a, b)
    return ctx.backend.xp.bitwise_xor(a, b)


@op(mixed=Mixed.KEEP, bound="exact")
def all_(ctx: Node, x: Array, *, dim: Dim = None, keepdim: bool = False) -> Array:
    """Whether no element over `dim` is 0; true of none."""
    check_dims("all", x, dim)
    return ctx.backend.xp.asarray((ctx.wide(x) != 0).all(axis=axes_of(x, dim), keepdims=keepdim))


@op(mixed=Mixed.KEEP, bound="exact")
def any_(ctx: Node, x: Array, *, dim: Dim = None, keepdim: bool = False) -> Array:
    """Whether an element over `dim` is not 0; false of none."""
    check_dims("any", x, dim)
    return ctx.backend.xp.asarray((ctx.wide(x) != 0).any(axis=axes_of(x, dim), keepdims=keepdim))


@op(mixed=Mixed.KEEP, bound="exact")
def count_nonzero(ctx: Node, x: Array, *, dim: Dim = None) -> Array:
    """How many elements over `dim` are not 0."""
    check_dims("count_nonzero", x, dim)
    return ctx.backend.xp.asarray((ctx.wide(x) != 0).sum(axis=axes_of(x, dim), dtype="int64"))


def _check_bits(op: str, *arrays: Array) -> None:
    """Refuse floats, whose bits are no numbers."""
    for each in arrays:
        dtype = getattr(each, "dtype", None)
        if each.__class__ is float or (dtype is not None and dtype.kind not in "iub"):
            raise FormatError(
                f"expected integers or booleans, got {dtype or 'a float'}", op=op,
                help="compare first (x > 0), or use logical_and, logical_or, logical_not",
            )  # fmt: skip
