"""How a gradient finds its way back through a broadcast."""

from __future__ import annotations

from minimp.tape import Array, Node

__all__ = ["to_shape_of"]


def to_shape_of(ctx: Node, index: int, grad: Array | None) -> Array | None:
    """Sum a gradient over the axes along which input `index` was broadcast; None if it needs none.

    Args:
        ctx: the op's context.
        index: the position of the input.
        grad: a storage array of the result's shape.

    Returns:
        A storage array of the input's shape, rounded once more if anything was summed.
    """
    source = ctx.inputs[index]
    if grad is None or source is None:
        return None
    shape = source.shape
    if grad.shape == shape:
        return grad
    lead = grad.ndim - len(shape)
    axes = (*range(lead), *(i + lead for i, n in enumerate(shape) if n == 1 and grad.shape[i + lead] != 1))
    total = ctx.backend.sum(grad, axis=axes, keepdims=True, accumulate=ctx.accumulate)
    return ctx.round(total).reshape(shape)
