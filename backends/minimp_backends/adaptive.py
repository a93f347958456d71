"""Means over windows that share an axis out evenly, and their adjoint.

Window i of an axis of n elements shared out to m runs from floor(i n / m) to ceil((i + 1) n / m): neighbours
overlap by one element where m does not divide n (torch.nn.AdaptiveAvgPool2d). A sum goes down the rows of a
window, then along what is left.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["adaptive_backward", "adaptive_forward", "adaptive_maxima", "counts_of", "spans_of"]

Array = NDArray[Any]
Pair = tuple[int, int]


def spans_of(length: int, out: int) -> list[slice]:
    """The windows of one axis."""
    return [slice(i * length // out, -(-(i + 1) * length // out)) for i in range(out)]


def counts_of(shape: Pair, size: Pair) -> Array:
    """The elements of each window, float64.  -> (OH, OW)."""
    sides = [
        np.array([s.stop - s.start for s in spans_of(n, m)], np.float64)
        for n, m in zip(shape, size, strict=True)
    ]
    counts: Array = np.multiply.outer(*sides)
    return counts


def adaptive_forward(x: Array, size: Pair) -> Array:
    """The mean of each window.  (..., H, W) -> (..., OH, OW), float32 or float64."""
    height, width = x.shape[-2:]
    if size == (1, 1):
        whole: Array = x.reshape(*x.shape[:-2], 1, 1, height * width).sum(axis=-1)
        np.divide(whole, x.dtype.type(height * width), out=whole)
        return whole
    rows = np.empty((*x.shape[:-2], size[0], width), x.dtype)
    for i, span in enumerate(spans_of(height, size[0])):
        np.add.reduce(x[..., span, :], axis=-2, out=rows[..., i, :])
    y = np.empty((*x.shape[:-2], *size), x.dtype)
    for j, span in enumerate(spans_of(width, size[1])):
        np.add.reduce(rows[..., span], axis=-1, out=y[..., j])
    np.divide(y, counts_of((height, width), size).astype(x.dtype), out=y)
    return y


def adaptive_backward(grad: Array, shape: tuple[int, ...]) -> Array:
    """Give each element its share of every window it is in.  (..., OH, OW) -> `shape` (..., H, W)."""
    height, width = shape[-2:]
    size = (grad.shape[-2], grad.shape[-1])
    share = grad / counts_of((height, width), size).astype(grad.dtype)
    rows = np.zeros((*shape[:-2], size[0], width), grad.dtype)
    for j, span in enumerate(spans_of(width, size[1])):
        rows[..., span] += share[..., j : j + 1]
    dx = np.zeros(shape, grad.dtype)
    for i, span in enumerate(spans_of(height, size[0])):
        dx[..., span, :] += rows[..., i : i + 1, :]
    return dx


def adaptive_maxima(x: Array, size: Pair) -> tuple[Array, Array]:
    """The largest element of each window, and its place in the image, u W + v; both (..., OH, OW).

    The first of equal maxima is taken; a NaN is larger than any number, and the last one is taken (torch).
    """
    height, width = x.shape[-2:]
    best = np.empty((*x.shape[:-2], *size), x.dtype)
    index = np.empty(best.shape, np.min_scalar_type(max(0, height * width - 1)))
    for i, down in enumerate(spans_of(height, size[0])):
        for j, right in enumerate(spans_of(width, size[1])):
            seen = x[..., down, right]
            across = seen.shape[-1]
            flat = seen.reshape(*x.shape[:-2], seen.shape[-2] * across)
            taken = _last_nan_or_first_largest(flat)
            best[..., i, j] = np.take_along_axis(flat, taken[..., None], axis=-1)[..., 0]
            index[..., i, j] = (taken // across + down.start) * width + taken % across + right.start
    return best, index


def _last_nan_or_first_largest(flat: Array) -> Array:
    taken: Array = np.argmax(flat, axis=-1)
    nan = np.isnan(flat)
    if nan.any():
        taken = np.where(nan.any(axis=-1), flat.shape[-1] - 1 - np.argmax(nan[..., ::-1], axis=-1), taken)
    return taken
