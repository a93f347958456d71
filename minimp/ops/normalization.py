"""Normalisation and norms: statistics in float32, their sums by `ctx.accumulate`, one rounding at the end."""

from __future__ import annotations

import math
from typing import Any

from minimp.door import op
from minimp.errors import FormatError, SettingError, ShapeError
from minimp.formats import Format
from minimp.ops.parameters import check_formats, formats_of, to_format
from minimp.ops.reductions import Dim, axes_of, check_dims, keep_axes
from minimp.policy import CastClass, Mixed
from minimp.tape import Array, Node

__all__ = ["layer_norm", "linalg_vector_norm", "rms_norm"]

Shape = tuple[int, ...]


@op(cast=CastClass.FP32, mixed=Mixed.KEEP, bound="norm")
def layer_norm(
    ctx: Node, x: Array, weight: Array | None = None, bias: Array | None = None, *,
    normalized_shape: Shape, eps: float = 1e-5,
) -> Array:  # fmt: skip
    """y = (x - m) / sqrt(v + eps) w + b over the last axes (Ba, Kiros and Hinton 2016).

    (..., *normalized_shape), w and b of normalized_shape -> the shape of x. m is the mean, v the mean of
    (x - m)^2, over D = prod(normalized_shape) elements. All is computed in float32; x may be in 16 bits
    beside float32 parameters (torch 2.13). With z = (x - m) / sqrt(v + eps) and h = g w, dx =
    (h - mean h - z mean (h z)) / sqrt(v + eps), dw = sum g z, db = sum g.
    """
    _check_normalized("layer_norm", x, weight, bias, normalized_shape)
    check_formats("layer_norm", ctx.format, weight, bias)
    ctx.memo = formats_of(x, weight, bias)
    y, mean, scale = ctx.backend.layer_norm(
        x, weight, bias, _axes(normalized_shape), eps, accumulate=ctx.accumulate
    )
    ctx.save(x, weight, mean, scale)
    return ctx.round(y)


@layer_norm.gradient
def _(ctx: Node, grad: Array, *, normalized_shape: Shape, eps: float = 1e-5) -> tuple[Array | None, ...]:
    x, weight, mean, scale = ctx.saved
    count = len(ctx.inputs)
    needs = (ctx.needs(0), count > 1 and ctx.needs(1), count > 2 and ctx.needs(2))
    found = ctx.backend.layer_norm_gradient(
        grad, x, weight, mean, scale, _axes(normalized_shape), needs, accumulate=ctx.accumulate
    )
    return tuple(None if part is None else to_format(ctx, i, part) for i, part in enumerate(found))


@op(cast=CastClass.FP32, mixed=Mixed.KEEP, bound="norm")
def rms_norm(
    ctx: Node, x: Array, weight: Array | None = None, *, normalized_shape: Shape, eps: float
) -> Array:
    """y = x / sqrt(mean x^2 + eps) w over the last axes (Zhang and Sennrich 2019).

    (..., *normalized_shape), w of normalized_shape -> the shape of x. With z = x / sqrt(mean x^2 + eps) and
    h = g w, dx = (h - z mean (h z)) / sqrt(mean x^2 + eps), dw = sum g z.
    """
    _check_normalized("rms_norm", x, weight, None, normalized_shape)
    check_formats("rms_norm", ctx.format, weight)
    ctx.memo = formats_of(x, weight)
    y, scale = ctx.backend.rms_norm(x, weight, _axes(normalized_shape), eps, accumulate=ctx.accumulate)
    ctx.save(x, weight, scale)
    return ctx.round(y)


@rms_norm.gradient
def _(ctx: Node, grad: Array, *, normalized_shape: Shape, eps: float) -> tuple[Array | None, ...]:
    x, weight, scale = ctx.saved
    needs = (ctx.needs(0), len(ctx.inputs) > 1 and ctx.needs(1))
    found = ctx.backend.rms_norm_gradient(
        grad, x, weight, scale, _axes(normalized_shape), needs, accumulate=ctx.accumulate
    )
    return tuple(None if part is None else to_format(ctx, i, part) for i, part in enumerate(found))


