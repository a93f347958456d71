"""What activations.cu must give: float32 throughout, one rounding at the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

__all__ = ["FUNCTIONS", "add_bias", "gradients", "values"]

Array = Any
SINGLE = np.float32


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


FUNCTIONS: Mapping[str, tuple[Callable[..., Array], Callable[..., Array]]] = MappingProxyType(
    {"relu": (_relu, _relu_gradient), "leaky_relu": (_leaky_relu, _leaky_relu_gradient)}
)
"""Name -> (value from x, gradient from g and what was kept), on float32 arrays."""
