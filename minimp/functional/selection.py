"""Choosing between elements, and putting them in order."""

from __future__ import annotations

from typing import Any

from minimp import ops
from minimp.functional.common import tensor_of
from minimp.operators import SortResult, TopkResult
from minimp.ops.selection import operands
from minimp.tensors import Tensor

__all__ = [
    "amax", "amin", "argmax", "argmin", "argsort", "clamp", "clip", "masked_fill", "maximum", "minimum",
    "sort", "topk", "where",
]  # fmt: skip


def where(condition: Any, input: Any, other: Any) -> Tensor:
    """`input` where the condition holds, else `other`; shapes broadcast, formats promote.

    Args:
        condition: booleans, a tensor or an array.
        input, other: tensors, arrays or numbers. A number takes the format of the tensor beside it.
    """
    return ops.where(condition, *operands("where", input, other))


def masked_fill(input: Any, mask: Any, value: Any) -> Tensor:
    """`value` where the mask holds, else x; a number that x's format cannot hold is refused."""
    return tensor_of(input).masked_fill(mask, value)


def clamp(input: Any, min: Any = None, max: Any = None) -> Tensor:  # noqa: A002 - torch's names
    """min(max(x, `min`), `max`); bounds are numbers or tensors, gradients pass at the bounds."""
    return tensor_of(input).clamp(min, max)


clip = clamp


def maximum(input: Any, other: Any) -> Tensor:
    """The larger of two elements, NaN if either is; equal ones share the gradient."""
    return ops.maximum(*operands("maximum", input, other))


def minimum(input: Any, other: Any) -> Tensor:
    """The smaller of two elements, NaN if either is; equal ones share the gradient."""
    return ops.minimum(*operands("minimum", input, other))


def argsort(input: Any, dim: int = -1, descending: bool = False, stable: bool = True) -> Tensor:
    """The indices that sort along `dim`; equal elements keep their order, in any case."""
    return tensor_of(input).argsort(dim, descending, stable)


def sort(input: Any, dim: int = -1, descending: bool = False, stable: bool = True) -> SortResult:
    """(values, indices) in order along `dim`; NaN counts as the largest; gradients go back to the places."""
    return tensor_of(input).sort(dim, descending, stable)


def topk(input: Any, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> TopkResult:  # noqa: A002 - torch's name
    """(values, indices) of the k largest or smallest elements along `dim`, in order."""
    return tensor_of(input).topk(k, dim, largest, sorted)


def amax(input: Any, dim: Any = None, keepdim: bool = False) -> Tensor:
    """The largest element over `dim`; equal maxima share the gradient."""
    return tensor_of(input).amax(dim, keepdim)


def amin(input: Any, dim: Any = None, keepdim: bool = False) -> Tensor:
    """The smallest element over `dim`; equal minima share the gradient."""
    return tensor_of(input).amin(dim, keepdim)


def argmax(input: Any, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """The index of the largest element, the first of equal ones."""
    return tensor_of(input).argmax(dim, keepdim)


def argmin(input: Any, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """The index of the smallest element, the first of equal ones."""
    return tensor_of(input).argmin(dim, keepdim)
