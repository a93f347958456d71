"""The tensor: an array in a format, on a backend, with a place on the tape.

Every operator and method only names the op that does the work.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Self

import numpy as np

from minimp import formats, ops
from minimp.backend import default_backend, get_backend
from minimp.errors import DataError, FormatError, GradientError, MinimpError, ShapeError
from minimp.formats import Format
from minimp.policy import FLOATING
from minimp.tape import Array, Value, backward, gradients

__all__ = ["MaxResult", "Tensor", "from_dlpack", "grad", "tensor"]


class MaxResult(NamedTuple):
    """What `max(dim)` returns: the largest values, and their indices."""

    values: Tensor
    indices: Tensor


class Tensor(Value):
    """An n-dimensional array of one number format that can be differentiated through.

    Made by :func:`tensor` and by ops. Attributes: `.array` (the backend's raw array; the engine never
    changes one in place), `.format`, `.backend`, `.requires_grad`, `.grad`.
    """

    __slots__ = ()
    __array_priority__ = 1000
    __hash__ = object.__hash__

    # ---- what it is -------------------------------------------------------------------------------------

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return int(self.array.ndim)

    @property
    def size(self) -> int:
        """The number of elements."""
        return int(self.array.size)

    @property
    def nbytes(self) -> int:
        """Bytes of storage, in the tensor's own format."""
        return int(self.array.nbytes)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The NumPy dtype that stores it (for bfloat16, ml_dtypes' one)."""
        return self.array.dtype  # type: ignore[no-any-return]

    @property
    def is_leaf(self) -> bool:
        """Whether no recorded op made it."""
        return self.node is None

    @property
    def T(self) -> Tensor:  # noqa: N802 - NumPy's and torch's name
        """The tensor with its axes reversed."""
        return ops.permute(self, dims=tuple(range(self.ndim))[::-1])

    def dim(self) -> int:
        """Return the number of axes (torch)."""
        return self.ndim

    def numel(self) -> int:
        """Return the number of elements (torch)."""
        return self.size

    def __len__(self) -> int:
        if not self.ndim:
            raise ShapeError("a tensor with no axes has no length", help="use .item() for its value")
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        host = self._host() if self.format is None else self._host().astype(np.float64)
        values = np.array2string(host, separator=", ", prefix="tensor(", threshold=200, precision=5)
        parts = [values]
        if self.format is not formats.float32:
            parts.append(f"dtype={self.format.name if self.format else self.dtype.name}")
        if self.node is not None:
            parts.append(f"op={self.node.op.name}")
        elif self.requires_grad:
            parts.append("requires_grad=True")
        return f"tensor({', '.join(parts)})"

    # ---- the way out ------------------------------------------------------------------------------------

    def _host(self) -> np.ndarray[Any, Any]:
        return self.backend.to_host(self.array)

    def numpy(self) -> np.ndarray[Any, Any]:
        """Return the values as a NumPy array in the tensor's own dtype.

        On a host backend the array shares the tensor's memory: writing to it changes the tensor, and
        nothing that was recorded from it before.

        Raises:
            GradientError: the tensor is being recorded; write `.detach().numpy()`.
        """
        if self.requires_grad:
            raise GradientError("numpy() would leave the tape", help="write .detach().numpy()")
        self.array = self.backend.release(self.array)
        return self._host()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        return np.array(self._host(), dtype=dtype, copy=True if copy is None else copy)

    def __dlpack__(self, **options: Any) -> Any:
        """Export the memory by DLPack; bfloat16 as a tensor of its own type is refused by NumPy 2."""
        try:
            return self.numpy().__dlpack__(**options)
        except BufferError as fault:
            raise FormatError(
                f"NumPy cannot export {self.format} by DLPack: {fault}",
                help="export .float(), or the bits with .numpy().view('uint16')",
            ) from fault

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._host().__dlpack_device__()

    def item(self) -> Any:
        """Return the one element as a Python number.

        Raises:
            ShapeError: there is not exactly one.
        """
        if self.size != 1:
            raise ShapeError(f"item() needs exactly one element, this tensor has shape {self.shape}")
        return self.tolist() if not self.ndim else self.reshape(()).detach().tolist()

    def tolist(self) -> Any:
        """Return the values as nested lists of Python numbers."""
        return (self._host().astype(np.float64) if self.format else self._host()).tolist()

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __bool__(self) -> bool:
        return bool(self.item())

    def __index__(self) -> int:
        if self.format is not None:
            raise FormatError(f"only integers can index, not {self.format.name}")
        return int(self.item())

    # ---- formats and backends ---------------------------------------------------------------------------

    def to(self, target: Any = None, *, dtype: Any = None) -> Tensor:
        """Return the tensor in another format (a recorded cast), or on another backend.

        Args:
            target: a format in any spelling of `mp.formats.get`, or a backend's name.
            dtype: a format, by keyword.

        Raises:
            FormatError, SettingError: neither a format nor a backend.
        """
        wanted = target if dtype is None else dtype
        if isinstance(wanted, Value):
            wanted = wanted.format
        if isinstance(wanted, str) and not _is_format(wanted):
            backend = get_backend(wanted)
            if backend is self.backend:
                return self
            moved = Tensor(backend.from_host(self._host()), backend)
            moved.requires_grad = self.requires_grad
            return moved
        form = formats.get(wanted)
        self.backend.require(form)
        return self if form is self.format else ops.cast(self, format=form)

    def half(self) -> Tensor:
        """Return the tensor in float16."""
        return self.to(formats.float16)

    def bfloat16(self) -> Tensor:
        """Return the tensor in bfloat16."""
        return self.to(formats.bfloat16)

    def float(self) -> Tensor:
        """Return the tensor in float32."""
        return self.to(formats.float32)

    def double(self) -> Tensor:
        """Return the tensor in float64."""
        return self.to(formats.float64)

    # ---- the tape ---------------------------------------------------------------------------------------

    def backward(self, grad: Any = None, *, retain_graph: bool = False) -> None:
        """Add the gradient of this tensor to the `.grad` of every leaf it was computed from.

        Args:
            grad: the gradient of this tensor, of its shape; 1 for a tensor of one element.
            retain_graph: keep what was saved, so that backward can run again.

        Raises:
            GradientError: nothing to differentiate, or the tensor has several elements and no `grad`.
        """
        backward(self, _seed(self, grad), keep=retain_graph)

    def detach(self) -> Tensor:
        """Return the same values off the tape; the memory is shared."""
        return Tensor(self.array, self.backend)

    def clone(self) -> Tensor:
        """Return a copy; gradients pass through."""
        return ops.clone(self)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Ask for a gradient, or stop asking; only a leaf of a floating format can."""
        if self.node is not None:
            raise GradientError("only a leaf can change requires_grad", help="use .detach() first")
        if requires_grad and self.format not in FLOATING:
            raise GradientError(f"only floating tensors have gradients, not {self.dtype}")
        self.requires_grad = requires_grad
        return self

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

    def __eq__(self, other: object) -> Tensor:  # type: ignore[override]
        return ops.eq(self, other)

    def __ne__(self, other: object) -> Tensor:  # type: ignore[override]
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

    def amax(self, dim: Any = None, keepdim: bool = False) -> Tensor:
        """Return the largest element over `dim`; equal maxima share the gradient."""
        return ops.amax(self, dim=_dims(dim), keepdim=keepdim)

    def max(self, dim: int | None = None, keepdim: bool = False) -> Any:
        """Return the largest element; over `dim` (values, indices), the first maximum taking the gradient."""
        if dim is None:
            return ops.amax(self)
        indices = ops.argmax(self, dim=dim, keepdim=True)
        values = ops.getitem(self, index=_along(self.shape, dim, indices._host()))
        return MaxResult(values, indices) if keepdim else MaxResult(values.squeeze(dim), indices.squeeze(dim))

    def argmax(self, dim: int | None = None, keepdim: bool = False) -> Tensor:
        """Return the index of the largest element."""
        return ops.argmax(self, dim=dim, keepdim=keepdim)

    def isfinite(self) -> Tensor:
        """Return whether each element is finite."""
        return ops.isfinite(self)

    def all(self) -> Tensor:
        """Return whether every element is true."""
        return Tensor(self.backend.xp.asarray(self.array.all()), self.backend)

    def any(self) -> Tensor:
        """Return whether any element is true."""
        return Tensor(self.backend.xp.asarray(self.array.any()), self.backend)

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


Value.make = Tensor


def tensor(data: Any, dtype: Any = None, requires_grad: bool = False, backend: str | None = None) -> Tensor:
    """Make a leaf tensor from numbers, nested sequences or an array; the data is copied.

    Args:
        data: Python floats become float32, integers int64; arrays keep their dtype (torch.tensor).
        dtype: the format, in any spelling of `mp.formats.get`; each element is rounded once.
        requires_grad: whether backward gives it a `.grad`.
        backend: the name of a backend; None takes the one in force.

    Raises:
        DataError: ragged or non-numeric data.
        FormatError: a format that the backend has no storage for.
        GradientError: `requires_grad` on integers.
    """
    where = default_backend() if backend is None else get_backend(backend)
    made = _lift(data, where, as_given=dtype is not None)
    if dtype is not None:
        made = made.to(dtype).detach() if _is_format(dtype) else _as_integers(made, dtype)
    return made.requires_grad_() if requires_grad else made


def from_dlpack(x: Any) -> Tensor:
    """Take over the memory of an array of another library by DLPack, without a copy where it is on the host.

    Writing to the other array changes the tensor. bfloat16 cannot be exchanged this way (NumPy 2 has no word
    for it); exchange the bits as uint16.

    Raises:
        FormatError: the memory cannot be shared with the backend in force, or has no format here.
    """
    backend = default_backend()
    try:
        array = backend.xp.from_dlpack(x)
    except (BufferError, RuntimeError, TypeError, AttributeError) as fault:
        raise FormatError(f"cannot be taken over by DLPack: {fault}", op="from_dlpack") from fault
    made = Tensor(array, backend)
    if array.dtype.kind not in "fiub":
        raise FormatError(f"expected numbers, got {array.dtype}", op="from_dlpack")
    return made


def grad(
    outputs: Tensor, inputs: Sequence[Tensor] | Tensor, grad_outputs: Any = None, *,
    retain_graph: bool = False, allow_unused: bool = False,
) -> tuple[Tensor | None, ...]:  # fmt: skip
    """Return d(outputs)/d(inputs), one tensor per input, without touching any `.grad` (torch.autograd.grad).

    Args:
        outputs: the tensor to differentiate.
        inputs: one tensor or several.
        grad_outputs: its gradient; 1 for a tensor of one element.
        retain_graph: keep what was saved, so that backward can run again.
        allow_unused: give None, instead of an error, for an input that `outputs` does not depend on.

    Raises:
        GradientError: an input needs no gradient, or is not used.
    """
    wanted = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    for i, x in enumerate(wanted):
        if not x.requires_grad:
            raise GradientError(
                f"input {i} does not require a gradient", help="make it with requires_grad=True"
            )
    found = gradients(outputs, _seed(outputs, grad_outputs), wanted, keep=retain_graph)
    for i, array in enumerate(found):
        if array is None and not allow_unused:
            raise GradientError(f"the output does not depend on input {i}", help="pass allow_unused=True")
    return tuple(
        None if array is None else Tensor(array, x.backend) for array, x in zip(found, wanted, strict=True)
    )


def _lift(data: Any, backend: Any, *, as_given: bool = False) -> Tensor:
    """Copy plain data to a tensor on `backend` (None: the one in force).

    Python floats become float32; `as_given` keeps them in float64, for a cast that is to round them once.
    """
    if isinstance(data, Tensor):
        return Tensor(data.array, data.backend)
    backend = default_backend() if backend is None else backend
    if isinstance(data, backend.xp.ndarray) and not isinstance(data, np.ndarray):
        return Tensor(data.copy(), backend)
    try:
        host = np.asarray(data)
    except (ValueError, TypeError) as fault:
        raise DataError(f"not an array of numbers: {fault}", help="rows must have equal lengths") from fault
    if not as_given and not isinstance(data, np.ndarray | np.generic) and host.dtype == np.float64:
        with np.errstate(over="ignore"):  # a number beyond float32 is infinite there
            host = host.astype(np.float32)
    if host.dtype.kind not in "fiubV" or (host.dtype.kind == "V" and host.dtype.fields):
        raise DataError(f"not an array of numbers, but of {host.dtype}", help="convert it to float32 first")
    if not host.dtype.isnative:
        host = host.astype(host.dtype.newbyteorder("="))
    made = Tensor(backend.from_host(host), backend)
    if host.dtype.kind in "fV":
        backend.require(formats.get(host.dtype))
    return made


Value.lift = staticmethod(_lift)


def _seed(output: Tensor, given: Any) -> Array:
    """Return the gradient that backward starts from, in the output's shape and format."""
    backend = output.backend
    if given is None:
        if output.size != 1:
            raise GradientError(
                f"backward needs a gradient for an output of shape {output.shape}",
                help="reduce it to one element with .sum() or .mean(), or pass grad=",
            )
        return backend.xp.ones(output.shape, output.dtype)
    array = given.array if isinstance(given, Tensor) else _lift(given, backend).array
    if array.shape != output.shape:
        raise ShapeError(f"expected a gradient of shape {output.shape}, got {array.shape}", op="backward")
    return backend.cast(array, output.format)


def _is_format(spelling: Any) -> bool:
    try:
        formats.get(spelling)
    except MinimpError:
        return False
    return True


def _as_integers(made: Tensor, dtype: Any) -> Tensor:
    """Convert to an integer or boolean dtype, which is no Format."""
    try:
        plain = np.dtype(dtype)
    except TypeError:
        plain = None
    if plain is None or plain.kind not in "iub":
        formats.get(dtype)  # raises, with the nearest name
    return Tensor(made.array.astype(plain), made.backend)


def _format(dtype: Any) -> Format | None:
    return None if dtype is None else formats.get(dtype)


def _plain_index(index: Any) -> Any:
    """Turn tensors inside an index into raw arrays."""
    if isinstance(index, tuple):
        return tuple(_plain_index(part) for part in index)
    return index.array if isinstance(index, Tensor) else index


def _along(shape: tuple[int, ...], dim: int, indices: Any) -> tuple[Any, ...]:
    """Return the index that takes element `indices` along `dim` (indices keep that axis, length 1)."""
    grid = list(np.ogrid[tuple(slice(n) for n in shape)])
    grid[dim] = indices
    return tuple(grid)


def _dims(dim: Any) -> Any:
    return tuple(dim) if isinstance(dim, list) else dim


def _shape(shape: tuple[Any, ...]) -> tuple[int, ...]:
    return tuple(shape[0]) if len(shape) == 1 and isinstance(shape[0], tuple | list) else shape
