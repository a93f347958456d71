"""Ops that choose between elements: every result is one of the inputs' elements, so nothing is rounded.

What a gradient needs of the choice is kept, one byte an element, and not what was chosen from.
"""

from __future__ import annotations

from typing import Any

from minimp.door import cast, op
from minimp.errors import FormatError, SettingError, ShapeError
from minimp.formats import Format, float32
from minimp.ops.broadcasting import to_shape_of
from minimp.policy import Mixed, common_format
from minimp.tape import Array, Node, Value

__all__ = ["as_operand", "clamp", "masked_fill", "maximum", "minimum", "operands", "where"]

EQUAL, LESS, GREATER, UNORDERED = range(4)
"""How a stands to b."""


@op(mixed=Mixed.SAME, bound="exact")
def where(ctx: Node, condition: Array, a: Array, b: Array) -> Array:
    """`a` where the condition holds, else `b`; (...), (...), (...) -> broadcast shape.

    The condition is of booleans. The gradient of each goes to where it was chosen, 0 elsewhere.
    """
    _check_mask("where", condition)
    ctx.save(condition)
    return ctx.backend.choose(condition, a, b)


@where.gradient
def _(ctx: Node, grad: Array) -> tuple[Array | None, ...]:
    (condition,) = ctx.saved
    mask = ctx.backend.xp.broadcast_to(condition, grad.shape)
    by_a = ctx.backend.keep_where(grad, mask) if ctx.needs(1) else None
    by_b = ctx.backend.keep_where(grad, ~mask) if ctx.needs(2) else None
    return None, to_shape_of(ctx, 1, by_a), to_shape_of(ctx, 2, by_b)


@op(mixed=Mixed.SAME, bound="exact")
def masked_fill(ctx: Node, x: Array, mask: Array, *, value: float) -> Array:
    """`value` where the mask holds, else x; (...), (...) -> broadcast shape. The gradient is 0 at the mask.

    Raises:
        FormatError: a finite value beyond the largest number of x's format (as in torch).
    """
    _check_mask("masked_fill", mask)
    _check_value(ctx.format, value)
    ctx.save(mask)
    fill = ctx.backend.xp.asarray(value, x.dtype)
    return ctx.backend.choose(mask, fill, x)


@masked_fill.gradient
def _(ctx: Node, grad: Array, *, value: float) -> Array | None:
    (mask,) = ctx.saved
    kept = ctx.backend.keep_where(grad, ~ctx.backend.xp.broadcast_to(mask, grad.shape))
    return to_shape_of(ctx, 0, kept)


@op(bound="exact")
def clamp(ctx: Node, x: Array, low: Array | None = None, high: Array | None = None) -> Array:
    """min(max(x, low), high), NaN stays NaN; a missing bound does not act. (...), (...), (...) -> broadcast.

    The gradient passes to x where low <= x <= high, at the bounds too, not at NaN; that of a bound is where
    it is the result and x lies beyond it; where low > high, all goes to `high` (as in torch).
    """
    if low is None and high is None:
        raise SettingError("clamp: expected a lower or an upper bound, got neither")
    xp, wide = ctx.backend.xp, ctx.wide(x)
    y = wide if low is None else xp.maximum(wide, ctx.wide(low))
    y = y if high is None else xp.minimum(y, ctx.wide(high))
    ctx.save(_from_x(ctx, wide, low, high), *_from_bounds(ctx, wide, low, high))
    return ctx.round(y)


@clamp.gradient
def _(ctx: Node, grad: Array) -> tuple[Array | None, ...]:
    return tuple(
        None if mask is None else to_shape_of(ctx, i, ctx.backend.keep_where(grad, mask))
        for i, mask in enumerate(ctx.saved)
    )


def _from_x(ctx: Node, x: Array, low: Array | None, high: Array | None) -> Array | None:
    """Where x is the result; None if nobody asks."""
    if not ctx.needs(0):
        return None
    if low is None:
        return x <= ctx.wide(high)
    above = x >= ctx.wide(low)
    return above if high is None else above & (x <= ctx.wide(high))


def _from_bounds(ctx: Node, x: Array, low: Array | None, high: Array | None) -> list[Array | None]:
    """Where `low` is the result, and where `high` is."""
    by_low = by_high = None
    if low is not None and ctx.needs(1):
        below = x < ctx.wide(low)
        by_low = below if high is None else below & (ctx.wide(low) < ctx.wide(high))
    if high is not None and ctx.needs(2):
        above = x > ctx.wide(high)
        by_high = above if low is None else above | (ctx.wide(low) > ctx.wide(high))
    return [by_low, by_high]


