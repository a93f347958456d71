"""Borders and interpolation: linear maps along the last axes, given by plans."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np

from minimp.checks.bounds import Program
from minimp.checks.case import Case
from minimp.checks.gradients import Rules
from minimp.checks.running import Running

__all__ = ["BOUNDS", "GRADIENTS", "REFERENCE"]

Array = np.ndarray[Any, Any]
MOVING = (
    "_pad_circular", "_upsample_nearest_exact1d", "_upsample_nearest_exact2d", "_upsample_nearest_exact3d",
    "reflection_pad1d", "reflection_pad2d", "reflection_pad3d", "replication_pad1d", "replication_pad2d",
    "replication_pad3d", "upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d",
)  # fmt: skip
WEIGHING = (
    "resample", "upsample_bicubic2d", "upsample_bilinear2d", "upsample_linear1d", "upsample_trilinear3d",
)  # fmt: skip


# ---- the definition ---------------------------------------------------------------------------------------


def resample(x: Array, *, plan: Any) -> Array:
    """y[..., i] = sum over t of w[t, i] x[..., index[t, i]], one axis after the other."""
    for axis in range(-1, -1 - len(plan), -1):
        x = _taken(x, axis, plan[axis][0]) * _laid(plan[axis], axis)
        x = np.asarray(x.sum(axis=axis))
    return x


def resample_input(grad: Array, *, shape: tuple[int, ...], plan: Any) -> Array:
    """x[..., index[t, i]] += w[t, i] g[..., i], one axis after the other."""
    for axis in range(-len(plan), 0):
        terms = np.expand_dims(grad, len(grad.shape) + axis + 1) * _laid(plan[axis], axis)
        grad = _put(axis, shape[axis], plan[axis][0])(terms)
    return grad


def _taken(x: Array, axis: int, index: Array) -> Array:
    """(..., length, ...) -> (..., out, taps, ...)."""
    return np.take(x, index.T, axis=axis)


def _laid(entry: Any, axis: int) -> Array:
    """The weights of an axis against (..., out, taps, ...)."""
    index, weight = entry
    table = np.ones(index.T.shape) if weight is None else weight.T.astype(np.float64)
    return np.asarray(table.reshape(*table.shape, *(1,) * (-axis - 1)))


def _put(axis: int, length: int, index: Array) -> Callable[[Array], Array]:
    """Return what adds (..., out, taps, ...) at its places: (..., length, ...)."""

    def put(terms: Array) -> Array:
        moved = np.moveaxis(terms, (axis - 1, axis), (0, 1))
        out = np.zeros((length, *moved.shape[2:]))
        np.add.at(out, index.T, moved)
        return np.moveaxis(out, 0, axis)

    return put


def _constant_pad_nd(x: Array, *, pad: tuple[int, ...], value: float = 0.0) -> Array:
    """`value`, and x where it lies in the result."""
    sides = [(0, 0)] * (x.ndim - len(pad) // 2) + [(pad[i], pad[i + 1]) for i in range(len(pad) - 2, -1, -2)]
    for axis, (before, after) in enumerate(sides):
        x = np.take(x, range(max(0, -before), x.shape[axis] - max(0, -after)), axis=axis)
        x = np.pad(
            x, [(max(0, before), max(0, after)) if i == axis else (0, 0) for i in range(x.ndim)],
            constant_values=value,
        )  # fmt: skip
    return x


# ---- bounds -----------------------------------------------------------------------------------------------


def _weighed(x: Running, entry: Any, axis: int) -> Running:
    """Times the weights, if there are any."""
    return x if entry[1] is None else x * x.at.number(_laid(entry, axis))


def _resample(x: Running, *, plan: Any) -> Running:
    """An axis at a time, a sum of its taps; by name, one sum over the taps of all axes."""
    plain = x.at.sums in ("float32", "float64")
    for axis in range(-1, -1 - len(plan), -1):
        place = axis if plain else 2 * axis + 1  # by name, the taps of later axes stand behind
        x = _weighed(x.move(partial(_taken, axis=place, index=plan[axis][0])), plan[axis], place)
        if plain:
            x = _added(x, (axis,))
    return x if plain else _added(x, tuple(2 * axis + 1 for axis in range(-len(plan), 0)))


def _added(x: Running, taps: tuple[int, ...]) -> Running:
    """Sum over axes of taps; one tap is no sum."""
    if all(x.exact.shape[axis] == 1 for axis in taps):
        return x.move(partial(np.squeeze, axis=taps))
    return x.sum(taps)


def _shared(g: Running, entry: Any, axis: int) -> Running:
    """(..., out, ...) -> (..., out, taps, ...): what each tap is given; `axis` is where the taps come."""
    place = g.exact.ndim + 1 + axis
    g = _weighed(g.move(partial(np.expand_dims, axis=place)), entry, axis)
    full = list(g.exact.shape)
    full[place] = len(entry[0])
    return g.move(partial(np.broadcast_to, shape=tuple(full)))


def _resample_input(g: Running, *, shape: tuple[int, ...], plan: Any) -> Running:
    """An axis at a time, a sum of what meets in an element; by name, one sum over all that meets there."""
    for axis in range(-len(plan), 0):
        g = _shared(g, plan[axis], axis)
        if g.at.sums in ("float32", "float64"):
            g = _met(g, _put(axis, shape[axis], plan[axis][0]))
    if g.at.sums in ("float32", "float64"):
        return g
    places = [
        index.T.reshape(*index.T.shape, *(1,) * (2 * (len(plan) - axis - 1)))
        for axis, (index, _) in enumerate(plan)
    ]

    def put(terms: Array) -> Array:
        out = np.zeros(shape)
        np.add.at(out, (..., *places), terms)
        return out

    return _met(g, put)


def _met(terms: Running, put: Callable[[Array], Array]) -> Running:
    most = int(put(np.ones(terms.exact.shape)).max(initial=0.0))
    return terms.move(put) if most <= 1 else terms.gather(put, most)


def _back(c: Case) -> Running:
    return _resample_input(c.grad, shape=c.shape(0), plan=c.options["plan"]).rounded()


def _forth(c: Case) -> Running:
    return _resample(c.grad, plan=c.options["plan"]).rounded()


def _without_border(c: Case) -> Running:
    """Where each element of x went, or nowhere."""
    shape, pad = c.shape(0), c.options["pad"]
    numbers = np.arange(1.0, np.prod(shape) + 1).reshape(shape)
    seen = _constant_pad_nd(numbers, pad=pad).astype(np.int64).ravel()

    def collect(a: Array) -> Array:
        out = np.zeros(numbers.size + 1)
        out[seen] = a.ravel()
        return out[1:].reshape(shape)

    return c.grad.move(collect)


REFERENCE: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        "constant_pad_nd": _constant_pad_nd,
        "resample_input": resample_input,
        **dict.fromkeys((*MOVING, *WEIGHING), resample),
    }
)
BOUNDS: Mapping[str, Mapping[str, Program]] = MappingProxyType(
    {"sum": {"resample_input": _resample_input, **dict.fromkeys(WEIGHING, _resample)}}
)
GRADIENTS: Mapping[str, Rules] = MappingProxyType(
    {
        "constant_pad_nd": (_without_border,),
        "resample_input": (_forth,),
        **dict.fromkeys((*MOVING, *WEIGHING), (_back,)),
    }
)
