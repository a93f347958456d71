"""Joining and thinning out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from minimp import ops
from minimp.errors import SettingError
from minimp.tape import Value
from minimp.tensors import Tensor

__all__ = ["cat", "dropout"]


def cat(tensors: Sequence[Any], dim: int = 0) -> Tensor:
    """Join tensors along an existing axis."""
    if not len(tensors):
        raise SettingError("cat: expected at least one tensor, got none")
    return ops.cat(*tensors, dim=dim)


def dropout(input: Any, p: float = 0.5, training: bool = True) -> Tensor:
    """Zero each element with probability p and divide the rest by 1 - p; the input itself if not training."""
    if not 0.0 <= p <= 1.0:
        raise SettingError(f"dropout: expected a probability from 0 to 1, got {p}")
    if not training or p == 0.0:
        return input if isinstance(input, Value) else Value.lift(input, None)  # type: ignore[return-value]  # what is lifted is a Tensor
    return ops.dropout(input, p=p)
