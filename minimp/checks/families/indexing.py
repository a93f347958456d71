"""Taking elements by index, and putting them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from minimp.checks.case import Case, Rule
from minimp.checks.running import Running

__all__ = ["BOUNDS", "GRADIENTS", "REFERENCE"]

Array = np.ndarray[Any, Any]


def _each(index: Array, dim: int) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Return (place in the index, place in the array) of each element of an index along `dim`."""
    pairs = []
    for at in np.ndindex(*index.shape):
        place = list(at)
        place[dim] = int(index[at])
        pairs.append((at, tuple(place)))
    return pairs


def _along(kind: str) -> Callable[..., Array]:
    """gather, scatter and scatter_add, one element after the other."""

    def run(x: Array, index: Array, src: Any = None, *, dim: int = 0) -> Array:
        y = np.zeros(index.shape) if kind == "gather" else np.array(x, np.float64)
        for at, place in _each(index, dim):
            if kind == "gather":
                y[at] = x[place]
            else:
                value = src[at] if np.ndim(src) else src
                y[place] = y[place] + value if kind == "scatter_add" else value
        return y

    return run


def _slicewise(kind: str) -> Callable[..., Array]:
    """index_copy and index_add, one slice after the other."""

    def run(x: Array, index: Array, source: Array, *, dim: int = 0, alpha: float = 1.0) -> Array:
        y = np.moveaxis(np.array(x, np.float64), dim, 0)
        for place, part in zip(np.ravel(index), np.moveaxis(source, dim, 0), strict=True):
            y[place] = y[place] + alpha * part if kind == "index_add" else part
        return np.moveaxis(y, 0, dim)

    return run


def _index_put(x: Array, values: Array, *, indices: Any, accumulate: bool = False) -> Array:
    y = np.array(x, np.float64)
    if accumulate:
        np.add.at(y, indices, values)
    else:
        y[indices] = values
    return y


REFERENCE: Mapping[str, Callable[..., Any]] = {
    "gather": _along("gather"),
    "index_add": _slicewise("index_add"),
    "index_copy": _slicewise("index_copy"),
    "index_put": _index_put,
    "index_select": lambda x, index, *, dim=0: np.take(x, np.ravel(index), axis=dim),
    "scatter": _along("scatter"),
    "scatter_add": _along("scatter_add"),
}


# ---- sums of what meets -------------------------------------------------------------------------------


def _grown(x: Running, values: Running, put: Callable[[Array], Array]) -> Running:
    """x plus the sums of what meets; a place that nothing was put in keeps its value."""
    most = int(put(np.ones(values.exact.shape)).max(initial=0.0))
    return x + (values.move(put) if most <= 1 else values.gather(put, most))


def _putter(reference: Callable[..., Array], shape: tuple[int, ...], *index: Any, **options: Any) -> Any:
    return lambda a: reference(np.zeros(shape), *index, a, **options)


def _run_scatter_add(x: Running, index: Array, src: Running, *, dim: int = 0) -> Running:
    src = src.move(lambda a: a[tuple(slice(n) for n in index.shape)])
    return _grown(x, src, _putter(REFERENCE["scatter_add"], x.exact.shape, index, dim=dim))


def _run_index_add(x: Running, index: Array, source: Running, *, dim: int = 0, alpha: float = 1.0) -> Running:
    scaled = source if alpha == 1 else source * alpha
    return _grown(x, scaled, _putter(REFERENCE["index_add"], x.exact.shape, index, dim=dim))


def _run_index_put(x: Running, values: Running, *, indices: Any, accumulate: bool = False) -> Running:
    full = values.move(lambda a: np.broadcast_to(a, np.zeros(x.exact.shape)[indices].shape))
    if accumulate:
        return _grown(x, full, _putter(_index_put, x.exact.shape, indices=indices, accumulate=True))
    exact = _index_put(x.exact, full.exact, indices=indices)
    return Running(exact, np.zeros_like(exact), x.at)


BOUNDS: Mapping[str, Mapping[str, Callable[..., Running]]] = {
    "sum": {
        "index_add": _run_index_add,
        "index_put": _run_index_put,
        "scatter_add": _run_scatter_add,
    }
}


# ---- gradients ----------------------------------------------------------------------------------------


