"""Group normalisation: statistics of each group of channels of each image, in float32."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from minimp.door import op
from minimp.errors import SettingError, ShapeError
from minimp.ops.arithmetic import sqrt
from minimp.ops.parameters import check_formats, formats_of, to_format
from minimp.ops.reductions import mean
from minimp.ops.shaping import reshape
from minimp.policy import CastClass, Mixed
from minimp.tape import Array, Node

if TYPE_CHECKING:
    from minimp.tensors import Tensor

__all__ = ["group_norm"]


@op(cast=CastClass.FP32, mixed=Mixed.KEEP, bound="norm")
def group_norm(
    ctx: Node, x: Array, weight: Array | None = None, bias: Array | None = None, *,
    num_groups: int, eps: float = 1e-5,
) -> Array:  # fmt: skip
    """y = (x - m) / sqrt(v + eps) w + b, m and v of each group of channels of each image (Wu and He 2018).

    (N, C, ...), (C,), (C,) -> (N, C, ...); C in num_groups equal parts. All is computed in float32; x may be
    in 16 bits beside float32 parameters (torch 2.13). With z = (x - m) / sqrt(v + eps), h = g w and K
    elements a group, dx = (h - sum h / K - z sum (h z) / K) / sqrt(v + eps), dw = sum g z, db = sum g.
    """
    _check(x, weight, bias, num_groups)
    check_formats("group_norm", ctx.format, weight, bias)
    ctx.memo = formats_of(x, weight, bias)
    y, centre, square = ctx.backend.standardize(
        _groups(ctx, x, num_groups), eps, None, None, accumulate=ctx.accumulate
    )
    ctx.save(x, weight, bias, centre, 1 / ctx.backend.xp.sqrt(square + eps))
    y = _by_channel(y, x)
    if weight is not None:
        y *= ctx.wide(weight)[:, None]
    if bias is not None:
        y += ctx.wide(bias)[:, None]
    return ctx.round(y.reshape(x.shape))


@group_norm.gradient
def _(ctx: Node, grad: Array, *, num_groups: int, eps: float = 1e-5) -> tuple[Array | None, ...]:
    x, weight, _, centre, scale = ctx.saved
    g, rows = _by_channel(ctx.wide(grad), x), _groups(ctx, x, num_groups)
    by_x = by_weight = by_bias = None
    if ctx.needs(0):
        h = g if weight is None else g * ctx.wide(weight)[:, None]
        wide, _, _ = ctx.backend.normalize_backward(
            h.reshape(rows.shape), rows, centre, scale, None,
            by_x=True, fixed=False, accumulate=ctx.accumulate,
        )  # fmt: skip
        by_x = None if wide is None else ctx.round(wide.reshape(x.shape))
    if len(ctx.inputs) > 1 and ctx.needs(1):
        z = _by_channel(ctx.backend.normalize(rows, centre, scale, None, None), x)
        by_weight = to_format(ctx, 1, ctx.backend.sum(g * z, axis=(0, 2), accumulate=ctx.accumulate))
    if len(ctx.inputs) > 2 and ctx.needs(2):
        by_bias = to_format(ctx, 2, ctx.backend.sum(g, axis=(0, 2), accumulate=ctx.accumulate))
    return by_x, by_weight, by_bias


@group_norm.composite
def _(x: Tensor, weight: Any = None, bias: Any = None, *, num_groups: int, eps: float = 1e-5) -> Tensor:
    rows = reshape(x, shape=(x.shape[0] * num_groups, math.prod(x.shape[1:]) // num_groups))
    centred = rows - mean(rows, dim=1, keepdim=True)
    y = reshape(centred / sqrt(mean(centred * centred, dim=1, keepdim=True) + eps), shape=x.shape)
    shape = (-1, *(1,) * (len(x.shape) - 2))
    y = y if weight is None else y * reshape(weight, shape=shape)
    return y if bias is None else y + reshape(bias, shape=shape)


def _groups(ctx: Node, x: Array, num_groups: int) -> Array:
    """(N, C, ...) -> (1, N groups, the elements of a group), wide."""
    return ctx.wide(x).reshape(1, x.shape[0] * num_groups, math.prod(x.shape[1:]) // num_groups)


def _by_channel(y: Array, x: Array) -> Array:
    """-> (N, C, S)."""
    return y.reshape(*x.shape[:2], math.prod(x.shape[2:]))


def _check(x: Array, weight: Array | None, bias: Array | None, num_groups: int) -> None:
    if type(num_groups) is not int or num_groups < 1:
        raise SettingError(f"group_norm: expected num_groups of at least 1, got {num_groups!r}")
    if x.ndim < 2 or x.shape[1] % num_groups:
        raise ShapeError(
            f"expected x (N, C, ...) with channels in {num_groups} equal groups, got {x.shape}",
            op="group_norm", shapes=[x.shape],
        )  # fmt: skip
    for name, part in (("weight", weight), ("bias", bias)):
        if part is not None and part.shape != x.shape[1:2]:
            raise ShapeError(
                f"expected a {name} of shape ({x.shape[1]},), one number a channel, got {part.shape}",
                op="group_norm", shapes=[x.shape, part.shape],
            )  # fmt: skip
