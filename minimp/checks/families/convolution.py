"""Convolutions beside conv2d, and the gradients of conv2d and of pools as ops of their own."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from minimp.checks import reference, windows
from minimp.checks.bounds import Program
from minimp.checks.case import Case
from minimp.checks.gradients import Rules
from minimp.checks.running import Running

__all__ = ["BOUNDS", "GRADIENTS", "REFERENCE"]

Array = np.ndarray[Any, Any]


def _geometry(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: options[name] for name in ("stride", "padding", "dilation", "groups")}


# ---- the gradients of conv2d ------------------------------------------------------------------------------


def conv2d_input(grad: Array, weight: Array, **options: Any) -> Array:
    """dx[n, c, s i + d u - p, ...] += g[n, o, i, j] w[o, c, u, v]."""
    return windows.spread(grad, weight, **options)


def conv2d_weight(x: Array, grad: Array, *, shape: tuple[int, ...], **geometry: Any) -> Array:
    """dw[o, c, u, v] = sum over n, i, j of g[n, o, i, j] x[n, c, s i + d u - p, s j + d v - p]."""
    dw = np.zeros(shape)
    (sh, sw), (dh, dw_), groups = geometry["stride"], geometry["dilation"], geometry["groups"]
    padded, (rows, columns) = reference.pad(x, geometry["padding"]), grad.shape[2:]
    for o, c in np.ndindex(*shape[:2]):
        image = padded[:, o // (shape[0] // groups) * shape[1] + c]
        for u, v in np.ndindex(*shape[2:]):
            seen = image[:, u * dh :: sh, v * dw_ :: sw][:, :rows, :columns]
            dw[o, c, u, v] = np.sum(grad[:, o] * seen)
    return dw


def _conv2d_input(grad: Running, weight: Running, *, shape: Any, **geometry: Any) -> Running:
    return windows.transposed(grad, weight, shape, geometry)


def _conv2d_weight(x: Running, grad: Running, *, shape: Any, **geometry: Any) -> Running:
    return windows.correlation(grad, x, shape, geometry)


def _convolved(x: Running, weight: Running, geometry: Mapping[str, Any]) -> Running:
    """A convolution of two running numbers, not yet rounded."""
    terms = math.prod(weight.exact.shape[1:])
    return x.product(weight, lambda a, b: reference.conv2d(a, b, **geometry), terms)


def _input_grad(c: Case) -> Running:
    return _convolved(c.grad, c.number(1), _geometry(c.options)).rounded()


def _input_weight(c: Case) -> Running:
    return windows.correlation(c.number(0), c.grad, c.shape(1), _geometry(c.options)).rounded()


def _weight_x(c: Case) -> Running:
    return windows.transposed(c.number(1), c.grad, c.shape(0), _geometry(c.options)).rounded()


def _weight_grad(c: Case) -> Running:
    return _convolved(c.number(0), c.grad, _geometry(c.options)).rounded()


# ---- the gradients of pools -------------------------------------------------------------------------------


def max_pool2d_input(grad: Array, index: Array, *, shape: tuple[int, ...], **options: Any) -> Array:
    """Each g to the element that its window took."""
    dx, width = np.zeros(shape), options["kernel"][1]
    dilation = options.get("dilation", (1, 1))
    for n, c, i, j in np.ndindex(*grad.shape):
        tap = divmod(int(index[n, c, i, j]), width)
        row, column = (
            at * s + t * d - p
            for at, s, t, d, p in zip(
                (i, j), options["stride"], tap, dilation, options["padding"], strict=True
            )
        )
        dx[n, c, row, column] += grad[n, c, i, j]
    return dx


def _max_pool2d_input(grad: Running, index: Array, *, shape: Any, **options: Any) -> Running:
    chosen = index[..., None] == np.arange(math.prod(options["kernel"]))
    return windows.add_windows(grad, shape, options, lambda a: np.where(chosen, a[..., None], 0.0))


def _max_taken(c: Case) -> Running:
    """What the image-shaped gradient has at the elements that were taken."""
    index, width = c.inputs[1].astype(np.int64), c.options["kernel"][1]
    dilation = c.options.get("dilation", (1, 1))
    rows, columns = (
        np.arange(n)[shape] * s + tap * d - p
        for n, shape, s, tap, d, p in zip(
            index.shape[2:], ((slice(None), None), (slice(None),)), c.options["stride"],
            np.divmod(index, width), dilation, c.options["padding"], strict=True,
        )
    )  # fmt: skip
    batch, channels = np.arange(index.shape[0])[:, None, None, None], np.arange(index.shape[1])[:, None, None]
    return c.grad.move(lambda a: a[batch, channels, rows, columns])


def avg_pool2d_input(grad: Array, *, shape: tuple[int, ...], **options: Any) -> Array:
    """Each g over its window's count to each of its elements inside the image."""
    dx, share = np.zeros(shape), grad / reference.pool_counts(shape, options)
    for i, j in np.ndindex(*grad.shape[2:]):
        where = [
            slice(max(0, at * s - p), max(0, at * s - p + k))
            for at, s, p, k in zip(
                (i, j), options["stride"], options["padding"], options["kernel"], strict=True
            )
        ]
        dx[:, :, *where] += share[:, :, i, j, None, None]
    return dx


def _avg_pool2d_input(grad: Running, *, shape: Any, **options: Any) -> Running:
    share = grad / grad.at.number(reference.pool_counts(shape, options))
    return windows.add_windows(share, shape, options, windows.each_tap(options))


def _avg_taken(c: Case) -> Running:
    options = {name: value for name, value in c.options.items() if name != "shape"}
    added = c.grad.gather(lambda a: reference.pool_sums(a, options), math.prod(options["kernel"]))
    return (added / c.at.number(reference.pool_counts(c.options["shape"], options))).rounded()


REFERENCE: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        "avg_pool2d_input": avg_pool2d_input,
        "conv2d_input": conv2d_input,
        "conv2d_weight": conv2d_weight,
        "max_pool2d_input": max_pool2d_input,
    }
)
BOUNDS: Mapping[str, Mapping[str, Program]] = MappingProxyType(
    {
        "dot": {"conv2d_input": _conv2d_input, "conv2d_weight": _conv2d_weight},
        "sum": {"avg_pool2d_input": _avg_pool2d_input, "max_pool2d_input": _max_pool2d_input},
    }
)
GRADIENTS: Mapping[str, Rules] = MappingProxyType(
    {
        "avg_pool2d_input": (_avg_taken,),
        "conv2d_input": (_input_grad, _input_weight),
        "conv2d_weight": (_weight_x, _weight_grad),
        "max_pool2d_input": (_max_taken,),
    }
)
