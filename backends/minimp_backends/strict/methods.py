"""The functions of the strict device: NumPy's, called as CuPy's, and the few that differ."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minimp import formats
from minimp_backends.strict.calls import check_call, check_dtype, held_of, run, settle, unwrapped, wrap
from minimp_backends.strict.counts import DEVICE
from minimp_backends.strict.indexing import read_at, write_at
from minimp_backends.strict.naming import Callee, names_of

__all__ = ["DIFFERENT", "SYNCING", "call", "call_real_ufunc", "call_ufunc", "function", "method"]

Held = np.ndarray[Any, Any]

SYNCING = frozenset(
    {"nonzero", "flatnonzero", "argwhere", "unique", "compress", "extract", "isin", "bincount", "histogram"}
)
"""Functions whose result has a size that the host must wait for, or that look at values on the host."""
ON_HOST = frozenset(
    {"result_type", "promote_types", "can_cast", "broadcast_shapes", "min_scalar_type", "isscalar", "ndim",
     "shape", "size", "common_type", "iscomplexobj", "isrealobj", "may_share_memory", "shares_memory"}
)  # fmt: skip
"""Functions that answer from shapes and dtypes, on the host."""
REDUCING = frozenset(
    {"all", "amax", "amin", "any", "argmax", "argmin", "count_nonzero", "cumprod", "cumsum", "max", "mean",
     "min", "prod", "std", "sum", "var"}
)  # fmt: skip
"""Functions whose second argument is an axis that the array must have."""
SCATTERED = {
    "add": "iIlLqQefd", "subtract": "iI", "maximum": "iIlLqQfd", "minimum": "iIlLqQfd",
    "bitwise_and": "iIlLqQ", "bitwise_or": "iIlLqQ", "bitwise_xor": "iIlLqQ",
}  # fmt: skip
"""ufunc -> the dtypes that its `at` takes, as characters (cupy/_core/_routines_indexing.pyx, _scatter_op)."""


def function(name: str, callee: Callee, of: Any = np) -> Callable[..., Any]:
    """Return CuPy's function of a name, which is NumPy's or one of DIFFERENT."""
    if callee.kind == "ufunc":
        return _Ufunc(name, callee)
    made = DIFFERENT.get(name) or _numpys(name, of)

    def called(*args: Any, **options: Any) -> Any:
        check_call(name, callee, args, options)
        _check_axis(name, args, options)
        if name in SYNCING:
            DEVICE.wait()
        return made(*args, **options)

    called.__name__ = name
    return called


def _numpys(name: str, of: Any) -> Callable[..., Any]:
    its = getattr(of, name, None)
    if its is None:
        raise AttributeError(f"CuPy has {name}, and the strict device has no stand-in for it")

    def called(*args: Any, **options: Any) -> Any:
        if name in ON_HOST:
            return its(*(unwrapped(each) for each in args), **options)
        _check_dtype_of(options)
        return run(its, args, options)

    return called


def _check_axis(name: str, args: tuple[Any, ...], options: dict[str, Any]) -> None:
    """Refuse an axis of an array that has none, which NumPy's reductions take.

    Raises:
        AxisError: as CuPy says it (cupy/_core/_reduction.pyx, _get_axis).
    """
    if name not in REDUCING or not args or getattr(args[0], "ndim", 1) != 0:
        return
    axis = args[1] if len(args) > 1 else options.get("axis")
    if axis is not None and axis != ():
        raise np.exceptions.AxisError(axis if isinstance(axis, int) else axis[0], 0)


def _check_dtype_of(options: dict[str, Any]) -> None:
    if options.get("dtype") is not None:
        check_dtype(options["dtype"])


class _Ufunc:
    """CuPy's ufunc, NumPy's inside: it takes arrays of the device and single numbers."""

    def __init__(self, name: str, callee: Callee) -> None:
        self.__name__, self._callee, self._its = name, callee, getattr(np, name)

    def __call__(self, *args: Any, **options: Any) -> Any:
        check_call(self.__name__, self._callee, args, options)
        return call_ufunc(self.__name__, self._its, args, options)

    def at(self, a: Any, index: Any, b: Any = None) -> None:
        """Do the operation in place at an index, once for every time that it is there.

        Raises:
            NotImplementedError, TypeError: CuPy's kernels are for some ufuncs and dtypes alone.
        """
        held = held_of(a)
        if held is None:
            raise TypeError(f"Unsupported type {type(a)}")
        served = SCATTERED.get(self.__name__)
        if served is None:
            raise NotImplementedError(f"`cupy_{self.__name__}.at` is not supported yet")
        if held.dtype.char not in served:
            raise TypeError(f"cupy.{self.__name__}.at does not support {held.dtype}, it does: {served}")
        parts = index if isinstance(index, tuple) else (index,)
        where = tuple(unwrapped(part) for part in parts)
        DEVICE.launch(lambda: self._its.at(held, where, *(() if b is None else (unwrapped(b),))))

    def reduce(
        self, a: Any, axis: Any = 0, dtype: Any = None, out: Any = None, keepdims: bool = False
    ) -> Any:
        """Reduce along an axis."""
        self._must_reduce("reduce")
        return run(self._its.reduce, (a,), {"axis": axis, "dtype": dtype, "out": out, "keepdims": keepdims})

    def accumulate(self, a: Any, axis: int = 0, dtype: Any = None, out: Any = None) -> Any:
        """Reduce the first 1, 2, 3, ... along an axis."""
        self._must_reduce("accumulate")
        return run(self._its.accumulate, (a,), {"axis": axis, "dtype": dtype, "out": out})

    def _must_reduce(self, method: str) -> None:
        if self.__name__ not in ("add", "multiply"):
            raise NotImplementedError(f"`cupy_{self.__name__}.{method}` is not supported yet")

    def outer(self, a: Any, b: Any, **options: Any) -> Any:
        """Apply to all pairs."""
        return run(self._its.outer, (a, b), options)


def call_ufunc(name: str, ufunc: Any, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """Call a ufunc on device arrays and single numbers.

    Raises:
        TypeError: CuPy has no such ufunc, or an argument is something else.
    """
    callee = names_of("cupy").get(name)
    if callee is None:
        raise TypeError(f"CuPy has no function {name}")
    check_call(name, callee, args, options)
    for each in args:
        if held_of(each) is None and not isinstance(each, int | float | complex | np.generic):
            raise TypeError(f"Unsupported type {type(each)}")
    _check_dtype_of(options)
    out = options.get("out")
    its = power if name == "power" and not options else ufunc
    if out is None:
        return run(its, args, options)
    run(its, args, options)
    return out


def call(name: str, *args: Any, **options: Any) -> Any:
    """Call a function of the device by its name."""
    return function(name, names_of("cupy")[name])(*args, **options)


def call_real_ufunc(kernel: Any, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """Do what a ufunc of the real CuPy would do with arrays of this device."""
    name = str(getattr(kernel, "name", "")).removeprefix("cupy_")
    its = getattr(np, name, None)
    if not isinstance(its, np.ufunc):
        raise TypeError(f"the strict device has no stand-in for CuPy's kernel {kernel!r}")
    return call_ufunc(name, its, args, {k: v for k, v in options.items() if v is not None})


def method(name: str, callee: Callee) -> Callable[..., Any]:
    """Return a method of arrays: the function of that name, or NumPy's method."""

    def called(self: Any, *args: Any, **options: Any) -> Any:
        check_call(name, callee, args, options)
        _check_axis(name, (self, *args), options)
        if name in SYNCING:
            DEVICE.wait()
        if name in DIFFERENT:
            return DIFFERENT[name](self, *args, **options)
        chosen = {key: value for key, value in options.items() if not (key == "casting" and value is None)}
        return run(lambda held, *given, **more: getattr(held, name)(*given, **more), (self, *args), chosen)

    called.__name__ = name
    return called


