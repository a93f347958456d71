"""Products with weights: linear."""

from __future__ import annotations

from typing import Any

from minimp import ops
from minimp.tensors import Tensor

__all__ = ["linear"]


def linear(input: Any, weight: Any, bias: Any = None) -> Tensor:
    """y = x W^T + b.  (..., in), (out, in), (out,) -> (..., out); one rounding, after the bias."""
    return ops.linear(input, weight) if bias is None else ops.linear(input, weight, bias)
