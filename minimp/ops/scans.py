"""Running sums and products along an axis: every result is accumulated, and rounded once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from minimp.door import cast, op
from minimp.formats import Format
from minimp.ops.arithmetic import add, mul
from minimp.ops.reductions import axes_of, check_dims, sum_
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
    sums = ctx.backend.cumsum(x, axis=dim, accumulate=ctx.accumulate)
    return ctx.backend.narrow(sums, dtype or ctx.format)


@cumsum.gradient
def _(ctx: Node, grad: Array, *, dim: int, dtype: Format | None = None) -> Array:
    sums = ctx.backend.cumsum(_turned(grad, dim), axis=dim, accumulate=ctx.accumulate)
    return ctx.backend.narrow(_turned(sums, dim), ctx.format)


def _turned(array: Array, dim: int) -> Array:
    """The same elements, the last one first."""
    return array[(*[slice(None)] * (dim % array.ndim), slice(None, None, -1))] if array.ndim else array


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
    zeros = zero.sum(axis=axes_of(x, dim), keepdims=True)
    others = xp.prod(xp.where(zero, xp.ones_like(wide), wide), axis=axes_of(x, dim), keepdims=True)
    alone = xp.where(zero, others, xp.zeros_like(others))  # of one zero, its own gradient alone is not 0
    slope = xp.where(zeros == 0, others / xp.where(zero, xp.ones_like(wide), wide), alone)
    return ctx.backend.narrow(g * xp.where(zeros > 1, xp.zeros_like(slope), slope), ctx.format)


def _product(ctx: Node, x: Array, dim: int | None, keepdim: bool) -> Array:
    xp, wide = ctx.backend.xp, ctx.wide(x)
    dtype = "int64" if wide.dtype.kind in "iub" else wide.dtype
    return xp.asarray(xp.prod(wide, axis=axes_of(wide, dim), keepdims=keepdim, dtype=dtype))


@prod.composite
def _(x: Any, *, dim: int | None = None, keepdim: bool = False, dtype: Format | None = None) -> Tensor:
    shape = x.shape
    if 0 in shape:  # a sum of none and 1: what the product of none is
        return add(sum_(x, dim=dim, keepdim=keepdim, dtype=dtype), 1)
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
    return _turned(ctx.backend.cumsum(_turned(terms, dim), axis=dim, accumulate=ctx.accumulate), dim)


@cumprod.composite
def _(x: Any, *, dim: int, dtype: Format | None = None) -> Tensor:
    return _by_doubling(x, dim, mul, dtype)


def _by_doubling(x: Any, dim: int, combine: Any, dtype: Format | None) -> Tensor:
    """A scan in log2 n passes: combine each element with the one 1, 2, 4, ... places before it."""
    y = x if dtype is None else cast(x, format=dtype)
    shape = y.shape
    if not shape:
        return y
    lead, step = (slice(None),) * (dim % len(shape)), 1
    while step < shape[dim]:
        ahead = getitem(y, index=(*lead, slice(0, step)))
        rest = getitem(y, index=(*lead, slice(step, None)))
        y = cat(ahead, combine(rest, getitem(y, index=(*lead, slice(0, -step)))), dim=dim)
        step *= 2
    return y
