"""Where elements stand in order: the results are indices, and carry no gradient."""

from __future__ import annotations

from minimp.door import op
from minimp.ops.reductions import check_dims
from minimp.tape import Array, Node

__all__ = ["argsort"]


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
