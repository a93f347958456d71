"""Numbers in one byte: FP8 codes of float32 numbers, and back; the scales of blocks.

Each function works on the host: it is the reference, and what runs on NumPy.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from minimp import formats
from minimp.formats import Format

__all__ = ["E8M0", "EightBits", "power_scales"]

Array = Any
E8M0 = np.dtype(ml_dtypes.float8_e8m0fnu)
LEAST, MOST = -127, 127
"""Exponents of the scales that E8M0 has (OCP MX 1.0, 5.4.1)."""


class EightBits:
    """The kernels of FP8."""

    if TYPE_CHECKING:
        xp: Any

        def from_host(self, array: np.ndarray[Any, Any]) -> Array:
            """Copy to the device."""

        def to_host(self, array: Array) -> np.ndarray[Any, Any]:
            """Return the host's array."""

    def to_eight_bits(self, wide: Array, format: Format) -> Array:
        """Round float32 numbers once to an FP8 format: to nearest even, saturating; NaN stays NaN."""
        codes = formats.encode(self.to_host(wide), format, overflow="saturate")
        return self._taken(wide, codes.view(format.dtype))

    def from_eight_bits(self, codes: Array, dtype: Any) -> Array:
        """Return the values of FP8 numbers as float32 or float64, exactly."""
        held = self.to_host(codes)
        values = formats.decode(held.view(np.uint8), formats.get(held.dtype), dtype=dtype)
        return self._taken(codes, values)

    def largest(self, wide: Array) -> float:
        """Return the largest magnitude, 0 of an empty array; NaN if there is one."""
        return float(self.xp.abs(wide).max()) if wide.size else 0.0

    def power_scales(self, amax: Array, format: Format) -> Array:
        """Return a power of two for each amax, see :func:`power_scales`."""
        return self._taken(amax, power_scales(self.to_host(amax), format))

    def to_scale_codes(self, scales: Array) -> Array:
        """Return powers of two from 2^-127 to 2^127, and NaN, in one byte each: E8M0."""
        return scales.astype(E8M0)

    def _taken(self, like: Array, made: NDArray[Any]) -> Array:
        """Return an array of the host as one of the device."""
        return made if isinstance(like, np.ndarray) else self.from_host(made)


def power_scales(amax: NDArray[np.float32], format: Format) -> NDArray[np.float32]:
    """Return the least 2^k, k from -127 to 127, with amax <= 2^k max; NaN where amax is not finite.

    An amax of 0 has 2^-127.
    """
    fraction, exponent = np.frexp(amax)
    top, at = math.frexp(format.max)
    power = np.clip(exponent - at + (fraction > top), LEAST, MOST)
    scales: NDArray[np.float32] = np.ldexp(np.float32(1), np.where(amax == 0, LEAST, power))
    scales[~np.isfinite(amax)] = np.nan
    return scales
