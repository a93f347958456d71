"""Taking elements by index, and putting them: what meets in one place adds up by `ctx.accumulate`.

Indices are integer arrays and carry no gradient. Where several values are put in one place and do not add up,
the last in C order stays, and it alone gets the gradient (PyTorch: any of them, and the gradient to all).
"""

from __future__ import annotations

from typing import Any

from minimp.door import op
from minimp.errors import DataError, ShapeError
from minimp.ops.broadcasting import to_shape_of
from minimp.policy import CastClass, Mixed
from minimp.refusals import within
from minimp.tape import Array, Node

__all__ = ["gather", "index_add", "index_copy", "index_put", "index_select", "scatter", "scatter_add"]

Where = tuple[Any, ...]
"""An index that NumPy takes."""


# ---- taking -------------------------------------------------------------------------------------------


@op(mixed=Mixed.SAME, bound="exact")
def gather(ctx: Node, x: Array, index: Array, *, dim: int = 0) -> Array:
    """y[i, j, k] = x[index[i, j, k], j, k] for dim = 0, and so on; y has the shape of index.

    index has as many axes as x, and is nowhere longer but along `dim`. Indices count from 0.
    """
    index = _check_along("gather", x, index, dim)
    ctx.save(index)
    return ctx.backend.view(x, lambda a: a[_along(ctx, index, dim)])


@gather.gradient
def _(ctx: Node, grad: Array, *, dim: int = 0) -> tuple[Array | None, ...]:
    (index,) = ctx.saved
    return _added(ctx, ctx.shape_of(0), _along(ctx, index, dim), grad), None


@op(mixed=Mixed.SAME, bound="exact")
def index_select(ctx: Node, x: Array, index: Array, *, dim: int = 0) -> Array:
    """The slices index[0], index[1], ... of x along `dim`, in that order; index (K,) or ()."""
    index = _check_slices("index_select", x, index, dim)
    ctx.save(index)
    return ctx.backend.view(x, lambda a: a[_slices(index, dim % a.ndim)])


@index_select.gradient
def _(ctx: Node, grad: Array, *, dim: int = 0) -> tuple[Array | None, ...]:
    (index,) = ctx.saved
    shape = ctx.shape_of(0)
    return _added(ctx, shape, _slices(index, dim % len(shape)), grad), None


# ---- putting ------------------------------------------------------------------------------------------


@op(mixed=Mixed.SAME, bound="exact")
def scatter(ctx: Node, x: Array, index: Array, src: Array, *, dim: int = 0) -> Array:
    """x with y[index[i, j, k], j, k] = src[i, j, k] for dim = 0, and so on; src may be a number.

    index has as many axes as x and as src, and is nowhere longer, but than x along `dim`.
    """
    index = _check_along("scatter", x, index, dim)
    _check_source("scatter", index, src)
    ctx.save(index)
    return _placed(x, _along(ctx, index, dim), src[_lead(index)] if hasattr(src, "shape") else src)


@scatter.gradient
def _(ctx: Node, grad: Array, *, dim: int = 0) -> tuple[Array | None, ...]:
    (index,) = ctx.saved
    by_x, by_src = _placing_gradients(ctx, 0, 2, grad, _along(ctx, index, dim))
    return by_x, None, _into_lead(ctx, 2, index, by_src)


@op(cast=CastClass.PROMOTE, mixed=Mixed.SAME, bound="sum")
def scatter_add(ctx: Node, x: Array, index: Array, src: Array, *, dim: int = 0) -> Array:
    """x with src[i, j, k] added at [index[i, j, k], j, k] for dim = 0, and so on; one rounding.

    What meets in one place is summed by ctx.accumulate in the C order of src, then added to x. Shapes as of
    scatter.
    """
    index = _check_along("scatter_add", x, index, dim)
    _check_source("scatter_add", index, src)
    ctx.save(index)
    return _grown(ctx, x, _along(ctx, index, dim), ctx.wide(src[_lead(index)]))


@scatter_add.gradient
def _(ctx: Node, grad: Array, *, dim: int = 0) -> tuple[Array | None, ...]:
    (index,) = ctx.saved
    by_src = None
    if ctx.needs(2):
        by_src = ctx.backend.view(grad, lambda g: g[_along(ctx, index, dim)])
    return grad if ctx.needs(0) else None, None, _into_lead(ctx, 2, index, by_src)


