"""The backend of shapes: a training step that holds nothing, to count what it would hold.

Every kernel gives arrays of the shape and dtype that it would give elsewhere, and no values
(:mod:`minimp_backends.shape_arrays`). What a kernel needs on the way is not counted: that is the business of
the backend that computes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from minimp.formats import Format
from minimp.formats.dice import Source
from minimp_backends.array_backend import FLOAT32, FLOAT64, LOW, Array, ArrayBackend
from minimp_backends.attention import Masking
from minimp_backends.columns import geometry_of
from minimp_backends.host_scratch import kept_bytes
from minimp_backends.row_blocks import memory_order
from minimp_backends.shape_arrays import ShapeArray, ShapeNamespace, no_values, of
from minimp_backends.twins import Twins
from minimp_backends.updates_blocks import Room

__all__ = ["ShapesBackend"]

SMALL = 2048
"""Elements from which on NumPy's backend keeps a twin."""


class ShapesBackend(ArrayBackend):
    """Arrays are :class:`~minimp_backends.shape_arrays.ShapeArray`: shapes and dtypes."""

    name = "shapes"
    has_values = False
    xp = ShapeNamespace()

    def __init__(self) -> None:
        self.twins = Twins()

    # ---- storage ----------------------------------------------------------------------------------------

    def from_host(self, array: Any) -> ShapeArray:
        """Keep the shape and the dtype."""
        return ShapeArray(array.shape, array.dtype)

    def to_host(self, array: ShapeArray) -> np.ndarray[Any, Any]:
        """Return NaN for a single floating number.

        Raises:
            DeviceError: for anything else: there are no values.
        """
        return np.asarray(array.tolist(), array.dtype)

    def release(self, array: ShapeArray) -> ShapeArray:
        """Raise: there is nothing to write to.

        Raises:
            DeviceError: always.
        """
        raise no_values(array)

    def synchronize(self) -> None:
        """Return at once."""

    # ---- formats, with the twins that NumPy's backend would keep ----------------------------------------

    def wide(self, array: Any) -> Any:
        """Return float32 for the 16-bit formats, the twin if there is one; anything else as it is."""
        if getattr(array, "dtype", None) not in LOW:
            return array
        twin = self.twins.get(array)
        if twin is not None:
            return twin
        if not self.keeps_twin(array.size):
            return array.astype(FLOAT32)
        wide = ShapeArray(array.shape, FLOAT32)
        self.twins.put(array, wide)
        return wide

    def narrow(self, array: Any, format: Format | None) -> Any:
        """Return the array in the storage of `format`; what was rounded becomes the twin."""
        if not isinstance(array, ShapeArray):
            array = of(np.asarray(array))
        if format is None or array.dtype == format.dtype:
            return array
        if format.dtype not in LOW:
            return array.astype(format.dtype)
        if array.dtype != FLOAT32:
            return ShapeArray(array.shape, format.dtype)
        order = memory_order(array)
        if array.flags.c_contiguous or order is None:
            return self._narrow_with_twin(self.xp.asarray(array, order="C"), format)
        low = self._narrow_with_twin(array.transpose(order), format)
        return self.view(low, lambda a: a.transpose(np.argsort(order)))

    def _narrow_with_twin(self, wide: ShapeArray, format: Format) -> ShapeArray:
        low = ShapeArray(wide.shape, format.dtype)
        self.keep_twin(low, wide)
        return low

    def cast(
        self, array: Array, format: Format, rounding: str = "nearest_even", overflow: str | None = None,
        rng: Source = None,
    ) -> Array:  # fmt: skip
        """Return an array of the shape in the storage of `format`."""
        del rounding, overflow, rng
        self.require(format)
        if array.dtype == format.dtype:
            return array
        if array.dtype not in LOW and array.dtype != FLOAT32:
            return self.narrow(array, format)
        wide = self.wide(array)
        if format.dtype not in LOW:
            return wide if format.dtype == FLOAT32 else array.astype(format.dtype)
        return self._narrow_with_twin(wide.copy(), format)

    def keeps_twin(self, size: int) -> bool:
        """Tell whether NumPy's backend keeps a twin of an array of `size` elements."""
        return size >= SMALL

    def keep_twin(self, low: ShapeArray, grid: ShapeArray) -> None:
        """Keep a twin as NumPy's backend does."""
        if self.keeps_twin(low.size):
            self.twins.put(low, grid)

    def view(self, array: ShapeArray, change: Callable[[ShapeArray], ShapeArray]) -> ShapeArray:
        """Return `change(array)`, and give a view of a twinned array the same view of its twin."""
        moved = change(array)
        twin = self.twins.get(array) if array.dtype in LOW and moved is not array else None
        if twin is not None:
            self.twins.put(moved, change(twin))
        return moved

    def keep_where(self, array: ShapeArray, mask: ShapeArray) -> ShapeArray:
        """Return the array with zeros, and its twin with them."""
        kept: ShapeArray = np.multiply(array.view(f"u{array.itemsize}"), mask).view(array.dtype)
        twin = self.twins.get(array) if array.dtype in LOW else None
        if twin is not None and twin.flags.c_contiguous:
            self.twins.put(kept, twin.copy())
        return kept

    def to_eight_bits(self, wide: Array, format: Format) -> Array:
        """Return an array of the shape, a byte an element."""
        return ShapeArray(wide.shape, format.dtype)

    def from_eight_bits(self, codes: Array, dtype: Any) -> Array:
        """Return an array of the shape in `dtype`."""
        return ShapeArray(codes.shape, dtype)

    def largest(self, wide: Array) -> float:
        """Return 0: there are no values."""
        del wide
        return 0.0

    def power_scales(self, amax: Array, format: Format) -> Array:
        """Return an array of the shape in float32."""
        del format
        return ShapeArray(amax.shape, FLOAT32)

    def scratch_bytes(self) -> int:
        """Return what the NumPy backend keeps."""
        return kept_bytes()

    # ---- the end of a step: every result has its room already -------------------------------------------

    def blocks(self, room: Room, *arrays: Array | None) -> Iterator[tuple[Any, ...]]:
        """Yield nothing: there is nothing to compute."""
        del room, arrays
        return iter(())

    def lamb(self, *_: Any, **__: Any) -> None:
        """Compute nothing, norms included."""

    def round_stochastic(
        self, wide: Array, format: Format, rng: Any, sizes: Sequence[int] | None = None
    ) -> Array:
        """Return an array of the shape in the storage of `format`."""
        del rng, sizes
        return ShapeArray(wide.shape, format.dtype)

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
        a, b = self.wide(a), self.wide(b)
        lead = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        return ShapeArray((*lead, a.shape[-2], b.shape[-1]), _sums(a, accumulate))

    def sum(self, array: Array, axis: Any = None, keepdims: bool = False, *, accumulate: str) -> Array:
        """Return the shape of the sums."""
        kept: ShapeArray = self.xp.sum(self.wide(array), axis=axis, keepdims=keepdims)
        whole = array.dtype.kind in "iub"
        return kept if whole else ShapeArray(kept.shape, _sums(array, accumulate))

    def conv2d(
        self, x: Array, weight: Array, bias: Array | None, geometry: dict[str, Any], *, accumulate: str
    ) -> Array:
        """(N, C, H, W) -> (N, O, H', W')."""
        self._widen(x, weight, bias)
        empty = (np.empty((0,), FLOAT32), np.empty((0,), FLOAT32))
        found = geometry_of("conv2d", empty, x.shape, weight.shape, **geometry)
        return ShapeArray(found.out_shape, _sums(x, accumulate))

    def conv2d_input(
        self, grad: Array, weight: Array, shape: tuple[int, ...], geometry: dict[str, Any], *, accumulate: str
    ) -> Array:
        """Return an array of the image's shape."""
        del geometry
        self._widen(grad, weight)
        return ShapeArray(shape, _sums(grad, accumulate))

    def conv2d_weight(
        self, x: Array, grad: Array, shape: tuple[int, ...], geometry: dict[str, Any], *, accumulate: str
    ) -> Array:
        """Return an array of the weight's shape."""
        del geometry
        self._widen(x, grad)
        return ShapeArray(shape, _sums(x, accumulate))

    def attention(
        self, q: Array, k: Array, v: Array, how: Masking, *, accumulate: str
    ) -> tuple[Array, Array]:
        """(..., L, E), (..., S, E), (..., S, V) -> (..., L, V), (..., L, 1); as q lies in memory."""
        if not _is_own(accumulate, q):
            return super().attention(q, k, v, how, accumulate=accumulate)
        self._widen(k, v)
        wide, lead = self.wide(q), self._lead(q, k, v, how)
        like = wide.broadcast_to((*lead, *q.shape[-2:]))
        y = self.xp.empty_like(like, shape=(*lead, q.shape[-2], v.shape[-1]))
        return y, ShapeArray((*lead, q.shape[-2], 1), wide.dtype)

    def attention_gradient(
        self, grad: Array, q: Array, k: Array, v: Array, log_sum: Array, how: Masking, *,
        needs_scores: bool, accumulate: str,
    ) -> tuple[Array, Array, Array, Array | None]:  # fmt: skip
        """Return arrays that lie as q, k and v do, and one of the scores."""
        if not _is_own(accumulate, q):
            return super().attention_gradient(
                grad, q, k, v, log_sum, how, needs_scores=needs_scores, accumulate=accumulate
            )
        self._widen(grad)
        lead = self._lead(q, k, v, how)
        by_q, by_k, by_v = (
            self.xp.zeros_like(self.wide(x).broadcast_to((*lead, *x.shape[-2:]))) for x in (q, k, v)
        )
        scores = ShapeArray((*lead, q.shape[-2], k.shape[-2]), by_q.dtype) if needs_scores else None
        return by_q, by_k, by_v, scores

    def _lead(self, q: Array, k: Array, v: Array, how: Masking) -> tuple[int, ...]:
        given = (x for x in (q, k, v, how.mask, how.keep) if x is not None)
        return np.broadcast_shapes(*(x.shape[:-2] for x in given))

    def _widen(self, *arrays: Array | None) -> None:
        """Make the twins that the NumPy backend makes when it reads arrays."""
        for array in arrays:
            self.wide(array)

    def adaptive_max_pool2d(self, x: Array, size: tuple[int, int]) -> tuple[Array, Array]:
        """Return the maxima, and the places of the fewest bytes that hold them."""
        shape, places = (*x.shape[:-2], *size), x.shape[-2] * x.shape[-1]
        return ShapeArray(shape, x.dtype), ShapeArray(shape, np.min_scalar_type(max(0, places - 1)))

    # ---- pooling ----------------------------------------------------------------------------------------

    def max_pool2d(self, x: Array, geometry: dict[str, Any], need_index: bool) -> tuple[Array, Array | None]:
        """Return the maxima, and one or two bytes for each."""
        shape = _pooled(x.shape, geometry)
        self._widen(x)
        few = geometry["kernel"][0] * geometry["kernel"][1] <= 1 << 8
        index = ShapeArray(shape, np.uint8 if few else np.uint16) if need_index else None
        best = ShapeArray(shape, self.wide(x).dtype)
        return self.narrow(best, self._format(x)), index

    def max_pool2d_input(
        self, grad: Array, index: Array, shape: tuple[int, ...], geometry: dict[str, Any], *, accumulate: str
    ) -> Array:
        """Return an array of the image's shape."""
        del index, geometry
        self._widen(grad)
        return ShapeArray(shape, _sums(grad, accumulate))

    def avg_pool2d(self, x: Array, geometry: dict[str, Any], *, accumulate: str) -> Array:
        """Return the means."""
        self._widen(x)
        return ShapeArray(_pooled(x.shape, geometry), _sums(x, accumulate))

    def avg_pool2d_input(
        self, grad: Array, shape: tuple[int, ...], geometry: dict[str, Any], *, accumulate: str
    ) -> Array:
        """Return an array of the image's shape."""
        del geometry
        self._widen(grad)
        return ShapeArray(shape, _sums(grad, accumulate))


def _sums(x: Array, accumulate: str) -> np.dtype[Any]:
    """The dtype of sums over x: float64 where they are accumulated in it, or exactly."""
    return FLOAT64 if x.dtype == FLOAT64 or accumulate in ("float64", "exact") else FLOAT32


def _is_own(accumulate: str, x: Array) -> bool:
    """Tell whether the NumPy backend has attention in blocks: else the readable form runs there too."""
    return accumulate == "float32" or (accumulate == "float64" and bool(x.dtype == FLOAT64))


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
