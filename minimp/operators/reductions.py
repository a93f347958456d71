"""Sums and statistics over axes, as methods with torch's names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from minimp import ops
from minimp.errors import SettingError
from minimp.operators.common import dims_of, format_of
from minimp.operators.naming import methods_naming_themselves
from minimp.tape import Value

if TYPE_CHECKING:
    from minimp.tensors import Tensor

__all__ = ["Reductions", "correction_of"]


@methods_naming_themselves
class Reductions(Value):
    """What is made of all elements, or of those along axes."""

    __slots__ = ()

    def sum(self, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
        """Return the sum over `dim`, an axis or several; all if None."""
        return ops.sum_(self, dim=dims_of(dim), keepdim=keepdim, dtype=format_of(dtype))

    def mean(self, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
        """Return the mean over `dim`; of the elements cast to `dtype` first, if one is given."""
        form = format_of(dtype)
        x = self if form is None or form is self.format else ops.cast(self, format=form)
        return ops.mean(x, dim=dims_of(dim), keepdim=keepdim)

    def var(
        self, dim: Any = None, unbiased: bool | None = None, keepdim: bool = False, *,
        correction: float | None = None,
    ) -> Tensor:  # fmt: skip
        """Return sum (x - m)^2 / (N - correction) over `dim`; correction 1 unless said, or unbiased=False."""
        dim, c = correction_of("var", dim, unbiased, correction)
        return ops.var(self, dim=dims_of(dim), correction=c, keepdim=keepdim)

    def std(
        self, dim: Any = None, unbiased: bool | None = None, keepdim: bool = False, *,
        correction: float | None = None,
    ) -> Tensor:  # fmt: skip
        """Return the square root of :meth:`var`, rounded once."""
        dim, c = correction_of("std", dim, unbiased, correction)
        return ops.std(self, dim=dims_of(dim), correction=c, keepdim=keepdim)

    def logsumexp(self, dim: Any, keepdim: bool = False) -> Tensor:
        """Return ln sum e^x over `dim`, without overflow."""
        return ops.logsumexp(self, dim=dims_of(dim), keepdim=keepdim)

    def norm(self, p: Any = "fro", dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Tensor:
        """Return the p-norm over `dim`, see :func:`minimp.functional.norm`."""
        p = 2 if p is None or p == "fro" else p
        return ops.linalg_vector_norm(self, p=p, dim=dims_of(dim), keepdim=keepdim, dtype=format_of(dtype))

    def amax(self, dim: Any = None, keepdim: bool = False) -> Tensor:
        """Return the largest element over `dim`; equal maxima share the gradient."""
        return ops.amax(self, dim=dims_of(dim), keepdim=keepdim)

    def amin(self, dim: Any = None, keepdim: bool = False) -> Tensor:
        """Return the smallest element over `dim`; equal minima share the gradient."""
        return ops.amin(self, dim=dims_of(dim), keepdim=keepdim)

    def prod(self, dim: int | None = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
        """Return the product over `dim`, of all elements if None."""
        return ops.prod(self, dim=dim, keepdim=keepdim, dtype=format_of(dtype))

    def cumsum(self, dim: int, *, dtype: Any = None) -> Tensor:
        """Return the running sums along `dim`."""
        return ops.cumsum(self, dim=dim, dtype=format_of(dtype))

    def cumprod(self, dim: int, *, dtype: Any = None) -> Tensor:
        """Return the running products along `dim`."""
        return ops.cumprod(self, dim=dim, dtype=format_of(dtype))

    def all(self, dim: Any = None, keepdim: bool = False) -> Tensor:
        """Return whether every element over `dim` is true."""
        return ops.all_(self, dim=dims_of(dim), keepdim=keepdim)

    def any(self, dim: Any = None, keepdim: bool = False) -> Tensor:
        """Return whether any element over `dim` is true."""
        return ops.any_(self, dim=dims_of(dim), keepdim=keepdim)

    def count_nonzero(self, dim: Any = None) -> Tensor:
        """Return how many elements over `dim` are not 0."""
        return ops.count_nonzero(self, dim=dims_of(dim))


def correction_of(op: str, dim: Any, unbiased: Any, correction: float | None) -> tuple[Any, float]:
    """Return the axes and the correction, from torch's two ways to say it, `unbiased` and `correction`.

    As in torch, a lone truth value in the place of `dim` is `unbiased`.

    Raises:
        SettingError: both ways at once.
    """
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    if unbiased is not None and correction is not None:
        raise SettingError(f"{op}: give unbiased or correction, not both")
    if correction is not None:
        return dim, correction
    return dim, 0.0 if unbiased is False else 1.0
