"""The arrays of the strict device: an ndarray that nobody may reach without saying so.

A StrictArray has the attributes and methods of `cupy.ndarray` and no others, and refuses what that refuses:
to become a host array by itself, to be mixed with host arrays or lists, to be given to NumPy's functions
(there CuPy is laxer). Reading a value makes the host wait for the device, and is counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, ClassVar, NoReturn, Self
from weakref import WeakValueDictionary

import numpy as np

from minimp_backends.strict import methods
from minimp_backends.strict.calls import check_dtype, held_of, wrap
from minimp_backends.strict.counts import DEVICE
from minimp_backends.strict.indexing import read_at, write_at
from minimp_backends.strict.naming import METHODS, names_of

__all__ = ["StrictArray"]

Held = np.ndarray[Any, Any]
NUMBERS = (int, float, complex, np.generic)

OWNERS: WeakValueDictionary[int, StrictArray] = WeakValueDictionary()
"""id of an ndarray that owns its memory -> the array that holds it: views of one memory have one `base`."""


class StrictArray:
    """An array of the strict device."""

    __slots__ = ("__weakref__", "_held")
    __array_priority__ = 100
    __hash__: ClassVar[None] = None  # type: ignore[assignment]  # as CuPy's

    _held: Held

    def __init__(self, shape: Any, dtype: Any = float, **_: Any) -> None:
        self._held = np.empty(shape, check_dtype(dtype))
        OWNERS[id(self._held)] = self
        DEVICE.allocated(self._held)

    @classmethod
    def _of(cls, held: Held) -> Self:
        """Make one of numbers that exist."""
        made = object.__new__(cls)
        made._held = held
        if held.base is None:
            OWNERS.setdefault(id(held), made)
        return made

    # ---- what it is -------------------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, ...]:
        """The length of each axis."""
        return tuple(self._held.shape)

    @property
    def dtype(self) -> Any:
        """The dtype of the elements."""
        return self._held.dtype

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return self._held.ndim

    @property
    def size(self) -> int:
        """The number of elements."""
        return self._held.size

    @property
    def itemsize(self) -> int:
        """The bytes of an element."""
        return self._held.itemsize

    @property
    def nbytes(self) -> int:
        """The bytes of all elements."""
        return self._held.nbytes

    @property
    def strides(self) -> tuple[int, ...]:
        """The bytes from one element to the next, along each axis."""
        return self._held.strides

    @property
    def data(self) -> Any:
        """Where it lies in the memory of the device: an address, as `ptr`."""
        return SimpleNamespace(ptr=int(self._held.ctypes.data))

    @property
    def flags(self) -> Any:
        """How it lies in memory; there is no flag against writing."""
        flags = self._held.flags
        return SimpleNamespace(
            c_contiguous=flags.c_contiguous, f_contiguous=flags.f_contiguous, owndata=flags.owndata
        )

    @property
    def base(self) -> StrictArray | None:
        """The array that it looks into, or None."""
        held = self._held.base
        if not isinstance(held, np.ndarray):
            return None
        known = OWNERS.get(id(held))  # what holds an ndarray keeps it alive: no other has its id
        return StrictArray._of(held) if known is None else known

    @property
    def T(self) -> StrictArray:  # noqa: N802 - CuPy's name
        """The transposed view."""
        return StrictArray._of(self._held.T)

    @property
    def mT(self) -> StrictArray:  # noqa: N802 - CuPy's name
        """The view with the last two axes exchanged."""
        return StrictArray._of(self._held.swapaxes(-1, -2))

    @property
    def real(self) -> StrictArray:
        """The real part."""
        return StrictArray._of(self._held.real)

    def __len__(self) -> int:
        return len(self._held)

    # ---- what it refuses --------------------------------------------------------------------------------

    def __array__(self, dtype: Any = None, copy: Any = None) -> NoReturn:
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. "
            "Please use `.get()` to construct a NumPy array explicitly."
        )

    def __array_function__(self, function: Any, types: Any, args: Any, options: Any) -> NoReturn:
        raise TypeError(
            f"numpy.{function.__name__} was given a device array; call the function of that name in the "
            f"backend's xp"
        )

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        if method != "__call__":
            return NotImplemented
        name = {"absolute": "abs"}.get(ufunc.__name__, ufunc.__name__)
        if "out" in options:  # NumPy hands it on as a tuple
            out = options.pop("out")
            options["out"] = out[0] if len(out) == 1 else out
        return methods.call_ufunc(name, ufunc, inputs, options)

    def __dlpack__(self, **_: Any) -> NoReturn:
        raise BufferError("the strict device shares its memory with nobody")

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, 0  # CUDA's number, as the real one says

    def __cupy_override_elementwise_kernel__(self, kernel: Any, *args: Any, **options: Any) -> Any:
        """Answer a real CuPy function that was given this array."""
        return methods.call_real_ufunc(kernel, args, options)

    # ---- what makes the host wait -----------------------------------------------------------------------

    def get(self, stream: Any = None, order: str = "C", out: Any = None, blocking: bool = True) -> Held:
        """Return a copy on the host."""
        del stream, order, out, blocking
        return DEVICE.read(self._held)

    def item(self, *at: int) -> Any:
        """Return one element as a Python number."""
        return DEVICE.read(self._held).item(*at)

    def tolist(self) -> Any:
        """Return nested lists of Python numbers."""
        return DEVICE.read(self._held).tolist()

    def tobytes(self, order: Any = "C") -> bytes:
        """Return the bytes."""
        return DEVICE.read(self._held).tobytes(order)

    def __bool__(self) -> bool:
        return bool(DEVICE.read(self._held))

    def __int__(self) -> int:
        return int(DEVICE.read(self._held))

    def __float__(self) -> float:
        return float(DEVICE.read(self._held))

    def __complex__(self) -> complex:
        return complex(DEVICE.read(self._held))

    def __repr__(self) -> str:
        return repr(DEVICE.read(self._held))

    def __str__(self) -> str:
        return str(DEVICE.read(self._held))

    def __format__(self, spec: str) -> str:
        return format(DEVICE.read(self._held), spec)

    def __reduce__(self) -> Any:
        return _from_numbers, (DEVICE.read(self._held),)

    # ---- elements ---------------------------------------------------------------------------------------

    def __getitem__(self, index: Any) -> Any:
        return read_at(self._held, index)

    def __setitem__(self, index: Any, value: Any) -> None:
        write_at(self._held, index, value)

    def __iter__(self) -> Iterator[Any]:
        if not self.ndim:
            raise TypeError("iteration over a 0-d array")
        return (self[i] for i in range(len(self)))

    def set(self, array: Held, stream: Any = None) -> None:
        """Copy a host array of the shape and dtype into this one."""
        del stream
        if array.shape != self.shape or array.dtype != self.dtype:
            raise ValueError(f"expected {self.dtype} of {self.shape}, got {array.dtype} of {array.shape}")
        DEVICE.count(to_device=1, to_device_bytes=array.nbytes)
        self._held[...] = array

    def __copy__(self) -> Any:
        return wrap(self._held.copy())

    def __deepcopy__(self, memo: Any) -> Any:
        return wrap(self._held.copy())


def _from_numbers(numbers: Held) -> StrictArray:
    DEVICE.count(to_device=1, to_device_bytes=numbers.nbytes)
    made: StrictArray = wrap(numbers)
    return made


# ---- operators and methods, by their names ---------------------------------------------------------------


def _mixes(array: StrictArray, other: Any) -> bool:
    """Whether an operator takes it, or must leave it to the other's own.

    CuPy leaves to it what says so, by ``__array_ufunc__ = None`` or a larger ``__array_priority__``.

    Raises:
        TypeError: a host array, a list, or an object that says nothing: its own operator is never asked.
    """
    if isinstance(other, NUMBERS) or held_of(other) is not None:
        return True
    says = getattr(other, "__array_ufunc__", array)
    larger = getattr(other, "__array_priority__", 0) > array.__array_priority__
    if says is None or (says is array and larger):
        return False
    raise TypeError(f"Unsupported type {type(other)}")


def _binary(ufunc: str) -> Callable[[StrictArray, Any], Any]:
    def apply(self: StrictArray, other: Any) -> Any:
        return methods.call(ufunc, self, other) if _mixes(self, other) else NotImplemented

    return apply


def _reflected(ufunc: str) -> Callable[[StrictArray, Any], Any]:
    def apply(self: StrictArray, other: Any) -> Any:
        return methods.call(ufunc, other, self) if _mixes(self, other) else NotImplemented

    return apply


def _in_place(ufunc: str) -> Callable[[StrictArray, Any], Any]:
    def apply(self: StrictArray, other: Any) -> Any:
        return methods.call(ufunc, self, other, out=self) if _mixes(self, other) else NotImplemented

    return apply


def _unary(ufunc: str) -> Callable[[StrictArray], Any]:
    return lambda self: methods.call(ufunc, self)


ARITHMETIC = {
    "add": "add", "sub": "subtract", "mul": "multiply", "truediv": "true_divide", "pow": "power",
    "floordiv": "floor_divide", "mod": "remainder", "and": "bitwise_and", "or": "bitwise_or",
    "xor": "bitwise_xor", "divmod": "divmod", "lshift": "left_shift", "rshift": "right_shift",
    "matmul": "matmul",
}  # fmt: skip
COMPARISONS = {
    "eq": "equal", "ne": "not_equal", "lt": "less", "le": "less_equal", "gt": "greater", "ge": "greater_equal"
}  # fmt: skip
UNARY = {"neg": "negative", "pos": "positive", "abs": "abs", "invert": "invert"}

for _name, _ufunc in ARITHMETIC.items():
    setattr(StrictArray, f"__{_name}__", _binary(_ufunc))
    setattr(StrictArray, f"__r{_name}__", _reflected(_ufunc))
    if _name not in ("matmul", "divmod"):
        setattr(StrictArray, f"__i{_name}__", _in_place(_ufunc))
for _name, _ufunc in COMPARISONS.items():
    setattr(StrictArray, f"__{_name}__", _binary(_ufunc))
for _name, _ufunc in UNARY.items():
    setattr(StrictArray, f"__{_name}__", _unary(_ufunc))
for _name, _callee in names_of(METHODS).items():
    if _callee.kind == "method" and not hasattr(StrictArray, _name):
        setattr(StrictArray, _name, methods.method(_name, _callee))
