"""Laying side by side, and cutting apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from minimp import ops
from minimp.errors import SettingError
from minimp.functional.common import tensor_of
from minimp.tensors import Tensor

__all__ = ["chunk", "flatten", "split", "squeeze", "stack", "transpose", "unbind", "unsqueeze"]


def stack(tensors: Sequence[Any], dim: int = 0) -> Tensor:
    """Join tensors of one shape along a new axis at `dim`."""
    if not len(tensors):
        raise SettingError("stack: expected at least one tensor, got none")
    return ops.stack(*tensors, dim=dim)


def split(tensor: Any, split_size_or_sections: int | Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    """Cut along `dim` into parts of one size, the last one shorter, or of the sizes given."""
    return tensor_of(tensor).split(split_size_or_sections, dim)


def chunk(input: Any, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """Cut along `dim` into at most `chunks` parts of one size, the last one shorter."""
    return tensor_of(input).chunk(chunks, dim)


def unbind(input: Any, dim: int = 0) -> tuple[Tensor, ...]:
    """Each slice along `dim`, without that axis."""
    return tensor_of(input).unbind(dim)


def squeeze(input: Any, dim: int | tuple[int, ...] | None = None) -> Tensor:
    """Drop the axes of length 1, or those of the axes given."""
    return tensor_of(input).squeeze(dim)


def unsqueeze(input: Any, dim: int) -> Tensor:
    """Insert an axis of length 1 at `dim`."""
    return tensor_of(input).unsqueeze(dim)


def transpose(input: Any, dim0: int, dim1: int) -> Tensor:
    """Exchange two axes."""
    return tensor_of(input).transpose(dim0, dim1)


def flatten(input: Any, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """Join the axes from `start_dim` to `end_dim`."""
    return tensor_of(input).flatten(start_dim, end_dim)
