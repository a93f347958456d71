"""Ops that move elements and round nothing."""

from __future__ import annotations

from typing import Any

from minimp.door import op
from minimp.errors import ShapeError
from minimp.ops.broadcasting import to_shape_of
from minimp.pieces import Pieces
from minimp.tape import Array, Node

__all__ = ["cat", "clone", "expand", "getitem", "permute", "reshape", "unindex"]


@op(bound="exact")
def reshape(ctx: Node, x: Array, *, shape: tuple[int, ...]) -> Array:
    """The same elements in another shape; one length may be -1."""
    return ctx.backend.view(x, lambda a: a.reshape(shape))


@reshape.gradient
def _(ctx: Node, grad: Array, *, shape: tuple[int, ...]) -> Array:
    return ctx.backend.view(grad, lambda g: g.reshape(ctx.shape_of(0)))


@op(bound="exact")
def clone(ctx: Node, x: Array) -> Array:
    """A copy; gradients pass through."""
    return x.copy()


@clone.gradient
def _(ctx: Node, grad: Array) -> Array:
    return grad


@op(bound="exact")
def permute(ctx: Node, x: Array, *, dims: tuple[int, ...]) -> Array:
    """Reorder the axes: axis i of the result is axis dims[i] of x."""
    if sorted(d % max(x.ndim, 1) for d in dims) != list(range(x.ndim)):
        raise ShapeError(
            f"expected a permutation of {x.ndim} axes, got {dims}", op="permute", shapes=[x.shape]
        )
    return ctx.backend.view(x, lambda a: a.transpose(dims))


@permute.gradient
def _(ctx: Node, grad: Array, *, dims: tuple[int, ...]) -> Array:
    back = [0] * len(dims)
    for i, d in enumerate(dims):
        back[d % len(dims)] = i
    return ctx.backend.view(grad, lambda g: g.transpose(back))


@op(bound="exact")
def expand(ctx: Node, x: Array, *, shape: tuple[int, ...]) -> Array:
    """Repeat axes of length 1, and add axes in front, until the shape is `shape`; -1 keeps a length."""
    lead = len(shape) - x.ndim
    full = tuple(x.shape[i - lead] if n == -1 and i >= lead else n for i, n in enumerate(shape))
    return ctx.backend.xp.broadcast_to(x, full).copy()


@expand.gradient
def _(ctx: Node, grad: Array, *, shape: tuple[int, ...]) -> Array | None:
    return to_shape_of(ctx, 0, grad)


@op(bound="exact")
def getitem(ctx: Node, x: Array, *, index: Any) -> Array:
    """x[index], for every index that NumPy takes; integer arrays may repeat elements.

    The gradient adds up where an element was taken several times: by ctx.accumulate, rounded once.
    """
    taken = x[ctx.backend.places(index)]
    return taken.copy() if getattr(taken, "base", None) is not None else ctx.backend.xp.asarray(taken)


@getitem.gradient
def _(ctx: Node, grad: Array, *, index: Any) -> Array:
    values = grad if _takes_once(index) else ctx.wide(grad)
    total = ctx.backend.scatter_add(ctx.shape_of(0), index, values, accumulate=ctx.accumulate)
    return ctx.round(total)


def _in_pieces(ctx: Node, grad: Array) -> tuple[Any, ...]:
    """The gradient of a slice, as that slice."""
    index = ctx.options["index"]
    if _takes_once(index):
        return (Pieces(ctx.shape_of(0), [(index, grad)]),)
    return getitem.differentiate(ctx, grad)


getitem.piecewise = _in_pieces


def _takes_once(index: Any) -> bool:
    """Tell whether an index takes no element twice: slices and numbers; then nothing is summed."""
    parts = index if isinstance(index, tuple) else (index,)
    return all(
        part is None or part is ... or (isinstance(part, slice | int) and not isinstance(part, bool))
        for part in parts
    )


@op(bound="sum")
def unindex(ctx: Node, values: Array, *, shape: tuple[int, ...], index: Any) -> Array:
    """Zeros of `shape` to which `values` are added at `index`: what the gradient of x[index] is.

    Values that meet in one place are added up by ctx.accumulate, and rounded once.
    """
    total = ctx.backend.scatter_add(shape, index, ctx.wide(values), accumulate=ctx.accumulate)
    return ctx.round(total)


@unindex.gradient
def _(ctx: Node, grad: Array, *, shape: tuple[int, ...], index: Any) -> Array:
    return grad[ctx.backend.places(index)].reshape(ctx.shape_of(0))


@op(bound="exact")
def cat(ctx: Node, *arrays: Array, dim: int = 0) -> Array:
    """Join along an existing axis; the other lengths must agree."""
    ctx.memo = [a.shape[dim] for a in arrays]
    return ctx.backend.xp.concatenate(arrays, axis=dim)


@cat.gradient
def _(ctx: Node, grad: Array, *, dim: int = 0) -> tuple[Array | None, ...]:
    parts: list[Array | None] = []
    start = 0
    for i, length in enumerate(ctx.memo):
        where = (slice(None),) * (dim % grad.ndim) + (slice(start, start + length),)
        parts.append(grad[where].copy() if ctx.needs(i) else None)
        start += length
    return tuple(parts)
