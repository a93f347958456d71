"""Batch normalisation, adaptive pooling and resampling, written once over an array namespace.

This is the readable form, and the one that accumulates by name; a backend may have faster ones for its sums.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np

from minimp_backends.adaptive import counts_of, spans_of

__all__ = ["LayerKernels"]

Array = Any


class LayerKernels:
    """Kernels over those of a backend: its sums and its scatter_add."""

    xp: Any
    sum: Callable[..., Array]
    scatter_add: Callable[..., Array]
    wide: Callable[[Array], Array]

    def constant(self, table: Any) -> Array:
        """Return a small host array, which stays as it is, as one of the device."""
        return self.xp.asarray(table)

    # ---- batch normalisation ----------------------------------------------------------------------------

    def standardize(
        self, x: Array, eps: float, weight: Array | None, bias: Array | None, *, accumulate: str
    ) -> tuple[Array, Array, Array]:
        """(N, C, S), (C,), (C,), all wide -> (x - m) / sqrt(v + eps) w + b, m and v of each channel."""
        count = max(1, x.shape[0] * x.shape[2])
        mean = self._channel_sum(x, accumulate) / count
        mean = mean.astype(x.dtype, copy=False)
        centred = x - mean[:, None]
        square = self._channel_sum(centred * centred, accumulate) / count
        square = square.astype(x.dtype, copy=False)
        return self.normalize(x, mean, 1 / self.xp.sqrt(square + eps), weight, bias), mean, square

    def normalize(
        self, x: Array, mean: Array, scale: Array, weight: Array | None, bias: Array | None
    ) -> Array:  # fmt: skip
        """(N, C, S) and four of (C,), all wide -> (x - m) (s w) + b."""
        y = (x - mean[:, None]) * (scale if weight is None else scale * weight)[:, None]
        return y if bias is None else y + bias[:, None]

    def normalize_backward(
        self, grad: Array, x: Array, mean: Array, scale: Array, weight: Array | None, *,
        by_x: bool, fixed: bool, accumulate: str,
    ) -> tuple[Array | None, Array, Array]:  # fmt: skip
        """Return (dx or None, sum of g, sum of g (x - m)), see :mod:`minimp_backends.standardizing`."""
        centred, count = x - mean[:, None], max(1, grad.shape[0] * grad.shape[2])
        total = self._channel_sum(grad, accumulate)
        product = self._channel_sum(grad * centred, accumulate)
        if not by_x:
            return None, total, product
        factor = scale if weight is None else scale * weight
        dx = grad * factor[:, None]
        if not fixed:
            share = (total / count).astype(x.dtype, copy=False)
            slope = factor * (scale * scale) * (product / count).astype(x.dtype, copy=False)
            dx = dx + (centred * -slope[:, None] - (factor * share)[:, None])
        return dx, total, product

    def _channel_sum(self, x: Array, accumulate: str) -> Array:
        return self.sum(x, axis=(0, 2), accumulate=accumulate)

    # ---- adaptive pooling -------------------------------------------------------------------------------

    def adaptive_avg_pool2d(self, x: Array, options: dict[str, Any], *, accumulate: str) -> Array:
        """Return the means of options["size"] windows, wide; see :mod:`minimp_backends.adaptive`."""
        size, (height, width) = options["size"], x.shape[-2:]
        sums = [
            self.sum(x[..., down, right], axis=(-2, -1), accumulate=accumulate)
            for down in spans_of(height, size[0])
            for right in spans_of(width, size[1])
        ]
        y = self.xp.stack(sums, axis=-1).reshape(*x.shape[:-2], *size)
        return y / self.constant(counts_of((height, width), size).astype(y.dtype))

    def adaptive_avg_pool2d_input(
        self, grad: Array, shape: tuple[int, ...], options: dict[str, Any], *, accumulate: str
    ) -> Array:
        """Spread each gradient evenly over its window; where windows overlap, sum; wide."""
        size, (height, width) = options["size"], shape[-2:]
        wide = self.wide(grad)
        share = wide / self.constant(counts_of((height, width), size).astype(wide.dtype))
        meetings = [
            (u, v, i, j)
            for i, down in enumerate(spans_of(height, size[0]))
            for j, right in enumerate(spans_of(width, size[1]))
            for u in range(down.start, down.stop)
            for v in range(right.start, right.stop)
        ]
        u, v, i, j = (self.constant(np.asarray(each)) for each in zip(*meetings, strict=True))
        return self.scatter_add(shape, (..., u, v), share[..., i, j], accumulate=accumulate)

    @abstractmethod
    def adaptive_max_pool2d(self, x: Array, size: tuple[int, int]) -> tuple[Array, Array]:
        """Return (storage maxima, the place of each in its image, u W + v)."""

    # ---- along the last axes ----------------------------------------------------------------------------

    def resample(self, x: Array, options: dict[str, Any], *, accumulate: str) -> Array:
        """Apply options["plan"], see :mod:`minimp_backends.resampling`; wide, as are the terms' products."""
        plan, terms = options["plan"], self.wide(x)
        for axis in range(-1, -1 - len(plan), -1):
            index, weight = plan[axis]  # (..., length) -> (..., out, taps), from the last axis on
            place = 2 * axis + 1  # as many axes of taps stand behind it already
            terms = self.xp.take(terms, self.constant(index.T), axis=place)
            terms = terms if weight is None else terms * self._across(weight.T, place, terms)
        summed = tuple(2 * axis + 1 for axis in range(-len(plan), 0))
        if all(len(index) == 1 for index, _ in plan):
            return self.xp.squeeze(terms, axis=summed)
        return self.sum(terms, axis=summed, accumulate=accumulate)

    def resample_input(
        self, grad: Array, shape: tuple[int, ...], options: dict[str, Any], *, accumulate: str
    ) -> Array:
        """Add each gradient, times its weights, to the elements that made it; wide, of `shape`."""
        plan, terms = options["plan"], self.wide(grad)
        lead = terms.ndim - len(plan)
        places: list[Array] = []
        full = list(terms.shape[:lead])
        for axis, (index, weight) in enumerate(plan):
            after = 2 * (len(plan) - axis - 1)
            places.append(self.constant(index.T).reshape(*index.T.shape, *(1,) * after))
            terms = terms.reshape(*full, index.shape[1], 1, *terms.shape[len(full) + 1 :])
            if weight is not None:
                terms = terms * self.constant(weight.T.astype(terms.dtype)).reshape(
                    *weight.T.shape, *(1,) * (terms.ndim - len(full) - 2)
                )
            full += [index.shape[1], len(index)]
        terms = self.xp.broadcast_to(terms, full)
        return self.scatter_add(shape, (..., *places), terms, accumulate=accumulate)

    def _across(self, values: Any, place: int, like: Array) -> Array:
        """Lay a table along the axes that a take put at `place`."""
        return self.constant(values.astype(like.dtype)).reshape(*values.shape, *(1,) * (-place - 1))
