"""Pooling to a given size, and its way back by places."""

from __future__ import annotations

import math
from typing import Any

from minimp.door import op
from minimp.errors import ShapeError
from minimp.policy import Mixed
from minimp.refusals import within
from minimp.tape import Array, Node

__all__ = ["adaptive_avg_pool2d", "adaptive_avg_pool2d_input", "adaptive_max_pool2d", "max_unpool2d"]

Pair = tuple[int, int]


@op(bound="sum")
def adaptive_avg_pool2d(ctx: Node, x: Array, *, size: Pair) -> Array:
    """The mean of each of `size` windows.  (N, C, H, W) -> (N, C, *size); one rounding.

    Window i of an axis runs from floor(i H / H') to ceil((i + 1) H / H'). The terms of a sum are the window's
    elements, row by row (torch.nn.functional.adaptive_avg_pool2d).
    """
    _check("adaptive_avg_pool2d", x, size)
    return ctx.round(ctx.backend.adaptive_avg_pool2d(x, {"size": size}, accumulate=ctx.accumulate))


@adaptive_avg_pool2d.gradient
def _(ctx: Node, grad: Array, *, size: Pair) -> Array:
    shape, how = ctx.shape_of(0), ctx.accumulate
    return ctx.round(ctx.backend.adaptive_avg_pool2d_input(grad, shape, {"size": size}, accumulate=how))


@op(bound="sum")
def adaptive_avg_pool2d_input(ctx: Node, grad: Array, *, shape: tuple[int, ...], size: Pair) -> Array:
    """The gradient of adaptive_avg_pool2d: g over the window's count to each of its elements.  -> `shape`.

    The terms of an element are its shares in the windows that hold it, row by row.
    """
    how = ctx.accumulate
    return ctx.round(ctx.backend.adaptive_avg_pool2d_input(grad, shape, {"size": size}, accumulate=how))


@adaptive_avg_pool2d_input.gradient
def _(ctx: Node, grad: Array, *, shape: tuple[int, ...], size: Pair) -> Array:
    return ctx.round(ctx.backend.adaptive_avg_pool2d(grad, {"size": size}, accumulate=ctx.accumulate))


@op(bound="exact")
def adaptive_max_pool2d(ctx: Node, x: Array, *, size: Pair) -> Array:
    """The largest element of each window, NaN first, then the first.  (N, C, H, W) -> (N, C, *size).

    Windows as :func:`adaptive_avg_pool2d`. Saved for backward: the place of each maximum in its image, in as
    few bytes as H W needs. An element taken by several windows adds up their gradients, row by row.
    """
    _check("adaptive_max_pool2d", x, size)
    y, index = ctx.backend.adaptive_max_pool2d(x, size)
    ctx.save(index)
    return y


@adaptive_max_pool2d.gradient
def _(ctx: Node, grad: Array, *, size: Pair) -> Array:
    (index,) = ctx.saved
    shape = ctx.shape_of(0)
    places = _places(ctx.backend.xp, index, shape[3])
    return ctx.round(ctx.backend.scatter_add(shape, places, ctx.wide(grad), accumulate=ctx.accumulate))


@op(mixed=Mixed.SAME, bound="exact")
def max_unpool2d(ctx: Node, x: Array, index: Array, *, size: Pair) -> Array:
    """Zeros (N, C, *size) with x at the places `index`, u W + v.  (N, C, H', W'), the same -> (N, C, H, W).

    Where places are equal, the last one stays (torch.nn.functional.max_unpool2d). Saved: the places.
    """
    if x.ndim != 4 or index.shape != x.shape or index.dtype.kind not in "iu":
        raise ShapeError(
            f"expected x (N, C, H, W) and whole-number places of its shape, got {x.shape} and {index.dtype} "
            f"{index.shape}",
            op="max_unpool2d", shapes=[x.shape, index.shape],
        )  # fmt: skip
    places = index
    index = within(
        index, (index < 0) | (index >= math.prod(size)),
        lambda: ShapeError(
            f"places from {int(places.min())} to {int(places.max())} do not fit an image of {size}",
            op="max_unpool2d", shapes=[index.shape], help="give the output_size that was pooled",
        ),
    )  # fmt: skip
    ctx.save(index)
    y = ctx.backend.xp.zeros((*x.shape[:2], *size), x.dtype)
    y[_places(ctx.backend.xp, index, size[1])] = x
    return y


@max_unpool2d.gradient
def _(ctx: Node, grad: Array, *, size: Pair) -> tuple[Array, None]:
    (index,) = ctx.saved
    return grad[_places(ctx.backend.xp, index, size[1])], None


def _places(xp: Any, index: Array, width: int) -> tuple[Array, ...]:
    """Places u W + v as an index of the images."""
    images, channels = (xp.arange(n) for n in index.shape[:2])
    rows, columns = xp.divmod(index.astype("int64"), width)
    return images[:, None, None, None], channels[:, None, None], rows, columns


def _check(name: str, x: Array, size: Pair) -> None:
    if x.ndim != 4 or 0 in x.shape[1:]:
        raise ShapeError(
            f"expected x (N, C, H, W) with something in it, got {x.shape}", op=name, shapes=[x.shape],
            help="add a batch axis with x[None]",
        )  # fmt: skip
    if min(size) < 1:
        raise ShapeError(f"expected a size of at least 1, got {size}", op=name, shapes=[x.shape])
