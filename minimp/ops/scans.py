"""Running sums and products along an axis: every result is accumulated, and rounded once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from minimp.door import cast, op
from minimp.errors import ShapeError
from minimp.formats import Format
from minimp.ops.arithmetic import add, mul
from minimp.ops.reductions import check_dims
from minimp.ops.shaping import cat, getitem, reshape
from minimp.policy import CastClass
from minimp.tape import Array, Node

if TYPE_CHECKING:
    from minimp.tensors import Tensor

__all__ = ["cumprod", "cumsum", "prod"]


# ---- sums -----------------------------------------------------------------------------------------------


@op(cast=CastClass.SET_FP32, bound="sum")
def cumsum(ctx: Node, x: Array, *, dim: int, dtype: Format | None = None) -> Array:
    """y[i] = x[0] + ... + x[i] along `dim`; integers give int64. dx[i] = g[i] + ... + g[last].

    Each y[i] is a sum of i + 1 terms, accumulated as `mp.accumulate` says. `dtype` is the result's format.
    """
    check_dims("cumsum", x, dim)
    return ctx.backend.narrow(_prefix_sums(ctx, x, dim), dtype or ctx.format)


@cumsum.gradient
def _(ctx: Node, grad: Array, *, dim: int, dtype: Format | None = None) -> Array:
    back = ctx.backend.xp.flip(grad, axis=dim) if grad.ndim else grad
    sums = _prefix_sums(ctx, back, dim)
    return ctx.backend.narrow(ctx.backend.xp.flip(sums, axis=dim) if grad.ndim else sums, ctx.format)


def _prefix_sums(ctx: Node, array: Array, dim: int) -> Array:
    """The sums of the first 1, 2, 3, ... elements: wide, not yet rounded."""
    xp = ctx.backend.xp
    wide = ctx.wide(array)
    if wide.dtype.kind in "iub":
        return xp.cumsum(wide, axis=dim, dtype="int64").reshape(array.shape)
    if not array.ndim or not array.size:
        return wide.copy()
    if ctx.accumulate in ("float32", "float64"):
        return xp.cumsum(wide, axis=dim, dtype=wide.dtype if ctx.accumulate == "float32" else "float64")
    lead = (slice(None),) * (dim % array.ndim)
    parts = [
        ctx.backend.sum(array[(*lead, slice(0, i + 1))], axis=dim, accumulate=ctx.accumulate)
        for i in range(array.shape[dim])
    ]
    return xp.stack(parts, axis=dim)


@cumsum.composite
def _(x: Any, *, dim: int, dtype: Format | None = None) -> Tensor:
    return _by_doubling(x, dim, add, dtype)


# ---- products -------------------------------------------------------------------------------------------


@op(cast=CastClass.SET_FP32, bound="norm")
def prod(
    ctx: Node, x: Array, *, dim: int | None = None, keepdim: bool = False, dtype: Format | None = None
) -> Array:
    """The product over `dim`, of all elements if None; 1 of none, integers give int64.

    dx[i] = g times the product of the others: g y / x[i], and where an element is 0, that of the rest.
    `dtype` is the format of the result.
    """
    check_dims("prod", x, dim)
    ctx.save(x)
    return ctx.backend.narrow(_product(ctx, x, dim, keepdim), dtype or ctx.format)


@prod.gradient
def _(
    ctx: Node, grad: Array, *, dim: int | None = None, keepdim: bool = False, dtype: Format | None = None
) -> Array:
    (x,) = ctx.saved
    xp, wide = ctx.backend.xp, ctx.wide(x)
    g = ctx.wide(grad)
    if x.ndim and not keepdim:
        g = g.reshape((1,) * x.ndim) if dim is None else xp.expand_dims(g, dim)
    zero = wide == 0
    zeros = zero.sum(axis=dim, keepdims=True)
    others = xp.prod(xp.where(zero, xp.ones_like(wide), wide), axis=dim, keepdims=True)
    alone = xp.where(zero, others, xp.zeros_like(others))  # of one zero, its own gradient alone is not 0
    slope = xp.where(zeros == 0, others / xp.where(zero, xp.ones_like(wide), wide), alone)
    return ctx.backend.narrow(g * xp.where(zeros > 1, xp.zeros_like(slope), slope), ctx.format)


def _product(ctx: Node, x: Array, dim: int | None, keepdim: bool) -> Array:
    xp, wide = ctx.backend.xp, ctx.wide(x)
    dtype = "int64" if wide.dtype.kind in "iub" else wide.dtype
    return xp.asarray(xp.prod(wide, axis=dim, keepdims=keepdim, dtype=dtype))


@prod.composite
def _(x: Any, *, dim: int | None = None, keepdim: bool = False, dtype: Format | None = None) -> Tensor:
    shape = x.shape
    last = _by_doubling(reshape(x, shape=(-1,)) if dim is None else x, dim or 0, mul, dtype)
    if dim is None:
        return reshape(getitem(last, index=slice(-1, None)), shape=(1,) * len(shape) if keepdim else ())
    lead = (slice(None),) * (dim % max(len(shape), 1))
    return getitem(last, index=(*lead, slice(-1, None) if keepdim else -1)) if shape else last


@op(cast=CastClass.SET_FP32, bound="norm")
def cumprod(ctx: Node, x: Array, *, dim: int, dtype: Format | None = None) -> Array:
    """y[i] = x[0] x[1] ... x[i] along `dim`; integers give int64. `dtype` is the format of the result.

    dx[k] is the sum over i >= k of g[i] times the product of the others up to i; where an element is 0, they
    are multiplied without it.
    """
    check_dims("cumprod", x, dim)
    ctx.save(x)
    wide = ctx.wide(x)
    running = ctx.backend.xp.cumprod(
        wide.reshape(1) if not x.ndim else wide, axis=dim,
        dtype="int64" if wide.dtype.kind in "iub" else wide.dtype,
    )  # fmt: skip
    return ctx.backend.narrow(running.reshape(x.shape), dtype or ctx.format)


@cumprod.gradient
def _(ctx: Node, grad: Array, *, dim: int, dtype: Format | None = None) -> Array:
    (x,) = ctx.saved
    xp = ctx.backend.xp
    wide, g = ctx.wide(x), ctx.wide(grad)
    shape = x.shape
    wide, g = (a.reshape(1) if not shape else a for a in (wide, g))
    zero = wide == 0
    first = zero & (xp.cumsum(zero, axis=dim) == 1)
    before = xp.cumsum(zero, axis=dim) == 0
    bridged = xp.where(first, xp.ones_like(wide), wide)  # the first zero left out
    running = xp.cumprod(wide, axis=dim)
    plain = _tail_sums(ctx, g * running, dim) / xp.where(zero, xp.ones_like(wide), wide)
    at_zero = _tail_sums(ctx, g * xp.cumprod(bridged, axis=dim), dim)
    slope = xp.where(before, plain, xp.where(first, at_zero, xp.zeros_like(plain)))
    return ctx.backend.narrow(slope.reshape(shape), ctx.format)


def _tail_sums(ctx: Node, terms: Array, dim: int) -> Array:
    xp = ctx.backend.xp
    return xp.flip(_prefix_sums(ctx, xp.flip(terms, axis=dim), dim), axis=dim)


@cumprod.composite
def _(x: Any, *, dim: int, dtype: Format | None = None) -> Tensor:
    return _by_doubling(x, dim, mul, dtype)


def _by_doubling(x: Any, dim: int, combine: Any, dtype: Format | None) -> Tensor:
    """A scan in log2 n passes: combine each element with the one 1, 2, 4, ... places before it."""
    y = x if dtype is None else cast(x, format=dtype)
    shape = y.shape
    if not shape:
        return y
    if not shape[dim]:
        raise ShapeError("no second derivative over an axis of length 0", op="scan", shapes=[shape])
    lead, step = (slice(None),) * (dim % len(shape)), 1
    while step < shape[dim]:
        ahead = getitem(y, index=(*lead, slice(0, step)))
        rest = getitem(y, index=(*lead, slice(step, None)))
        y = cat(ahead, combine(rest, getitem(y, index=(*lead, slice(0, -step)))), dim=dim)
        step *= 2
    return y
