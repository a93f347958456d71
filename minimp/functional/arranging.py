"""Laying side by side, and cutting apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from minimp import ops
from minimp.errors import SettingError
from minimp.functional.common import tensor_of
from minimp.tensors import Tensor

__all__ = [
    "chunk", "diag", "diagonal", "flatten", "flip", "movedim", "repeat_interleave", "roll", "split",
    "squeeze", "stack", "tile", "transpose", "tril", "triu", "unbind", "unflatten", "unsqueeze",
]  # fmt: skip


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


def unflatten(input: Any, dim: int, sizes: Sequence[int]) -> Tensor:
    """Split the axis `dim` into axes of lengths `sizes`, of which one may be -1."""
    return tensor_of(input).unflatten(dim, sizes)


def movedim(input: Any, source: int | Sequence[int], destination: int | Sequence[int]) -> Tensor:
    """Move axes to other places; the rest keep their order."""
    return tensor_of(input).movedim(source, destination)


def flip(input: Any, dims: Sequence[int]) -> Tensor:
    """The elements in the opposite order along each of the axes."""
    return tensor_of(input).flip(*dims)


def roll(input: Any, shifts: int | Sequence[int], dims: int | Sequence[int] | None = None) -> Tensor:
    """Move elements along axes, those pushed over the end to the front; without axes, as if flat."""
    return tensor_of(input).roll(shifts, dims)


def tril(input: Any, diagonal: int = 0) -> Tensor:
    """The lower triangle of each matrix, 0 elsewhere."""
    return ops.tril(input, diagonal=diagonal)


def triu(input: Any, diagonal: int = 0) -> Tensor:
    """The upper triangle of each matrix, 0 elsewhere."""
    return ops.triu(input, diagonal=diagonal)


def diagonal(input: Any, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """The diagonals of the matrices that two axes make, as the last axis."""
    return tensor_of(input).diagonal(offset, dim1, dim2)


def diag(input: Any, diagonal: int = 0) -> Tensor:
    """The diagonal of a matrix, or the matrix that has this vector as its diagonal."""
    return tensor_of(input).diag(diagonal)


def tile(input: Any, dims: Sequence[int]) -> Tensor:
    """Repeat the whole tensor along each axis."""
    return tensor_of(input).tile(*dims)


def repeat_interleave(input: Any, repeats: Any, dim: int | None = None) -> Tensor:
    """Repeat each element, or each slice along `dim`, in its place."""
    return tensor_of(input).repeat_interleave(repeats, dim)
