"""Convolutions beside conv2d: over one axis, transposed, and the two gradients of conv2d as ops.

conv2d is linear in the image and in the weights, and so are its gradients: each of the three kernels has the
other two for gradients. All of them run on two axes; a signal (N, C, L) is an image of height 1.
"""

from __future__ import annotations

from typing import Any

from minimp.door import op
from minimp.policy import Mixed
from minimp.tape import Array, Node

__all__ = ["conv2d_input", "conv2d_weight"]

Pair = tuple[int, int]
One = tuple[int]


# ---- the gradients of conv2d ------------------------------------------------------------------------------


@op(mixed=Mixed.SAME, bound="dot")
def conv2d_input(ctx: Node, grad: Array, weight: Array, *, shape: tuple[int, ...], **geometry: Any) -> Array:
    """The gradient of conv2d by its image.  (N, O, H', W'), (O, C/groups, kH, kW) -> `shape` (N, C, H, W).

    dx[n, c, s i + d u - p, ...] adds up g[n, o, i, j] w[o, c, u, v]; stride, padding, dilation and groups are
    conv2d's. Its own gradients are conv2d by g, and conv2d_weight by w.
    """
    ctx.save(grad if ctx.needs(1) else None, weight if ctx.needs(0) else None)
    return ctx.round(ctx.backend.conv2d_input(grad, weight, shape, geometry, accumulate=ctx.accumulate))


@conv2d_input.gradient
def _(ctx: Node, grad: Array, *, shape: tuple[int, ...], **geometry: Any) -> tuple[Array | None, ...]:
    return _transposed_gradients(ctx, grad, geometry)


@op(mixed=Mixed.SAME, bound="dot")
def conv2d_weight(ctx: Node, x: Array, grad: Array, *, shape: tuple[int, ...], **geometry: Any) -> Array:
    """The gradient of conv2d by its weight.  (N, C, H, W), (N, O, H', W') -> `shape` (O, C/groups, kH, kW).

    dw[o, c, u, v] = sum over n, i, j of g[n, o, i, j] x[n, c, s i + d u - p, ...]. Its own gradients are
    conv2d_input by x, and conv2d by g.
    """
    ctx.save(x if ctx.needs(1) else None, grad if ctx.needs(0) else None)
    return ctx.round(ctx.backend.conv2d_weight(x, grad, shape, geometry, accumulate=ctx.accumulate))


@conv2d_weight.gradient
def _(ctx: Node, grad: Array, *, shape: tuple[int, ...], **geometry: Any) -> tuple[Array | None, ...]:
    x, given = ctx.saved
    backend, how = ctx.backend, ctx.accumulate
    by_x = by_grad = None
    if ctx.needs(0):
        by_x = ctx.round(backend.conv2d_input(given, grad, ctx.shape_of(0), geometry, accumulate=how))
    if ctx.needs(1):
        by_grad = ctx.round(backend.conv2d(x, grad, None, geometry, accumulate=how))
    return by_x, by_grad


def _transposed_gradients(ctx: Node, grad: Array, geometry: dict[str, Any]) -> tuple[Array | None, ...]:
    """The gradients of a transposed convolution by what it spreads and by the weight; see conv2d_input."""
    x, weight = ctx.saved
    backend, how = ctx.backend, ctx.accumulate
    by_x = by_weight = None
    if ctx.needs(0):
        by_x = ctx.round(backend.conv2d(grad, weight, None, geometry, accumulate=how))
    if ctx.needs(1):
        by_weight = ctx.round(backend.conv2d_weight(grad, x, ctx.shape_of(1), geometry, accumulate=how))
    return by_x, by_weight
