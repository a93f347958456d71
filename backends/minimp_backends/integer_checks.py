"""What integer kernels ask of their arguments: codes, zero points, sizes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from minimp.errors import FormatError, SettingError, ShapeError, unknown_name

__all__ = [
    "ACCUMULATES", "EXACT", "SATURATING", "check_accumulate", "check_codes", "check_matrices", "pair_of",
    "zero_points",
]  # fmt: skip

Array = npt.NDArray[Any]
Sizes = int | tuple[int, int]
CODES = (np.dtype(np.int8), np.dtype(np.uint8))
EXACT, SATURATING = "int32", "int16-saturating"
ACCUMULATES = (EXACT, SATURATING)
"""How products are added: exactly, or in pairs that are cut off at int16 first."""


def pair_of(op: str, name: str, size: Sizes) -> tuple[int, int]:
    """Return a size for each of height and width."""
    both = tuple(size) if isinstance(size, list | tuple) else (size, size)
    if len(both) != 2 or not all(isinstance(each, int | np.integer) for each in both):
        raise SettingError(
            f"{name} must be a whole number, or one for each of height and width, got {size!r}",
            op=op, help=f"for example {name}=1 or {name}=(1, 2)",
        )  # fmt: skip
    return int(both[0]), int(both[1])


def check_codes(op: str, *arrays: Array) -> None:
    """Refuse arrays that are neither int8 nor uint8."""
    names = [str(each.dtype) for each in arrays]
    if any(each.dtype not in CODES for each in arrays):
        raise FormatError(
            f"expected int8 or uint8 codes, got {', '.join(names)}",
            op=op, formats=names, help="quantise the values first",
        )  # fmt: skip


def check_accumulate(op: str, accumulate: str, *arrays: Array) -> None:
    """Refuse an accumulation that does not exist, or not of these dtypes."""
    if accumulate not in ACCUMULATES:
        raise SettingError(unknown_name("accumulate", accumulate, ACCUMULATES), op=op)
    names = [str(each.dtype) for each in arrays]
    if accumulate == SATURATING and sorted(names) != ["int8", "uint8"]:
        raise SettingError(
            f"accumulate={SATURATING!r} is of uint8 by int8, as the instruction VPMADDUBSW, got {names}",
            op=op, formats=names, help="quantise activations to uint8 and weights to int8, or use 'int32'",
        )  # fmt: skip


def check_matrices(op: str, a: Array, b: Array) -> None:
    """Refuse shapes that have no product."""
    shapes = (a.shape, b.shape)
    fit = min(a.ndim, b.ndim) >= 2 and a.shape[-1] == b.shape[-2]
    try:
        np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    except ValueError:
        fit = False
    if not fit:
        raise ShapeError(
            f"expected (..., M, K) and (..., K, N), got {a.shape} and {b.shape}", op=op, shapes=shapes,
            help="K must be one number, and the leading axes broadcast; give a vector an axis of length 1",
        )  # fmt: skip


def zero_points(op: str, name: str, zero: npt.ArrayLike, codes: Array, shape: tuple[int, ...]) -> Array:
    """Return zero points as int64; they must be codes, and broadcast to `shape`."""
    given = np.asarray(zero)
    limits = np.iinfo(codes.dtype)
    if given.dtype.kind not in "iu":
        raise SettingError(f"{name} must be a whole number, got {given.dtype}", op=op, help="round it first")
    if given.size and not limits.min <= int(given.min()) <= int(given.max()) <= limits.max:
        raise SettingError(
            f"{name} must be a code of {codes.dtype}, {limits.min} to {limits.max}, got {given}",
            op=op, help="real zero must be representable: choose the zero point within the codes",
        )  # fmt: skip
    try:
        fits = np.broadcast_shapes(given.shape, shape) == shape
    except ValueError:
        fits = False
    if not fits:
        raise ShapeError(
            f"{name} of shape {given.shape} does not broadcast to {shape}", op=op,
            shapes=(given.shape, shape), help="give one number, or one for each row, column or filter",
        )  # fmt: skip
    return given.astype(np.int64)
