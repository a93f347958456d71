"""Arrays that have a shape and a dtype, and no values: what a program would hold, without holding it.

An operation on them has the shape and the dtype that NumPy would give. Where a rule of shapes is short it is
written here; any other function of NumPy is run on stand-ins, arrays of zeros that take no memory, and its
result's shape is kept. There are no values: every question about them is answered with no, every number is 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple

__all__ = ["ShapeArray", "ShapeNamespace", "of", "stand_in"]


class ShapeArray:
    """A shape and a dtype, with the face of `numpy.ndarray`.

    Attributes:
        shape, dtype: what it has.
        base: the array whose memory it would share, or None.
    """

    __slots__ = ("__weakref__", "base", "dtype", "shape")
    __hash__ = None  # type: ignore[assignment]  # == is elementwise

    def __init__(self, shape: Any, dtype: Any, base: ShapeArray | None = None) -> None:
        self.shape: tuple[int, ...] = tuple(int(n) for n in shape)
        self.dtype = np.dtype(dtype)
        self.base: ShapeArray | None = base if base is None or base.base is None else base.base

    # ---- what it has ------------------------------------------------------------------------------------

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """The number of elements."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def itemsize(self) -> int:
        """Bytes of an element."""
        return int(self.dtype.itemsize)

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return self.size * self.itemsize

    @property
    def T(self) -> ShapeArray:  # noqa: N802 - NumPy's name
        """The axes reversed."""
        return ShapeArray(self.shape[::-1], self.dtype, self)

    def __len__(self) -> int:
        return self.shape[0]

    def __bool__(self) -> bool:
        return False

    def __float__(self) -> float:
        return 0.0

    def __int__(self) -> int:
        return 0

    def __index__(self) -> int:
        return 0

    def item(self, *_: Any) -> Any:
        """Return 0 (False for booleans)."""
        return self.dtype.type(0).item()

    def tolist(self) -> Any:
        """Return zeros."""
        return stand_in(self).tolist()

    # ---- NumPy's protocols ------------------------------------------------------------------------------

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        out = options.pop("out", None)
        if method == "__call__" and ufunc.signature is None and ufunc.nout == 1:
            made = _elementwise(ufunc, inputs, options)
        else:
            options.pop("where", None)
            made = of(getattr(ufunc, method)(*map(stand_in, inputs), **options))
        return made if out is None else out[0]

    def __array_function__(self, func: Any, _: Any, args: Any, options: Any) -> Any:
        rule = RULES.get(func.__name__)
        if rule is not None:
            return rule(*args, **options)
        out = options.pop("out", None)
        found = func(*_deep(stand_in, args), **{key: _deep(stand_in, each) for key, each in options.items()})
        return of(found) if out is None else out

    # ---- arithmetic -------------------------------------------------------------------------------------

    def __neg__(self) -> ShapeArray:
        return ShapeArray(self.shape, self.dtype)

    def __invert__(self) -> ShapeArray:
        return ShapeArray(self.shape, self.dtype)

    def __abs__(self) -> ShapeArray:
        return ShapeArray(self.shape, self.dtype)

    # ---- elements ---------------------------------------------------------------------------------------

    def __getitem__(self, index: Any) -> Any:
        found = stand_in(self)[_deep(stand_in, index)]
        basic = all(
            isinstance(part, slice | int | type(None) | type(...))
            for part in (index if isinstance(index, tuple) else (index,))
        )
        return ShapeArray(np.shape(found), self.dtype, self if basic else None)

    def __setitem__(self, index: Any, value: Any) -> None:
        """Write nothing: there are no values."""

    def reshape(self, *shape: Any, **_: Any) -> ShapeArray:
        """Return the same elements in another shape."""
        return ShapeArray(stand_in(self).reshape(*shape).shape, self.dtype, self)

    def transpose(self, *axes: Any) -> ShapeArray:
        """Return the axes in another order."""
        return ShapeArray(stand_in(self).transpose(*axes).shape, self.dtype, self)

    def swapaxes(self, a: int, b: int) -> ShapeArray:
        """Return the array with two axes exchanged."""
        return ShapeArray(stand_in(self).swapaxes(a, b).shape, self.dtype, self)

    def ravel(self) -> ShapeArray:
        """Return the elements in one row."""
        return ShapeArray((self.size,), self.dtype, self)

    def view(self, dtype: Any) -> ShapeArray:
        """Return the same memory, read as another dtype."""
        return ShapeArray(stand_in(self, whole=True).view(dtype).shape, dtype, self)

    def copy(self, *_: Any) -> ShapeArray:
        """Return an array of its own memory."""
        return ShapeArray(self.shape, self.dtype)

    def astype(self, dtype: Any, *_: Any, copy: bool = True, **__: Any) -> ShapeArray:
        """Return the array in another dtype."""
        return self if not copy and self.dtype == dtype else ShapeArray(self.shape, dtype)

    def setflags(self, *_: Any, **__: Any) -> None:
        """Do nothing: nobody can write here."""

    def __getattr__(self, name: str) -> Any:
        """Run any other method of an array on a stand-in."""
        method = getattr(stand_in(self), name)
        if not callable(method):
            return method
        if name in REDUCTIONS:
            return lambda *args, **options: RULES[name](self, *args, **options)
        return lambda *args, **options: of(method(*_deep(stand_in, args), **options))


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