@op(mixed=Mixed.SAME, bound="exact")
def index_copy(ctx: Node, x: Array, index: Array, source: Array, *, dim: int = 0) -> Array:
    """x with its slice index[k] along `dim` replaced by slice k of source, for every k; index (K,) or ()."""
    index = _check_slices("index_copy", x, index, dim)
    _check_slice_source("index_copy", x, index, source, dim)
    ctx.save(index)
    return _placed(x, _slices(index, dim % x.ndim), source)


@index_copy.gradient
def _(ctx: Node, grad: Array, *, dim: int = 0) -> tuple[Array | None, ...]:
    (index,) = ctx.saved
    by_x, by_source = _placing_gradients(ctx, 0, 2, grad, _slices(index, dim % grad.ndim))
    return by_x, None, by_source


@op(mixed=Mixed.SAME, bound="sum")
def index_add(ctx: Node, x: Array, index: Array, source: Array, *, dim: int = 0, alpha: float = 1.0) -> Array:
    """x with alpha times slice k of source added to slice index[k] along `dim`, for every k; one rounding.

    What meets in one place is summed by ctx.accumulate, then added to x.
    """
    index = _check_slices("index_add", x, index, dim)
    _check_slice_source("index_add", x, index, source, dim)
    ctx.save(index)
    wide = ctx.wide(source)
    return _grown(ctx, x, _slices(index, dim % x.ndim), wide if alpha == 1 else wide * alpha)


@index_add.gradient
def _(ctx: Node, grad: Array, *, dim: int = 0, alpha: float = 1.0) -> tuple[Array | None, ...]:
    (index,) = ctx.saved
    by_source = None
    if ctx.needs(2):
        by_source = ctx.backend.view(grad, lambda g: g[_slices(index, dim % g.ndim)])
        by_source = by_source if alpha == 1 else ctx.round(ctx.wide(by_source) * alpha)
    return grad if ctx.needs(0) else None, None, by_source


@op(cast=CastClass.PROMOTE, mixed=Mixed.SAME, bound="sum")
def index_put(ctx: Node, x: Array, values: Array, *, indices: Where, accumulate: bool = False) -> Array:
    """x with x[indices] = values, or += with accumulate: integers and masks as NumPy takes; values broadcast.

    Integers may be negative. What meets in one place is summed by ctx.accumulate and added to x, rounded
    once; without accumulate nothing is rounded.
    """
    indices = ctx.backend.places(indices)
    place = ctx.backend.xp.broadcast_to(ctx.backend.xp.zeros((), bool), x.shape)[indices].shape
    full = ctx.backend.xp.broadcast_to(values, place)
    return _grown(ctx, x, indices, ctx.wide(full)) if accumulate else _placed(x, indices, full)


@index_put.gradient
def _(ctx: Node, grad: Array, *, indices: Where, accumulate: bool = False) -> tuple[Array | None, ...]:
    indices = ctx.backend.places(indices)
    if not accumulate:
        by_x, by_values = _placing_gradients(ctx, 0, 1, grad, indices)
        return by_x, to_shape_of(ctx, 1, by_values)
    by_values = ctx.backend.view(grad, lambda g: g[indices]) if ctx.needs(1) else None
    return grad if ctx.needs(0) else None, to_shape_of(ctx, 1, by_values)


# ---- inside -------------------------------------------------------------------------------------------


def _along(ctx: Node, index: Array, dim: int) -> Where:
    """Return the index that takes element index[i, j, k] of axis `dim`, and i, j, k of the others."""
    xp, ndim = ctx.backend.xp, index.ndim
    grid = [xp.arange(n).reshape(-1, *(1,) * (ndim - 1 - i)) for i, n in enumerate(index.shape)]
    grid[dim % ndim] = index
    return tuple(grid)


def _slices(index: Array, dim: int) -> Where:
    """Return the index that takes whole slices of axis `dim`."""
    return (*(slice(None),) * dim, index.reshape(-1))


def _lead(index: Array) -> Where:
    """Return the index of the leading part, as long as index on every axis."""
    return tuple(slice(n) for n in index.shape)


def _placed(x: Array, where: Where, values: Any) -> Array:
    """Return a copy of x with values in some places."""
    y = x.copy()
    y[where] = values
    return y


def _grown(ctx: Node, x: Array, where: Where, values: Array) -> Array:
    """Return x with values (wide) added in some places; one rounding."""
    total = ctx.backend.scatter_add(x.shape, where, values, accumulate=ctx.accumulate)
    return ctx.round(ctx.wide(x) + total)


