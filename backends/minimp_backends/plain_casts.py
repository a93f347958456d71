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

from minimp.errors import FormatError, ShapeError, unknown_name

__all__ = [
    "BFLOAT16",
    "FLOAT16",
    "FLOAT32",
    "Array",
    "check_cast",
    "narrow_bfloat16",
    "narrow_float16",
    "narrow_from_float64",
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


def _round_to_odd_float32(wide64: Array) -> Array:
    """float64 to float32 by round-to-odd: truncate, and set the last bit if anything was cut off."""
    with np.errstate(all="ignore"):
        nearest = wide64.astype(FLOAT32)
        back = nearest.astype(np.float64)
        cut_off = back != wide64  # also true of a NaN, which stays one
        away = np.abs(back) > np.abs(wide64)  # an infinity that came from a finite value is one of these
    bits = nearest.view(np.uint32)
    np.subtract(bits, away, out=bits, casting="unsafe")
    np.bitwise_or(bits, cut_off, out=bits, casting="unsafe")
    return nearest


def narrow_from_float64(wide64: Array, low: Array, fmt_name: str) -> None:
    """Write the float64 array ``wide64`` into ``low``, rounded once (nearest, ties to even).

    NumPy rounds float64 to float16 once. ml_dtypes goes to bfloat16 by way of float32 and so rounds
    twice: 1 + 2^-8 + 2^-40 becomes the tie 1 + 2^-8 and then 1, though 1 + 2^-7 is nearer. Here float32
    is reached by round-to-odd. A result of round-to-odd with p + 2 bits or more is a midpoint of p-bit
    numbers, or such a number, only if it is exact, and otherwise lies on the same side of it as the
    original; so rounding it to p bits gives what rounding the original gives (Boldo and Melquiond,
    "Emulation of FMA and correctly rounded sums: proved algorithms using rounding to odd", IEEE Trans.
    Computers 57(4), 2008). float32 has 24 bits for bfloat16's 8, the same exponent range, and 16 more
    bits below the smallest subnormal; a finite value beyond float32 becomes the largest float32, which is
    odd and rounds to infinity. (A processor set to flush subnormals gives zero below 2^-126, as in all
    float32 arithmetic.)

    Args:
        wide64: float64, any shape.
        low: the target, of the same shape, float16 or bfloat16 as ``fmt_name`` says.
        fmt_name: ``"float16"`` or ``"bfloat16"``.

    Raises:
        FormatError: ``fmt_name`` is neither, or an array is not of the dtype named.
        ShapeError: the shapes differ.
    """
    targets = {"float16": FLOAT16, "bfloat16": BFLOAT16}
    if fmt_name not in targets:
        raise FormatError(
            unknown_name("target format", fmt_name, targets),
            op="narrow_from_float64",
            formats=(fmt_name,),
            help="minimp.formats.round takes every format",
        )
    check_cast("narrow_from_float64", wide64, np.dtype(np.float64), low, targets[fmt_name])
    with np.errstate(all="ignore"):
        low[...] = wide64 if fmt_name == "float16" else _round_to_odd_float32(wide64)
