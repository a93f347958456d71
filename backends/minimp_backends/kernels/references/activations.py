"""What bias.cu, activations.cu and gelu.cu must give: float32 throughout, one rounding at the end.

The formulas are those of the ops (:mod:`minimp.ops.activations`, `smooth` and `piecewise`), operation for
operation, over exp, tanh and erf of :mod:`minimp_backends.kernels.references.exponentials`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from minimp_backends.kernels.references.exponentials import erf, exp, tanh

__all__ = ["FUNCTIONS", "ROUNDINGS", "ULPS", "add_bias", "gradients", "values"]

Array = Any
ULPS: Mapping[str, float] = MappingProxyType({"sigmoid": 2.5, "tanh": 2.5, "silu": 4.0})
"""Kernel -> how many ULPs of float32 its values lie from the exact ones at most, before they are stored.

Subnormal results included; silu's, from x = -88 on, lie up to 2^-149 |x| farther, as its s is subnormal.
"""
ROUNDINGS: Mapping[str, float] = MappingProxyType(
    {"gelu": 3.0, "gelu_tanh": 4.0, "silu_gradient": 3.0, "gelu_gradient": 4.0, "gelu_tanh_gradient": 8.0}
)
"""Kernel -> how far its results lie from the exact ones at most, in 2^-24 max(1, |x|) |g|; of values, g is 1.

Absolute, as 1 + erf and 1 + tanh cancel below 0: these are the ops' formulas, of array functions no less.
The gradients of sigmoid and tanh, relu and leaky_relu have the very bits of the array functions.
"""
SINGLE = np.float32
HALF, ROOT_HALF = SINGLE(0.5), SINGLE(math.sqrt(0.5))
DENSITY_AT_0 = SINGLE(1 / math.sqrt(2 * math.pi))
"""Of the normal distribution."""
STEEPNESS, CUBIC, CUBIC_SLOPE = SINGLE(math.sqrt(2 / math.pi)), SINGLE(0.044715), SINGLE(3 * 0.044715)
"""Of the argument of tanh in gelu's approximation, sqrt(2 / pi) (x + 0.044715 x^3)."""


@np.errstate(all="ignore")
def add_bias(sums: Any, bias: Any, target: Any, inner: int, channels: int, count: int) -> None:
    """Write ``sums[i] + bias[i / inner % channels]``, rounded once; arrays of `count` elements.

    Args:
        sums: float32, as (outer, channels, inner) in memory.
        bias: (channels,), in the format of `target`.
        target: as sums; it may be they.
        inner, channels, count: how sums lie.
    """
    given = sums.reshape(-1)[:count].reshape(-1, channels, inner)
    made = given + bias.astype(SINGLE)[:, None]
    target.reshape(-1)[:count] = made.reshape(-1).astype(target.dtype)


@np.errstate(all="ignore")
def values(source: Any, target: Any, count: int, *, function: Callable[..., Array], **numbers: float) -> None:
    """Write ``function(x)`` of `count` elements, rounded once."""
    given = source.reshape(-1)[:count].astype(SINGLE)
    target.reshape(-1)[:count] = function(given, **numbers).astype(target.dtype)


@np.errstate(all="ignore")
def gradients(
    grad: Any, kept: Any, target: Any, count: int, *, function: Callable[..., Array], **numbers: float
) -> None:
    """Write ``function(g, kept)`` of `count` elements, rounded once; `kept` is numbers, or flags in bytes."""
    g, beside = grad.reshape(-1)[:count].astype(SINGLE), kept.reshape(-1)[:count]
    beside = beside != 0 if beside.dtype == np.uint8 else beside.astype(SINGLE)
    target.reshape(-1)[:count] = function(g, beside, **numbers).astype(target.dtype)


def _relu(x: Array) -> Array:
    return np.where(x <= 0, SINGLE(0), x)


def _relu_gradient(g: Array, y: Array) -> Array:
    return np.where(y <= 0, SINGLE(0), g)


def _leaky_relu(x: Array, slope: float) -> Array:
    return np.where(x > 0, x, x * SINGLE(slope))


def _leaky_relu_gradient(g: Array, positive: Array, slope: float) -> Array:
    return np.where(positive, g, g * SINGLE(slope))


def _sigmoid(x: Array) -> Array:
    e = exp(-np.abs(x))
    return np.where(x >= 0, SINGLE(1), e) / (1 + e)


def _sigmoid_gradient(g: Array, y: Array) -> Array:
    return g * y * (1 - y)


def _tanh_gradient(g: Array, y: Array) -> Array:
    return g * (1 - y * y)


def _silu(x: Array) -> Array:
    return x * _sigmoid(x)


def _silu_gradient(g: Array, x: Array) -> Array:
    s = _sigmoid(x)
    return g * (s * (1 + x * (1 - s)))


def _gelu(x: Array) -> Array:
    return x * (HALF * (1 + erf(x * ROOT_HALF)))


def _gelu_gradient(g: Array, x: Array) -> Array:
    density = exp(-HALF * x * x) * DENSITY_AT_0
    return g * (HALF * (1 + erf(x * ROOT_HALF)) + x * density)


def _bent(x: Array) -> Array:
    return tanh(STEEPNESS * (x + CUBIC * x * x * x))


def _gelu_tanh(x: Array) -> Array:
    return x * (HALF * (1 + _bent(x)))


def _gelu_tanh_gradient(g: Array, x: Array) -> Array:
    t = _bent(x)
    return g * (HALF * (1 + t) + x * (HALF * (1 - t * t) * STEEPNESS * (1 + CUBIC_SLOPE * x * x)))


FUNCTIONS: Mapping[str, tuple[Callable[..., Array], Callable[..., Array]]] = MappingProxyType(
    {
        "relu": (_relu, _relu_gradient),
        "leaky_relu": (_leaky_relu, _leaky_relu_gradient),
        "sigmoid": (_sigmoid, _sigmoid_gradient),
        "tanh": (tanh, _tanh_gradient),
        "silu": (_silu, _silu_gradient),
        "gelu": (_gelu, _gelu_gradient),
        "gelu_tanh": (_gelu_tanh, _gelu_tanh_gradient),
    }
)
"""Name -> (value from x, gradient from g and what was kept), on float32 arrays."""