def _added(ctx: Node, shape: tuple[int, ...], where: Where, grad: Array) -> Array:
    """Return the gradient of what was taken: zeros, and grad added where it came from."""
    total = ctx.backend.scatter_add(shape, where, ctx.wide(grad), accumulate=ctx.accumulate)
    return ctx.round(total)


def _placing_gradients(
    ctx: Node, x: int, values: int, grad: Array, where: Where
) -> tuple[Array | None, Array | None]:
    """Return the gradients of inputs `x` and `values`: of what was left, and of what was put and stayed."""
    xp, backend = ctx.backend.xp, ctx.backend
    numbers = xp.full(grad.shape, -1)
    put = numbers[where].shape
    count = xp.arange(numbers[where].size).reshape(put)
    numbers[where] = count
    by_x = backend.keep_where(grad, numbers == -1) if ctx.needs(x) else None
    by_values = None
    if ctx.needs(values):
        by_values = backend.keep_where(backend.view(grad, lambda g: g[where]), numbers[where] == count)
    return by_x, by_values


def _into_lead(ctx: Node, source: int, index: Array, grad: Array | None) -> Array | None:
    """Return the gradient of a source of which the leading part was read; the rest gets 0."""
    if grad is None or ctx.shape_of(source) == grad.shape:
        return grad
    return _added(ctx, ctx.shape_of(source), _lead(index), grad)


def _check_along(name: str, x: Array, index: Array, dim: int) -> Array:
    """Return the index; refuse an index that does not run beside the other axes of x, or leaves `dim`."""
    _check_dim(name, x, dim)
    others = [i for i in range(x.ndim) if i != dim % x.ndim]
    if index.ndim != x.ndim or any(index.shape[i] > x.shape[i] for i in others):
        raise ShapeError(
            f"expected an index of {x.ndim} axes, nowhere longer than {x.shape} but along dim {dim}, "
            f"got {index.shape}",
            op=name, shapes=[x.shape, index.shape],
        )  # fmt: skip
    return _check_range(name, index, x.shape[dim], dim)


def _check_slices(name: str, x: Array, index: Array, dim: int) -> Array:
    """Return the index; refuse an index that is not a list of slices of x."""
    _check_dim(name, x, dim)
    if index.ndim > 1:
        raise ShapeError(
            f"expected an index (K,) or (), got {index.shape}", op=name, shapes=[x.shape, index.shape],
            help="flatten it, or use gather or x[...] for indices of more axes",
        )  # fmt: skip
    return _check_range(name, index, x.shape[dim], dim)


def _check_dim(name: str, x: Array, dim: int) -> None:
    if not -x.ndim <= dim < x.ndim:
        raise ShapeError(
            f"dim {dim} is out of range for shape {x.shape}", op=name, shapes=[x.shape],
            help=f"use {-x.ndim} to {x.ndim - 1}" if x.ndim else "give it an axis with .reshape(1)",
        )  # fmt: skip


def _check_range(name: str, index: Array, length: int, dim: int) -> Array:
    """Return the index; refuse indices that are no places on the axis, naming the first."""
    if index.dtype.kind not in "iu":
        raise DataError(f"expected integer indices, got {index.dtype}", op=name, help="use .astype('int64')")
    wrong = (index < 0) | (index >= length)

    def fault() -> DataError:
        flat = int(wrong.argmax())
        value = int(index.reshape(-1)[flat])
        return DataError(
            f"index {value} (element {flat} of the index) is out of range for dim {dim} with length {length}",
            op=name, help=f"indices count from 0 to {length - 1}; negative ones are taken by x[...] only",
        )  # fmt: skip

    return within(index, wrong, fault)


def _check_source(name: str, index: Array, src: Any) -> None:
    """Refuse a source that has no element for each index."""
    if not hasattr(src, "shape"):
        return
    if src.ndim != index.ndim or any(n > m for n, m in zip(index.shape, src.shape, strict=True)):
        raise ShapeError(
            f"expected a source of {index.ndim} axes, nowhere shorter than {index.shape}, got {src.shape}",
            op=name, shapes=[index.shape, src.shape],
        )  # fmt: skip


def _check_slice_source(name: str, x: Array, index: Array, source: Array, dim: int) -> None:
    """Refuse a source that is not one slice for each index."""
    wanted = list(x.shape)
    wanted[dim] = index.size
    if source.shape != tuple(wanted):
        raise ShapeError(
            f"expected a source {tuple(wanted)}, a slice along dim {dim} for each index, got {source.shape}",
            op=name, shapes=[x.shape, index.shape, source.shape],
        )  # fmt: skip
