"""NumPy's functions on shapes: a short rule each; what has none is run on zeros that take no memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.array_utils import normalize_axis_index, normalize_axis_tuple

from minimp_backends.shape_layouts import in_order_of, small

__all__ = ["REDUCTIONS", "RULES", "Laid", "elementwise", "recast"]


class Laid(NamedTuple):
    """A new array.

    Attributes:
        shape, dtype: what it has.
        strides: how it lies; None is C order.
    """

    shape: Sequence[int]
    dtype: Any
    strides: tuple[int, ...] | None = None


def _little(x: Any) -> Any:
    """Return a few real elements that lie as x does; a number as it is."""
    return small(x.shape, x.strides, x.dtype) if hasattr(x, "strides") else x


def _like_little(found: Any, shape: Sequence[int], dtype: Any = None) -> Laid:
    """Return an array of `shape` that is to be as NumPy made a little one."""
    made = np.asarray(found) if dtype is None else np.asarray(found).astype(dtype)
    return Laid(shape, made.dtype, in_order_of(made, shape))


def _shape(x: Any) -> tuple[int, ...]:
    return x.shape if hasattr(x, "shape") else np.shape(x)


def recast(x: Any, dtype: Any) -> Laid:
    """Return what lies as x does, of another dtype."""
    return _like_little(_little(x), x.shape, dtype)


def elementwise(ufunc: Any, inputs: Sequence[Any], options: Mapping[str, Any]) -> Laid:
    """Broadcast the shapes; ask NumPy, on a few elements, for the dtype and for the order of the axes."""
    shape = np.broadcast_shapes(*map(_shape, inputs))
    given = {key: each for key, each in options.items() if key != "where"}
    with np.errstate(all="ignore"):
        return _like_little(ufunc(*map(_little, inputs), **given), shape)


REDUCTIONS = frozenset(
    {"sum", "prod", "mean", "max", "min", "amax", "amin", "any", "all", "argmax", "argmin"}
)


def _reduced(name: str) -> Callable[..., Any]:
    def reduce(
        x: Any, axis: Any = None, *_: Any, keepdims: Any = False, out: Any = None, **options: Any
    ) -> Any:
        if out is not None:
            return out
        axes = range(x.ndim) if axis is None else normalize_axis_tuple(axis, max(x.ndim, 1))
        keep = keepdims is True
        kept = [1 if i in axes else n for i, n in enumerate(x.shape) if keep or i not in axes]
        given = {key: options[key] for key in ("dtype", "initial") if options.get(key) is not None}
        with np.errstate(all="ignore"):
            found = getattr(np, name)(_little(x), axis=axis, keepdims=keep, **given)
        return _like_little(found, kept)

    return reduce


def _where(condition: Any, *choices: Any) -> Any:
    if not choices:
        return tuple(np.zeros(0, np.int64) for _ in _shape(condition))
    shape = np.broadcast_shapes(*map(_shape, (condition, *choices)))
    return _like_little(np.where(*map(_little, (condition, *choices))), shape)


def _concatenate(arrays: Any, axis: int = 0, **_: Any) -> Laid:
    shape = list(arrays[0].shape)
    axis = normalize_axis_index(axis, len(shape))
    shape[axis] = sum(each.shape[axis] for each in arrays)
    return _like_little(np.concatenate([_little(each) for each in arrays], axis), shape)


def _stack(arrays: Any, axis: int = 0, **_: Any) -> Laid:
    first = arrays[0]
    shape = list(first.shape)
    shape.insert(normalize_axis_index(axis, first.ndim + 1), len(arrays))
    return _like_little(np.stack([_little(each) for each in arrays], axis), shape)


def _split(x: Any, parts: Any, axis: int = 0) -> list[Any]:
    length = x.shape[axis]
    stops = list(range(0, length, length // parts))[1:] if isinstance(parts, int) else list(parts)
    ends = zip([0, *stops], [*stops, length], strict=True)
    lead = (slice(None),) * normalize_axis_index(axis, x.ndim)
    return [x[(*lead, slice(start, stop))] for start, stop in ends]


def _take(x: Any, index: Any, axis: int | None = None, **_: Any) -> Laid:
    if axis is None:
        return Laid(_shape(index), x.dtype)
    axis = normalize_axis_index(axis, x.ndim)
    return Laid((*x.shape[:axis], *_shape(index), *x.shape[axis + 1 :]), x.dtype)


def _like(x: Any, *fill: Any, dtype: Any = None, shape: Any = None, **_: Any) -> Laid:
    del fill
    wanted = x.shape if shape is None else shape
    if len(wanted) != x.ndim:
        return Laid(wanted, x.dtype if dtype is None else dtype)
    return _like_little(np.empty_like(_little(x), dtype=dtype), wanted)


def _flip(x: Any, axis: Any = None) -> Any:
    axes = range(x.ndim) if axis is None else normalize_axis_tuple(axis, x.ndim)
    return x[tuple(slice(None, None, -1) if i in axes else slice(None) for i in range(x.ndim))]


def _moveaxis(x: Any, source: Any, target: Any) -> Any:
    sources, targets = (normalize_axis_tuple(each, x.ndim) for each in (source, target))
    order = [i for i in range(x.ndim) if i not in sources]
    for place, axis in sorted(zip(targets, sources, strict=True)):
        order.insert(place, axis)
    return x.transpose(order)


def _expand_dims(x: Any, axis: Any) -> Any:
    count = 1 if isinstance(axis, int) else len(axis)
    axes = normalize_axis_tuple(axis, x.ndim + count)
    return x[tuple(None if i in axes else slice(None) for i in range(x.ndim + count))]


RULES: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        **{name: _reduced(name) for name in REDUCTIONS},
        "where": _where,
        "concatenate": _concatenate, "stack": _stack, "split": _split, "take": _take,
        "broadcast_to": lambda x, shape, **_: x.broadcast_to(shape),
        "copyto": lambda *_, **__: None,
        "zeros_like": _like, "ones_like": _like, "empty_like": _like, "full_like": _like,
        "dot": lambda a, b, **_: Laid((*a.shape[:-1], *b.shape[1:]), np.result_type(a.dtype, b.dtype)),
        "reshape": lambda x, *shape, **_: x.reshape(*shape),
        "ravel": lambda x, *_: x.ravel(),
        "transpose": lambda x, axes=None: x.transpose(*(() if axes is None else (axes,))),
        "swapaxes": lambda x, a, b: x.swapaxes(a, b),
        "moveaxis": _moveaxis, "flip": _flip, "expand_dims": _expand_dims,
        "squeeze": lambda x, axis=None: x.squeeze(axis),
        "take_along_axis": lambda x, index, **_: Laid(index.shape, x.dtype),
        "array_equal": lambda a, b, **_: a.shape == b.shape,
        "count_nonzero": lambda x, axis=None, **_: 0 if axis is None else _reduced("argmax")(x, axis),
        "isneginf": lambda x: elementwise(np.isneginf, (x,), {}),
        "sort": lambda x, **_: Laid(x.shape, x.dtype),
        "argsort": lambda x, **_: Laid(x.shape, np.int64),
    }
)  # fmt: skip
"""Name of a function of NumPy -> the same on shapes: a :class:`Laid`, or arrays that were given, or views."""
