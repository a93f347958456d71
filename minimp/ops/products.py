"""Products with a sum inside: matmul, linear, conv2d. The accumulation format is always named."""

from __future__ import annotations

import math
from typing import Any

from minimp.door import op
from minimp.errors import ShapeError
from minimp.ops.broadcasting import to_shape_of
from minimp.policy import CastClass, Mixed
from minimp.tape import Array, Node

__all__ = ["check_linear", "conv2d", "linear", "matmul"]


def _swap(ctx: Node, x: Array) -> Array:
    """(..., M, N) -> (..., N, M)."""
    return ctx.backend.view(x, lambda a: a.swapaxes(-1, -2))


@op(cast=CastClass.LOWER, mixed=Mixed.SAME, bound="dot")
def matmul(ctx: Node, a: Array, b: Array) -> Array:
    """C = A B.  (..., M, K) @ (..., K, N) -> (..., M, N); sums by ctx.accumulate, then one rounding.

    A vector is taken as a row (on the left) or a column (on the right), and the extra axis removed.
    """
    if a.ndim == 0 or b.ndim == 0 or a.shape[-1] != b.shape[-2 if b.ndim > 1 else 0]:
        raise ShapeError(
            f"expected (..., M, K) @ (..., K, N), got {a.shape} @ {b.shape}",
            op="matmul", shapes=[a.shape, b.shape], help="transpose one side, or multiply elementwise with *",
        )  # fmt: skip
    ctx.save(a if ctx.needs(1) else None, b if ctx.needs(0) else None)
    y = ctx.backend.matmul(_row(ctx, a), _column(ctx, b), accumulate=ctx.accumulate)
    y = y[..., 0] if b.ndim == 1 else y
    y = (y[..., 0] if b.ndim == 1 else y[..., 0, :]) if a.ndim == 1 else y
    return ctx.round(y)


@matmul.gradient
def _(ctx: Node, grad: Array) -> tuple[Array | None, ...]:
    a, b = ctx.saved
    by_a = by_b = None
    if ctx.needs(0):
        vector = len(ctx.shape_of(0)) == 1
        g = _grad_matrix(ctx, grad, vector, b.ndim == 1)
        by_a = ctx.backend.matmul(g, _swap(ctx, _column(ctx, b)), accumulate=ctx.accumulate)
        by_a = ctx.round(by_a[..., 0, :] if vector else by_a)
    if ctx.needs(1):
        vector = len(ctx.shape_of(1)) == 1
        g = _grad_matrix(ctx, grad, a.ndim == 1, vector)
        by_b = ctx.backend.matmul(_swap(ctx, _row(ctx, a)), g, accumulate=ctx.accumulate)
        by_b = ctx.round(by_b[..., 0] if vector else by_b)
    return to_shape_of(ctx, 0, by_a), to_shape_of(ctx, 1, by_b)


def _row(ctx: Node, a: Array) -> Array:
    return ctx.backend.view(a, lambda v: v[None, :]) if a.ndim == 1 else a


def _column(ctx: Node, b: Array) -> Array:
    return ctx.backend.view(b, lambda v: v[:, None]) if b.ndim == 1 else b


def _grad_matrix(ctx: Node, grad: Array, a_is_vector: bool, b_is_vector: bool) -> Array:
    """Give the gradient back the axes that a vector operand lost."""
    if b_is_vector:
        grad = ctx.backend.view(grad, lambda g: g[..., None])
    if a_is_vector:
        grad = ctx.backend.view(grad, lambda g: g[..., None, :])
    return grad


def check_linear(op: str, x: Array, weight: Array, bias: Array | None) -> None:
    """Refuse shapes that do not fit: (..., in), (out, in), (out,); `op` is who says so.

    Raises:
        ShapeError: naming them.
    """
    if weight.ndim != 2 or x.ndim == 0 or x.shape[-1] != weight.shape[1]:
        raise ShapeError(
            f"expected x (..., in) and weight (out, in), got {x.shape} and {weight.shape}",
            op=op, shapes=[x.shape, weight.shape], help="x and W must agree in their last axis",
        )  # fmt: skip
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ShapeError(f"expected a bias of shape {weight.shape[:1]}, got {bias.shape}", op=op)


@op(cast=CastClass.LOWER, mixed=Mixed.SAME, bound="dot")
def linear(ctx: Node, x: Array, weight: Array, bias: Array | None = None) -> Array:
    """y = x W^T + b.  (..., in), (out, in), (out,) -> (..., out); one rounding, after the bias.

    The bias is added to the float32 sums, as in torch.nn.functional.linear (addmm).
    """
    check_linear("linear", x, weight, bias)
    ctx.save(x if ctx.needs(1) else None, weight if ctx.needs(0) else None)
    rows = _rows(ctx, x)
    y = ctx.backend.matmul(rows, _swap(ctx, weight), accumulate=ctx.accumulate)
    return ctx.backend.add_bias(y.reshape(*x.shape[:-1], weight.shape[0]), bias, ctx.format)


