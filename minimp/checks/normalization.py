"""Normalisation and norms over running numbers: what bounds their results, and their gradients."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from minimp.checks.case import Case
from minimp.checks.running import Running, arithmetic_of

__all__ = [
    "layer_norm", "layer_norm_bias", "layer_norm_weight", "layer_norm_x", "rms_norm", "rms_norm_weight",
    "rms_norm_x", "vector_norm", "vector_norm_x",
]  # fmt: skip


def layer_norm(
    x: Running, weight: Running | None = None, bias: Running | None = None, *,
    normalized_shape: Any, eps: float = 1e-5,
) -> Running:  # fmt: skip
    """z = (x - m) / sqrt(v + eps): the sums' gammas relatively, and |m| gamma / sqrt(v + eps)."""
    z, _ = _standardised(x, normalized_shape, eps)
    y = z if weight is None else z * weight
    return y if bias is None else y + bias


def rms_norm(x: Running, weight: Running | None = None, *, normalized_shape: Any, eps: float) -> Running:
    """x / sqrt(mean x^2 + eps): half the sum's gamma, relatively."""
    z, _ = _scaled(x, normalized_shape, eps)
    return z if weight is None else z * weight


def vector_norm(
    x: Running, *, p: float = 2, dim: Any = None, keepdim: bool = False, dtype: Any = None
) -> Running:
    """The sum's gamma over p, relatively, and the functions' ulps; exact for p = inf."""
    size = abs(_in(x, dtype))
    if abs(p) == math.inf:
        pick = np.max if p > 0 else np.min
        return size.move(lambda a: pick(a, axis=dim, keepdims=keepdim))
    if p == 0:
        return size.at.number(np.asarray(np.count_nonzero(size.exact, axis=dim, keepdims=keepdim)))
    if p == 1:
        return size.sum(dim, keepdims=keepdim)
    if p == 2:
        return (size * size).sum(dim, keepdims=keepdim).root()
    return size.power(size.at.number(float(p))).sum(dim, keepdims=keepdim).power(size.at.number(1 / p))


# ---- gradients ------------------------------------------------------------------------------------------


def layer_norm_x(c: Case) -> Running:
    """(h - mean h - z mean (h z)) / sqrt(v + eps), h = g w."""
    shape = c.options["normalized_shape"]
    z, scale = _standardised(c.number(0), shape, c.options.get("eps", 1e-5))
    h = _weighted(c)
    return ((h - _mean(h, shape) - z * _mean(h * z, shape)) * scale).rounded()


def layer_norm_weight(c: Case) -> Running:
    """Sum of g z over the rows."""
    z, _ = _standardised(c.number(0), c.options["normalized_shape"], c.options.get("eps", 1e-5))
    return _over_rows(c, c.grad * z, 1)


def layer_norm_bias(c: Case) -> Running:
    """Sum of g over the rows."""
    return _over_rows(c, c.grad, 2)


def rms_norm_x(c: Case) -> Running:
    """(h - z mean (h z)) / sqrt(mean x^2 + eps), h = g w."""
    shape = c.options["normalized_shape"]
    z, scale = _scaled(c.number(0), shape, c.options["eps"])
    h = _weighted(c)
    return ((h - z * _mean(h * z, shape)) * scale).rounded()


def rms_norm_weight(c: Case) -> Running:
    """Sum of g z over the rows."""
    z, _ = _scaled(c.number(0), c.options["normalized_shape"], c.options["eps"])
    return _over_rows(c, c.grad * z, 1)


def vector_norm_x(c: Case) -> Running:
    """g sign(x) (|x| / y)^(p - 1), with y as it was stored; equal largest |x| share alike for p = inf."""
    p, dim, dtype = c.options.get("p", 2), c.options.get("dim"), c.options.get("dtype")
    x, g = _in(c.number(0), dtype), _in(c.grad, dtype).move(_kept(c))
    sign = x.at.number(np.sign(x.exact))
    if p == 0:
        return Running(np.zeros_like(x.exact), np.zeros_like(x.exact), c.at)
    if p == 1:
        return (g * sign).rounded(c.at.fmt)
    y = vector_norm(c.number(0), **{**c.options, "keepdim": True}).stored(c.output)
    if abs(p) == math.inf:
        hit = (np.abs(x.exact) == y.exact) | np.isnan(x.exact)
        share = g / x.at.number(np.sum(hit, axis=dim, keepdims=True).astype(np.float64))
        return (sign * share * x.at.number(hit.astype(np.float64))).rounded(c.at.fmt)
    if p == 2:
        return (x * (g / y).where(y.exact != 0)).rounded(c.at.fmt)
    power = x.at.number(float(p - 1))
    slope = sign * abs(x).power(power).where(x.exact != 0)
    return (slope * (g / y.power(power)).where(y.exact != 0)).rounded(c.at.fmt)


# ---- parts ----------------------------------------------------------------------------------------------


def _mean(x: Running, normalized_shape: Any) -> Running:
    axes = tuple(range(-len(normalized_shape), 0))
    return x.sum(axes, keepdims=True) / float(math.prod(normalized_shape))


def _standardised(x: Running, normalized_shape: Any, eps: float) -> tuple[Running, Running]:
    """z and 1 / sqrt(v + eps)."""
    if not x.exact.size:
        return x, x
    centred = x - _mean(x, normalized_shape)
    scale = 1.0 / (_mean(centred * centred, normalized_shape) + eps).sqrt()
    return centred * scale, scale


def _scaled(x: Running, normalized_shape: Any, eps: float) -> tuple[Running, Running]:
    """z and 1 / sqrt(mean x^2 + eps)."""
    if not x.exact.size:
        return x, x
    scale = 1.0 / (_mean(x * x, normalized_shape) + eps).sqrt()
    return x * scale, scale


def _weighted(c: Case) -> Running:
    """The incoming gradient times w."""
    weight = c.inputs[1] if len(c.inputs) > 1 else None
    return c.grad if weight is None else c.grad * weight


def _over_rows(c: Case, terms: Running, index: int) -> Running:
    rows = tuple(range(terms.exact.ndim - len(c.options["normalized_shape"])))
    return (terms.sum(rows) if rows else terms).rounded(c.format(index))


def _in(x: Running, dtype: Any) -> Running:
    """The numbers, computed with in the arithmetic of a wider format."""
    return x if dtype is None else replace(x, at=arithmetic_of(dtype, x.at.accumulate))


def _kept(c: Case) -> Callable[[Any], Any]:
    """Give a reduced array its summed axes back."""
    shape, dim = c.shape(0), c.options.get("dim")
    axes = range(len(shape)) if dim is None else dim if isinstance(dim, tuple) else (dim,)
    gone = {d % len(shape) for d in axes} if shape else set()
    kept = tuple(1 if i in gone else n for i, n in enumerate(shape))
    return lambda a: a.reshape(kept)