@op(cast=CastClass.SET_FP32, bound="norm")
def linalg_vector_norm(
    ctx: Node,
    x: Array,
    *,
    p: float = 2,
    dim: Dim = None,
    keepdim: bool = False,
    dtype: Format | None = None,
) -> Array:
    """(sum |x|^p)^(1/p) over `dim` (all axes if None); for p = inf the largest |x|, for -inf the smallest.

    For p = 0 it is the number of elements that are not 0; this and p < 1 are no norms, but torch has them.
    `dtype` is the format computed in and of the result, at least as wide as x's. dx = g sign(x)
    (|x| / y)^(p - 1), 0 where y is 0 and for p = 0; for p = inf and -inf, the elements that are the result
    share g alike (torch.linalg.vector_norm).
    """
    _check_norm(ctx, x, p, dim, dtype)
    size = abs(ctx.wide(x if dtype is None else ctx.backend.cast(x, dtype)))
    if abs(p) == math.inf:
        pick = ctx.backend.xp.max if p > 0 else ctx.backend.xp.min
        y = pick(size, axis=axes_of(x, dim), keepdims=keepdim)
    elif p == 0:
        y = (size != 0).sum(axis=axes_of(x, dim), keepdims=keepdim).astype(size.dtype)
    else:
        terms = size if p == 1 else size * size if p == 2 else ctx.backend.xp.power(size, p)
        y = ctx.backend.sum(terms, axis=dim, keepdims=keepdim, accumulate=ctx.accumulate)
        y = y if p == 1 else ctx.backend.xp.sqrt(y) if p == 2 else ctx.backend.xp.power(y, 1 / p)
    y = ctx.backend.narrow(ctx.backend.xp.asarray(y), dtype or ctx.format)
    ctx.save(x, y)
    return y


@linalg_vector_norm.gradient
def _(
    ctx: Node, grad: Array, *, p: float = 2, dim: Dim = None, keepdim: bool = False,
    dtype: Format | None = None,
) -> Array:  # fmt: skip
    x, y = ctx.saved
    xp = ctx.backend.xp
    wide = ctx.wide(x if dtype is None else ctx.backend.cast(x, dtype))
    g, norm = (ctx.wide(keep_axes(a, x.ndim, dim, keepdim)) for a in (grad, y))
    zero, size = xp.zeros((), wide.dtype), abs(wide)
    if p == 0:
        slope = xp.zeros(x.shape, wide.dtype)
    elif p == 1:
        slope = xp.sign(wide) * g
    elif abs(p) == math.inf:
        hit = (size == norm) | xp.isnan(size)
        slope = xp.sign(wide) * hit * (g / hit.sum(axis=axes_of(x, dim), keepdims=True).astype(wide.dtype))
    elif p == 2:
        slope = wide * xp.where(norm == 0, zero, g / norm)
    else:
        share = xp.where(norm == 0, zero, g / xp.power(norm, p - 1))
        slope = xp.sign(wide) * xp.where(size == 0, zero, xp.power(size, p - 1)) * share
    return ctx.backend.narrow(slope, ctx.format)


def _axes(normalized_shape: Shape) -> Shape:
    """The last axes."""
    return tuple(range(-len(normalized_shape), 0))


# ---- what cannot be -------------------------------------------------------------------------------------


def _check_normalized(
    name: str, x: Array, weight: Array | None, bias: Array | None, normalized_shape: Shape
) -> None:
    """Refuse shapes that do not end in `normalized_shape`."""
    parts = [each for each in (weight, bias) if each is not None]
    wanted = ", ".join(map(str, normalized_shape)) or "at least one axis"
    if not normalized_shape or x.shape[max(0, x.ndim - len(normalized_shape)) :] != normalized_shape:
        raise ShapeError(
            f"expected x (..., {wanted}), got {x.shape}",
            op=name, shapes=[x.shape], help="normalized_shape is what the shape of x ends in",
        )  # fmt: skip
    if any(each.shape != normalized_shape for each in parts):
        raise ShapeError(
            f"expected weight and bias of shape {normalized_shape}, got "
            f"{' and '.join(str(each.shape) for each in parts)}",
            op=name, shapes=[each.shape for each in parts],
        )  # fmt: skip


def _check_norm(ctx: Node, x: Array, p: Any, dim: Dim, dtype: Format | None) -> None:
    name = "linalg_vector_norm"
    check_dims(name, x, dim)
    if not isinstance(p, int | float) or p != p:  # noqa: PLR0124 - NaN
        raise SettingError(f"{name}: expected a number, got {p!r}", help="2 is the Euclidean norm")
    if ctx.format is None:
        raise FormatError(f"expected a floating tensor, got {x.dtype}", op=name, help="cast it with .float()")
    if dtype is not None and dtype is not ctx.format and dtype.bits <= ctx.format.bits:
        raise FormatError(
            f"dtype={dtype.name} would narrow {ctx.format.name}", op=name,
            formats=[ctx.format.name, dtype.name], help="cast the result instead, with .to(...)",
        )  # fmt: skip
    axes = range(x.ndim) if dim is None else dim if isinstance(dim, tuple) else (dim,)
    if (p < 0 or p == math.inf) and (x.ndim or x.size == 0) and not all(x.shape[d] for d in axes if x.ndim):
        raise ShapeError(
            f"there is no norm of order {p} over {dim} of a tensor of shape {x.shape}",
            op=name, shapes=[x.shape],
        )  # fmt: skip