@op(bound="exact")
def maximum(ctx: Node, a: Array, b: Array) -> Array:
    """The larger of a and b, NaN if either is; (...), (...) -> broadcast shape.

    The gradient goes to the larger; equal ones take half each; at NaN both take all of it (as in torch).
    """
    wide_a, wide_b = ctx.wide(a), ctx.wide(b)
    ctx.save(_order(ctx, wide_a, wide_b))
    return ctx.round(ctx.backend.xp.maximum(wide_a, wide_b))


@maximum.gradient
def _(ctx: Node, grad: Array) -> tuple[Array | None, ...]:
    return _to_the_chosen(ctx, grad, below=0)


@op(bound="exact")
def minimum(ctx: Node, a: Array, b: Array) -> Array:
    """The smaller of a and b, NaN if either is; (...), (...) -> broadcast shape.

    The gradient goes to the smaller; equal ones take half each; at NaN both take all of it (as in torch).
    """
    wide_a, wide_b = ctx.wide(a), ctx.wide(b)
    ctx.save(_order(ctx, wide_a, wide_b))
    return ctx.round(ctx.backend.xp.minimum(wide_a, wide_b))


@minimum.gradient
def _(ctx: Node, grad: Array) -> tuple[Array | None, ...]:
    return _to_the_chosen(ctx, grad, below=1)


def _order(ctx: Node, a: Array, b: Array) -> Array | None:
    """One byte an element: LESS, EQUAL, GREATER or, at NaN, neither."""
    if not ctx.recording:
        return None
    xp = ctx.backend.xp
    order = xp.where(a < b, xp.uint8(LESS), xp.uint8(UNORDERED))
    return xp.where(a > b, xp.uint8(GREATER), xp.where(a == b, xp.uint8(EQUAL), order))


def _to_the_chosen(ctx: Node, grad: Array, *, below: int) -> tuple[Array | None, ...]:
    """Split the gradient; input number `below` is not the result where a < b, the other where a > b."""
    (order,) = ctx.saved
    g = ctx.wide(grad)
    shared = ctx.round(ctx.backend.xp.where(order == EQUAL, g / 2, g))
    lost = (LESS, GREATER) if below == 0 else (GREATER, LESS)
    return tuple(to_shape_of(ctx, i, ctx.backend.keep_where(shared, order != lost[i])) for i in (0, 1))


# ---- numbers beside tensors -----------------------------------------------------------------------------


def as_operand(x: Any, beside: Value) -> Any:
    """Return a number as a tensor without axes, rounded once to the format of the tensor beside it.

    A number with a fraction beside integers is float32's, as PyTorch promotes it. Tensors stay as they are,
    arrays become tensors.
    """
    if isinstance(x, Value):
        return x
    backend = beside.backend
    if x.__class__ not in (float, int, bool):
        return Value.lift(x, backend)
    if beside.format is not None:
        wide = backend.xp.asarray(float(x), "float64")
        return Value.make(backend.cast(wide, beside.format), backend)
    whole = x.__class__ is not float and not (x.__class__ is int and beside.array.dtype.kind == "b")
    dtype = beside.array.dtype if whole else "int64" if x.__class__ is int else float32.dtype
    try:
        return Value.make(backend.xp.asarray(x, dtype), backend)
    except OverflowError as fault:
        raise FormatError(f"{x} does not fit in {dtype}", formats=[str(dtype)]) from fault


def operands(op: str, a: Any, b: Any) -> tuple[Value, Value]:
    """Return two tensors of one format, from tensors, arrays and numbers, as PyTorch promotes them."""
    first = next((x for x in (a, b) if isinstance(x, Value)), None)
    first = Value.lift(a, None) if first is None else first
    left, right = as_operand(a, first), as_operand(b, first)
    target = common_format(op, Mixed.PROMOTE, [(x.format, x.array.ndim > 0) for x in (left, right)])
    if target is None:
        return left, right
    return _as(left, target), _as(right, target)


def _as(x: Value, target: Format) -> Value:
    return x if x.format is target else cast(x, format=target)


def _check_mask(op: str, mask: Array) -> None:
    if getattr(getattr(mask, "dtype", None), "kind", None) != "b":
        raise FormatError(
            f"expected a condition of booleans, got {getattr(mask, 'dtype', type(mask).__name__)}",
            op=op, help="compare it: x != 0",
        )  # fmt: skip


def _check_value(format: Format | None, value: Any) -> None:
    if value.__class__ not in (float, int, bool):
        raise ShapeError(
            f"expected a number, got {type(value).__name__}", op="masked_fill",
            help="fill with the elements of a tensor by where(mask, value, x)",
        )  # fmt: skip
    if format is not None and abs(value) > format.max and abs(value) != float("inf"):
        raise FormatError(
            f"{value:g} does not fit in {format.name}, whose largest number is {format.max:g}",
            op="masked_fill", formats=[format.name], help="use -inf, or a value within the format",
        )  # fmt: skip
