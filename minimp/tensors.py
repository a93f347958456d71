"""The tensor: an array in a format, on a backend, with a place on the tape.

What can be written with it (`+`, `@`, `.sum()`, `[...]`) is in :mod:`minimp.operators`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any, Self

import numpy as np

from minimp import formats, ops
from minimp.backend import default_backend, get_backend, refuse_another_device
from minimp.differentiation import register_hook, retain_grad, run_backward
from minimp.errors import DataError, DeviceError, FormatError, GradientError, MinimpError, ShapeError
from minimp.handles import RemovableHandle
from minimp.operators import Operators, einops_backend
from minimp.policy import FLOATING
from minimp.tape import Value
from minimp.tape.scales import PLAIN, mark, mark_of, shown

__all__ = ["Tensor", "from_dlpack", "tensor"]


class Tensor(Operators):
    """An n-dimensional array of one number format that can be differentiated through.

    Made by :func:`tensor` and by ops. Attributes: `.array` (the backend's raw array; the engine never
    changes one in place), `.format`, `.backend`, `.requires_grad`, `.grad`.
    """

    __slots__ = ()

    # ---- what it is -------------------------------------------------------------------------------------

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
        return self.array.dtype  # type: ignore[no-any-return]  # arrays have no type here

    @property
    def is_leaf(self) -> bool:
        """Whether no recorded op made it."""
        return self.node is None

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
        return f"tensor({', '.join([*parts, *_scale_shown(self)])})"

    def _repr_html_(self) -> str:
        from minimp.displays import tensor_html  # only notebooks ask

        return tensor_html(self, _scale_shown(self))

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
        if not isinstance(self.array, np.ndarray | np.generic):
            raise DeviceError(
                f"a tensor on the {self.backend.name} backend does not become a NumPy array by itself: "
                "the host would wait for the device, and copy",
                help="ask for it: .numpy(), or .detach().numpy() of a tensor that requires a gradient",
            )
        return np.array(self._host(), dtype=dtype, copy=True if copy is None else copy)

    def __dlpack__(self, **options: Any) -> Any:
        """Export the memory by DLPack, where it is; bfloat16 as a type of its own is refused by NumPy 2."""
        shared = self.numpy() if isinstance(self.array, np.ndarray | np.generic) else self._shared()
        try:
            return shared.__dlpack__(**options)
        except BufferError as fault:
            raise FormatError(
                f"the {self.backend.name} backend cannot export {self.format} by DLPack: {fault}",
                help="export .float(), or the bits with .numpy().view('uint16')"
                if self.format is formats.bfloat16
                else "export .numpy(), which is on the host",
            ) from fault

    def __dlpack_device__(self) -> tuple[int, int]:
        held: Any = np.asarray(self.array) if isinstance(self.array, np.generic) else self.array
        return held.__dlpack_device__()  # type: ignore[no-any-return]  # arrays have no type here

    def _shared(self) -> Any:
        """Return the device's array, as :meth:`numpy` returns the host's."""
        if self.requires_grad:
            raise GradientError("__dlpack__ would leave the tape", help="write .detach()")
        self.array = self.backend.release(self.array)
        return self.array

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

    def backward(
        self, grad: Any = None, *, retain_graph: bool | None = None, create_graph: bool = False
    ) -> None:
        """Add the gradient of this tensor to the `.grad` of every leaf it was computed from.

        Args:
            grad: the gradient of this tensor, of its shape; 1 for a tensor of one element.
            retain_graph: keep what was saved, so that backward can run again; None does so with
                `create_graph`.
            create_graph: record the gradients, so that they can be differentiated again. Each `.grad` then
                holds on to the graph it came from, until it is set to None.

        Raises:
            GradientError: nothing to differentiate, or the tensor has several elements and no `grad`; or,
                with `create_graph`, an op has no second derivative.
        """
        run_backward(self, grad, retain_graph=retain_graph, create_graph=create_graph)

    def register_hook(self, hook: Callable[[Tensor], Tensor | None]) -> RemovableHandle:
        """Call `hook` with the gradient of this tensor whenever it is computed, before it goes on.

        Under loss scaling the gradient is a scaled one. What the hook returns, if it is not None, takes the
        gradient's place; it must have its shape and format.

        Returns:
            A handle with `remove()`, also a context manager.

        Raises:
            GradientError: the tensor requires no gradient; later, from backward: the hook returned something
                else.
        """
        return register_hook(self, hook)

    def retain_grad(self) -> None:
        """Give this tensor a `.grad` too, although it is no leaf.

        Raises:
            GradientError: the tensor requires no gradient.
        """
        retain_grad(self)

    def detach(self) -> Tensor:
        """Return the same values off the tape; the memory is shared."""
        return Tensor(self.array, self.backend)

    def clone(self) -> Tensor:
        """Return a copy; gradients pass through."""
        return ops.clone(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        """Copy a leaf with its memory and its gradient (torch refuses other tensors too)."""
        if self.node is not None:
            raise GradientError("only a leaf can be copied with copy.deepcopy", help="write .clone()")
        copied = Tensor(self.array.copy(), self.backend)
        copied.requires_grad = self.requires_grad
        copied.grad = None if self.grad is None else Tensor(self.grad.array.copy(), self.backend)
        if copied.grad is not None:
            mark(copied.grad, mark_of(self.grad))
        memo[id(self)] = copied
        return copied

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Ask for a gradient, or stop asking; only a leaf of a floating format can."""
        if self.node is not None:
            raise GradientError("only a leaf can change requires_grad", help="use .detach() first")
        if requires_grad and self.format not in FLOATING:
            raise GradientError(f"only floating tensors have gradients, not {self.dtype}")
        self.requires_grad = requires_grad
        return self


