"""Numbers in one byte on a device: bytes and the format that they are of, for array libraries have no FP8.

The functions are those of :mod:`minimp_backends.eight_bits`, over `xp` alone, and give its bits. A number
whose ulp is 2^q has the code (number / 2^q) + (q - q_min) 2^m, with m mantissa bits and 2^q_min the ulp of
the subnormals: the whole number of ulps, which has m + 1 bits from the smallest normal number on, carries
into the exponent by itself.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from minimp import formats
from minimp.formats import Format
from minimp_backends.eight_bits import E8M0, LEAST, MOST, EightBits

__all__ = ["Codes", "DeviceCodes"]

Array = Any


class Codes:
    """Numbers in one byte, on a device.

    Attributes:
        codes: uint8 array of the device.
        dtype: the dtype of ml_dtypes whose codes they are.
    """

    __slots__ = ("__weakref__", "codes", "dtype")
    itemsize = 1
    base = None

    def __init__(self, codes: Array, dtype: Any) -> None:
        self.codes, self.dtype = codes, np.dtype(dtype)

    @property
    def shape(self) -> tuple[int, ...]:
        """The length of each axis."""
        return tuple(self.codes.shape)

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return int(self.codes.ndim)

    @property
    def size(self) -> int:
        """The number of codes."""
        return int(self.codes.size)

    @property
    def nbytes(self) -> int:
        """The bytes: one each."""
        return int(self.codes.nbytes)

    def __repr__(self) -> str:
        return f"Codes({self.dtype}, shape={self.shape})"


class DeviceCodes(EightBits):
    """The kernels of FP8 on a device."""

    def to_eight_bits(self, wide: Array, format: Format) -> Codes:
        """Round float32 numbers once to an FP8 format: to nearest even, saturating; NaN stays NaN."""
        xp, bits = self.xp, format.mantissa_bits
        number = wide.astype("float64")
        bad = xp.isnan(number)
        magnitude = xp.minimum(xp.where(bad, 0.0, xp.abs(number)), format.max)
        _, exponent = xp.frexp(magnitude)
        exponent = xp.maximum(xp.where(magnitude == 0, format.emin, exponent - 1), format.emin)
        ulps = xp.rint(xp.ldexp(magnitude, (bits - exponent).astype("int32")))  # exact but for rint
        code = ulps.astype("int32") + ((exponent - format.emin).astype("int32") << bits)
        code = xp.where(bad, _nan_code(format), code) | (xp.signbit(number).astype("int32") << 7)
        return Codes(code.astype("uint8"), format.dtype)

    def from_eight_bits(self, codes: Codes, dtype: Any) -> Array:
        """Return the values of FP8 numbers as float32 or float64, exactly: each looked up."""
        table = self.from_host(_values(codes.dtype).astype(dtype))
        return self.xp.take(table, codes.codes.astype("int32"))

    def power_scales(self, amax: Array, format: Format) -> Array:
        """Return a power of two for each amax, see :func:`minimp_backends.eight_bits.power_scales`."""
        xp, (top, at) = self.xp, np.frexp(format.max)
        fraction, exponent = xp.frexp(amax)
        power = xp.clip(exponent - int(at) + (fraction > float(top)), LEAST, MOST)
        power = xp.where(amax == 0, LEAST, power).astype("int32")
        scales = xp.ldexp(xp.ones(amax.shape, "float32"), power)
        return xp.where(xp.isfinite(amax), scales, xp.full(amax.shape, float("nan"), "float32"))

    def to_scale_codes(self, scales: Array) -> Codes:
        """Return powers of two from 2^-127 to 2^127, and NaN, in one byte each: E8M0."""
        _, exponent = self.xp.frexp(scales)
        code = self.xp.where(self.xp.isfinite(scales), exponent - 1 - LEAST, 255)
        return Codes(code.astype("uint8"), E8M0)


@lru_cache(maxsize=16)
def _values(dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """Return the number of each code."""
    values: np.ndarray[Any, Any] = formats.decode(np.arange(256, dtype=np.uint8), formats.get(dtype))
    return values


def _nan_code(format: Format) -> int:
    """Return the code of NaN, its sign aside."""
    return int(formats.encode(np.array([np.nan]), format)[0]) & 0x7F
