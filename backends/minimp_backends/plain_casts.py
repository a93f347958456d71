"""The readable casts: one ``astype``-like assignment each, by NumPy (float16) and ml_dtypes (bfloat16).

They say what every faster twin must return. Rounding is to nearest, ties to even; subnormals are kept; a
value that rounds past the largest finite one becomes an infinity (float16: from 65520, bfloat16: from
2^128 - 2^119); the sign of zero is kept. A NaN stays a NaN of the same sign, and its other bits mean
nothing: NumPy keeps the top of the payload, ml_dtypes writes the canonical quiet NaN, and a hardware cast
makes a signalling NaN quiet.

An overflow is a result here, not an accident (loss scaling lives on it), so the casts never warn.
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from minimp.errors import FormatError, ShapeError

__all__ = [
    "BFLOAT16",
    "FLOAT16",
    "FLOAT32",
    "Array",
    "check_cast",
    "narrow_bfloat16",
    "narrow_float16",
    "round_to_float16_grid",
    "widen_bfloat16",
    "widen_float16",
]

Array = NDArray[Any]
FLOAT32 = np.dtype(np.float32)
FLOAT16 = np.dtype(np.float16)
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


def check_cast(
    op: str, source: Array, source_dtype: np.dtype[Any], target: Array, target_dtype: np.dtype[Any]
) -> None:
    """Hold a cast to its formats and to equal shapes.

    Raises:
        FormatError: an array is not of the (native) dtype that this cast reads or writes.
        ShapeError: source and target differ in shape; a cast never broadcasts.
    """
    if source.dtype != source_dtype or target.dtype != target_dtype:
        raise FormatError(
            f"expected {source_dtype} into {target_dtype}, got {source.dtype} into {target.dtype}",
            op=op,
            formats=(str(source.dtype), str(target.dtype)),
            help="pass native-endian arrays of these dtypes; for float64 input use narrow_from_float64",
        )
    if source.shape != target.shape:
        raise ShapeError(
            f"expected source and target of one shape, got {source.shape} into {target.shape}",
            op=op,
            shapes=(source.shape, target.shape),
            help="allocate the target with np.empty(source.shape, dtype)",
        )


@np.errstate(all="ignore")
def narrow_float16(wide: Array, half: Array, grid: Array | None = None) -> None:
    """Write the float32 array ``wide``, rounded to float16, into ``half``, and as float32 into ``grid``.

    ``grid`` may be ``wide`` itself. Raises FormatError and ShapeError as :func:`check_cast` does.
    """
    check_cast("narrow_float16", wide, FLOAT32, half, FLOAT16)
    half[...] = wide
    if grid is not None:
        check_cast("narrow_float16 grid", half, FLOAT16, grid, FLOAT32)
        grid[...] = half


@np.errstate(all="ignore")
def widen_float16(half: Array, wide: Array) -> None:
    """Write the float16 array ``half`` into the float32 array ``wide``; exact."""
    check_cast("widen_float16", half, FLOAT16, wide, FLOAT32)
    wide[...] = half


@np.errstate(all="ignore")
def round_to_float16_grid(wide: Array, out: Array) -> None:
    """Write ``wide`` rounded to float16 into the float32 array ``out``, which may be ``wide`` itself."""
    check_cast("round_to_float16_grid", wide, FLOAT32, out, FLOAT32)
    out[...] = wide.astype(FLOAT16)


@np.errstate(all="ignore")
def narrow_bfloat16(wide: Array, low: Array, grid: Array | None = None) -> None:
    """Write the float32 array ``wide``, rounded to bfloat16, into ``low``, and as float32 into ``grid``."""
    check_cast("narrow_bfloat16", wide, FLOAT32, low, BFLOAT16)
    low[...] = wide
    if grid is not None:
        check_cast("narrow_bfloat16 grid", low, BFLOAT16, grid, FLOAT32)
        grid[...] = low


@np.errstate(all="ignore")
def widen_bfloat16(low: Array, wide: Array) -> None:
    """Write the bfloat16 array ``low`` into the float32 array ``wide``; exact."""
    check_cast("widen_bfloat16", low, BFLOAT16, wide, FLOAT32)
    wide[...] = low
