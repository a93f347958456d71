"""Spread, log-sums, products and running sums over axes."""

from __future__ import annotations

from typing import Any

from minimp.functional.common import tensor_of
from minimp.tensors import Tensor

__all__ = ["cumprod", "cumsum", "logsumexp", "prod", "std", "std_mean", "var", "var_mean"]


def var(
    input: Any, dim: Any = None, unbiased: bool | None = None, keepdim: bool = False, *,
    correction: float | None = None,
) -> Tensor:  # fmt: skip
    """sum (x - m)^2 / (N - correction) over `dim`, all axes if None; correction 1, or unbiased=False for 0.

    m is the mean of the N elements, summed first; statistics are float32's, one rounding at the end.
    """
    return tensor_of(input).var(dim, unbiased, keepdim, correction=correction)


def std(
    input: Any, dim: Any = None, unbiased: bool | None = None, keepdim: bool = False, *,
    correction: float | None = None,
) -> Tensor:  # fmt: skip
    """The square root of :func:`var`; the gradient is 0 where it is 0."""
    return tensor_of(input).std(dim, unbiased, keepdim, correction=correction)


def var_mean(
    input: Any, dim: Any = None, unbiased: bool | None = None, keepdim: bool = False, *,
    correction: float | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """(:func:`var`, mean) over `dim`."""
    x = tensor_of(input)
    return x.var(dim, unbiased, keepdim, correction=correction), x.mean(_axes(dim), keepdim)


def std_mean(
    input: Any, dim: Any = None, unbiased: bool | None = None, keepdim: bool = False, *,
    correction: float | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """(:func:`std`, mean) over `dim`."""
    x = tensor_of(input)
    return x.std(dim, unbiased, keepdim, correction=correction), x.mean(_axes(dim), keepdim)


def logsumexp(input: Any, dim: Any, keepdim: bool = False) -> Tensor:
    """ln sum e^x over `dim`, the largest element taken out of the sum."""
    return tensor_of(input).logsumexp(dim, keepdim)


def prod(input: Any, dim: int | None = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """The product over `dim`, of all elements if None."""
    return tensor_of(input).prod(dim, keepdim, dtype=dtype)


def cumsum(input: Any, dim: int, *, dtype: Any = None) -> Tensor:
    """Running sums along `dim`, each rounded once."""
    return tensor_of(input).cumsum(dim, dtype=dtype)


def cumprod(input: Any, dim: int, *, dtype: Any = None) -> Tensor:
    """Running products along `dim`, each rounded once."""
    return tensor_of(input).cumprod(dim, dtype=dtype)


def _axes(dim: Any) -> Any:
    """The axes; a lone truth value in their place is `unbiased`."""
    return None if isinstance(dim, bool) else dim
