"""Batch normalisation, adaptive pooling and resampling in NumPy, where the sums are NumPy's own."""

from __future__ import annotations

from typing import Any

import numpy as np

from minimp_backends import adaptive, resampling, standardizing
from minimp_backends.accumulating import name_for_sums
from minimp_backends.layers import Array, LayerKernels

__all__ = ["NumpyLayers"]

PLAIN = frozenset({"float32", "float64"})
FLOAT64 = np.dtype(np.float64)


class NumpyLayers(LayerKernels):
    """The fast kernels; under the name of another accumulation, the readable ones."""

    narrow: Any
    _format: Any

    def standardize(
        self, x: Array, eps: float, weight: Array | None, bias: Array | None, *, accumulate: str
    ) -> tuple[Array, Array, Array]:
        """A few channels at a time."""
        if name_for_sums(accumulate) != "float32":
            return super().standardize(x, eps, weight, bias, accumulate=accumulate)
        return standardizing.standardize(x, eps, weight, bias)

    def normalize(
        self, x: Array, mean: Array, scale: Array, weight: Array | None, bias: Array | None
    ) -> Array:  # fmt: skip
        """A few channels at a time."""
        return standardizing.normalize(x, mean, scale, weight, bias)

    def normalize_backward(
        self, grad: Array, x: Array, mean: Array, scale: Array, weight: Array | None, *,
        by_x: bool, fixed: bool, accumulate: str,
    ) -> tuple[Array | None, Array, Array]:  # fmt: skip
        """A few channels at a time."""
        arrays = (grad, x, mean, scale, weight)
        if name_for_sums(accumulate) != "float32":
            return super().normalize_backward(*arrays, by_x=by_x, fixed=fixed, accumulate=accumulate)
        return standardizing.normalize_backward(*arrays, by_x=by_x, fixed=fixed)

    def adaptive_avg_pool2d(self, x: Array, options: dict[str, Any], *, accumulate: str) -> Array:
        """Sum the rows of each band, then the columns of each window."""
        if name_for_sums(accumulate) not in PLAIN:
            return super().adaptive_avg_pool2d(x, options, accumulate=accumulate)
        return adaptive.adaptive_forward(self._summable(x, accumulate), options["size"])

    def adaptive_avg_pool2d_input(
        self, grad: Array, shape: tuple[int, ...], options: dict[str, Any], *, accumulate: str
    ) -> Array:
        """Divide, then add window by window."""
        if name_for_sums(accumulate) not in PLAIN:
            return super().adaptive_avg_pool2d_input(grad, shape, options, accumulate=accumulate)
        return adaptive.adaptive_backward(self._summable(grad, accumulate), shape)

    def adaptive_max_pool2d(self, x: Array, size: tuple[int, int]) -> tuple[Array, Array]:
        """Window by window, on the wide values."""
        best, index = adaptive.adaptive_maxima(self.wide(x), size)
        return self.narrow(best, self._format(x)), index

    def resample(self, x: Array, options: dict[str, Any], *, accumulate: str) -> Array:
        """Axis by axis, tap by tap."""
        if name_for_sums(accumulate) not in PLAIN:
            return super().resample(x, options, accumulate=accumulate)
        return resampling.resample_forward(self._summable(x, accumulate), options["plan"])

    def resample_input(
        self, grad: Array, shape: tuple[int, ...], options: dict[str, Any], *, accumulate: str
    ) -> Array:
        """Axis by axis; elements that were repeated in order are summed in runs."""
        if name_for_sums(accumulate) not in PLAIN:
            return super().resample_input(grad, shape, options, accumulate=accumulate)
        return resampling.resample_backward(self._summable(grad, accumulate), shape, options["plan"])

    def _summable(self, array: Array, accumulate: str) -> Array:
        """Return the values in the format in which they are to be added."""
        wide = self.wide(array)
        return np.asarray(wide, FLOAT64) if accumulate == "float64" else wide
