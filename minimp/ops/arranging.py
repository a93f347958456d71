"""Ops that lay tensors side by side."""

from __future__ import annotations

from minimp.door import op
from minimp.errors import ShapeError
from minimp.tape import Array, Node

__all__ = ["stack"]


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