Value.make = Tensor


def _scale_shown(gradient: Tensor) -> list[str]:
    """Return what is to be said of a gradient that carries a loss scale, or several."""
    carried = mark_of(gradient)
    if carried is None or carried.factors == PLAIN.factors:
        return []
    return ["scale=" + " and ".join(map(shown, sorted(carried.factors)))]


def tensor(data: Any, dtype: Any = None, requires_grad: bool = False, backend: str | None = None) -> Tensor:
    """Make a leaf tensor from numbers, nested sequences or an array; the data is copied.

    Args:
        data: Python floats become float32, integers int64; arrays keep their dtype (torch.tensor).
        dtype: the format, in any spelling of `mp.formats.get`; each element is rounded once.
        requires_grad: whether backward gives it a `.grad`.
        backend: the name of a backend; None takes the one in force, and leaves a tensor where it is.

    Raises:
        DataError: ragged or non-numeric data; DeviceError: an array of another device.
        FormatError: a format that the backend has no storage for.
        GradientError: `requires_grad` on integers.
    """
    if "einops" in sys.modules:  # imported after us: it shall know tensors from here on
        einops_backend.register()
    where = default_backend() if backend is None else get_backend(backend)
    made = _lift(data, where, as_given=dtype is not None)
    if backend is not None and made.backend is not where:  # a tensor, from another one
        made = made.to(backend)
    if dtype is not None:
        made = made.to(dtype).detach() if _is_format(dtype) else _as_integers(made, dtype)
    return made.requires_grad_() if requires_grad else made


def from_dlpack(x: Any) -> Tensor:
    """Take over the memory of an array of another library by DLPack, without a copy where it is on the host.

    Writing to the other array changes the tensor. bfloat16 can be exchanged between devices, not on the
    host (NumPy 2 has no word for it): exchange its bits as uint16 there.

    Raises:
        FormatError: the memory cannot be shared with the backend in force (it is on another device, say), or
            has no format here.
        GradientError: a tensor that requires a gradient, which would leave the tape.
    """
    backend = default_backend()
    try:
        array = backend.xp.from_dlpack(x)
    except MinimpError:  # a tensor says itself why it is not given away
        raise
    except (BufferError, RuntimeError, TypeError, ValueError, AttributeError) as fault:  # whatever xp raises
        raise FormatError(
            f"the {backend.name} backend cannot take it over by DLPack: {fault}", op="from_dlpack",
            help="mp.tensor copies arrays, mp.from_torch copies torch's, both to the backend in force",
        ) from fault  # fmt: skip
    made = Tensor(array, backend)
    if array.dtype.kind not in "fiub" and array.dtype != formats.bfloat16.dtype:
        raise FormatError(f"expected numbers, got {array.dtype}", op="from_dlpack")
    return made


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
    except MinimpError:  # codes say themselves that they are no numbers
        raise
    except (ValueError, TypeError) as fault:
        refuse_another_device(data, backend)
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
