"""What every device has in common: the kernels of NumPy's backend once more, over `self.xp` alone.

A device is an array library that takes NumPy's calls but keeps its arrays to itself: nothing becomes a host
array on the way, and no host array is mixed in. What NumPy does for speed (twins, blocks that fit a cache,
results written in place, read-only flags) is left out: whole arrays, one call after the other.

A subclass gives `name`, `xp`, `from_host`, `to_host` and `synchronize`, and overrides what its library does
better; kernels that sum come down to `matmul` and `sum`, casts to `cast_nearest` and `cast_kernel`.

What has no kernel here runs on the host, as the reference does it, and is copied back: sums by a name other
than "float32" and "float64" (they emulate), and codes of 8 bits. Each such call waits for the device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from minimp import formats
from minimp.formats import Format
from minimp.formats.dice import Source
from minimp_backends import accumulating, device_convolution, device_pooling
from minimp_backends.array_backend import FLOAT32, FLOAT64, LOW, Array, ArrayBackend
from minimp_backends.device_codes import DeviceCodes
from minimp_backends.device_dice import keep_mask
from minimp_backends.device_layers import DeviceLayers
from minimp_backends.device_rounding import round_on_device, to_odd_float32
from minimp_backends.updates_blocks import Room

__all__ = ["PLAIN", "DeviceBackend"]

BFLOAT16 = formats.bfloat16.dtype
PLAIN = frozenset({"float32", "float64"})
"""The accumulations that are the device's own."""


