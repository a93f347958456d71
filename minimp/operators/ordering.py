"""The largest, the smallest, and order, as methods with torch's names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from minimp import ops
from minimp.errors import SettingError
from minimp.operators.common import along, axis_of
from minimp.operators.naming import methods_naming_themselves
from minimp.tape import Value

if TYPE_CHECKING:
    from minimp.tensors import Tensor

__all__ = ["MaxResult", "MinResult", "Ordering", "SortResult", "TopkResult"]


class MaxResult(NamedTuple):
    """What `max(dim)` returns: the largest values, and their indices."""

    values: Tensor
    indices: Tensor


class MinResult(NamedTuple):
    """What `min(dim)` returns: the smallest values, and their indices."""

    values: Tensor
    indices: Tensor


class SortResult(NamedTuple):
    """What `sort` returns: the values in order, and where they were."""

    values: Tensor
    indices: Tensor


class TopkResult(NamedTuple):
    """What `topk` returns: the k largest values, and where they were."""

    values: Tensor
    indices: Tensor


@methods_naming_themselves
class Ordering(Value):
    """What looks at which elements are larger."""

    __slots__ = ()

    def argmax(self, dim: int | None = None, keepdim: bool = False) -> Tensor:
        """Return the index of the largest element."""
        return ops.argmax(self, dim=dim, keepdim=keepdim)

    def max(self, dim: Any = None, keepdim: bool = False) -> Any:
        """Return the largest element; over `dim` (values, indices), the first maximum taking the gradient.

        With a tensor in the place of `dim`, the larger of two elements (torch.maximum).
        """
        if dim is None:
            return ops.amax(self)
        if isinstance(dim, Value):
            return ops.maximum(self, dim)
        return MaxResult(*_picked(self, ops.argmax(self, dim=dim, keepdim=True), dim, keepdim))

    def argmin(self, dim: int | None = None, keepdim: bool = False) -> Tensor:
        """Return the index of the smallest element."""
        return ops.argmin(self, dim=dim, keepdim=keepdim)

    def min(self, dim: Any = None, keepdim: bool = False) -> Any:
        """Return the smallest element; over `dim` (values, indices), the first minimum taking the gradient.

        With a tensor in the place of `dim`, the smaller of two elements (torch.minimum).
        """
        if dim is None:
            return ops.amin(self)
        if isinstance(dim, Value):
            return ops.minimum(self, dim)
        return MinResult(*_picked(self, ops.argmin(self, dim=dim, keepdim=True), dim, keepdim))

    def argsort(self, dim: int = -1, descending: bool = False, stable: bool = True) -> Tensor:  # noqa: ARG002 - always is
        """Return the indices that sort along `dim`; equal elements keep their order in any case."""
        return ops.argsort(self, dim=dim, descending=descending)

    def sort(self, dim: int = -1, descending: bool = False, stable: bool = True) -> SortResult:  # noqa: ARG002 - always is
        """Return (values, indices) in order along `dim`; NaN counts as the largest.

        Equal elements keep their order in any case.
        """
        indices = ops.argsort(self, dim=dim, descending=descending)
        return SortResult(_taken(self, indices, dim), indices)

    def topk(self, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> TopkResult:  # noqa: A002, ARG002 - torch's name; always is
        """Return (values, indices) of the k largest elements along `dim`, the largest first; or smallest.

        Of equal elements the first ones are taken (torch leaves it open which). NaN counts as the largest.
        """
        length = self.shape[axis_of("topk", self.shape, dim)] if self.shape else 1
        if not 0 <= k <= length:
            raise SettingError(f"topk: expected k from 0 to {length}, got {k}")
        order = ops.argsort(self, dim=dim, descending=largest, count=k)
        return TopkResult(_taken(self, order, dim), order)


def _taken(x: Value, indices: Value, dim: int) -> Tensor:
    """Return the elements at `indices` along `dim`."""
    if not x.shape:
        return ops.getitem(ops.reshape(x, shape=(1,)), index=indices.array)
    return ops.getitem(x, index=along(x.backend.xp, indices.array, axis_of("sort", x.shape, dim)))


def _picked(x: Value, indices: Tensor, dim: int, keepdim: bool) -> tuple[Tensor, Tensor]:
    """Return the elements at `indices`, which keep the axis `dim` with length 1, and the indices."""
    values = _taken(x, indices, dim)
    return (values, indices) if keepdim else (values.squeeze(dim), indices.squeeze(dim))
