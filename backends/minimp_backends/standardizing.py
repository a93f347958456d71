"""Batch normalisation of (N, C, S), channel by channel, and its gradients; float32 or float64 throughout.

A channel is read several times: for its mean, for its spread, and to be written. So a few channels are worked
on at a time, as many as stay in the cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["normalize", "normalize_backward", "standardize"]

Array = NDArray[Any]
BLOCK_BYTES = 1 << 20
"""Bytes of one operand worked on at a time; half or double of it measures the same."""
LONG = 64
"""From so many elements on, one channel of one image is summed on its own."""


def standardize(x: Array, eps: float, weight: Array | None, bias: Array | None) -> tuple[Array, Array, Array]:
    """y = (x - m) / sqrt(v + eps) w + b, with m and v of each channel.  (N, C, S) -> (N, C, S), (C,), (C,).

    m is the mean and v the mean of (x - m)^2, over the N S elements of a channel; both are returned.
    """
    y, count = np.empty(x.shape, x.dtype), max(1, x.shape[0] * x.shape[2])
    mean, square = np.empty(x.shape[1], x.dtype), np.empty(x.shape[1], x.dtype)
    for part in _blocks(x):
        seen, target = x[:, part], y[:, part]
        mean[part] = _total(seen) / count
        np.subtract(seen, mean[part, None], out=target)
        square[part] = _products(target, target) / count
        _finish(target, part, 1 / np.sqrt(square[part] + x.dtype.type(eps)), weight, bias)
    return y, mean, square


def normalize(x: Array, mean: Array, scale: Array, weight: Array | None, bias: Array | None) -> Array:
    """(x - m) (s w) + b, with numbers m, s, w and b for each channel.  (N, C, S) -> (N, C, S)."""
    y = np.empty(x.shape, x.dtype)
    for part in _blocks(x):
        target = y[:, part]
        np.subtract(x[:, part], mean[part, None], out=target)
        _finish(target, part, scale[part], weight, bias)
    return y


def _finish(y: Array, part: slice, scale: Array, weight: Array | None, bias: Array | None) -> None:
    factor = scale if weight is None else scale * weight[part]
    np.multiply(y, factor[:, None], out=y)
    if bias is not None:
        np.add(y, bias[part, None], out=y)


def normalize_backward(
    grad: Array, x: Array, mean: Array, scale: Array, weight: Array | None, *, by_x: bool, fixed: bool
) -> tuple[Array | None, Array, Array]:
    """The gradient by x, and for each channel the sums of g and of g (x - m).

    dx = s w g where m and s are `fixed`; where they are x's own statistics, also
    - s w (mean of g) - (x - m) s^3 w (mean of g (x - m)).
    """
    dx = np.empty(grad.shape, grad.dtype) if by_x else None
    count = max(1, grad.shape[0] * grad.shape[2])
    total, product = np.empty(grad.shape[1], grad.dtype), np.empty(grad.shape[1], grad.dtype)
    for part in _blocks(grad):
        g = grad[:, part]
        centred = np.subtract(x[:, part], mean[part, None])
        total[part], product[part] = _total(g), _products(g, centred)
        if dx is None:
            continue
        factor, target = scale[part] if weight is None else scale[part] * weight[part], dx[:, part]
        np.multiply(g, factor[:, None], out=target)
        if not fixed:
            slope = -(factor * (scale[part] * scale[part]) * (product[part] / count))
            np.multiply(centred, slope[:, None], out=centred)
            np.subtract(centred, (factor * (total[part] / count))[:, None], out=centred)
            np.add(target, centred, out=target)
    return dx, total, product


def _blocks(x: Array) -> Iterator[slice]:
    """Cut the channels into blocks."""
    images, channels, length = x.shape
    step = max(1, BLOCK_BYTES // max(1, images * length * x.itemsize))
    for first in range(0, channels, step):
        yield slice(first, min(first + step, channels))


def _total(part: Array) -> Array:
    """Sum over images and places."""
    if part.shape[2] >= LONG:
        return np.asarray(part.sum(axis=2).sum(axis=0))
    return np.asarray(part.sum(axis=0).sum(axis=1))


def _products(a: Array, b: Array) -> Array:
    """Sum a b over images and places."""
    if a.shape[2] >= LONG:
        return np.asarray(np.vecdot(a, b).sum(axis=0))
    return np.asarray(np.multiply(a, b).sum(axis=0).sum(axis=1))