class DeviceBackend(DeviceCodes, DeviceLayers, ArrayBackend):
    """A backend whose arrays are not NumPy's; abstract over `xp`."""

    decides_on_device = True

    # ---- storage ----------------------------------------------------------------------------------------

    def release(self, array: Array) -> Array:
        """Return a copy: a device array has no flag that says whether others hold it."""
        return array.copy()

    # ---- formats ----------------------------------------------------------------------------------------

    def wide(self, array: Array) -> Array:
        """Widen float16 and bfloat16 to float32."""
        try:
            dtype = array.dtype
        except AttributeError:  # a Python number
            return array
        return array.astype(FLOAT32) if dtype in LOW else array

    def narrow(self, array: Array, format: Format | None) -> Array:
        """Round once."""
        if format is None or array.dtype == format.dtype:
            return array
        return self.cast(array, format)

    def cast(
        self, array: Array, format: Format, rounding: str = "nearest_even", overflow: str | None = None,
        rng: Source = None,
    ) -> Array:  # fmt: skip
        """Round each element once, by :meth:`cast_nearest` or by :meth:`cast_kernel`."""
        self.require(format)
        if array.dtype == format.dtype:
            return array
        if rounding != "nearest_even" or overflow not in (None, "ieee"):
            return self.cast_kernel(array, format, rounding, overflow, rng)
        return self.cast_nearest(array, format)

    def cast_nearest(self, array: Array, format: Format) -> Array:
        """Round to nearest even, overflow to infinity; `array` is of another dtype than the format's."""
        if format.dtype not in LOW or array.dtype == FLOAT32:
            return array.astype(format.dtype)
        if array.dtype in LOW:
            return array.astype(FLOAT32).astype(format.dtype)
        wide = array.astype(FLOAT64)  # integers too: float32 would round the large ones first
        if format.name == "float16":
            return wide.astype(format.dtype)
        return to_odd_float32(self.xp, wide).astype(format.dtype)  # ml_dtypes would round twice

    def cast_kernel(
        self, array: Array, format: Format, rounding: str, overflow: str | None, rng: Source
    ) -> Array:
        """Round in any way; arguments as of :meth:`cast`."""
        return round_on_device(self, self.wide(array), format, rounding, overflow, rng).astype(format.dtype)

    def choose(self, mask: Array, a: Array, b: Array) -> Array:
        """Choose bfloat16 by its bits: CuPy's where has no loop for it and would return float32."""
        if getattr(a, "dtype", None) != BFLOAT16:
            return self.xp.where(mask, a, b)
        return self.xp.where(mask, a.view(np.uint16), b.view(np.uint16)).view(BFLOAT16)

    # ---- places -----------------------------------------------------------------------------------------

    def places(self, index: Any) -> Any:
        """Copy the host arrays of an index to the device."""
        if isinstance(index, tuple):
            return tuple(self.places(part) for part in index)
        if isinstance(index, list):
            index = np.asarray(index, None if index else np.int64)
        return self.from_host(index) if isinstance(index, np.ndarray) else index

    def scatter_add(self, shape: tuple[int, ...], index: Any, values: Array, *, accumulate: str) -> Array:
        """As everywhere, once the places are on the device."""
        return super().scatter_add(shape, self.places(index), values, accumulate=accumulate)

    # ---- kernels that sum -------------------------------------------------------------------------------

    def are_finite(self, arrays: list[Array]) -> list[bool]:
        """Ask the device once for all of them."""
        if not arrays:
            return []
        flags: list[bool] = self.to_host(self.xp.stack([self.xp.isfinite(x).all() for x in arrays])).tolist()
        return flags

    def square_sum(self, array: Array) -> float | None:
        """Return the sum of squares in float64, None if one of the elements is not finite."""
        return self.square_sums([array])[0]

    def square_sums(self, arrays: list[Array]) -> list[float | None]:
        """Ask the device once for all of them."""
        if not arrays:
            return []
        totals: list[float] = self.to_host(self.xp.stack([self.square_total(x) for x in arrays])).tolist()
        return [total if total < float("inf") else None for total in totals]

    def keep_mask(self, shape: tuple[int, ...], p: float, rng: np.random.Generator) -> Array:
        """Draw a seed on the host, and everything else on the device."""
        return keep_mask(self.xp, shape, p, int(rng.integers(0, 1 << 64, dtype=np.uint64)))

    def matmul(self, a: Array, b: Array, *, accumulate: str) -> Array:
        """One GEMM of wide operands: float32 for the 16-bit formats and float32, float64 for float64."""
        if accumulate in PLAIN:
            return self.xp.matmul(*self._operands(a, b, accumulate))
        return self._by_name(accumulating.product, a, b, accumulate)

    def sum(
        self,
        array: Array,
        axis: int | tuple[int, ...] | None = None,
        keepdims: bool = False,
        *,
        accumulate: str,
    ) -> Array:
        """Sum in float32 (float64 for float64 arrays) or in float64, in any order, or by name.

        The dtype is always said: a library's own sum of float16 may add up in float16.
        """
        axis = axis if array.ndim else None  # CuPy takes no axis of an array that has none
        if array.dtype.kind in "iub":
            return self.xp.sum(array, axis=axis, keepdims=keepdims, dtype="int64")
        name = accumulating.name_for_sums(accumulate)
        if name in PLAIN:
            dtype = FLOAT64 if name == "float64" or array.dtype == FLOAT64 else FLOAT32
            return self.xp.sum(array, axis=axis, keepdims=keepdims, dtype=dtype)
        host = self.to_host(self.wide(array))
        made = accumulating.sum_terms(host, axis, self._format(array), name, keepdims=keepdims)
        return self.from_host(np.asarray(made))

    def conv2d(
        self, x: Array, weight: Array, bias: Array | None, geometry: dict[str, Any], *, accumulate: str
    ) -> Array:
        """im2col and GEMM."""
        if accumulate in PLAIN:
            y = device_convolution.conv2d_forward(self, x, weight, accumulate, **geometry)
        else:
            y = self._by_name(accumulating.conv2d_forward, x, weight, accumulate, **geometry)
        return y if bias is None else y + self.wide(bias).astype(y.dtype, copy=False)[:, None, None]

    def conv2d_input(
        self, grad: Array, weight: Array, shape: tuple[int, ...], geometry: dict[str, Any], *, accumulate: str
    ) -> Array:
        """GEMM and col2im; by name, the full correlation."""
        if accumulate in PLAIN:
            return device_convolution.conv2d_input_gradient(self, grad, weight, shape, accumulate, **geometry)
        return self._by_name(accumulating.conv2d_input_gradient, grad, weight, accumulate, shape, **geometry)

    def conv2d_weight(
        self, x: Array, grad: Array, shape: tuple[int, ...], geometry: dict[str, Any], *, accumulate: str
    ) -> Array:
        """im2col and GEMM over positions."""
        if accumulate in PLAIN:
            return device_convolution.conv2d_weight_gradient(self, x, grad, shape, accumulate, **geometry)
        return self._by_name(accumulating.conv2d_weight_gradient, x, grad, accumulate, shape, **geometry)

    def _operands(self, a: Array, b: Array, accumulate: str) -> tuple[Array, Array]:
        """Return both operands in the format in which the products are to accumulate."""
        a, b = self.wide(a), self.wide(b)
        if accumulate == "float32":
            return a, b
        return a.astype(FLOAT64, copy=False), b.astype(FLOAT64, copy=False)

    def _by_name(
        self, kernel: Callable[..., Any], a: Array, b: Array, accumulate: str, *shape: Any, **sizes: Any
    ) -> Array:
        """Emulate an accumulation on the host, on two arrays of one format."""
        operands = (self.to_host(self.wide(each)) for each in (a, b))
        made = kernel(*operands, *shape, self._format(a), accumulate, **sizes)
        return self.from_host(np.asarray(made))

    # ---- pooling ----------------------------------------------------------------------------------------

    def max_pool2d(self, x: Array, geometry: dict[str, Any], need_index: bool) -> tuple[Array, Array | None]:
        """Pool the wide values; a maximum is one of them, so storing it rounds nothing."""
        best, index = device_pooling.max_pool2d_forward(
            self.xp, self.wide(x), need_index=need_index, **geometry
        )
        return self.narrow(best, self._format(x)), index

    def max_pool2d_input(
        self, grad: Array, index: Array, shape: tuple[int, ...], geometry: dict[str, Any], *, accumulate: str
    ) -> Array:
        """Scatter by the index inside each window."""
        add = self._adder(accumulate, grad)
        return device_pooling.max_pool2d_backward(self.xp, self.wide(grad), index, shape, add=add, **geometry)

    def avg_pool2d(self, x: Array, geometry: dict[str, Any], *, accumulate: str) -> Array:
        """Sum the shifted slices of each window, then divide."""
        add = self._adder(accumulate, x)
        return device_pooling.avg_pool2d_forward(self.xp, self.wide(x), add=add, **geometry)

    def avg_pool2d_input(
        self, grad: Array, shape: tuple[int, ...], geometry: dict[str, Any], *, accumulate: str
    ) -> Array:
        """Divide, then add the shifted slices."""
        add = self._adder(accumulate, grad)
        return device_pooling.avg_pool2d_backward(self.xp, self.wide(grad), shape, add=add, **geometry)

    def adaptive_max_pool2d(self, x: Array, size: tuple[int, int]) -> tuple[Array, Array]:
        """Window by window, on the wide values."""
        best, index = device_pooling.adaptive_maxima(self.xp, self.wide(x), size)
        return self.narrow(best, self._format(x)), index

    def _adder(self, accumulate: str, array: Array) -> Callable[[list[Array]], Array] | None:
        """Return what adds the slices of windows by name; None where they are added one by one."""
        name = accumulating.name_for_sums(accumulate)
        if name == "float32" or (name == "float64" and array.dtype == FLOAT64):
            return None
        return lambda taps: self.sum(self.xp.stack(taps), axis=0, accumulate=name)

    # ---- the end of a step ------------------------------------------------------------------------------

    def blocks(self, room: Room, *arrays: Array | None) -> Iterator[tuple[Any, ...]]:
        """Yield everything at once: there is no cache to stay in."""
        room, size = room.flat(), room.new.size
        flat = [None if each is None else each.reshape(-1) for each in arrays]
        t, s = (self.xp.empty(size, room.new.dtype) for _ in range(2))
        if size:
            yield (room, *flat, t, s)
