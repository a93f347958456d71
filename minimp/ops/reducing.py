"""What losses share: how terms become one number, and how its gradient comes back to every term."""

from __future__ import annotations

import math
from collections.abc import Callable

from minimp.errors import SettingError, ShapeError, unknown_name
from minimp.ops.broadcasting import to_shape_of
from minimp.tape import Array, Node

__all__ = [
    "REDUCTIONS", "check_one_shape", "check_reduction", "count_of", "opposite", "over", "reduced",
    "spread_over", "times_slope",
]  # fmt: skip

REDUCTIONS = ("mean", "sum", "none")


def check_reduction(name: str, reduction: str, known: tuple[str, ...] = REDUCTIONS) -> None:
    """Refuse a reduction that the loss called `name` does not have."""
    if reduction not in known:
        raise SettingError(f"{name}: {unknown_name('reduction', reduction, known)}")


def check_one_shape(name: str, x: Array, target: Array) -> None:
    """Refuse an input and a target of different shapes, where torch warns of them or refuses them too."""
    if x.shape != target.shape:
        raise ShapeError(
            f"expected input and target of one shape, got {x.shape} and {target.shape}",
            op=name, shapes=[x.shape, target.shape], help="reshape one; this loss does not broadcast",
        )  # fmt: skip


def reduced(ctx: Node, terms: Array, reduction: str, count: int | None = None) -> Array:
    """Return the terms, their sum, or their sum over `count` (their number); rounded once, at the end."""
    check_reduction(ctx.op.name, reduction, (*REDUCTIONS, "batchmean"))
    if reduction == "none":
        return ctx.round(terms)
    total = ctx.backend.sum(terms, accumulate=ctx.accumulate)
    if reduction == "sum":
        return ctx.round(total)
    return ctx.round(total / ctx.backend.xp.asarray(terms.size if count is None else count, total.dtype))


def spread_over(ctx: Node, grad: Array, reduction: str, count: int) -> Array:
    """Return the gradient of each of the terms that :func:`reduced` reduced, wide, and able to broadcast."""
    g = ctx.wide(grad)
    if reduction in ("none", "sum"):
        return g
    return g / count if count else g  # of no terms there is no gradient


def times_slope(ctx: Node, g: Array, slope: Callable[..., Array], *arrays: Array) -> Array:
    """Return g times ``slope(backend, *arrays)``, elementwise; g is one number, or one for each element."""
    if g.shape != arrays[0].shape:
        return ctx.backend.elementwise(lambda b, *xs: g * slope(b, *xs), *arrays)
    return ctx.backend.elementwise(lambda b, g, *xs: g * slope(b, *xs), g, *arrays)


def over(ctx: Node, values: Array, shape: tuple[int, ...]) -> Array:
    """Repeat values until they have the shape of the terms."""
    return values if values.shape == shape else ctx.backend.xp.broadcast_to(values, shape).copy()


def count_of(terms: tuple[int, ...], input: tuple[int, ...], reduction: str) -> int:
    """Return what a mean divides by: the number of terms, or for "batchmean" the input's first length."""
    return math.prod(input[:1] if reduction == "batchmean" else terms)


def opposite(ctx: Node, slope: Array) -> tuple[Array | None, Array | None]:
    """Return the gradients of a loss of x - t: the slope, wide, and its negative, each rounded once."""
    by_target = ctx.round(-slope) if ctx.needs(1) else None
    return (to_shape_of(ctx, 0, ctx.round(slope)) if ctx.needs(0) else None), to_shape_of(ctx, 1, by_target)
