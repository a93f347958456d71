"""What data must satisfy before it is trained on: numbers, finite, one label a row, labels in range.

Each check returns the array in the type the engine wants and raises DataError with the place (row and column
of the array, or line and column of the file), what stands there, and what to do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from minimp.errors import DataError

__all__ = ["Place", "array_place", "as_inputs", "as_labels", "as_values", "encode_labels"]

Place = Callable[[tuple[int, ...]], str]
"""Says where a value stands: takes its index (row, ...) and returns for example ``"line 7, column 2"``."""

# A label that would make more classes than this, and more than there are rows, is taken for something else
# (an identifier, a year): one output and one weight row would be made for every number below it.
PLAUSIBLE_CLASSES = 1000

NUMERIC_KINDS = "buif"
NOT_NUMBERS = {
    "O": "Python objects",
    "U": "text",
    "S": "bytes",
    "c": "complex numbers",
    "V": "raw or structured bytes",
}


def array_place(index: tuple[int, ...]) -> str:
    """Name a place in an array by its numbers, counted from 0."""
    row, *inner = index
    inside = {0: "", 1: f", column {index[-1]}"}.get(len(inner), f", element {tuple(inner)}")
    return f"row {row}{inside} (counting from 0)"


def as_values(
    values: npt.ArrayLike, *, what: str, op: str, place: Place = array_place
) -> npt.NDArray[np.float32]:
    """Return finite numbers as a float32 array with at least one row; wider types are rounded once.

    The result is a copy, except that a float32 array marked read-only is handed back as it is.

    Raises:
        DataError: no numbers, no rows, empty rows, NaN, infinity, or a value beyond float32.
    """
    array = _numbers(values, what, op)
    if array.ndim == 0 or array.size == 0:
        raise DataError(
            f"{what} is empty: shape {array.shape}",
            op=op,
            shapes=[array.shape],
            help="give at least one row of data",
        )
    with np.errstate(over="ignore", invalid="ignore"):  # both show as non-finite values just below
        single = array.astype(np.float32, copy=array.flags.writeable)
    finite = np.isfinite(single)
    if not finite.all():
        raise _non_finite(array, finite, what, op, place)
    return single


def as_inputs(values: npt.ArrayLike, *, op: str, place: Place = array_place) -> npt.NDArray[np.float32]:
    """Return model inputs as float32 (N, ...): at least two axes, N >= 1, all finite.

    Raises:
        DataError: as for `as_values`, or fewer than two axes.
    """
    single = as_values(values, what="inputs", op=op, place=place)
    if single.ndim == 1:
        raise DataError(
            f"inputs must have shape (N, features) or (N, C, H, W), got {single.shape}",
            op=op,
            shapes=[single.shape],
            help="for one feature a row use inputs.reshape(-1, 1)",
        )
    return single


def as_labels(
    values: npt.ArrayLike, num_classes: int | None, *, op: str, place: Place = array_place
) -> tuple[npt.NDArray[np.int64], int]:
    """Return class labels as int64 (N,) and the number of classes (largest label + 1 where it is not given).

    Integers, booleans and floats that hold whole numbers are taken; (N, 1) is read as (N,).

    Raises:
        DataError: wrong rank, empty, not whole numbers, below 0, or not below the number of classes.
    """
    array = _numbers(values, "targets", op)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise DataError(
            f"labels must have shape (N,), got {array.shape}",
            op=op,
            shapes=[array.shape],
            help="one-hot rows become labels with targets.argmax(axis=1)",
        )
    if array.size == 0:
        raise DataError("targets is empty: shape (0,)", op=op, help="give at least one row of data")
    if array.dtype.kind == "f":
        whole = np.isfinite(array) & (array == np.floor(array))
        if not whole.all():
            row = int(np.argmin(whole))
            raise DataError(
                f"labels must be whole numbers, {place((row,))} has {array[row]}",
                op=op,
                help="class labels run 0, 1, 2, ...; targets that are measured values need num_classes=0",
            )
    limit = _class_limit(array, num_classes)
    outside = (array < 0) | (array >= limit)
    if outside.any():
        raise _label_outside(array, int(np.argmax(outside)), limit, num_classes, op, place)
    labels = array.astype(np.int64)
    return labels, int(labels.max()) + 1 if num_classes is None else num_classes


def encode_labels(words: Sequence[str]) -> tuple[npt.NDArray[np.int64], tuple[str, ...]]:
    """Number text labels by the sorted distinct words (in code point order): ``(labels, class names)``."""
    names = tuple(sorted(set(words)))
    number = {name: index for index, name in enumerate(names)}
    return np.array([number[word] for word in words], np.int64), names


def _numbers(values: npt.ArrayLike, what: str, op: str) -> npt.NDArray[Any]:
    """Return `values` as an array of real numbers."""
    try:
        array = np.asarray(values)
    except (ValueError, TypeError) as fault:  # ragged lists
        raise DataError(
            f"{what} cannot be made into one array: {fault}", op=op, help="give rows of equal length"
        ) from fault
    kind = array.dtype.kind
    if kind in NUMERIC_KINDS:
        return array
    if kind == "V" and array.dtype.names is None and np.can_cast(array.dtype, np.float32):
        return array.astype(np.float32)  # bfloat16 and the 8-bit floats, which NumPy counts as void; exact
    raise DataError(
        f"{what} must hold real numbers, got {NOT_NUMBERS.get(kind, 'values')} (dtype {array.dtype})",
        op=op,
        formats=[str(array.dtype)],
        help="convert the array to float32 (inputs) or int64 (labels) first",
    )


def _non_finite(
    array: npt.NDArray[Any], finite: npt.NDArray[np.bool_], what: str, op: str, place: Place
) -> DataError:
    """Describe the first value that is not finite in float32."""
    index = tuple(int(i) for i in np.unravel_index(int(np.argmin(finite)), finite.shape))
    value, where, count = array[index], place(index), int(finite.size - finite.sum())
    more = f" ({count} such values in all)" if count > 1 else ""
    if math.isfinite(value):
        largest = float(np.finfo(np.float32).max)
        return DataError(
            f"{what}: {where} holds {value}, beyond the largest float32 {largest:.7g}{more}",
            op=op,
            help="scale that column before loading",
        )
    return DataError(
        f"{what} must be finite, {where} holds {value}{more}",
        op=op,
        help="fill in or drop the rows with missing or infinite values",
    )


def _class_limit(labels: npt.NDArray[Any], num_classes: int | None) -> int:
    """Return the number that every label must stay below."""
    return max(PLAUSIBLE_CLASSES, labels.size) if num_classes is None else num_classes


def _label_outside(
    labels: npt.NDArray[Any], row: int, limit: int, num_classes: int | None, op: str, place: Place
) -> DataError:
    """Describe the first label that is out of range."""
    found = f"{place((row,))} has label {int(labels[row])}"
    if num_classes is not None:
        return DataError(
            f"labels must be in 0..{limit - 1} for {num_classes} classes, {found}",
            op=op,
            help="number the classes from 0, or give the right num_classes",
        )
    if labels[row] < 0:
        return DataError(f"labels must not be negative, {found}", op=op, help="number the classes from 0")
    return DataError(
        f"{found}, which would make {int(labels[row]) + 1} classes out of {labels.size} rows",
        op=op,
        help="number the classes 0, 1, 2, ..., choose another label column, or give num_classes",
    )
