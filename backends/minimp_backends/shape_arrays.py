"""Arrays that have a shape and a dtype, and no values: what a program would hold, without holding it.

An operation on them has the shape, the dtype and the order in memory that NumPy would give. Functions of
NumPy on them are in :mod:`minimp_backends.shape_functions`. Questions about values have no answer: a number
that is asked for is NaN, and integers or whole arrays raise; truth is no, as where faults are looked for.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from minimp.errors import DeviceError
from minimp_backends.shape_functions import REDUCTIONS, RULES, Laid, elementwise, recast
from minimp_backends.shape_layouts import contiguous, ghost, regrouped

__all__ = ["NoNumbers", "ShapeArray", "ShapeNamespace", "no_values", "of", "stand_in"]

BASIC = (slice, int, np.integer, type(None), type(...))
"""What an index of views is made of."""
BOOL = np.dtype(bool)


class ShapeArray:
    """A shape and a dtype, with the face of `numpy.ndarray`.

    Attributes:
        shape, dtype, strides: what it has.
        base: the array whose memory it would share, or None.
    """

    __slots__ = ("__weakref__", "base", "dtype", "shape", "strides")
    __hash__ = None  # type: ignore[assignment]  # == is elementwise

    def __init__(self, shape: Any, dtype: Any, base: ShapeArray | None = None, strides: Any = None) -> None:
        self.shape: tuple[int, ...] = tuple(int(n) for n in shape)
        self.dtype = np.dtype(dtype)
        self.strides: tuple[int, ...] = (
            contiguous(self.shape, self.dtype.itemsize) if strides is None else tuple(strides)
        )
        self.base: ShapeArray | None = base if base is None or base.base is None else base.base

    # ---- what it has ------------------------------------------------------------------------------------

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    @property
    def itemsize(self) -> int:
        """Bytes of an element."""
        return int(self.dtype.itemsize)

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return self.size * self.itemsize

    @property
    def flags(self) -> Any:
        """How it lies in memory."""
        return self.ghost().flags

    @property
    def T(self) -> ShapeArray:  # noqa: N802 - NumPy's name
        """The axes reversed."""
        return self.transpose()

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"ShapeArray({self.shape}, {self.dtype.name})"

    # ---- values: there are none -------------------------------------------------------------------------

    def __bool__(self) -> bool:
        return False

    def __float__(self) -> float:
        return math.nan

    def __int__(self) -> int:
        raise no_values(self)

    __index__ = __int__

    def item(self, *_: Any) -> Any:
        """Return NaN, and False for booleans.

        Raises:
            DeviceError: it is an integer.
        """
        return {"b": bool, "f": float, "V": float}.get(self.dtype.kind, int)(self)

    def tolist(self) -> Any:
        """Return NaN for a single float.

        Raises:
            DeviceError: for anything else.
        """
        if self.shape:
            raise no_values(self)
        return self.item()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        raise no_values(self)

    # ---- NumPy's protocols ------------------------------------------------------------------------------

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        out = options.pop("out", None)
        if method == "__call__" and ufunc.signature is None and ufunc.nout == 1:
            made = _made(elementwise(ufunc, inputs, options)) if out is None else None
        else:
            options.pop("where", None)
            made = of(getattr(ufunc, method)(*map(stand_in, inputs), **options))
        return made if out is None else out[0]

    def __array_function__(self, func: Any, _: Any, args: Any, options: Any) -> Any:
        rule = RULES.get(func.__name__)
        if rule is not None:
            made = rule(*args, **options)
            return _made(made) if isinstance(made, Laid) else made
        out = options.pop("out", None)
        found = func(*_deep(stand_in, args), **{key: _deep(stand_in, each) for key, each in options.items()})
        return of(found) if out is None else out

    # ---- arithmetic -------------------------------------------------------------------------------------

    def __neg__(self) -> Any:
        return np.negative(self)

    def __invert__(self) -> Any:
        return np.invert(self)

    def __abs__(self) -> Any:
        return np.absolute(self)

    # ---- elements ---------------------------------------------------------------------------------------

    def __getitem__(self, index: Any) -> Any:
        parts = index if isinstance(index, tuple) else (index,)
        if all(isinstance(part, BASIC) and not isinstance(part, bool) for part in parts):
            return self._as_view(self.ghost()[index])
        if any(getattr(part, "dtype", None) == BOOL for part in parts):
            raise DeviceError(
                f"{self!r} under a mask: its shape depends on values, which the shapes backend has not",
                help="write it with where(), or compute on the backend 'numpy'",
            )
        return ShapeArray(stand_in(self)[_deep(stand_in, index)].shape, self.dtype)

    def __setitem__(self, index: Any, value: Any) -> None:
        """Write nothing: there are no values."""

    def reshape(self, *shape: Any, **_: Any) -> ShapeArray:
        """Return the same elements in another shape: a view where NumPy gives one."""
        wanted = stand_in(self).reshape(*shape).shape
        strides = regrouped(self.shape, self.strides, wanted, self.itemsize)
        return ShapeArray(wanted, self.dtype, None if strides is None else self, strides)

    def transpose(self, *axes: Any) -> ShapeArray:
        """Return the axes in another order."""
        return self._as_view(self.ghost().transpose(*axes))

    def swapaxes(self, a: int, b: int) -> ShapeArray:
        """Return the array with two axes exchanged."""
        return self._as_view(self.ghost().swapaxes(a, b))

    def squeeze(self, axis: Any = None) -> ShapeArray:
        """Return the array without axes of one element."""
        return self._as_view(self.ghost().squeeze(axis))

    def broadcast_to(self, shape: Any) -> ShapeArray:
        """Return the array repeated along axes."""
        return self._as_view(np.broadcast_to(self.ghost(), shape))

    def ravel(self) -> ShapeArray:
        """Return the elements in one row."""
        return self.reshape(-1)

    def flatten(self) -> ShapeArray:
        """Return the elements in one row, in memory of their own."""
        return ShapeArray((self.size,), self.dtype)

    def view(self, dtype: Any) -> ShapeArray:
        """Return the same memory, read as another dtype."""
        wanted = np.dtype(dtype)
        if wanted.itemsize == self.itemsize:
            return ShapeArray(self.shape, wanted, self, self.strides)
        length = self.shape[-1] * self.itemsize // wanted.itemsize
        return ShapeArray((*self.shape[:-1], length), wanted, self)

    def copy(self, *_: Any) -> ShapeArray:
        """Return an array of its own memory, in C order."""
        return ShapeArray(self.shape, self.dtype)

    def astype(self, dtype: Any, *_: Any, copy: bool = True, **__: Any) -> ShapeArray:
        """Return the array in another dtype, its axes in the order that they lie in."""
        if not copy and self.dtype == dtype:
            return self
        return _made(recast(self, dtype))

    def setflags(self, *_: Any, **__: Any) -> None:
        """Do nothing: nobody can write here."""

    def ghost(self) -> np.ndarray[Any, Any]:
        """Return an array of this layout that is never to be read."""
        return ghost(self.shape, self.strides, self.dtype)

    def _as_view(self, found: np.ndarray[Any, Any]) -> ShapeArray:
        return ShapeArray(found.shape, self.dtype, self, found.strides)

    def __getattr__(self, name: str) -> Any:
        """Run any other method of an array on a stand-in."""
        if name.startswith("__"):  # NumPy would look for values there
            raise AttributeError(name)
        method = getattr(stand_in(self), name)
        if not callable(method):
            return method
        if name in REDUCTIONS:
            return lambda *args, **options: getattr(np, name)(self, *args, **options)
        return lambda *args, **options: of(method(*_deep(stand_in, args), **options))


def _made(laid: Laid) -> ShapeArray:
    return ShapeArray(laid.shape, laid.dtype, None, laid.strides)


def no_values(array: ShapeArray) -> DeviceError:
    """Return the error of a question about values."""
    return DeviceError(
        f"a tensor of the shapes backend has no values, only shape {array.shape} and {array.dtype.name}",
        help="count with it (mp.memory.forecast), or compute on the backend 'numpy'",
    )


def _binary(ufunc: np.ufunc, swapped: bool) -> Callable[[ShapeArray, Any], Any]:
    def operate(self: ShapeArray, other: Any) -> Any:
        return ufunc(other, self) if swapped else ufunc(self, other)

    return operate


for _name, _ufunc in {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "truediv": np.true_divide, "pow": np.power,
    "floordiv": np.floor_divide, "mod": np.remainder, "matmul": np.matmul, "and": np.bitwise_and,
    "or": np.bitwise_or, "xor": np.bitwise_xor, "lshift": np.left_shift, "rshift": np.right_shift,
}.items():  # fmt: skip
    setattr(ShapeArray, f"__{_name}__", _binary(_ufunc, swapped=False))
    setattr(ShapeArray, f"__r{_name}__", _binary(_ufunc, swapped=True))
    setattr(ShapeArray, f"__i{_name}__", lambda self, _: self)
for _name, _ufunc in {
    "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater,
    "ge": np.greater_equal,
}.items():  # fmt: skip
    setattr(ShapeArray, f"__{_name}__", _binary(_ufunc, swapped=False))


# ---- stand-ins --------------------------------------------------------------------------------------------


def stand_in(x: Any) -> Any:
    """Return zeros of a shape and dtype that take no memory; anything else as it is."""
    return np.broadcast_to(np.zeros((), x.dtype), x.shape) if isinstance(x, ShapeArray) else x


def of(x: Any) -> Any:
    """Return the shapes of arrays, also of those in tuples and lists; anything else as it is."""
    if isinstance(x, np.ndarray | np.generic):
        return ShapeArray(x.shape, x.dtype)
    return type(x)(of(each) for each in x) if type(x) in (tuple, list) else x


def _deep(change: Callable[[Any], Any], x: Any) -> Any:
    """Apply `change` to x, and to what is in lists and tuples."""
    return type(x)(_deep(change, each) for each in x) if type(x) in (tuple, list) else change(x)


class NoNumbers:
    """A generator of random numbers without numbers: shapes of what would be drawn."""

    def random(self, size: Any = (), dtype: Any = np.float64, **_: Any) -> ShapeArray:
        """Return the shape of numbers."""
        return ShapeArray((size,) if isinstance(size, int | np.integer) else size, dtype)

    def normal(self, loc: Any = 0.0, scale: Any = 1.0, size: Any = ()) -> ShapeArray:
        """Return the shape of numbers."""
        del loc, scale
        return self.random(size)

    uniform = normal

    def integers(self, low: Any, high: Any = None, size: Any = (), dtype: Any = np.int64) -> ShapeArray:
        """Return the shape of whole numbers."""
        del low, high
        return self.random(size, dtype)

    def standard_normal(self, size: Any = (), dtype: Any = np.float64) -> ShapeArray:
        """Return the shape of numbers."""
        return self.random(size, dtype)


class ShapeNamespace:
    """NumPy, with new arrays made as shapes."""

    ndarray = ShapeArray
    random = NoNumbers()
    __name__ = "numpy"
    __version__ = np.__version__

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)

    def zeros(self, shape: Any, dtype: Any = np.float64, **_: Any) -> ShapeArray:
        """Return a shape."""
        return ShapeArray((shape,) if isinstance(shape, int | np.integer) else shape, dtype)

    ones = empty = zeros

    def full(self, shape: Any, value: Any, dtype: Any = None, **_: Any) -> ShapeArray:
        """Return a shape."""
        return self.zeros(shape, np.asarray(value).dtype if dtype is None else dtype)

    def arange(self, *bounds: Any, dtype: Any = None) -> ShapeArray:
        """Return the shape of a range."""
        return ShapeArray((len(range(*(int(each) for each in bounds))),), np.arange(0, dtype=dtype).dtype)

    def asarray(self, x: Any, dtype: Any = None, order: Any = None) -> Any:
        """Return a shape."""
        if not isinstance(x, ShapeArray):
            return of(np.asarray(x, dtype))
        made = x if dtype is None else x.astype(dtype, copy=False)
        return made.copy() if order == "C" and not made.flags.c_contiguous else made

    def ascontiguousarray(self, x: Any, dtype: Any = None) -> Any:
        """Return a shape in C order."""
        return self.asarray(x, dtype, "C")

    def array(self, x: Any, dtype: Any = None, **_: Any) -> Any:
        """Return a shape with memory of its own."""
        return self.asarray(x, dtype).copy()
