"""The backend of shapes: a training step that holds nothing, to count what it would hold.

Every kernel gives arrays of the shape and dtype that it would give elsewhere, and no values
(:mod:`minimp_backends.shape_arrays`). What a kernel needs on the way is not counted: that is the business of
the backend that computes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minimp import formats
from minimp.formats import Format
from minimp.formats.dice import Source
from minimp_backends.array_backend import FLOAT32, FLOAT64, LOW, Array, ArrayBackend
from minimp_backends.attention import Masking
from minimp_backends.columns import geometry_of
from minimp_backends.shape_arrays import ShapeArray, ShapeNamespace, of

__all__ = ["ShapesBackend"]


class ShapesBackend(ArrayBackend):
    """Arrays are :class:`~minimp_backends.shape_arrays.ShapeArray`: shapes and dtypes."""

    name = "shapes"
    xp = ShapeNamespace()

    # ---- storage ----------------------------------------------------------------------------------------

    def from_host(self, array: Any) -> ShapeArray:
        """Keep the shape and the dtype."""
        return ShapeArray(array.shape, array.dtype)

    def to_host(self, array: ShapeArray) -> np.ndarray[Any, Any]:
        """Return zeros."""
        return np.zeros(array.shape, array.dtype)

    def release(self, array: Array) -> Array:
        """Return the array: nobody can write to it."""
        return array

    def synchronize(self) -> None:
        """Return at once."""

    # ---- formats ----------------------------------------------------------------------------------------

    def wide(self, array: Any) -> Any:
        """Return float32 for the 16-bit formats; anything else as it is."""
        low = getattr(array, "dtype", None) in LOW
        return ShapeArray(array.shape, FLOAT32) if low else array

    def narrow(self, array: Any, format: Format | None) -> Any:
        """Return the array in the storage of `format`."""
        if format is None or not hasattr(array, "dtype") or array.dtype == format.dtype:
            return array if isinstance(array, ShapeArray) else of(np.asarray(array))
        return ShapeArray(array.shape, format.dtype)

    def cast(
        self, array: Array, format: Format, rounding: str = "nearest_even", overflow: str | None = None,
        rng: Source = None,
    ) -> Array:  # fmt: skip
        """Return an array of the shape in the storage of `format`."""
        del rounding, overflow, rng
        return ShapeArray(array.shape, format.dtype)

    def square_sum(self, array: Array) -> float:
        """Return 0: every element is finite."""
        del array
        return 0.0

    def scatter_add(self, shape: tuple[int, ...], index: Any, values: Array, *, accumulate: str) -> Array:
        """Return an array of `shape`."""
        del index, accumulate
        return ShapeArray(shape, values.dtype)

    # ---- kernels that sum -------------------------------------------------------------------------------

    def matmul(self, a: Array, b: Array, *, accumulate: str) -> Array:
        """(..., M, K) @ (..., K, N) -> (..., M, N)."""
        lead = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        return ShapeArray((*lead, a.shape[-2], b.shape[-1]), _sums(a, accumulate))

    def sum(self, array: Array, axis: Any = None, keepdims: bool = False, *, accumulate: str) -> Array:
        """Return the shape of the sums."""
        kept: ShapeArray = self.xp.sum(array, axis=axis, keepdims=keepdims)
        whole = array.dtype.kind in "iub"
        return kept if whole else ShapeArray(kept.shape, _sums(array, accumulate))

    def conv2d(
        self, x: Array, weight: Array, bias: Array | None, geometry: dict[str, Any], *, accumulate: str
    ) -> Array:
        """(N, C, H, W) -> (N, O, H', W')."""
        del bias
        wide = (np.empty((0,), FLOAT32), np.empty((0,), FLOAT32))
        found = geometry_of("conv2d", wide, x.shape, weight.shape, **geometry)
        return ShapeArray(found.out_shape, _sums(x, accumulate))

    def conv2d_input(
        self, grad: Array, weight: Array, shape: tuple[int, ...], geometry: dict[str, Any], *, accumulate: str
    ) -> Array:
        """Return an array of the image's shape."""
        del weight, geometry
        return ShapeArray(shape, _sums(grad, accumulate))

    def conv2d_weight(
        self, x: Array, grad: Array, shape: tuple[int, ...], geometry: dict[str, Any], *, accumulate: str
    ) -> Array:
        """Return an array of the weight's shape."""
        del grad, geometry
        return ShapeArray(shape, _sums(x, accumulate))

    def attention(
        self, q: Array, k: Array, v: Array, how: Masking, *, accumulate: str
    ) -> tuple[Array, Array]:
        """(..., L, E), (..., S, E), (..., S, V) -> (..., L, V), (..., L, 1)."""
        del how
        lead = np.broadcast_shapes(q.shape[:-2], k.shape[:-2], v.shape[:-2])
        dtype = _sums(q, accumulate)
        return ShapeArray((*lead, q.shape[-2], v.shape[-1]), dtype), ShapeArray(
            (*lead, q.shape[-2], 1), dtype
        )

    # ---- pooling ----------------------------------------------------------------------------------------

    def max_pool2d(self, x: Array, geometry: dict[str, Any], need_index: bool) -> tuple[Array, Array | None]:
        """Return the maxima, and one or two bytes for each."""
        shape = _pooled(x.shape, geometry)
        few = geometry["kernel"][0] * geometry["kernel"][1] <= 1 << 8
        index = ShapeArray(shape, np.uint8 if few else np.uint16) if need_index else None
        return ShapeArray(shape, x.dtype), index

    def max_pool2d_input(
        self, grad: Array, index: Array, shape: tuple[int, ...], geometry: dict[str, Any], *, accumulate: str
    ) -> Array:
        """Return an array of the image's shape."""
        del index, geometry
        return ShapeArray(shape, _sums(grad, accumulate))

    def avg_pool2d(self, x: Array, geometry: dict[str, Any], *, accumulate: str) -> Array:
        """Return the means."""
        return ShapeArray(_pooled(x.shape, geometry), _sums(x, accumulate))

    def avg_pool2d_input(
        self, grad: Array, shape: tuple[int, ...], geometry: dict[str, Any], *, accumulate: str
    ) -> Array:
        """Return an array of the image's shape."""
        del geometry
        return ShapeArray(shape, _sums(grad, accumulate))


def _sums(x: Array, accumulate: str) -> np.dtype[Any]:
    """The dtype of sums over x: float64 where they are accumulated exactly."""
    return FLOAT64 if x.dtype == formats.float64.dtype or accumulate == "exact" else FLOAT32


def _pooled(shape: tuple[int, ...], geometry: dict[str, Any]) -> tuple[int, ...]:
    """(N, C, H, W) -> (N, C, H', W'); a window of ceil_mode that would begin in the padding is left out."""
    lengths = []
    for axis in (0, 1):
        kernel, stride, padding = (geometry[name][axis] for name in ("kernel", "stride", "padding"))
        span = shape[2 + axis] + 2 * padding - geometry.get("dilation", (1, 1))[axis] * (kernel - 1) - 1
        count = span // stride + 1
        if geometry.get("ceil_mode") and span % stride and count * stride < shape[2 + axis] + padding:
            count += 1
        lengths.append(count)
    return (*shape[:2], *lengths)
