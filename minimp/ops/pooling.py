"""Pooling over windows of an image."""

from __future__ import annotations

from typing import Any

from minimp.door import op
from minimp.errors import ShapeError
from minimp.policy import Mixed
from minimp.tape import Array, Node

__all__ = ["avg_pool2d", "avg_pool2d_input", "max_pool2d", "max_pool2d_input"]


@op(bound="exact")
def max_pool2d(ctx: Node, x: Array, **geometry: Any) -> Array:
    """The largest element of each window.  (N, C, H, W) -> (N, C, H', W'); NaN wins, then the first.

    Keywords: kernel, stride, padding, dilation (pairs), ceil_mode; as torch.nn.functional.max_pool2d.
    Saved for backward: the place of each maximum inside its window, one or two bytes.
    """
    _check(x, "max_pool2d", geometry)
    y, index = ctx.backend.max_pool2d(x, geometry, ctx.needs(0))
    ctx.save(index)
    return y


@max_pool2d.gradient
def _(ctx: Node, grad: Array, **geometry: Any) -> Array:
    (index,) = ctx.saved
    shape, how = ctx.shape_of(0), ctx.accumulate
    return ctx.round(ctx.backend.max_pool2d_input(grad, index, shape, geometry, accumulate=how))


@op(mixed=Mixed.SAME, bound="sum")
def max_pool2d_input(
    ctx: Node, grad: Array, index: Array, *, shape: tuple[int, ...], **geometry: Any
) -> Array:  # fmt: skip
    """The gradient of max_pool2d: each g to the element its window took.  (N, C, H', W') -> `shape`.

    `index` is the place of each maximum inside its window, u kW + v. Where windows overlap, the terms are
    what each tap gives, row by row of the window. Its own gradient takes g at those elements.
    """
    ctx.save(index)
    found = ctx.backend.max_pool2d_input(grad, index, shape, geometry, accumulate=ctx.accumulate)
    return ctx.round(found)


@max_pool2d_input.gradient
def _(ctx: Node, grad: Array, *, shape: tuple[int, ...], **geometry: Any) -> tuple[Array, None]:
    (index,) = ctx.saved
    return grad[_places(ctx.backend.xp, index, geometry)], None


def _places(xp: Any, index: Array, geometry: dict[str, Any]) -> tuple[Array, ...]:
    """Where the maxima lie in the image: an index of it, in the shape of the pooled image."""
    images, channels, *out = (xp.arange(n) for n in index.shape)
    (sh, sw), (ph, pw) = geometry["stride"], geometry["padding"]
    dh, dw = geometry.get("dilation", (1, 1))
    down, right = xp.divmod(index.astype("int64"), geometry["kernel"][1])
    rows = out[0][:, None] * sh + down * dh - ph
    columns = out[1] * sw + right * dw - pw
    return images[:, None, None, None], channels[:, None, None], rows, columns


@op(bound="sum")
def avg_pool2d(ctx: Node, x: Array, **geometry: Any) -> Array:
    """The mean of each window.  (N, C, H, W) -> (N, C, H', W'); summed by ctx.accumulate, rounded once.

    The terms of a sum are the window's elements, row by row, zeros of the padding included; those of its
    gradient are the shares that an element has in each window that reads it, in the same order.

    Keywords: kernel, stride, padding (pairs), ceil_mode, count_include_pad; as torch's avg_pool2d.
    """
    _check(x, "avg_pool2d", geometry)
    return ctx.round(ctx.backend.avg_pool2d(x, geometry, accumulate=ctx.accumulate))


@avg_pool2d.gradient
def _(ctx: Node, grad: Array, **geometry: Any) -> Array:
    shape, how = ctx.shape_of(0), ctx.accumulate
    return ctx.round(ctx.backend.avg_pool2d_input(grad, shape, geometry, accumulate=how))


@op(bound="sum")
def avg_pool2d_input(ctx: Node, grad: Array, *, shape: tuple[int, ...], **geometry: Any) -> Array:
    """The gradient of avg_pool2d: g over the window's count to each of its elements.  -> `shape`.

    The terms of an element are its shares in the windows that read it, in the order of their taps. Its own
    gradient is avg_pool2d of g.
    """
    return ctx.round(ctx.backend.avg_pool2d_input(grad, shape, geometry, accumulate=ctx.accumulate))


@avg_pool2d_input.gradient
def _(ctx: Node, grad: Array, *, shape: tuple[int, ...], **geometry: Any) -> Array:
    return ctx.round(ctx.backend.avg_pool2d(grad, geometry, accumulate=ctx.accumulate))


def _check(x: Array, name: str, geometry: dict[str, Any]) -> None:
    if x.ndim != 4:
        raise ShapeError(f"expected x (N, C, H, W), got {x.shape}", op=name, shapes=[x.shape])
    for axis in (0, 1):
        room = x.shape[2 + axis] + 2 * geometry["padding"][axis]
        if geometry["kernel"][axis] > room or 2 * geometry["padding"][axis] > geometry["kernel"][axis]:
            raise ShapeError(
                f"a window of {geometry['kernel']} with padding {geometry['padding']} does not fit {x.shape}",
                op=name, shapes=[x.shape], help="the window must fit, and padding be at most half of it",
            )  # fmt: skip
