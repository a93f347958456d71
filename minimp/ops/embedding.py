"""Rows of a table, looked up by index."""

from __future__ import annotations

from minimp.door import op
from minimp.errors import DataError, SettingError, ShapeError
from minimp.policy import Mixed
from minimp.refusals import within
from minimp.tape import Array, Node

__all__ = ["embedding"]


@op(mixed=Mixed.SAME, bound="exact")
def embedding(
    ctx: Node, weight: Array, index: Array, *, padding_idx: int | None = None,
    scale_grad_by_freq: bool = False,
) -> Array:  # fmt: skip
    """weight[index]: (V, D), integers (...) -> (..., D); nothing is rounded.

    The gradient of a row is the sum of those of all places that took it, by ctx.accumulate, rounded once;
    scale_grad_by_freq divides it by how many they are. The row at padding_idx takes none.
    """
    index = _check(weight, index, padding_idx)
    ctx.save(index)
    return ctx.backend.xp.take(weight, index, axis=0)


@embedding.gradient
def _(
    ctx: Node, grad: Array, *, padding_idx: int | None = None, scale_grad_by_freq: bool = False
) -> tuple[Array, None]:
    (index,) = ctx.saved
    xp, shape = ctx.backend.xp, ctx.shape_of(0)
    total = ctx.backend.sum_rows(
        shape, index, grad, None if scale_grad_by_freq else ctx.format,
        left_out=None if padding_idx is None else padding_idx % shape[0], accumulate=ctx.accumulate,
    )  # fmt: skip
    if scale_grad_by_freq:
        ones = xp.ones(index.shape, "float64")  # whole numbers: exact in any order, and nobody waits for them
        counts = ctx.backend.scatter_add(shape[:1], index, ones, accumulate="float32")
        total = ctx.round(total / xp.maximum(counts, 1).astype(total.dtype)[:, None])
    return total, None


def _check(weight: Array, index: Array, padding_idx: int | None) -> Array:
    """Return the indices; refuse what is no table, and indices that are no rows of it."""
    if weight.ndim != 2:
        raise ShapeError(
            f"expected a table (V, D), got {weight.shape}", op="embedding", shapes=[weight.shape]
        )
    rows = weight.shape[0]
    if index.dtype.kind not in "iu":
        raise DataError(
            f"expected integer indices, got {index.dtype}",
            op="embedding", help="cast them with .astype('int64')",
        )  # fmt: skip
    wrong = (index < 0) | (index >= rows)
    if padding_idx is not None and not -rows <= padding_idx < rows:
        raise SettingError(
            f"embedding: padding_idx must be a row of the table, from {-rows} to {rows - 1}, "
            f"got {padding_idx}"
        )
    return within(
        index, wrong,
        lambda: DataError(
            f"expected indices from 0 to {rows - 1}, got {int(index[wrong].reshape(-1)[0])}",
            op="embedding", help="give the table more rows, or look the data through",
        ),
    )  # fmt: skip
