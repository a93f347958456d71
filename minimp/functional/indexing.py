"""Taking elements by index, and putting them: torch's functions; each returns a new tensor.

Indices are integer tensors or NumPy arrays and count from 0; one out of range is an error that names it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from minimp import ops
from minimp.errors import DataError, SettingError, ShapeError
from minimp.functional.lifting import lifted_beside
from minimp.refusals import refuse_if, within
from minimp.tape import Value
from minimp.tensors import Tensor

__all__ = [
    "gather", "index_add", "index_copy", "index_put", "index_select", "masked_select", "one_hot", "scatter",
    "scatter_add", "take_along_dim",
]  # fmt: skip


def gather(input: Any, dim: int, index: Any) -> Tensor:
    """y[i, j, k] = x[index[i, j, k], j, k] for dim = 0, and so on; y has the shape of index.

    Args:
        input: (...).
        dim: the axis that index counts along.
        index: integers, of as many axes as input, and nowhere longer but along `dim`.

    Raises:
        ShapeError: index does not fit. DataError: an index out of range, or no integer.
    """
    x, at, lined = _with_index("gather", input, index)
    y = ops.gather(x, at, dim=dim)
    return y.reshape(()) if lined and not _shape(index) else y


def index_select(input: Any, dim: int, index: Any) -> Tensor:
    """The slices of input along `dim` that index (K,) or () names, in its order; the axis stays.

    Raises:
        ShapeError: index has more axes. DataError: an index out of range, or no integer.
    """
    x, at, lined = _with_index("index_select", input, index)
    y = ops.index_select(x, at, dim=dim)
    return y.reshape(()) if lined else y


def take_along_dim(input: Any, indices: Any, dim: int | None = None) -> Tensor:
    """As :func:`gather`, input and indices broadcasting on the other axes; without `dim` both are flattened.

    Negative indices count from the end (torch refuses them without `dim`).
    """
    x = input if isinstance(input, Value) else Value.lift(input, None)
    at = lifted_beside(x, indices)
    if dim is None:
        x, at, dim = ops.reshape(x, shape=(-1,)), ops.reshape(at, shape=(-1,)), 0
    if len(x.shape) != len(at.shape):
        raise ShapeError(
            f"expected indices of {len(x.shape)} axes, got {at.shape}",
            op="take_along_dim", shapes=[x.shape, at.shape],
        )  # fmt: skip
    axis = dim % max(len(x.shape), 1)
    at = _from_the_start(at, x.shape[axis] if x.shape else 1)
    common = [max(n, m) if 0 not in (n, m) else 0 for n, m in zip(x.shape, at.shape, strict=True)]
    wide, narrow = (tuple(z.shape[i] if i == axis else n for i, n in enumerate(common)) for z in (x, at))
    return ops.gather(_expanded(x, wide), _expanded(at, narrow), dim=axis)


def masked_select(input: Any, mask: Any) -> Tensor:
    """The elements of input where mask is true, in C order: (K,); both broadcast.

    Raises:
        DataError: the mask is not boolean.
    """
    x = input if isinstance(input, Value) else Value.lift(input, None)
    chosen = lifted_beside(x, mask).array
    if chosen.dtype.kind != "b":
        raise DataError(f"expected a boolean mask, got {chosen.dtype}", op="masked_select")
    shape = x.backend.xp.broadcast_shapes(x.shape, chosen.shape)
    full = _expanded(x, shape)
    return ops.getitem(full, index=x.backend.xp.broadcast_to(chosen, shape))


def scatter(input: Any, dim: int, index: Any, src: Any) -> Tensor:
    """input with y[index[i, j, k], j, k] = src[i, j, k] for dim = 0, and so on.

    Args:
        input: (...).
        dim: the axis that index counts along.
        index: integers, of as many axes as input, and nowhere longer than input (but along `dim`) and src.
        src: a tensor of input's format, or a number (torch's `value`).

    Where several indices name one place, the last in C order stays and alone gets the gradient (torch: any
    one stays, and each gets the gradient).

    Raises:
        ShapeError: shapes that do not fit. DataError: an index out of range. FormatError: two formats.
    """
    x, at, lined = _with_index("scatter", input, index)
    values = src if isinstance(src, int | float) else _lined(lifted_beside(x, src))
    y = ops.scatter(x, at, values, dim=dim)
    return y.reshape(()) if lined else y


def scatter_add(input: Any, dim: int, index: Any, src: Any) -> Tensor:
    """input with src[i, j, k] added at [index[i, j, k], j, k] for dim = 0, and so on; one rounding.

    What meets in one place is summed as :class:`minimp.accumulate` says, in the C order of src. Arguments and
    errors as :func:`scatter`; src is a tensor.
    """
    x, at, lined = _with_index("scatter_add", input, index)
    y = ops.scatter_add(x, at, _lined(lifted_beside(x, src)), dim=dim)
    return y.reshape(()) if lined else y


def index_copy(input: Any, dim: int, index: Any, source: Any) -> Tensor:
    """input with its slice index[k] along `dim` replaced by slice k of source; index (K,) or ().

    Where several indices name one slice, the last stays and alone gets the gradient.
    """
    x, at, _ = _with_index("index_copy", input, index)
    return ops.index_copy(x, at, lifted_beside(x, source), dim=dim)


def index_add(input: Any, dim: int, index: Any, source: Any, *, alpha: float = 1) -> Tensor:
    """input with alpha times slice k of source added to slice index[k] along `dim`; one rounding."""
    x, at, _ = _with_index("index_add", input, index)
    return ops.index_add(x, at, lifted_beside(x, source), dim=dim, alpha=alpha)


def index_put(input: Any, indices: Sequence[Any], values: Any, accumulate: bool = False) -> Tensor:
    """input with input[indices] = values, or += values with accumulate: the assignment, as a function.

    Args:
        input: (...).
        indices: one for each of the first axes: integers (negative ones count from the end) or masks, which
            broadcast to each other.
        values: broadcast to what the indices name.
        accumulate: add, and sum what meets in one place; else the last value in C order stays.

    Raises:
        DataError: an index out of range. FormatError: input and values of two formats, outside autocast.
    """
    x = input if isinstance(input, Value) else Value.lift(input, None)
    places = tuple(lifted_beside(x, index).array for index in indices)
    places = _check_places(x, places)
    return ops.index_put(x, lifted_beside(x, values), indices=places, accumulate=accumulate)


def one_hot(tensor: Any, num_classes: int = -1) -> Tensor:
    """(...) -> (..., C): 1 where the last index is the label, else 0; int64, as torch's.

    Args:
        tensor: integer labels.
        num_classes: C; -1 takes the largest label plus 1.

    Raises:
        DataError: a label below 0 or not below C, or no integer. SettingError: C is not known, or below 1.
    """
    labels = tensor if isinstance(tensor, Value) else Value.lift(tensor, None)
    array, xp = labels.array, labels.backend.xp
    if array.dtype.kind not in "iu":
        raise DataError(
            f"expected integer labels, got {array.dtype}", op="one_hot", help="use .astype('int64')"
        )
    if num_classes < 0 and not array.size:
        raise SettingError("one_hot: no labels tell the number of classes", help="give num_classes")
    if num_classes == 0 or num_classes < -1:
        raise SettingError(f"one_hot: expected num_classes above 0, or -1, got {num_classes}")
    classes = int(array.max()) + 1 if num_classes < 0 else num_classes
    wrong = (array < 0) | (array >= classes)

    def fault() -> DataError:
        flat = int(wrong.argmax())
        value = int(array.reshape(-1)[flat])
        return DataError(
            f"expected labels from 0 to {classes - 1}, got {value} (element {flat})", op="one_hot"
        )

    refuse_if(wrong.any(), fault)
    hot = array[..., None] == xp.arange(classes)
    return Value.make(hot.astype("int64"), labels.backend)


def _shape(index: Any) -> tuple[int, ...]:
    return tuple(getattr(index, "shape", ()))


def _lined(x: Value) -> Value:
    """Give a tensor without axes one."""
    return x if x.shape else ops.reshape(x, shape=(1,))


def _with_index(name: str, input: Any, index: Any) -> tuple[Value, Value, bool]:
    """Return the input and the index as tensors; a scalar gets an axis, and the last says so."""
    x = input if isinstance(input, Value) else Value.lift(input, None)
    at = lifted_beside(x, index)
    if at.array.dtype.kind not in "iu":
        raise DataError(
            f"expected integer indices, got {at.array.dtype}", op=name, help="use .astype('int64')"
        )
    return (x, at, False) if x.shape else (_lined(x), _lined(at), True)


def _from_the_start(index: Value, length: int) -> Value:
    """Return indices in which what was counted from the end is counted from the start."""
    array = index.array
    if array.dtype.kind != "i":
        return index
    if not index.backend.decides_on_device and not (array < 0).any():
        return index
    return Value.make(index.backend.xp.where(array < 0, array + length, array), index.backend)


def _expanded(x: Value, shape: tuple[int, ...]) -> Value:
    return x if x.shape == tuple(shape) else ops.expand(x, shape=tuple(shape))


def _check_places(x: Value, places: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the indices; refuse those that are no places of x, naming the first."""
    axis, kept = 0, []
    for place in places:
        if place.dtype.kind not in "iub":
            raise DataError(f"expected integer or boolean indices, got {place.dtype}", op="index_put")
        if place.dtype.kind == "b":
            axis += place.ndim
            kept.append(place)
            continue
        if axis >= len(x.shape):
            raise ShapeError(f"more indices than the axes of {x.shape}", op="index_put", shapes=[x.shape])
        length = x.shape[axis]
        wrong = (place < -length) | (place >= length)
        kept.append(within(place, wrong, partial(_no_place, place, wrong, axis, length)))
        axis += 1
    return tuple(kept)


def _no_place(place: Any, wrong: Any, axis: int, length: int) -> DataError:
    """Say which index is no place on an axis."""
    flat = int(wrong.argmax())
    value = int(place.reshape(-1)[flat])
    return DataError(
        f"index {value} (element {flat} of the index) is out of range for dim {axis} with length {length}",
        op="index_put", help=f"use {-length} to {length - 1}",
    )  # fmt: skip