@linear.gradient
def _(ctx: Node, grad: Array) -> tuple[Array | None, ...]:
    x, weight = ctx.saved
    backend, g = ctx.backend, _rows(ctx, grad)
    by_x = by_weight = by_bias = None
    if ctx.needs(0):
        by_x = ctx.round(backend.matmul(g, weight, accumulate=ctx.accumulate).reshape(ctx.shape_of(0)))
    if ctx.needs(1):
        by_weight = ctx.round(backend.matmul(_swap(ctx, g), _rows(ctx, x), accumulate=ctx.accumulate))
    if len(ctx.inputs) > 2 and ctx.needs(2):
        by_bias = ctx.round(backend.sum(g, axis=0, accumulate=ctx.accumulate))
    return by_x, by_weight, by_bias


def _rows(ctx: Node, x: Array) -> Array:
    """(..., K) -> (rows, K)."""
    if x.ndim == 2:
        return x
    rows = math.prod(x.shape[:-1])  # -1 could not be told where K is 0
    return ctx.backend.view(x, lambda a: a.reshape(rows, a.shape[-1]))


@op(cast=CastClass.LOWER, mixed=Mixed.SAME, bound="dot")
def conv2d(
    ctx: Node, x: Array, weight: Array, bias: Array | None = None, *, stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0), dilation: tuple[int, int] = (1, 1), groups: int = 1,
) -> Array:  # fmt: skip
    """Cross-correlation.  (N, C, H, W), (O, C/groups, kH, kW), (O,) -> (N, O, H', W'); one rounding.

    H' = floor((H + 2 padding - dilation (kH - 1) - 1) / stride) + 1 (torch.nn.functional.conv2d).
    """
    geometry = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    _check_conv(x, weight, bias, geometry)
    ctx.save(x if ctx.needs(1) else None, weight if ctx.needs(0) else None)
    return ctx.backend.conv2d_with_bias(x, weight, bias, geometry, ctx.format, accumulate=ctx.accumulate)


@conv2d.gradient
def _(ctx: Node, grad: Array, **geometry: Any) -> tuple[Array | None, ...]:
    x, weight = ctx.saved
    backend = ctx.backend
    geometry = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1, **geometry}
    by_x = by_weight = by_bias = None
    if ctx.needs(0):
        by_x = ctx.round(
            backend.conv2d_input(grad, weight, ctx.shape_of(0), geometry, accumulate=ctx.accumulate)
        )
    if ctx.needs(1):
        by_weight = ctx.round(
            backend.conv2d_weight(x, grad, ctx.shape_of(1), geometry, accumulate=ctx.accumulate)
        )
    if len(ctx.inputs) > 2 and ctx.needs(2):
        by_bias = ctx.round(backend.sum(grad, axis=(0, 2, 3), accumulate=ctx.accumulate))
    return by_x, by_weight, by_bias


def _check_conv(x: Array, weight: Array, bias: Array | None, geometry: dict[str, Any]) -> None:
    """Refuse shapes that no convolution has."""
    shapes = [x.shape, weight.shape]
    groups = geometry["groups"]
    if x.ndim != 4 or weight.ndim != 4:
        raise ShapeError(
            f"expected x (N, C, H, W) and weight (O, C/groups, kH, kW), got {x.shape} and {weight.shape}",
            op="conv2d", shapes=shapes, help="add a batch axis with x[None], a channel axis with x[:, None]",
        )  # fmt: skip
    if x.shape[1] != weight.shape[1] * groups or weight.shape[0] % groups:
        raise ShapeError(
            f"expected {weight.shape[1] * groups} input channels (weight {weight.shape}, groups {groups}), "
            f"got {x.shape[1]}",
            op="conv2d", shapes=shapes,
        )  # fmt: skip
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ShapeError(f"expected a bias of shape {weight.shape[:1]}, got {bias.shape}", op="conv2d")
    for axis in (0, 1):
        room = x.shape[2 + axis] + 2 * geometry["padding"][axis]
        reach = geometry["dilation"][axis] * (weight.shape[2 + axis] - 1) + 1
        if reach > room:
            raise ShapeError(
                f"the kernel reaches over {reach} elements, the padded input has {room}",
                op="conv2d", shapes=shapes, help="pad more, or use a smaller kernel",
            )  # fmt: skip
