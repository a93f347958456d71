"""Reductions and softmax: sums are accumulated as `ctx.accumulate` says, never in 16 bits by accident."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from minimp.door import op
from minimp.errors import ShapeError
from minimp.formats import Format
from minimp.policy import CastClass, Mixed
from minimp.tape import Array, Node

__all__ = ["amax", "log_softmax", "mean", "softmax", "sum_"]

Dim = int | tuple[int, ...] | None


@op(cast=CastClass.SET_FP32, bound="sum")
def sum_(
    ctx: Node, x: Array, *, dim: Dim = None, keepdim: bool = False, dtype: Format | None = None
) -> Array:
    """Sum over `dim` (all axes if None); integers give int64. `dtype` is the format of the result."""
    check_dims("sum", x, dim)
    total = ctx.backend.sum(x, axis=dim, keepdims=keepdim, accumulate=ctx.accumulate)
    return ctx.backend.narrow(total, dtype or ctx.format)


@sum_.gradient
def _(
    ctx: Node, grad: Array, *, dim: Dim = None, keepdim: bool = False, dtype: Format | None = None
) -> Array:
    grad = grad if dtype is None or ctx.format is None else ctx.backend.cast(grad, ctx.format)
    return spread(ctx, grad, dim, keepdim)


@op(cast=CastClass.KEEP, mixed=Mixed.FLOAT, bound="sum")
def mean(ctx: Node, x: Array, *, dim: Dim = None, keepdim: bool = False) -> Array:
    """Sum over `dim`, divided by the number of elements, then rounded once; NaN for none."""
    check_dims("mean", x, dim)
    total = ctx.backend.sum(x, axis=dim, keepdims=keepdim, accumulate=ctx.accumulate)
    return ctx.round(total / (x.size / max(total.size, 1)) if total.size else total)


@mean.gradient
def _(ctx: Node, grad: Array, *, dim: Dim = None, keepdim: bool = False) -> Array:
    size = 1
    for n in ctx.shape_of(0):
        size *= n
    share = ctx.round(ctx.wide(grad) / (size / max(grad.size, 1)))
    return spread(ctx, share, dim, keepdim)


@op(bound="exact")
def amax(ctx: Node, x: Array, *, dim: Dim = None, keepdim: bool = False) -> Array:
    """The largest element over `dim`; NaN wins. Equal maxima share the gradient, as in torch.amax."""
    check_dims("amax", x, dim)
    check_some("amax", x, dim, "largest")
    y = ctx.round(ctx.backend.xp.max(ctx.wide(x), axis=axes_of(x, dim), keepdims=keepdim))
    ctx.save(x, y)
    return y


@amax.gradient
def _(ctx: Node, grad: Array, *, dim: Dim = None, keepdim: bool = False) -> Array:
    x, y = ctx.saved
    hit = ctx.wide(x) == ctx.wide(keep_axes(y, x.ndim, dim, keepdim))
    count = hit.sum(axis=axes_of(x, dim), keepdims=True)
    return ctx.round(hit * (ctx.wide(keep_axes(grad, x.ndim, dim, keepdim)) / count.astype("float32")))


@op(cast=CastClass.SET_FP32, mixed=Mixed.FLOAT, bound="softmax")
def softmax(ctx: Node, x: Array, *, dim: int = -1, dtype: Format | None = None) -> Array:
    """e^(x - max) / sum e^(x - max) over `dim`; dx = y (g - sum g y), products in float32."""
    check_dims("softmax", x, dim)
    y = ctx.backend.along_axis(
        "softmax", _softmax, dtype or ctx.format, x, axis=dim, accumulate=ctx.accumulate
    )
    ctx.save(y)
    return y


def _softmax(backend: Any, x: Array, dim: int, accumulate: str) -> Array:
    return _in_parts(_softmax_of_rows, backend, x, dim, accumulate)


def _softmax_of_rows(backend: Any, x: Array, dim: int, accumulate: str) -> Array:
    e = backend.xp.exp(x - backend.largest_along(x, dim)) if x.size else x.copy()
    return e / backend.sum(e, axis=dim, keepdims=True, accumulate=accumulate)


def _in_parts(formula: Callable[..., Array], backend: Any, x: Array, dim: int, accumulate: str) -> Array:
    """Work a formula of the wide array through, some rows at a time where `dim` is the last axis."""
    wide = backend.wide(x)
    if dim not in (-1, x.ndim - 1) or accumulate != "float32":
        return formula(backend, wide, dim, accumulate)
    return backend.by_rows(lambda b, rows: formula(b, rows, -1, accumulate), wide)


@softmax.gradient
def _(ctx: Node, grad: Array, *, dim: int = -1, dtype: Format | None = None) -> Array:
    (y,) = ctx.saved
    return ctx.backend.along_axis(
        "softmax_gradient", _softmax_gradient, ctx.format, grad, y, axis=dim, accumulate=ctx.accumulate
    )


def _softmax_gradient(backend: Any, grad: Array, y: Array, dim: int, accumulate: str) -> Array:
    g, wide = backend.wide(grad), backend.wide(y)
    inner = backend.sum(g * wide, axis=dim, keepdims=True, accumulate=accumulate)
    return wide * (g - inner)


@op(cast=CastClass.SET_FP32, mixed=Mixed.FLOAT, bound="log_softmax")
def log_softmax(ctx: Node, x: Array, *, dim: int = -1, dtype: Format | None = None) -> Array:
    """x - max - ln sum e^(x - max) over `dim`; dx = g - e^y sum g."""
    check_dims("log_softmax", x, dim)
    y = ctx.backend.along_axis(
        "log_softmax", _log_softmax, dtype or ctx.format, x, axis=dim, accumulate=ctx.accumulate
    )
    ctx.save(y)
    return y


def _log_softmax(backend: Any, x: Array, dim: int, accumulate: str) -> Array:
    return _in_parts(_log_softmax_of_rows, backend, x, dim, accumulate)


def _log_softmax_of_rows(backend: Any, x: Array, dim: int, accumulate: str) -> Array:
    shifted = x - backend.largest_along(x, dim) if x.size else x.copy()
    total = backend.sum(backend.xp.exp(shifted), axis=dim, keepdims=True, accumulate=accumulate)
    return shifted - backend.xp.log(total)


@log_softmax.gradient
def _(ctx: Node, grad: Array, *, dim: int = -1, dtype: Format | None = None) -> Array:
    (y,) = ctx.saved
    return ctx.backend.along_axis(
        "log_softmax_gradient", _log_softmax_gradient, ctx.format, grad, y, axis=dim,
        accumulate=ctx.accumulate,
    )  # fmt: skip


def _log_softmax_gradient(backend: Any, grad: Array, y: Array, dim: int, accumulate: str) -> Array:
    total = backend.sum(grad, axis=dim, keepdims=True, accumulate=accumulate)
    return backend.wide(grad) - backend.xp.exp(backend.wide(y)) * total


def axes_of(x: Array, dim: Any) -> Any:
    """Return `dim` for the array library; of an array without axes None, as CuPy takes no axis of it."""
    return dim if x.ndim else None


def check_dims(name: str, x: Array, dim: Any) -> None:
    """Refuse an axis that the array does not have, or that is named twice."""
    dims = () if dim is None else (dim if isinstance(dim, tuple) else (dim,))
    count = max(x.ndim, 1)  # a tensor without axes counts as having one
    for d in dims:
        if not -count <= d < count:
            raise ShapeError(
                f"dim {d} is out of range for shape {x.shape}", op=name, shapes=[x.shape],
                help=f"use -{count} to {count - 1}",
            )  # fmt: skip
    if len({d % count for d in dims}) != len(dims):
        raise ShapeError(f"dim {dim} names an axis twice", op=name, shapes=[x.shape])


def check_some(name: str, x: Array, dim: Any, which: str) -> None:
    """Refuse to look for the largest or the smallest of no elements; of no rows there is none to look for."""
    dims = range(x.ndim) if dim is None or dim == () else dim if isinstance(dim, tuple) else (dim,)
    if x.size == 0 and any(x.shape[d] == 0 for d in dims):
        over = "" if dim is None else f" over dim {dim}"
        raise ShapeError(
            f"there is no {which} element of a tensor of shape {x.shape}{over}", op=name, shapes=[x.shape]
        )


def keep_axes(reduced: Array, ndim: int, dim: Dim, keepdim: bool) -> Array:
    """Give a reduced array its summed axes back, with length 1."""
    if keepdim or reduced.ndim == ndim:
        return reduced
    dims = range(ndim) if dim is None else [d % ndim for d in (dim if isinstance(dim, tuple) else (dim,))]
    shape = list(reduced.shape)
    for d in sorted(dims):
        shape.insert(d, 1)
    return reduced.reshape(shape)


def spread(ctx: Node, grad: Array, dim: Dim, keepdim: bool) -> Array:
    """Repeat the gradient of a reduction over the axes it summed; nothing is rounded."""
    shape = ctx.shape_of(0)
    kept = keep_axes(grad, len(shape), dim, keepdim)
    return ctx.backend.xp.broadcast_to(kept, shape).copy()
