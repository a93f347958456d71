"""Python's operators and torch's methods on tensors: each only names the op that does the work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from minimp import formats, ops
from minimp.errors import ShapeError
from minimp.formats import Format
from minimp.tape import Value

if TYPE_CHECKING:
    from minimp.tensors import Tensor

__all__ = ["MaxResult", "Operators"]


class MaxResult(NamedTuple):
    """What `max(dim)` returns: the largest values, and their indices."""

    values: Tensor
    indices: Tensor


class Operators(Value):
    """What can be written with a tensor: ``x @ w + b``, ``x.sum(dim=1)``, ``x[0]``."""

    __slots__ = ()
    __array_priority__ = 1000
    __hash__ = object.__hash__

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return int(self.array.ndim)

    @property
    def T(self) -> Tensor:  # noqa: N802 - NumPy's and torch's name
        """The tensor with its axes reversed."""
        return ops.permute(self, dims=tuple(range(self.ndim))[::-1])

    # ---- operators --------------------------------------------------------------------------------------

    def __add__(self, other: Any) -> Tensor:
        return ops.add(self, other)

    def __radd__(self, other: Any) -> Tensor:
        return ops.add(other, self)

    def __sub__(self, other: Any) -> Tensor:
        return ops.sub(self, other)

    def __rsub__(self, other: Any) -> Tensor:
        return ops.sub(other, self)

    def __mul__(self, other: Any) -> Tensor:
        return ops.mul(self, other)

    def __rmul__(self, other: Any) -> Tensor:
        return ops.mul(other, self)

    def __truediv__(self, other: Any) -> Tensor:
        return ops.div(self, other)

    def __rtruediv__(self, other: Any) -> Tensor:
        return (
            ops.mul(ops.reciprocal(self), other) if isinstance(other, int | float) else ops.div(other, self)
        )

    def __pow__(self, exponent: Any) -> Tensor:
        return ops.pow_(self, exponent)

    def __rpow__(self, base: Any) -> Tensor:
        return ops.pow_(base, self)

    def __matmul__(self, other: Any) -> Tensor:
        return ops.matmul(self, other)

    def __rmatmul__(self, other: Any) -> Tensor:
        return ops.matmul(other, self)

    def __neg__(self) -> Tensor:
        return ops.neg(self)

    def __abs__(self) -> Tensor:
        return ops.abs_(self)

    def __eq__(self, other: object) -> Tensor:  # type: ignore[override]  # elementwise, as in NumPy
        return ops.eq(self, other)

    def __ne__(self, other: object) -> Tensor:  # type: ignore[override]  # elementwise, as in NumPy
        return ops.ne(self, other)

    def __lt__(self, other: Any) -> Tensor:
        return ops.lt(self, other)

    def __le__(self, other: Any) -> Tensor:
        return ops.le(self, other)

    def __gt__(self, other: Any) -> Tensor:
        return ops.gt(self, other)

    def __ge__(self, other: Any) -> Tensor:
        return ops.ge(self, other)

    def __getitem__(self, index: Any) -> Tensor:
        return ops.getitem(self, index=_plain_index(index))

    # ---- methods with torch's names ---------------------------------------------------------------------

    def exp(self) -> Tensor:
        """Return e^x."""
        return ops.exp(self)

    def log(self) -> Tensor:
        """Return ln x."""
        return ops.log(self)

    def sqrt(self) -> Tensor:
        """Return the square root."""
        return ops.sqrt(self)

    def pow(self, exponent: Any) -> Tensor:
        """Return x^p."""
        return ops.pow_(self, exponent)

    def abs(self) -> Tensor:
        """Return |x|."""
        return ops.abs_(self)

    def relu(self) -> Tensor:
        """Return max(x, 0)."""
        return ops.relu(self)

    def tanh(self) -> Tensor:
        """Return tanh x."""
        return ops.tanh(self)

    def sigmoid(self) -> Tensor:
        """Return 1 / (1 + e^-x)."""
        return ops.sigmoid(self)

    def matmul(self, other: Any) -> Tensor:
        """Return the matrix product."""
        return ops.matmul(self, other)

    def softmax(self, dim: int, dtype: Any = None) -> Tensor:
        """Return softmax over `dim`."""
        return ops.softmax(self, dim=dim, dtype=_format(dtype))

    def log_softmax(self, dim: int, dtype: Any = None) -> Tensor:
        """Return the logarithm of softmax over `dim`."""
        return ops.log_softmax(self, dim=dim, dtype=_format(dtype))

    def sum(self, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
        """Return the sum over `dim`, an axis or several; all if None."""
        return ops.sum_(self, dim=_dims(dim), keepdim=keepdim, dtype=_format(dtype))

    def mean(self, dim: Any = None, keepdim: bool = False) -> Tensor:
        """Return the mean over `dim`."""
        return ops.mean(self, dim=_dims(dim), keepdim=keepdim)

    def norm(self, p: float = 2, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Tensor:
        """Return the p-norm over `dim` (torch.Tensor.norm), see :func:`minimp.functional.vector_norm`."""
        return ops.linalg_vector_norm(self, p=p, dim=_dims(dim), keepdim=keepdim, dtype=_format(dtype))

    def amax(self, dim: Any = None, keepdim: bool = False) -> Tensor:
        """Return the largest element over `dim`; equal maxima share the gradient."""
        return ops.amax(self, dim=_dims(dim), keepdim=keepdim)

    def max(self, dim: int | None = None, keepdim: bool = False) -> Any:
        """Return the largest element; over `dim` (values, indices), the first maximum taking the gradient."""
        if dim is None:
            return ops.amax(self)
        indices = ops.argmax(self, dim=dim, keepdim=True)
        values = ops.getitem(self, index=_along(self.shape, dim, indices.backend.to_host(indices.array)))
        return MaxResult(values, indices) if keepdim else MaxResult(values.squeeze(dim), indices.squeeze(dim))

    def argmax(self, dim: int | None = None, keepdim: bool = False) -> Tensor:
        """Return the index of the largest element."""
        return ops.argmax(self, dim=dim, keepdim=keepdim)

    def isfinite(self) -> Tensor:
        """Return whether each element is finite."""
        return ops.isfinite(self)

    def all(self) -> Tensor:
        """Return whether every element is true."""
        return Value.make(self.backend.xp.asarray(self.array.all()), self.backend)

    def any(self) -> Tensor:
        """Return whether any element is true."""
        return Value.make(self.backend.xp.asarray(self.array.any()), self.backend)

    def reshape(self, *shape: Any) -> Tensor:
        """Return the elements in another shape."""
        return ops.reshape(self, shape=_shape(shape))

    def view(self, *shape: Any) -> Tensor:
        """Return the elements in another shape (torch's view; no promise that memory is shared)."""
        return ops.reshape(self, shape=_shape(shape))

    def flatten(self, start_dim: int = 0, end_dim: int = -1) -> Tensor:
        """Join the axes from `start_dim` to `end_dim`."""
        first, last = start_dim % max(self.ndim, 1), end_dim % max(self.ndim, 1)
        joined = int(np.prod(self.shape[first : last + 1]))
        return ops.reshape(self, shape=(*self.shape[:first], joined, *self.shape[last + 1 :]))

    def squeeze(self, dim: int | None = None) -> Tensor:
        """Drop the axes of length 1, or the one given."""
        gone = {dim % self.ndim} if dim is not None else set(range(self.ndim))
        return ops.reshape(self, shape=tuple(n for i, n in enumerate(self.shape) if i not in gone or n != 1))

    def unsqueeze(self, dim: int) -> Tensor:
        """Insert an axis of length 1 at `dim`."""
        at = dim % (self.ndim + 1)
        return ops.reshape(self, shape=(*self.shape[:at], 1, *self.shape[at:]))

    def transpose(self, dim0: int, dim1: int) -> Tensor:
        """Exchange two axes."""
        dims = list(range(self.ndim))
        try:
            dims[dim0], dims[dim1] = dims[dim1], dims[dim0]
        except IndexError:
            raise ShapeError(f"no axes {dim0} and {dim1}", op="transpose", shapes=[self.shape]) from None
        return ops.permute(self, dims=tuple(dims))

    def permute(self, *dims: Any) -> Tensor:
        """Reorder the axes."""
        return ops.permute(self, dims=_shape(dims))

    def expand(self, *shape: Any) -> Tensor:
        """Repeat axes of length 1."""
        return ops.expand(self, shape=_shape(shape))


def _format(dtype: Any) -> Format | None:
    return None if dtype is None else formats.get(dtype)


def _plain_index(index: Any) -> Any:
    """Turn tensors inside an index into raw arrays."""
    if isinstance(index, tuple):
        return tuple(_plain_index(part) for part in index)
    return index.array if isinstance(index, Value) else index


def _along(shape: tuple[int, ...], dim: int, indices: Any) -> tuple[Any, ...]:
    """Return the index that takes element `indices` along `dim` (indices keep that axis, length 1)."""
    grid = list(np.ogrid[tuple(slice(n) for n in shape)])
    grid[dim] = indices
    return tuple(grid)


def _dims(dim: Any) -> Any:
    return tuple(dim) if isinstance(dim, list) else dim


def _shape(shape: tuple[Any, ...]) -> tuple[int, ...]:
    return tuple(shape[0]) if len(shape) == 1 and isinstance(shape[0], tuple | list) else shape
