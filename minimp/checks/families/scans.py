"""Running sums and products, and the product: what they mean, and running error analyses."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np

from minimp.checks.case import Case
from minimp.checks.running import Running, arithmetic_of, finite_size

__all__ = ["BOUNDS", "GRADIENTS", "REFERENCE"]

Array = np.ndarray[Any, Any]


# ---- what they mean -------------------------------------------------------------------------------------


def _rows(x: Array, dim: int) -> Array:
    return np.moveaxis(np.atleast_1d(x), dim, -1)


def cumsum(x: Array, *, dim: int, dtype: Any = None) -> Array:
    """Each element a sum of its own."""
    del dtype
    rows = _rows(x, dim)
    sums = [np.sum(rows[..., : i + 1], axis=-1) for i in range(rows.shape[-1])]
    return _back(np.stack(sums, axis=-1) if sums else rows, x, dim)


def cumprod(x: Array, *, dim: int, dtype: Any = None) -> Array:
    """Each element a product of its own."""
    del dtype
    rows = _rows(x, dim)
    products = [np.prod(rows[..., : i + 1], axis=-1) for i in range(rows.shape[-1])]
    return _back(np.stack(products, axis=-1) if products else rows, x, dim)


def _back(rows: Array, x: Array, dim: int) -> Array:
    return np.moveaxis(rows, -1, dim).reshape(x.shape)


def prod(x: Array, *, dim: int | None = None, keepdim: bool = False, dtype: Any = None) -> Array:
    """The product over `dim`."""
    del dtype
    return np.asarray(np.prod(x, axis=dim, keepdims=keepdim))


# ---- forward --------------------------------------------------------------------------------------------


def _cumsum(x: Running, *, dim: int, dtype: Any = None) -> Running:
    del dtype
    if not x.exact.size:
        return x
    return x.gather(lambda a: cumsum(a, dim=dim), _rows(x.exact, dim).shape[-1])


def _prod(x: Running, *, dim: int | None = None, keepdim: bool = False, dtype: Any = None) -> Running:
    """K roundings, in any order, and what may underflow on the way times what it can grow to."""
    del dtype
    count = x.exact.size if dim is None else x.exact.shape[dim] if x.exact.ndim else 1
    return _multiplied(x, lambda a: prod(a, dim=dim, keepdim=keepdim), count)


def _cumprod(x: Running, *, dim: int, dtype: Any = None) -> Running:
    del dtype
    if not x.exact.size:
        return x
    return _multiplied(x, lambda a: cumprod(a, dim=dim), _rows(x.exact, dim).shape[-1])


def _multiplied(x: Running, multiply: Any, count: int) -> Running:
    """Products of `count` exact factors: relative errors add; where one may overflow, nothing is claimed."""
    exact = multiply(x.exact)
    most = multiply(np.maximum(finite_size(x.exact), 1.0))
    gamma = count * x.at.unit / (1 - count * x.at.unit)
    error = gamma * finite_size(exact) + count * x.at.wide.smallest_subnormal * most
    special = multiply(np.where(np.isfinite(x.exact), 1.0, np.nan))  # infinities meet what underflowed
    zero = multiply((x.exact != 0).astype(np.float64)) == 0
    sure = (most < x.at.wide.max / 2) & (~np.isnan(special))
    error = np.where(zero & ~np.isnan(special) & (most < x.at.wide.max / 2), 0.0, error)
    return Running(exact, np.where(sure, error, np.inf), x.at)


# ---- gradients ------------------------------------------------------------------------------------------


def _in_format(c: Case) -> Running:
    """The incoming gradient, computed with in the op's arithmetic."""
    return replace(c.grad, at=c.at)


def _turned(a: Array, dim: int) -> Array:
    return np.flip(a, axis=dim) if a.ndim else a


def _cumsum_x(c: Case) -> Running:
    """g[i] + ... + g[last]."""
    dim = c.options["dim"]
    wide = replace(c.grad, at=arithmetic_of(c.output, c.at.accumulate))
    sums = _cumsum(wide.move(lambda a: _turned(a, dim)), dim=dim)
    return sums.move(lambda a: _turned(a, dim)).rounded(c.at.fmt)


def _prod_x(c: Case) -> Running:
    """g times the product of the others, taken as y / x[i] where no element is 0."""
    x, dim = c.number(0), c.options.get("dim")
    if not x.exact.size:
        return x
    grad = _in_format(c).move(lambda g: np.broadcast_to(_with_axis(g, c), x.exact.shape))
    others = _without_each(x.exact, dim)
    bare = x.where(x.exact != 0, 1.0)
    bound = _prod(bare, dim=dim, keepdim=True)
    spread = bound.move(lambda a: np.broadcast_to(a, x.exact.shape))
    slope = spread / bare
    zero = others == 0
    error = np.where(zero, np.where(np.isfinite(spread.error), 0.0, np.inf), slope.error)
    return (grad * Running(others, error, c.at)).rounded(c.at.fmt)


def _with_axis(g: Array, c: Case) -> Array:
    dim, shape = c.options.get("dim"), c.shape(0)
    if dim is None or not shape:
        return g.reshape((1,) * len(shape))
    return g if c.options.get("keepdim") else np.expand_dims(g, dim)


def _without_each(x: Array, dim: int | None) -> Array:
    """For each element the product of the others, by products from both ends."""
    rows = x.reshape(1, -1) if dim is None else _rows(x, dim)
    ones = np.ones_like(rows[..., :1])
    before = np.cumprod(np.concatenate([ones, rows[..., :-1]], axis=-1), axis=-1)
    after = np.cumprod(np.concatenate([ones, rows[..., :0:-1]], axis=-1), axis=-1)[..., ::-1]
    product = before * after
    return product.reshape(x.shape) if dim is None else _back(product, x, dim)


def _cumprod_x(c: Case) -> Running:
    """Sum over i >= k of g[i] y[i] / x[k]; where an element is 0, of the products without it."""
    x, dim = c.number(0), c.options["dim"]
    if not x.exact.size:
        return x
    grad, zero = _in_format(c), x.exact == 0
    seen = cumsum(zero.astype(np.float64), dim=dim)
    first, before = zero & (seen == 1), seen == 0

    def tail(terms: Running) -> Running:
        return _cumsum(terms.move(lambda a: _turned(a, dim)), dim=dim).move(lambda a: _turned(a, dim))

    plain = tail(grad * _cumprod(x, dim=dim)) / x.where(~zero, 1.0)
    bridged = tail(grad * _cumprod(x.where(~first, 1.0), dim=dim))
    slope: Running = plain.where(before, bridged.where(first))
    return slope.rounded(c.at.fmt)


REFERENCE = MappingProxyType({"cumprod": cumprod, "cumsum": cumsum, "prod": prod})
BOUNDS = MappingProxyType({"sum": {"cumsum": _cumsum}, "norm": {"cumprod": _cumprod, "prod": _prod}})
GRADIENTS = MappingProxyType({"cumprod": (_cumprod_x,), "cumsum": (_cumsum_x,), "prod": (_prod_x,)})
