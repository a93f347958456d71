"""Spread and log-sums: statistics in float32, sums by `ctx.accumulate`, one rounding at the end."""

from __future__ import annotations

import math

from minimp.door import op
from minimp.ops.reductions import Dim, check_dims, keep_axes
from minimp.policy import CastClass, Mixed
from minimp.tape import Array, Node

__all__ = ["logsumexp", "std", "var"]


@op(mixed=Mixed.FLOAT, bound="norm")
def var(ctx: Node, x: Array, *, dim: Dim = None, correction: float = 1, keepdim: bool = False) -> Array:
    """sum (x - m)^2 / max(N - c, 0) over `dim` (all axes if None), m the mean of the N elements.

    c is the correction: 1 for Bessel's (torch.var's default), 0 for the mean square distance. NaN where
    N = c = 1. dx = 2 g (x - m) / (N - c); m is summed again in backward.
    """
    check_dims("var", x, dim)
    ctx.save(x)
    return ctx.round(_variance(ctx, x, dim, correction, keepdim))


@var.gradient
def _(ctx: Node, grad: Array, *, dim: Dim = None, correction: float = 1, keepdim: bool = False) -> Array:
    (x,) = ctx.saved
    wide, g = ctx.wide(x), ctx.wide(keep_axes(grad, x.ndim, dim, keepdim))
    return ctx.round((wide - _mean(ctx, wide, dim)) * (g * _over(2.0, x, dim, correction)))


@op(mixed=Mixed.FLOAT, bound="norm")
def std(ctx: Node, x: Array, *, dim: Dim = None, correction: float = 1, keepdim: bool = False) -> Array:
    """sqrt(sum (x - m)^2 / max(N - c, 0)) over `dim`, as :func:`var`, rounded after the root.

    dx = g (x - m) / (y (N - c)), 0 where y is 0 (as in torch).
    """
    check_dims("std", x, dim)
    y = ctx.round(ctx.backend.xp.sqrt(_variance(ctx, x, dim, correction, keepdim)))
    ctx.save(x, y)
    return y


@std.gradient
def _(ctx: Node, grad: Array, *, dim: Dim = None, correction: float = 1, keepdim: bool = False) -> Array:
    x, y = ctx.saved
    xp, wide = ctx.backend.xp, ctx.wide(x)
    g, root = (ctx.wide(keep_axes(a, x.ndim, dim, keepdim)) for a in (grad, y))
    flat = root == 0
    share = xp.where(flat, xp.zeros_like(g), g / xp.where(flat, xp.ones_like(root), root))
    return ctx.round((wide - _mean(ctx, wide, dim)) * (share * _over(1.0, x, dim, correction)))


@op(cast=CastClass.FP32, mixed=Mixed.FLOAT, bound="log_softmax")
def logsumexp(ctx: Node, x: Array, *, dim: Dim = None, keepdim: bool = False) -> Array:
    """m + ln sum e^(x - m) over `dim`, m the largest element (0 if that is infinite); dx = g e^(x - y)."""
    check_dims("logsumexp", x, dim)
    xp, wide = ctx.backend.xp, ctx.wide(x)
    top = ctx.backend.largest_along(wide, dim)
    top = xp.where(abs(top) == math.inf, xp.zeros_like(top), top)
    total = ctx.backend.sum(xp.exp(wide - top), axis=dim, keepdims=True, accumulate=ctx.accumulate)
    y = top + xp.log(total)
    y = ctx.round(xp.asarray(y if keepdim else xp.squeeze(y, axis=_axes(x, dim))))
    ctx.save(x, y)
    return y


@logsumexp.gradient
def _(ctx: Node, grad: Array, *, dim: Dim = None, keepdim: bool = False) -> Array:
    x, y = ctx.saved
    g, total = (ctx.wide(keep_axes(a, x.ndim, dim, keepdim)) for a in (grad, y))
    return ctx.round(g * ctx.backend.xp.exp(ctx.wide(x) - total))


# ---- parts ----------------------------------------------------------------------------------------------


def _axes(x: Array, dim: Dim) -> tuple[int, ...] | None:
    """The axes that are summed, from 0 up; None for all."""
    if dim is None or not x.ndim:
        return None
    return tuple(d % x.ndim for d in (dim if isinstance(dim, tuple) else (dim,))) or None


def _terms(x: Array, dim: Dim) -> int:
    """N: how many elements each result is of."""
    axes = _axes(x, dim)
    return math.prod(x.shape if axes is None else [x.shape[i] for i in axes])


def _mean(ctx: Node, wide: Array, dim: Dim) -> Array:
    """The mean over `dim` in the wide format; the axes stay, of length 1."""
    total = ctx.backend.sum(wide, axis=_axes(wide, dim), keepdims=True, accumulate=ctx.accumulate)
    return (total / max(_terms(wide, dim), 1)).astype(wide.dtype, copy=False)


def _variance(ctx: Node, x: Array, dim: Dim, correction: float, keepdim: bool) -> Array:
    """The wide variance, not yet rounded."""
    wide, axes = ctx.wide(x), _axes(x, dim)
    centred = wide - _mean(ctx, wide, dim)
    total = ctx.backend.sum(centred * centred, axis=axes, keepdims=keepdim, accumulate=ctx.accumulate)
    return ctx.backend.xp.asarray(total / max(_terms(x, dim) - correction, 0))


def _over(factor: float, x: Array, dim: Dim, correction: float) -> float:
    """factor / max(N - c, 0), infinite for 0."""
    count = max(_terms(x, dim) - correction, 0)
    return factor / count if count else math.inf
