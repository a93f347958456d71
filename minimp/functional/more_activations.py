"""Activation functions with parameters: rectifiers, gates and their smooth relatives."""

from __future__ import annotations

from typing import Any

from minimp import ops
from minimp.tensors import Tensor

__all__ = ["celu", "elu", "leaky_relu", "selu", "silu", "softplus"]

SELU_ALPHA, SELU_SCALE = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946
"""Klambauer et al. 2017 (arXiv 1706.02515), equation 14."""


def silu(input: Any) -> Tensor:
    """x / (1 + e^-x)."""
    return ops.silu(input)


def softplus(input: Any, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """ln(1 + e^(beta x)) / beta, and x itself where beta x > threshold."""
    return ops.softplus(input, beta=beta, threshold=threshold)


def leaky_relu(input: Any, negative_slope: float = 0.01) -> Tensor:
    """x for x > 0, else negative_slope x."""
    return ops.leaky_relu(input, negative_slope=negative_slope)


def elu(input: Any, alpha: float = 1.0) -> Tensor:
    """x for x > 0, else alpha (e^x - 1)."""
    return ops.elu(input, alpha=alpha)


def celu(input: Any, alpha: float = 1.0) -> Tensor:
    """x for x > 0, else alpha (e^(x / alpha) - 1) (Barron 2017, arXiv 1704.07483)."""
    return ops.elu(input, alpha=alpha, scale=1.0, input_scale=1 / alpha)


def selu(input: Any) -> Tensor:
    """s x for x > 0, else s a (e^x - 1), a = 1.6733 and s = 1.0507 keeping mean 0 and variance 1."""
    return ops.elu(input, alpha=SELU_ALPHA, scale=SELU_SCALE)
