"""Ops written again with others: readable references, and what their second derivatives go through."""

from __future__ import annotations

from typing import TYPE_CHECKING

from minimp.ops.arithmetic import add, div, mul, sqrt, sub
from minimp.ops.normalization import layer_norm, rms_norm
from minimp.ops.reductions import mean

if TYPE_CHECKING:
    from minimp.tensors import Tensor

__all__: list[str] = []


@layer_norm.composite
def _(
    x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None, *,
    normalized_shape: tuple[int, ...], eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    """(x - m) / sqrt(v + eps) w + b."""
    dims = tuple(range(-len(normalized_shape), 0))
    centred = sub(x, mean(x, dim=dims, keepdim=True))
    variance = mean(mul(centred, centred), dim=dims, keepdim=True)
    return _scaled(div(centred, sqrt(add(variance, eps))), weight, bias)


@rms_norm.composite
def _(x: Tensor, weight: Tensor | None = None, *, normalized_shape: tuple[int, ...], eps: float) -> Tensor:
    """x / sqrt(mean x^2 + eps) w."""
    dims = tuple(range(-len(normalized_shape), 0))
    square = mean(mul(x, x), dim=dims, keepdim=True)
    return _scaled(div(x, sqrt(add(square, eps))), weight, None)


def _scaled(y: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    y = y if weight is None else mul(y, weight)
    return y if bias is None else add(y, bias)
