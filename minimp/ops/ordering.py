"""The smallest element, and where elements stand in order: indices carry no gradient."""

from __future__ import annotations

from minimp.door import op
from minimp.ops.reductions import Dim, axes_of, check_dims, check_some, keep_axes
from minimp.tape import Array, Node

__all__ = ["amin", "argmin", "argsort"]


@op(bound="exact")
def amin(ctx: Node, x: Array, *, dim: Dim = None, keepdim: bool = False) -> Array:
    """The smallest element over `dim`; NaN wins. Equal minima share the gradient, as in torch.amin."""
    check_dims("amin", x, dim)
    check_some("amin", x, dim, "smallest")
    xp = ctx.backend.xp
    y = ctx.round(xp.asarray(xp.min(ctx.wide(x), axis=axes_of(x, dim), keepdims=keepdim)))
    ctx.save(x, y)
    return y


@amin.gradient
def _(ctx: Node, grad: Array, *, dim: Dim = None, keepdim: bool = False) -> Array:
    x, y = ctx.saved
    hit = ctx.wide(x) == ctx.wide(keep_axes(y, x.ndim, dim, keepdim))
    count = hit.sum(axis=axes_of(x, dim), keepdims=True)
    return ctx.round(hit * (ctx.wide(keep_axes(grad, x.ndim, dim, keepdim)) / count.astype("float32")))


@op(bound="exact")
def argmin(ctx: Node, x: Array, *, dim: int | None = None, keepdim: bool = False) -> Array:
    """The index of the smallest element (the first of equal ones) over `dim`, or of the flattened tensor."""
    check_dims("argmin", x, dim)
    check_some("argmin", x, dim, "smallest")
    return ctx.backend.xp.asarray(ctx.backend.xp.argmin(ctx.wide(x), axis=axes_of(x, dim), keepdims=keepdim))


@op(bound="exact")
def argsort(
    ctx: Node, x: Array, *, dim: int = -1, descending: bool = False, count: int | None = None
) -> Array:
    """The indices that sort x along `dim`, the first `count` of them; a tensor without axes has one element.

    Equal elements keep their order, whichever way; NaN counts as the largest.
    """
    check_dims("argsort", x, dim)
    xp, wide = ctx.backend.xp, ctx.wide(x)
    rows = wide if x.ndim else wide.reshape(1)
    if descending:
        order = xp.argsort(xp.flip(rows, axis=dim), axis=dim, kind="stable")
        order = rows.shape[dim] - 1 - xp.flip(order, axis=dim)
    else:
        order = xp.argsort(rows, axis=dim, kind="stable")
    if count is not None:
        order = order[(*[slice(None)] * (dim % rows.ndim), slice(0, count))].copy()
    return order if x.ndim or count == 0 else order.reshape(())
