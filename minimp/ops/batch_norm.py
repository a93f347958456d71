"""Batch normalisation: statistics of each channel over the batch, in float32, one rounding at the end."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from minimp.door import op
from minimp.errors import ShapeError
from minimp.ops.arithmetic import sqrt
from minimp.ops.parameters import check_formats, formats_of, to_format
from minimp.ops.reductions import mean
from minimp.ops.shaping import reshape
from minimp.policy import Mixed
from minimp.tape import Array, Node

if TYPE_CHECKING:
    from minimp.tensors import Tensor

__all__ = ["Statistics", "batch_norm"]


@dataclass(eq=False)
class Statistics:
    """Where batch_norm leaves what it measured: mean and mean square distance of each channel, float32."""

    mean: Array = None
    square: Array = None
    count: int = 0

    def __repr__(self) -> str:
        return "Statistics()"


@op(mixed=Mixed.KEEP, bound="norm")
def batch_norm(
    ctx: Node, x: Array, weight: Array | None = None, bias: Array | None = None,
    running_mean: Array | None = None, running_var: Array | None = None, *,
    training: bool = False, eps: float = 1e-5, statistics: Statistics | None = None,
) -> Array:  # fmt: skip
    """y = (x - m) / sqrt(v + eps) w + b, each channel with its own m, v, w and b (Ioffe and Szegedy 2015).

    (N, C, ...), (C,) four times -> (N, C, ...). In training m and v are the mean of x and the mean of
    (x - m)^2 over the K elements of a channel, and are left in `statistics`; else m = running_mean and
    v = running_var. All is computed in float32. x may be in 16 bits beside float32 parameters (torch 2.13).

    With s = 1 / sqrt(v + eps), dw = s sum g (x - m) and db = sum g; dx = g w s, and in training
    dx = w s (g - sum g / K - (x - m) s^2 sum (g (x - m)) / K). The terms of the sums are those that stand
    behind "sum" here, in C order. Saved: x, weight, bias; in training m and s; else the running statistics.
    """
    _check(x, (weight, bias, running_mean, running_var), training)
    check_formats("batch_norm", ctx.format, weight, bias)
    check_formats("batch_norm", ctx.format, running_mean, running_var)
    ctx.memo = formats_of(x, weight, bias)
    rows = _rows(ctx, x)
    w, b = (None if a is None else ctx.wide(a) for a in (weight, bias))
    if not training:
        centre = ctx.wide(running_mean)
        ctx.save(x, weight, bias, running_mean, running_var)
        y = ctx.backend.normalize(rows, centre, _scale(ctx, ctx.wide(running_var), eps), w, b)
        return ctx.round(y.reshape(x.shape))
    y, centre, square = ctx.backend.standardize(rows, eps, w, b, accumulate=ctx.accumulate)
    if statistics is not None:
        statistics.mean, statistics.square = centre, square
        statistics.count = rows.shape[0] * rows.shape[2]
    ctx.save(x, weight, bias, centre, _scale(ctx, square, eps))
    return ctx.round(y.reshape(x.shape))


@batch_norm.gradient
def _(ctx: Node, grad: Array, *, training: bool = False, eps: float = 1e-5,
      statistics: Statistics | None = None) -> tuple[Array | None, ...]:  # fmt: skip
    x, weight, _, centre, scale = ctx.saved
    if not training:
        centre, scale = ctx.wide(centre), _scale(ctx, ctx.wide(scale), eps)
    by_x, total, product = ctx.backend.normalize_backward(
        _rows(ctx, grad), _rows(ctx, x), centre, scale, None if weight is None else ctx.wide(weight),
        by_x=ctx.needs(0), fixed=not training, accumulate=ctx.accumulate,
    )  # fmt: skip
    return (
        None if by_x is None else ctx.round(by_x.reshape(x.shape)),
        to_format(ctx, 1, product * scale),
        to_format(ctx, 2, total),
    )


@batch_norm.composite
def _(
    x: Tensor, weight: Any = None, bias: Any = None, running_mean: Any = None, running_var: Any = None, *,
    training: bool = False, eps: float = 1e-5, statistics: Statistics | None = None,
) -> Tensor:  # fmt: skip
    shape = (1, -1, *(1,) * (len(x.shape) - 2))
    axes = (0, *range(2, len(x.shape)))
    if training:
        centred = x - mean(x, dim=axes, keepdim=True)
        square = mean(centred * centred, dim=axes, keepdim=True)
    else:
        centred, square = x - reshape(running_mean, shape=shape), reshape(running_var, shape=shape)
    y = centred / sqrt(square + eps)
    y = y if weight is None else y * reshape(weight, shape=shape)
    return y if bias is None else y + reshape(bias, shape=shape)


def _rows(ctx: Node, x: Array) -> Array:
    """(N, C, ...) -> (N, C, S), wide."""
    return ctx.wide(x).reshape(*x.shape[:2], math.prod(x.shape[2:]))


def _scale(ctx: Node, square: Array, eps: float) -> Array:
    return 1 / ctx.backend.xp.sqrt(square + eps)


def _check(x: Array, parts: Sequence[Array | None], training: bool) -> None:
    """Refuse what has no channels, or not as many as the parameters."""
    if x.ndim < 2:
        raise ShapeError(f"expected x (N, C, ...), got {x.shape}", op="batch_norm", shapes=[x.shape])
    if not training and (parts[2] is None or parts[3] is None):
        raise ShapeError(
            "running_mean and running_var are needed outside training", op="batch_norm", shapes=[x.shape],
            help="pass training=True to use the statistics of the batch",
        )  # fmt: skip
    for name, part in zip(("weight", "bias", "running_mean", "running_var"), parts, strict=True):
        if part is not None and part.shape != x.shape[1:2]:
            raise ShapeError(
                f"expected a {name} of shape ({x.shape[1]},), one number a channel, got {part.shape}",
                op="batch_norm", shapes=[x.shape, part.shape],
            )  # fmt: skip
