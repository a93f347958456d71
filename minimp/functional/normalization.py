"""Softmax, layers that normalise, and norms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from minimp import formats, ops
from minimp.functional.common import format_of_input, format_or_none, shape_of
from minimp.tensors import Tensor

__all__ = ["layer_norm", "log_softmax", "rms_norm", "softmax", "vector_norm"]


def softmax(input: Any, dim: int = -1, dtype: Any = None) -> Tensor:
    """e^x / sum e^x over `dim` (torch's `dim=None` guesses; here the default is the last axis)."""
    return ops.softmax(input, dim=dim, dtype=format_or_none(dtype))


def log_softmax(input: Any, dim: int = -1, dtype: Any = None) -> Tensor:
    """ln softmax over `dim` (torch's `dim=None` guesses; here the default is the last axis)."""
    return ops.log_softmax(input, dim=dim, dtype=format_or_none(dtype))


def layer_norm(
    input: Any, normalized_shape: int | Sequence[int], weight: Any = None, bias: Any = None,
    eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    """(x - mean) / sqrt(var + eps) w + b over the last axes, those of `normalized_shape`.

    Statistics are float32's, one rounding at the end. All tensors have one format outside autocast (torch's
    CPU kernels also take float32 weights beside a 16-bit input).
    """
    arrays = [input, weight, bias]
    while arrays[-1] is None:
        arrays.pop()
    return ops.layer_norm(*arrays, normalized_shape=shape_of(normalized_shape), eps=eps)


def rms_norm(
    input: Any, normalized_shape: int | Sequence[int], weight: Any = None, eps: float | None = None
) -> Tensor:
    """x / sqrt(mean x^2 + eps) w over the last axes; eps None is float32's 2^-23 (2^-52 for float64).

    Formats as :func:`layer_norm` (torch also takes a weight of another format).
    """
    arrays = (input,) if weight is None else (input, weight)
    if eps is None:
        eps = (formats.float64 if format_of_input(input) is formats.float64 else formats.float32).eps
    return ops.rms_norm(*arrays, normalized_shape=shape_of(normalized_shape), eps=eps)


def vector_norm(
    x: Any,
    ord: float = 2,  # noqa: A002 - torch's name
    dim: int | Sequence[int] | None = None,
    keepdim: bool = False,
    *,
    dtype: Any = None,
) -> Tensor:
    """(sum |x|^ord)^(1/ord) over `dim`, all axes if None (torch.linalg.vector_norm); ord > 0 or inf.

    Args:
        x: a floating tensor.
        ord: p of the norm; torch's 0, -inf and negative ones, which are no norms, are not offered.
        dim, keepdim: the axes, and whether they stay, of length 1.
        dtype: the format computed in and of the result; at least as wide as x's.
    """
    dims = dim if dim is None or isinstance(dim, int) else tuple(dim)
    return ops.linalg_vector_norm(x, p=ord, dim=dims, keepdim=keepdim, dtype=format_or_none(dtype))
