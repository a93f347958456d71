"""Ops that lay tensors side by side, and cut matrices along diagonals."""

from __future__ import annotations

from minimp.door import op
from minimp.errors import ShapeError
from minimp.tape import Array, Node

__all__ = ["stack", "tril", "triu"]


@op(bound="exact")
def stack(ctx: Node, *arrays: Array, dim: int = 0) -> Array:
    """Join tensors of one shape along a new axis at `dim`; N of (...) -> (..., N, ...)."""
    if any(a.shape != arrays[0].shape for a in arrays):
        shapes = [a.shape for a in arrays]
        raise ShapeError(f"expected tensors of one shape, got {shapes}", op="stack", shapes=shapes)
    return ctx.backend.xp.stack(arrays, axis=dim)


@stack.gradient
def _(ctx: Node, grad: Array, *, dim: int = 0) -> tuple[Array | None, ...]:
    lead = (slice(None),) * (dim % grad.ndim)
    return tuple(grad[(*lead, i)].copy() if ctx.needs(i) else None for i in range(len(ctx.inputs)))


@op(bound="exact")
def tril(ctx: Node, x: Array, *, diagonal: int = 0) -> Array:
    """The lower triangle of matrices (..., M, N), `diagonal` places above the main one too; 0 elsewhere."""
    return ctx.backend.keep_where(x, _lower(ctx, x.shape, diagonal))


@tril.gradient
def _(ctx: Node, grad: Array, *, diagonal: int = 0) -> Array:
    return ctx.backend.keep_where(grad, _lower(ctx, grad.shape, diagonal))


@op(bound="exact")
def triu(ctx: Node, x: Array, *, diagonal: int = 0) -> Array:
    """The upper triangle of matrices (..., M, N), from `diagonal` places above the main one; 0 elsewhere."""
    return ctx.backend.keep_where(x, ~_lower(ctx, x.shape, diagonal - 1))


@triu.gradient
def _(ctx: Node, grad: Array, *, diagonal: int = 0) -> Array:
    return ctx.backend.keep_where(grad, ~_lower(ctx, grad.shape, diagonal - 1))


def _lower(ctx: Node, shape: tuple[int, ...], diagonal: int) -> Array:
    """Where column - row <= diagonal."""
    if len(shape) < 2:
        raise ShapeError(f"expected matrices (..., M, N), got {shape}", op=ctx.op.name, shapes=[shape])
    xp = ctx.backend.xp
    rows, columns = xp.arange(shape[-2])[:, None], xp.arange(shape[-1])[None, :]
    return xp.broadcast_to(columns - rows <= diagonal, shape)
