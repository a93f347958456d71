"""Spread and log-sums: what they mean in float64, and running error analyses of their two passes."""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import Any

import numpy as np

from minimp.checks.case import Case
from minimp.checks.running import Running

__all__ = ["BOUNDS", "GRADIENTS", "REFERENCE"]

Array = np.ndarray[Any, Any]


# ---- what they mean -------------------------------------------------------------------------------------


def var(x: Array, *, dim: Any = None, correction: float = 1, keepdim: bool = False) -> Array:
    """The sum of squared distances from the mean over N - c."""
    return np.asarray(np.var(x, axis=dim, ddof=correction, keepdims=keepdim))


def std(x: Array, **options: Any) -> Array:
    """The root of that."""
    return np.sqrt(var(x, **options))


def logsumexp(x: Array, *, dim: Any = None, keepdim: bool = False) -> Array:
    """ln sum e^x, as a chain of log(e^a + e^b) from -inf, which is ln 0."""
    y = x
    for axis in _dims(x.shape, dim):
        y = np.expand_dims(np.logaddexp.reduce(y, axis=axis), axis)
    return y if keepdim else np.squeeze(y, axis=_dims(x.shape, dim))


# ---- parts ----------------------------------------------------------------------------------------------


def _dims(shape: tuple[int, ...], dim: Any) -> tuple[int, ...]:
    dims = range(len(shape)) if dim is None else dim if isinstance(dim, tuple) else (dim,)
    return tuple(d % len(shape) for d in dims) if shape else ()


def _terms(x: Running, dim: Any) -> int:
    return math.prod(x.exact.shape[d] for d in _dims(x.exact.shape, dim))


def _centred(x: Running, dim: Any) -> Running:
    if not x.exact.size:
        return x
    return x - x.sum(dim, keepdims=True) / float(max(_terms(x, dim), 1))


def _kept(c: Case, a: Running) -> Running:
    """Give a reduced number its axes back."""
    gone = _dims(c.shape(0), c.options.get("dim"))
    return a.move(lambda v: v.reshape(tuple(1 if i in gone else n for i, n in enumerate(c.shape(0)))))


def _squared(x: Running, *, dim: Any = None, correction: float = 1, keepdim: bool = False) -> Running:
    centred = _centred(x, dim)
    total = (centred * centred).sum(dim, keepdims=keepdim)
    return total / float(max(_terms(x, dim) - correction, 0))


def _std(x: Running, **options: Any) -> Running:
    return _squared(x, **options).root()


def _logsumexp(x: Running, *, dim: Any = None, keepdim: bool = False) -> Running:
    axes = _dims(x.exact.shape, dim)
    top = np.max(x.exact, axis=axes, keepdims=True, initial=-np.inf)
    top = np.where(np.isinf(top), 0.0, top)
    y = (x - x.at.number(top)).exp().sum(axes, keepdims=True).log() + x.at.number(top)
    return y if keepdim else y.move(lambda a: np.squeeze(a, axis=axes))


# ---- gradients ------------------------------------------------------------------------------------------


def _factor(c: Case, of: float) -> float:
    count = max(_terms(c.number(0), c.options.get("dim")) - c.options.get("correction", 1), 0)
    return of / count if count else math.inf


def _var_x(c: Case) -> Running:
    """2 g (x - m) / (N - c)."""
    return (_centred(c.number(0), c.options.get("dim")) * (_kept(c, c.grad) * _factor(c, 2.0))).rounded()


def _std_x(c: Case) -> Running:
    """g (x - m) / (y (N - c)), y as it was stored; 0 where y is 0."""
    y = _kept(c, _std(c.number(0), **c.options).stored())
    flat = y.exact == 0
    share = (_kept(c, c.grad) / y.where(~flat, 1.0)).where(~flat)
    share = Running(share.exact, np.where(y.error >= np.abs(y.exact), np.inf, share.error), c.at)
    share = Running(share.exact, np.where(flat & (y.error == 0), 0.0, share.error), c.at)
    return (_centred(c.number(0), c.options.get("dim")) * (share * _factor(c, 1.0))).rounded()


def _logsumexp_x(c: Case) -> Running:
    """g e^(x - y), y as it was stored."""
    y = _kept(c, _logsumexp(c.number(0), **c.options).stored())
    return (_kept(c, c.grad) * (c.number(0) - y).exp()).rounded()


REFERENCE = MappingProxyType({"logsumexp": logsumexp, "std": std, "var": var})
BOUNDS = MappingProxyType({"norm": {"std": _std, "var": _squared}, "log_softmax": {"logsumexp": _logsumexp}})
GRADIENTS = MappingProxyType({"logsumexp": (_logsumexp_x,), "std": (_std_x,), "var": (_var_x,)})