def _back(c: Case, put: Callable[[Array], Array]) -> Running:
    """What was taken goes back to where it came from; equal places add up."""
    most = int(put(np.ones(c.grad.exact.shape)).max(initial=0.0))
    return c.grad.move(put) if most <= 1 else c.grad.gather(put, most).rounded()


def _gather_x(c: Case) -> Running:
    dim = c.options.get("dim", 0)
    return _back(c, _putter(REFERENCE["scatter_add"], c.shape(0), c.inputs[1], dim=dim))


def _index_select_x(c: Case) -> Running:
    dim, index = c.options.get("dim", 0), c.inputs[1]
    return _back(c, _putter(REFERENCE["index_add"], c.shape(0), index, dim=dim))


def _owners(op: str, c: Case, source: int) -> Array:
    """Who wrote each place of the result: the number of an element of the source, or -1."""
    shape = c.grad.exact.shape
    numbers = np.arange(c.number(source).exact.size, dtype=np.float64).reshape(c.shape(source))
    options = {key: value for key, value in c.options.items() if key not in ("alpha", "accumulate")}
    if op == "index_put":
        numbers = np.arange(np.zeros(shape)[options["indices"]].size, dtype=np.float64)
        numbers = numbers.reshape(np.zeros(shape)[options["indices"]].shape)
        return _index_put(np.full(shape, -1.0), numbers, **options)
    return np.asarray(REFERENCE[op](np.full(shape, -1.0), c.inputs[1], numbers, **options))


def _left(op: str, source: int) -> Rule:
    """The gradient where nothing was put."""

    def rule(c: Case) -> Running:
        if isinstance(c.inputs[source], Running) and np.ndim(c.inputs[source].exact):
            return c.grad.where(_owners(op, c, source) < 0)
        ones = REFERENCE[op](np.zeros(c.shape(0)), c.inputs[1], 1.0, **c.options)
        return c.grad.where(ones == 0)

    return rule


def _stayed(op: str, source: int) -> Rule:
    """The gradient at the place where an element of the source stayed, 0 where another replaced it."""

    def rule(c: Case) -> Running:
        owners = _owners(op, c, source).astype(np.int64)
        values = c.shape(source)
        if op == "index_put":
            values = np.zeros(c.shape(0))[c.options["indices"]].shape

        def back(a: Array) -> Array:
            out = np.zeros(int(np.prod(values)))
            out[owners[owners >= 0]] = a[owners >= 0]
            return out.reshape(values)

        return c.to(source, c.grad.move(back)) if values != c.shape(source) else c.grad.move(back)

    return rule


def _taken(op: str) -> Rule:
    """The gradient at the place to which an element of the source was added."""

    def rule(c: Case) -> Running:
        if op == "index_put":
            return c.to(1, c.grad.move(lambda a: a[c.options["indices"]]))
        dim, index, shape = c.options.get("dim", 0), c.inputs[1], c.shape(2)
        if op == "index_add":
            alpha = c.options.get("alpha", 1.0)
            taken = c.grad.move(lambda a: np.take(a, np.ravel(index), axis=dim))
            return taken if alpha == 1 else (taken * alpha).rounded()

        def back(a: Array) -> Array:
            out = np.zeros(shape)
            for at, place in _each(index, dim):
                out[at] = a[place]
            return out

        return c.grad.move(back)

    return rule


def _put_x(c: Case) -> Running:
    return c.grad if c.options.get("accumulate", False) else _left("index_put", 1)(c)


def _put_values(c: Case) -> Running:
    return (_taken("index_put") if c.options.get("accumulate", False) else _stayed("index_put", 1))(c)


def _none(c: Case) -> Running:
    raise NotImplementedError("an index has no gradient")


GRADIENTS: Mapping[str, tuple[Rule, ...]] = {
    "gather": (_gather_x,),
    "index_add": (lambda c: c.grad, _none, _taken("index_add")),
    "index_copy": (_left("index_copy", 2), _none, _stayed("index_copy", 2)),
    "index_put": (_put_x, _put_values),
    "index_select": (_index_select_x,),
    "scatter": (_left("scatter", 2), _none, _stayed("scatter", 2)),
    "scatter_add": (lambda c: c.grad, _none, _taken("scatter_add")),
}