def stand_in(x: Any, *, whole: bool = False) -> Any:
    """Return zeros of a shape and dtype that take no memory (unless `whole`); anything else as it is."""
    if not isinstance(x, ShapeArray):
        return x
    return np.zeros(x.shape, x.dtype) if whole else np.broadcast_to(np.zeros((), x.dtype), x.shape)


def of(x: Any) -> Any:
    """Return the shapes of arrays, also of those in tuples and lists; anything else as it is."""
    if isinstance(x, np.ndarray | np.generic):
        return ShapeArray(x.shape, x.dtype)
    return type(x)(of(each) for each in x) if type(x) in (tuple, list) else x


def _deep(change: Callable[[Any], Any], x: Any) -> Any:
    """Apply `change` to x, and to what is in lists and tuples."""
    return type(x)(_deep(change, each) for each in x) if type(x) in (tuple, list) else change(x)


def _elementwise(ufunc: np.ufunc, inputs: tuple[Any, ...], options: dict[str, Any]) -> ShapeArray:
    """The shapes broadcast; the dtype is what NumPy gives for single elements."""
    shape = np.broadcast_shapes(*(np.shape(stand_in(x)) for x in inputs))
    single = [np.zeros((), x.dtype) if hasattr(x, "dtype") else x for x in inputs]
    options = {key: each for key, each in options.items() if key != "where"}
    with np.errstate(all="ignore"):
        return ShapeArray(shape, np.asarray(ufunc(*single, **options)).dtype)


# ---- functions with a short rule ----------------------------------------------------------------------------

REDUCTIONS = frozenset(
    {"sum", "prod", "mean", "max", "min", "amax", "amin", "any", "all", "argmax", "argmin"}
)


def _reduced(name: str) -> Callable[..., ShapeArray]:
    def reduce(
        x: Any, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: Any = False, **_: Any
    ) -> Any:
        shape = np.shape(stand_in(x))
        axes = range(len(shape)) if axis is None else normalize_axis_tuple(axis, len(shape))
        kept = [1 if i in axes else n for i, n in enumerate(shape) if keepdims is True or i not in axes]
        if out is not None:
            return out
        one = getattr(np, name)(
            np.zeros((1,), stand_in(x).dtype), **({} if dtype is None else {"dtype": dtype})
        )
        return ShapeArray(kept, np.asarray(one).dtype)

    return reduce


def _where(condition: Any, *choices: Any) -> Any:
    if not choices:
        return tuple(ShapeArray((0,), np.int64) for _ in np.shape(stand_in(condition)))
    shape = np.broadcast_shapes(*(np.shape(stand_in(x)) for x in (condition, *choices)))
    single = [x if not hasattr(x, "dtype") else np.zeros((1,), x.dtype) for x in choices]
    return ShapeArray(shape, np.where(True, *single).dtype)


def _concatenate(arrays: Any, axis: int = 0, **_: Any) -> ShapeArray:
    shape = list(arrays[0].shape)
    shape[axis] = sum(each.shape[axis] for each in arrays)
    return ShapeArray(shape, np.result_type(*(each.dtype for each in arrays)))


def _like(x: Any, *fill: Any, dtype: Any = None, shape: Any = None, **_: Any) -> ShapeArray:
    del fill
    return ShapeArray(x.shape if shape is None else shape, x.dtype if dtype is None else dtype)


RULES: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        **{name: _reduced(name) for name in REDUCTIONS},
        "where": _where,
        "concatenate": _concatenate,
        "broadcast_to": lambda x, shape, **_: ShapeArray(shape, x.dtype, x),
        "copyto": lambda *_, **__: None,
        "zeros_like": _like, "ones_like": _like, "empty_like": _like, "full_like": _like,
        "dot": lambda a, b, **_: ShapeArray((*a.shape[:-1], *b.shape[1:]), np.result_type(a.dtype, b.dtype)),
        "reshape": lambda x, *shape, **_: x.reshape(*shape),
        "transpose": lambda x, axes=None: x.transpose(*(() if axes is None else (axes,))),
        "swapaxes": lambda x, a, b: x.swapaxes(a, b),
    }
)  # fmt: skip
"""Name of a function of NumPy -> the same on shapes."""


class ShapeNamespace:
    """NumPy, with new arrays made as shapes."""

    ndarray = ShapeArray
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
        return of(np.arange(*(int(each) for each in bounds), dtype=dtype))  # type: ignore[no-any-return]  # an array

    def asarray(self, x: Any, dtype: Any = None) -> Any:
        """Return a shape."""
        if isinstance(x, ShapeArray):
            return x if dtype is None else x.astype(dtype, copy=False)
        return of(np.asarray(x, dtype))

    array = ascontiguousarray = asarray
