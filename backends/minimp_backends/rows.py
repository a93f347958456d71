"""Normalisation of rows, and how a formula is worked through in parts, written once over an array namespace.

A formula is a function ``f(backend, *arrays)``: it calls `backend.xp`, `backend.sum` and the other kernels of
the backend it is given. Whether a backend applies it to whole arrays or to one part after another changes
no bit of the result, as no part looks at another.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from minimp.formats import Format

__all__ = ["RowKernels"]

Array = Any


class RowKernels:
    """The readable forms, over the kernels of a backend."""

    xp: Any
    sum: Callable[..., Array]
    wide: Callable[[Array], Array]
    narrow: Callable[[Array, Format | None], Array]

    def elementwise(self, formula: Callable[..., Array], *arrays: Array) -> Array:
        """Return ``formula(self, *arrays)``, each element of which is made from those in its place.

        Args:
            formula: from wide arrays of one shape to one of that shape and dtype.
            arrays: wide arrays of one shape.
        """
        return formula(self, *arrays)

    def by_rows(self, formula: Callable[..., Array], *arrays: Array) -> Array:
        """Return ``formula(self, *arrays)``, each last axis of which is made from those in its place.

        Args:
            formula: from wide arrays of one shape to one of that shape; what it sums over is the last axis.
            arrays: wide arrays of one shape.
        """
        return formula(self, *arrays)

    def along_axis(
        self, name: str, formula: Callable[..., Array], format: Format | None, *arrays: Array, axis: int,
        accumulate: str,
    ) -> Array:  # fmt: skip
        """Return ``formula(self, *arrays, axis, accumulate)``, rounded once to `format`.

        Args:
            name: of the formula: a backend that has a kernel of that name runs it instead.
            formula: from storage arrays of one shape to a fresh wide one of that shape.
            format: of the result.
            arrays: storage arrays of one shape.
            axis: the one that the formula sums over.
            accumulate: how it does.
        """
        del name
        return self.narrow(formula(self, *arrays, axis, accumulate), format)

    def layer_norm(
        self, x: Array, weight: Array | None, bias: Array | None, axes: tuple[int, ...], eps: float, *,
        accumulate: str,
    ) -> tuple[Array, Array, Array]:  # fmt: skip
        """Return z w + b, z = (x - m) / sqrt(v + eps), over the last `axes`; m; 1 / sqrt(v + eps); wide.

        A backend may round the first at once to the format of `x`, which it is to have in the end.
        """
        wide = self.wide(x)
        mean = self._mean(x, axes, wide, accumulate)
        centred = wide - mean
        scale = 1 / self.xp.sqrt(self._mean(centred * centred, axes, wide, accumulate) + eps)
        y = centred * scale
        y = y if weight is None else y * self.wide(weight)
        return y if bias is None else y + self.wide(bias), mean, scale

    def layer_norm_gradient(
        self, grad: Array, x: Array, weight: Array | None, mean: Array, scale: Array,
        axes: tuple[int, ...], needs: tuple[bool, bool, bool], *, accumulate: str,
    ) -> tuple[Array | None, Array | None, Array | None]:  # fmt: skip
        """Return the gradients that are needed of x, w and b, wide; that of x may be rounded to its format.

        With h = g w: dx = (h - mean h - z mean (h z)) / sqrt(v + eps), dw = sum g z and db = sum g over rows.
        """
        g, z = self.wide(grad), (self.wide(x) - mean) * scale
        by_x = None
        if needs[0]:
            h = g if weight is None else g * self.wide(weight)
            inner = self._mean(h * z, axes, g, accumulate)
            by_x = (h - self._mean(h, axes, g, accumulate) - z * inner) * scale
        by_weight = self._over_rows(g * z, axes, accumulate) if needs[1] else None
        return by_x, by_weight, self._over_rows(g, axes, accumulate) if needs[2] else None

    def rms_norm(
        self, x: Array, weight: Array | None, axes: tuple[int, ...], eps: float, *, accumulate: str
    ) -> tuple[Array, Array]:
        """Return x s w, s = 1 / sqrt(mean x^2 + eps), over the last `axes`, and s; as :meth:`layer_norm`."""
        wide = self.wide(x)
        scale = 1 / self.xp.sqrt(self._mean(wide * wide, axes, wide, accumulate) + eps)
        y = wide * scale
        return (y if weight is None else y * self.wide(weight)), scale

    def rms_norm_gradient(
        self, grad: Array, x: Array, weight: Array | None, scale: Array, axes: tuple[int, ...],
        needs: tuple[bool, bool], *, accumulate: str,
    ) -> tuple[Array | None, Array | None]:  # fmt: skip
        """Return the gradients that are needed of x and w, as :meth:`layer_norm_gradient`.

        With z = x s and h = g w: dx = (h - z mean (h z)) s and dw = sum g z over rows.
        """
        g, z = self.wide(grad), self.wide(x) * scale
        by_x = None
        if needs[0]:
            h = g if weight is None else g * self.wide(weight)
            by_x = (h - z * self._mean(h * z, axes, g, accumulate)) * scale
        return by_x, self._over_rows(g * z, axes, accumulate) if needs[1] else None

    def _mean(self, terms: Array, axes: tuple[int, ...], like: Array, accumulate: str) -> Array:
        """The sum as named, over how many there are, in the wide format; the axes stay, of length 1."""
        total = self.sum(terms, axis=axes, keepdims=True, accumulate=accumulate)
        return (total / math.prod(terms.shape[axis] for axis in axes)).astype(like.dtype, copy=False)

    def _over_rows(self, terms: Array, axes: tuple[int, ...], accumulate: str) -> Array:
        rows = tuple(range(terms.ndim - len(axes)))
        return self.sum(terms, axis=rows, accumulate=accumulate) if rows else terms.copy()
