"""Products and convolutions of int8 and uint8 codes on a device; what they mean is :mod:`.integers`'s.

A device multiplies int8 by int8 and adds in int32, which wraps around. uint8 codes are moved by 128 first:
q - z = (q - 128) - (z - 128). Up to BLOCK products cannot leave int32; longer sums are cut, where the zero
points and the depth let the result leave it, and added in int64. A result is exact or an error, as there.

Products that saturate are emulated on the host.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from minimp_backends.columns import Geometry
from minimp_backends.device_convolution import columns_on_device
from minimp_backends.integer_checks import (
    EXACT,
    Sizes,
    check_accumulate,
    check_codes,
    check_matrices,
    zero_points,
)
from minimp_backends.integer_products import shift_of
from minimp_backends.integers import IntegerKernels, as_int32, conv2d_geometry, largest_term

__all__ = ["BLOCK", "DeviceIntegers"]

Array = Any
Zero = npt.ArrayLike
BLOCK = (1 << 17) - 1
"""Products of two numbers in [-128, 127], 2^14 each at most, whose sum int32 has: below 2^31 / 2^14."""
MOST = (1 << 31) - 1


class DeviceIntegers(IntegerKernels):
    """The kernels of codes that run on the device."""

    if TYPE_CHECKING:
        xp: Any

        def from_host(self, array: npt.NDArray[Any]) -> Array:
            """Copy to the device."""

    @abstractmethod
    def int8_product(self, a: Array, b: Array) -> Array:
        """(..., M, K), (..., K, N) int8 -> (..., M, N) int32, modulo 2^32; leading axes broadcast."""

    def integer_matmul(
        self, a: Array, b: Array, a_zero: Zero = 0, b_zero: Zero = 0, *, accumulate: str = EXACT
    ) -> Array:
        """(..., M, K), (..., K, N) codes -> (..., M, N) int32, as :func:`.integers.integer_matmul`."""
        if accumulate != EXACT:
            return super().integer_matmul(a, b, a_zero, b_zero, accumulate=accumulate)
        op = "integer_matmul"
        check_codes(op, a, b)
        check_matrices(op, a, b)
        left = zero_points(op, "a_zero", a_zero, a, a.shape[:-1])
        right = zero_points(op, "b_zero", b_zero, b, (*b.shape[:-2], b.shape[-1]))
        return self._codes_product(op, a, b, left, right)

    def integer_conv2d(
        self, x: Array, w: Array, stride: Sizes = 1, padding: Sizes = 0, dilation: Sizes = 1, groups: int = 1,
        x_zero: Zero = 0, w_zero: Zero = 0, *, accumulate: str = EXACT,
    ) -> Array:  # fmt: skip
        """(N, C, H, W), (O, C/G, kh, kw) codes -> (N, O, OH, OW) int32: im2col and one product a group."""
        how = (stride, padding, dilation, groups)
        if accumulate != EXACT:
            return super().integer_conv2d(x, w, *how, x_zero, w_zero, accumulate=accumulate)
        op = "integer_conv2d"
        check_codes(op, x, w)
        check_accumulate(op, accumulate, x, w)
        geometry = conv2d_geometry(op, x, w, *how)
        zero = zero_points(op, "x_zero", x_zero, x, ())
        by_filter = np.broadcast_to(zero_points(op, "w_zero", w_zero, w, w.shape[:1]), w.shape[:1])
        by_filter, matrix = by_filter.reshape(groups, -1), geometry.matrix(w)
        padded, inside = self._codes_padded(x, geometry, int(zero))
        parts = []
        for images, columns in columns_on_device(self.xp, padded, inside):
            product = self._codes_product(op, matrix, columns, by_filter, zero)  # (G, O/G, n P)
            count = images.stop - images.start
            product = product.reshape(*product.shape[:2], count, geometry.positions).transpose(2, 0, 1, 3)
            parts.append(product.reshape(count, *geometry.out_shape[1:]))
        return parts[0] if len(parts) == 1 else self.xp.concatenate(parts)

    def _codes_padded(self, x: Array, geometry: Geometry, zero: int) -> tuple[Array, Geometry]:
        """Lay images out in a border of their zero; return them, and the geometry that has no padding."""
        (ph, pw), (height, width) = geometry.padding, geometry.size
        if not (ph or pw):
            return x, geometry
        room = self.xp.full((*x.shape[:2], *geometry.padded), zero, x.dtype)
        room[:, :, ph : ph + height, pw : pw + width] = x
        return room, replace(geometry, size=geometry.padded, padding=(0, 0))

    def _codes_product(
        self, op: str, a: Array, b: Array, a_zero: npt.NDArray[Any], b_zero: npt.NDArray[Any]
    ) -> Array:
        depth = a.shape[-1]
        left, right = np.atleast_1d(a_zero)[..., np.newaxis], np.atleast_1d(b_zero)[..., np.newaxis, :]
        fits = depth * largest_term(a, left) * largest_term(b, right) <= MOST
        dtype = np.dtype(np.int32 if fits else np.int64)
        near, far = self._codes_signed(a), self._codes_signed(b)
        left, right = ((zero - shift_of(x)).astype(dtype) for zero, x in ((left, a), (right, b)))
        made = self._codes_sums(near, far, dtype)
        if left.any():
            made = made - self._zero_beside(left) * self._codes_total(far, -2, dtype)
        if right.any():
            made = made - self._codes_total(near, -1, dtype) * self._zero_beside(right)
        if left.any() and right.any():
            made = made + self._zero_beside((left * dtype.type(depth)) * right)
        return made if fits else as_int32(op, made, depth)

    def _codes_sums(self, a: Array, b: Array, dtype: np.dtype[Any]) -> Array:
        """Multiply as much of K at once as cannot leave int32, if the sum may."""
        depth = a.shape[-1]
        step = depth if dtype == np.int32 else BLOCK
        if depth <= step:
            return self.int8_product(a, b).astype(dtype, copy=False)
        starts = range(0, depth, step)
        parts = (self.int8_product(a[..., i : i + step], b[..., i : i + step, :]) for i in starts)
        made = next(parts).astype(dtype)
        for part in parts:
            made = made + part
        return made

    def _codes_signed(self, codes: Array) -> Array:
        """Return codes - shift_of(codes), as int8: uint8's first bit turned over."""
        if codes.dtype == np.int8:
            return codes
        return self.xp.bitwise_xor(codes, np.uint8(128)).view("int8")

    def _codes_total(self, codes: Array, axis: int, dtype: np.dtype[Any]) -> Array:
        return self.xp.sum(codes, axis=axis, keepdims=True, dtype=dtype)

    def _zero_beside(self, zero: npt.NDArray[Any]) -> Any:
        """Return zero points to compute with: one number, or an array of the device."""
        return zero.reshape(-1)[0] if zero.size == 1 else self.from_host(zero)