# ---- what differs from NumPy's ---------------------------------------------------------------------------


def asarray(a: Any, dtype: Any = None, order: Any = None, *, copy: bool = False, **_: Any) -> Any:
    """Return a device array; a host array, a list or a number is copied to the device."""
    chosen = None if dtype is None else check_dtype(dtype)
    held = held_of(a)
    if held is not None:
        if not copy and (chosen is None or chosen == held.dtype) and _lies(held, order):
            return a
        return wrap(np.array(held, chosen, copy=True, order=order or "K"), ())
    if isinstance(a, list | tuple) and _has_device_arrays(a):
        return run(np.array, (a,), {"dtype": chosen})
    made = np.array(a, chosen, order=order or "K")
    DEVICE.count(to_device=1, to_device_bytes=made.nbytes)
    return wrap(made)


def array(a: Any, dtype: Any = None, copy: bool = True, order: Any = "K", *_: Any, **__: Any) -> Any:
    """Return a device array, a copy unless it is said otherwise."""
    return asarray(a, dtype, order, copy=copy)


def ascontiguousarray(a: Any, dtype: Any = None) -> Any:
    """Return an array in C order, of at least one axis."""
    made = asarray(a, dtype, "C")
    return made if made.ndim else made.reshape(1)


def _has_device_arrays(a: Any) -> bool:
    return any(held_of(x) is not None or (isinstance(x, list | tuple) and _has_device_arrays(x)) for x in a)


