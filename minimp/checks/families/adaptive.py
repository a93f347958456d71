"""Pooling to a given size, and its way back by places."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from minimp.checks.bounds import Program
from minimp.checks.case import Case
from minimp.checks.gradients import Rules
from minimp.checks.running import Running

__all__ = ["BOUNDS", "GRADIENTS", "REFERENCE"]

Array = np.ndarray[Any, Any]


def _windows(shape: tuple[int, ...], size: tuple[int, ...]) -> Iterator[tuple[int, int, Any]]:
    """Each window: its row, its column, and what of an image it is."""
    for i, j in np.ndindex(*size):
        (top, end), (left, right) = (
            (math.floor(at * n / m), math.ceil((at + 1) * n / m))
            for at, n, m in zip((i, j), shape[-2:], size, strict=True)
        )
        yield i, j, (..., slice(top, end), slice(left, right))


def _sums(x: Array, size: tuple[int, ...]) -> Array:
    y = np.zeros((*x.shape[:2], *size))
    for i, j, where in _windows(x.shape, size):
        y[:, :, i, j] = x[where].sum(axis=(-2, -1))
    return y


def _counts(shape: tuple[int, ...], size: tuple[int, ...]) -> Array:
    return _sums(np.ones((1, 1, *shape[-2:])), size)


def adaptive_avg_pool2d(x: Array, *, size: tuple[int, ...]) -> Array:
    """The mean of each window."""
    return _sums(x, size) / _counts(x.shape, size)


def adaptive_avg_pool2d_input(grad: Array, *, shape: tuple[int, ...], size: tuple[int, ...]) -> Array:
    """Each g over its window's count to each of its elements."""
    return _spread(shape, size)(grad / _counts(shape, size))


def _spread(shape: tuple[int, ...], size: tuple[int, ...]) -> Callable[[Array], Array]:
    def spread(share: Array) -> Array:
        dx = np.zeros(shape)
        for i, j, where in _windows(shape, size):
            dx[where] += share[:, :, i, j, None, None]
        return dx

    return spread


def _mean(x: Running, *, size: tuple[int, ...]) -> Running:
    counts = _counts(x.exact.shape, size)
    return x.gather(lambda a: _sums(a, size), int(counts.max(initial=1.0))) / x.at.number(counts)


def _mean_input(g: Running, *, shape: tuple[int, ...], size: tuple[int, ...]) -> Running:
    share, spread = g / g.at.number(_counts(shape, size)), _spread(shape, size)
    most = int(spread(np.ones(share.exact.shape)).max(initial=0.0))
    return share.move(spread) if most <= 1 else share.gather(spread, most)


def _mean_back(c: Case) -> Running:
    return _mean_input(c.grad, shape=c.shape(0), size=c.options["size"]).rounded()


def _mean_forth(c: Case) -> Running:
    return _mean(c.grad, size=c.options["size"]).rounded()


def adaptive_max_pool2d(x: Array, *, size: tuple[int, ...]) -> Array:
    """The largest element of each window; NaN wins."""
    y = np.zeros((*x.shape[:2], *size))
    for i, j, where in _windows(x.shape, size):
        y[:, :, i, j] = x[where].max(axis=(-2, -1))
    return y


def _maxima_back(c: Case) -> Running:
    """Each g to the first maximum of its window, row by row (the last NaN, if there is one)."""
    x, size = c.number(0).exact, c.options["size"]

    def put(a: Array) -> Array:
        dx = np.zeros(x.shape)
        for i, j, where in _windows(x.shape, size):
            seen = x[where].reshape(*x.shape[:2], math.prod(x[where].shape[2:]))
            nan = np.isnan(seen)
            hit = np.where(nan.any(-1, keepdims=True), nan[..., ::-1], seen == seen.max(-1, keepdims=True))
            at = np.argmax(hit, axis=-1)
            at = np.where(nan.any(-1), seen.shape[-1] - 1 - at, at)
            chosen = np.arange(seen.shape[-1]) == at[..., None]
            dx[where] += np.where(chosen, a[:, :, i, j, None], 0.0).reshape(x[where].shape)
        return dx

    most = int(put(np.ones(c.grad.exact.shape)).max(initial=0.0))
    return c.grad.move(put) if most <= 1 else c.grad.gather(put, most).rounded()


def max_unpool2d(x: Array, index: Array, *, size: tuple[int, ...]) -> Array:
    """Zeros, with x at its places, one after the other."""
    y = np.zeros((*x.shape[:2], math.prod(size)))
    for n, c, i, j in np.ndindex(*x.shape):
        y[n, c, index[n, c, i, j]] = x[n, c, i, j]
    return y.reshape(*x.shape[:2], *size)


def _unpooled(c: Case) -> Running:
    index = c.inputs[1].astype(np.int64)
    flat = index.reshape(*index.shape[:2], -1)
    return c.grad.move(
        lambda a: np.take_along_axis(a.reshape(*a.shape[:2], -1), flat, axis=-1).reshape(index.shape)
    )


REFERENCE: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        "adaptive_avg_pool2d": adaptive_avg_pool2d,
        "adaptive_avg_pool2d_input": adaptive_avg_pool2d_input,
        "adaptive_max_pool2d": adaptive_max_pool2d,
        "max_unpool2d": max_unpool2d,
    }
)
BOUNDS: Mapping[str, Mapping[str, Program]] = MappingProxyType(
    {"sum": {"adaptive_avg_pool2d": _mean, "adaptive_avg_pool2d_input": _mean_input}}
)
GRADIENTS: Mapping[str, Rules] = MappingProxyType(
    {
        "adaptive_avg_pool2d": (_mean_back,),
        "adaptive_avg_pool2d_input": (_mean_forth,),
        "adaptive_max_pool2d": (_maxima_back,),
        "max_unpool2d": (_unpooled,),
    }
)
