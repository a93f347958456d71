"""The bits of a format: numbers to codes and back.

A code is ``sign | exponent | mantissa``. For a magnitude M · 2^(e - m) with e >= emin, the two fields
together are

    (e - emin) · 2^m + M

for normal and subnormal numbers alike: the hidden bit of a normal M carries into the exponent field. (In
float8_e8m0fnu, where no code is spent on zero, they are e - emin.)
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from minimp.errors import DataError
from minimp.formats.dice import Source
from minimp.formats.flags import Flags
from minimp.formats.rounding import Float64s, round_to
from minimp.formats.table import Format, get

__all__ = ["decode", "encode"]

Codes = npt.NDArray[np.unsignedinteger[Any]]


def encode(
    x: npt.ArrayLike,
    fmt: Any,
    rounding: str = "nearest_even",
    overflow: str | None = None,
    rng: Source = None,
    *,
    subnormals: str = "keep",
    bits: npt.ArrayLike | None = None,
    flags: Flags | None = None,
) -> Codes:
    """Round x to ``fmt`` and give the bits: unsigned codes of x's shape, right-aligned.

    tfloat32 comes as the float32 pattern (its 19 bits, then 13 zeros). NaN is the format's quiet NaN and
    keeps its sign; a payload is not carried over. int8 is two's complement.

    Args and errors are those of ``minimp.formats.round``.
    """
    fmt = get(fmt)
    values = round_to(x, fmt, rounding, overflow, rng, subnormals=subnormals, bits=bits, flags=flags).astype(
        np.float64
    )
    if fmt.is_integer:
        return values.astype(np.int64).astype(fmt.code_dtype)
    finite = np.isfinite(values)
    magnitude = np.where(finite, np.abs(values), 0.0)
    _, exponent = np.frexp(magnitude)
    binade = np.where(magnitude < fmt.smallest_normal, 0, exponent - 1 - fmt.emin)  # above the lowest
    significand = np.ldexp(magnitude, fmt.mantissa_bits - fmt.emin - binade).astype(np.uint64)
    carried = significand if fmt.has_zero else np.uint64(0)  # or there is no hidden bit that would carry
    codes = (binade.astype(np.uint64) << fmt.mantissa_bits) + carried
    codes = np.where(np.isinf(values), np.uint64(fmt.inf_code or 0), codes)
    codes = np.where(np.isnan(values), np.uint64(fmt.nan_code or 0), codes)
    signs = np.signbit(values).astype(np.uint64) << fmt.magnitude_bits
    placed: Codes = (codes | signs * fmt.signed) << fmt.padding
    return placed.astype(fmt.code_dtype)


@np.errstate(over="ignore")  # the codes beyond max would be 2^1024 and more; they are replaced below
def decode(codes: npt.ArrayLike, fmt: Any) -> Float64s:
    """Read codes as numbers: float64 of the same shape (every value of every format is exact in it).

    Args:
        codes: integers of any integer dtype, right-aligned as ``encode`` gives them.
        fmt: anything that ``get`` knows.

    Raises:
        FormatError: unknown format.
        DataError: codes are not integers, or not codes of ``fmt``.
    """
    fmt = get(fmt)
    bits = _code_bits(np.asarray(codes), fmt)
    top = np.uint64(fmt.magnitude_bits)
    negative = (bits >> top == 1) if fmt.signed else np.zeros(bits.shape, bool)
    fields = bits & np.uint64((1 << fmt.magnitude_bits) - 1)
    if fmt.is_integer:
        return np.where(negative, fields - 2.0**fmt.magnitude_bits, fields)
    exponent = (fields >> fmt.mantissa_bits).astype(np.int64)
    mantissa = fields & np.uint64((1 << fmt.mantissa_bits) - 1)
    normal = exponent >= fmt.has_zero
    hidden = np.where(normal, np.uint64(1 << fmt.mantissa_bits), np.uint64(0))
    mantissa = np.where(normal | fmt.is_gradual, mantissa, np.uint64(0))
    scale = np.maximum(exponent - fmt.has_zero, 0) + fmt.emin - fmt.mantissa_bits
    magnitude = np.ldexp((mantissa + hidden).astype(np.float64), scale.astype(np.int32))
    beyond = np.inf if fmt.has_inf else np.nan
    magnitude = np.where(fields == fmt.max_code + 1, beyond, magnitude)
    magnitude = np.where(fields > fmt.max_code + fmt.has_inf, np.nan, magnitude)
    if fmt.nan_code == 1 << fmt.magnitude_bits:  # the code of -0
        magnitude = np.where(bits == fmt.nan_code, np.nan, magnitude)
    minus = negative & ((magnitude != 0) | fmt.has_negative_zero)
    return np.copysign(magnitude, np.where(minus, -1.0, 1.0))


def _code_bits(codes: npt.NDArray[Any], fmt: Format) -> npt.NDArray[np.uint64]:
    """Check that codes are codes of ``fmt`` and strip the padding."""
    if codes.dtype.kind not in "iu":
        raise DataError(
            f"expected integer codes of {fmt.name}, got {codes.dtype}",
            op="decode",
            shapes=(codes.shape,),
            formats=(fmt.name,),
            help="view the array as unsigned integers of its size, for example x.view(np.uint16)",
        )
    bits = codes.astype(np.uint64)  # a negative code wraps far out of the range, and is refused below
    strange = (
        (bits >> (fmt.bits + fmt.padding) != 0) if fmt.bits + fmt.padding < _WORD else np.zeros((), bool)
    )
    strange = strange | (bits & np.uint64((1 << fmt.padding) - 1) != 0)
    if strange.any():
        raise DataError(
            f"{int(strange.sum())} of {codes.size} codes are not {fmt.name}'s: it has {fmt.bits} bits"
            + (f" above {fmt.padding} zeros" if fmt.padding else ""),
            op="decode",
            shapes=(codes.shape,),
            formats=(fmt.name,),
            help="codes are right-aligned and unsigned",
        )
    return bits >> np.uint64(fmt.padding)


_WORD = 64