def _lies(held: Held, order: Any) -> bool:
    return order in (None, "K", "A") or bool(
        held.flags.c_contiguous if order == "C" else held.flags.f_contiguous
    )


def empty(shape: Any, dtype: Any = float, order: str = "C") -> Any:
    """Return memory with whatever is in it."""
    return wrap(_poisoned(np.empty(shape, check_dtype(dtype), order="F" if order == "F" else "C")))


def empty_like(
    prototype: Any, dtype: Any = None, order: Any = "K", subok: Any = None, shape: Any = None
) -> Any:
    """Return memory as an array has it."""
    del subok
    return wrap(_poisoned(np.empty_like(unwrapped(prototype), dtype, order, shape=shape)))


def _poisoned(held: Held) -> Held:
    if DEVICE.options.poison_empty:
        if held.dtype.kind in "iub":
            held.view(np.uint8 if held.dtype.kind == "b" else held.dtype).fill(0x2A)
        else:
            held.fill(np.nan)
    return held


def where(condition: Any, x: Any = None, y: Any = None) -> Any:
    """Choose element by element; with a condition alone, the places where it holds, for which one waits."""
    if x is None and y is None:
        DEVICE.wait()
        return run(np.nonzero, (condition,), {})
    made = run(np.where, (condition.astype("?", copy=False), x, y), {})  # as CuPy: no bool of the host has it
    found = {each.dtype for each in (x, y) if hasattr(each, "dtype")}
    if formats.bfloat16.dtype not in found:
        return made
    loop = next(char for char in "fd" if all(np.can_cast(each, char) for each in found))
    return made.astype(loop)  # the first that CuPy has: none is of bfloat16 (cupy/_sorting/search.py)


def take(a: Any, indices: Any, axis: int | None = None, out: Any = None) -> Any:
    """Take elements along an axis."""
    del out
    if isinstance(indices, int | np.integer | list | tuple):
        return run(np.take, (a, indices), {"axis": axis})
    source = a if axis is not None else a.reshape(-1)
    lead = (slice(None),) * ((axis or 0) % max(1, source.ndim))
    return read_at(unwrapped(source), (*lead, indices))


def scatter_add(a: Any, slices: Any, value: Any) -> None:
    """Add at an index, once for every time that it is there."""
    _Ufunc("add", names_of("cupy")["add"]).at(a, slices, value)


def total(a: Any, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: bool = False) -> Any:
    """Sum; float16 in float16 where no dtype is said, as CUB does."""
    held = unwrapped(a)
    if not DEVICE.options.half_cub_sum or dtype is not None or held.dtype != formats.float16.dtype:
        return run(np.sum, (a,), {"axis": axis, "dtype": dtype, "out": out, "keepdims": keepdims})
    axes = tuple(range(held.ndim)) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    moved = np.moveaxis(held, axes, range(-len(axes), 0)) if axes else held
    kept = moved.shape[: held.ndim - len(axes)]
    rows = moved.reshape(*kept, -1) if held.size else np.zeros((*kept, 1), held.dtype)
    with np.errstate(all="ignore"):
        sums = np.add.accumulate(rows, axis=-1, dtype=held.dtype)[..., -1]
    shape = [1 if i in {each % held.ndim for each in axes} else n for i, n in enumerate(held.shape)]
    return settle(np.asarray(sums).reshape(shape if keepdims else kept), (held,))


