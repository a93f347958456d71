"""Activation functions, and the elementary functions beside them."""

from __future__ import annotations

from typing import Any

from minimp import ops
from minimp.tensors import Tensor

__all__ = ["exp", "gelu", "log", "relu", "sigmoid", "sqrt", "tanh"]


def relu(input: Any) -> Tensor:
    """max(x, 0)."""
    return ops.relu(input)


def tanh(input: Any) -> Tensor:
    """tanh x."""
    return ops.tanh(input)


def sigmoid(input: Any) -> Tensor:
    """1 / (1 + e^-x)."""
    return ops.sigmoid(input)


def gelu(input: Any, approximate: str = "none") -> Tensor:
    """x Phi(x); approximate "none" (by erf) or "tanh"."""
    return ops.gelu(input, approximate=approximate)


def exp(input: Any) -> Tensor:
    """e^x."""
    return ops.exp(input)


def log(input: Any) -> Tensor:
    """ln x."""
    return ops.log(input)


def sqrt(input: Any) -> Tensor:
    """The square root."""
    return ops.sqrt(input)