def matmul(a: Any, b: Any, **options: Any) -> Any:
    """Multiply matrices; several at a time are refused in bfloat16, for which CuPy has no kernel."""
    both = [unwrapped(each) for each in (a, b)]
    if any(each.dtype == formats.bfloat16.dtype for each in both) and max(each.ndim for each in both) > 2:
        raise ValueError("CuPy's matmul has no kernel for several bfloat16 matrices at a time")
    return run(np.matmul, (a, b), options)


def argsort(a: Any, axis: Any = -1, kind: Any = None) -> Any:
    """Sort by place; CuPy's sort is a stable one."""
    if kind not in (None, "stable"):
        raise ValueError("kind can only be None or 'stable'")
    return not_of_bfloat16("argsort")(a, axis=axis, kind="stable")


def asnumpy(a: Any, *_: Any, **__: Any) -> Any:
    """Copy to the host."""
    return DEVICE.read(unwrapped(a))


def put(a: Any, ind: Any, v: Any, mode: str = "wrap") -> None:
    """Put values at flat places."""
    del mode
    write_at(unwrapped(a).reshape(-1), ind, v)


def from_dlpack(*_: Any, **__: Any) -> Any:
    """Refuse: the memory of this device is nobody else's."""
    raise BufferError("the strict device shares no memory")


def not_of_bfloat16(name: str) -> Callable[..., Any]:
    """Return NumPy's function of a name, which CuPy has no kernel for in bfloat16."""

    def called(a: Any, *args: Any, **options: Any) -> Any:
        dtype = options.get("dtype") or unwrapped(a).dtype
        if np.dtype(dtype) == formats.bfloat16.dtype:
            raise NotImplementedError(f"CuPy's {name} has no kernel for {dtype}")
        return run(getattr(np, name), (a, *args), options)

    return called


def power(x: Any, p: Any) -> Any:
    """x^p; whole numbers to a negative power are rounded to zero, and raise nothing, as in CuPy."""
    kinds = [each.dtype.kind if hasattr(each, "dtype") else np.dtype(type(each)).kind for each in (x, p)]
    if not set(kinds) <= set("iu"):
        return np.power(x, p)
    powers = np.power(x, max(p, 0) if isinstance(p, int) else np.maximum(p, 0))
    turned = np.where(np.asarray(p) % 2 == 0, np.abs(x), x)
    return np.where(np.asarray(p) < 0, np.where(np.abs(x) == 1, turned, 0), powers).astype(powers.dtype)


def clip(a: Any, a_min: Any, a_max: Any, out: Any = None) -> Any:
    """Keep within bounds, which an array of whole numbers must be able to hold.

    Raises:
        OverflowError: it cannot hold one (cupy/_core/_scalar.pyx, apply_dtype).
        TypeError: there is none, of booleans and bfloat16 (cupy/_core/_routines_math.pyx, _ndarray_clip).
    """
    dtype = unwrapped(a).dtype
    for bound in (a_min, a_max):
        if bound is None and dtype.kind not in "fiu":
            raise TypeError("Unsupported type <class 'NoneType'>")
        if isinstance(bound, int) and dtype.kind in "iu":
            np.asarray(bound, dtype)
    return run(np.clip, (a, a_min, a_max), {"out": out})


def array_equal(a1: Any, a2: Any, equal_nan: bool = False) -> Any:
    """Tell whether two arrays are equal, in a device array; CuPy asks both for their shape first."""
    for each in (a1, a2):
        if held_of(each) is None:
            raise AttributeError(f"'{type(each).__name__}' object has no attribute 'shape'")
    return run(np.array_equal, (a1, a2), {"equal_nan": equal_nan})


DIFFERENT: dict[str, Callable[..., Any]] = {
    "asarray": asarray, "array": array, "empty": empty, "empty_like": empty_like, "where": where,
    "take": take, "scatter_add": scatter_add, "sum": total, "matmul": matmul, "argsort": argsort,
    "asnumpy": asnumpy, "put": put, "from_dlpack": from_dlpack, "array_equal": array_equal,
    "ascontiguousarray": ascontiguousarray, "clip": clip,
    **{name: not_of_bfloat16(name) for name in ("cumprod", "cumsum", "sort", "unique")},
}  # fmt: skip
"""By the name in CuPy; methods of arrays too."""
