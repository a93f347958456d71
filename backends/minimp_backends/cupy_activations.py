"""Activations and the bias behind a product on the GPU: our kernels, each one pass over the numbers.

What they do not take (float64, products summed in it, other functions, ``use_route("arrays")``) is done with
array functions, as on every device.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minimp.formats import Format
from minimp_backends.array_backend import FLOAT32, Array
from minimp_backends.cupy_casts import CupyCasts
from minimp_backends.kernels.calls import SPELLINGS
from minimp_backends.kernels.families.activations import KINDS_SERVED, NAMES
from minimp_backends.row_blocks import memory_order

__all__ = ["CupyActivations"]


MOST = 1 << 32
"""Sums that the kernel of the bias counts to, and one more: 16 GiB."""


class CupyActivations(CupyCasts):
    """The kernels behind a product."""

    def pointwise(
        self, name: str, formula: Callable[..., Array], format: Format | None, *arrays: Array,
        short: bool = False, **numbers: float,
    ) -> Array:  # fmt: skip
        """Return the formula of each element, rounded once, in one launch where there is a kernel for it."""
        made = None
        if name in NAMES and self.rounds_apart(format):
            made = self._rounded_apart(name, format, arrays, numbers)
        elif name in NAMES:
            made = self._activated(name, format, arrays, numbers)
        if made is None:
            return super().pointwise(name, formula, format, *arrays, short=short, **numbers)
        return made

    def tanh(self, x: Array, out: Array | None = None) -> Array:
        """Return tanh of a wide array by the kernel of the activation: its bits, in whatever formula."""
        made = self._activated("tanh", None, (x,), {})
        if made is None or out is None:
            return super().tanh(x, out) if made is None else made
        out[...] = made
        return out

    def logistic(self, x: Array) -> Array:
        """Return 1 / (1 + e^-x) of a wide array by the kernel of sigmoid: its bits, in whatever formula."""
        made = self._activated("sigmoid", None, (x,), {})
        return super().logistic(x) if made is None else made

    def positive_part(self, array: Array) -> Array:
        """Return max(x, 0), NaN staying NaN, in one launch."""
        made = self._activated("relu", None, (array,), {})
        return super().positive_part(array) if made is None else made

    def positive_part_gradient(self, grad: Array, y: Array) -> Array:
        """Return the gradient where y is not 0, in one launch."""
        made = self._activated("relu_gradient", None, (grad, y), {})
        return super().positive_part_gradient(grad, y) if made is None else made

    def add_bias(self, sums: Array, bias: Array | None, format: Format | None, axis: int = -1) -> Array:
        """Add and round in one launch, of float32 in place; the result lies in memory as the sums do."""
        kernels = None if self.rounds_apart(format) else self.kernels_in_force()
        if kernels is None or bias is None or format is None or not 0 < sums.size < MOST:
            return super().add_bias(sums, bias, format, axis)
        kind = SPELLINGS.get(format.dtype.name)
        if kind not in KINDS_SERVED or bias.dtype != format.dtype or sums.dtype != FLOAT32:
            return super().add_bias(sums, bias, format, axis)
        order = _turned(sums)
        given = self.xp.ascontiguousarray(sums if order is None else sums.transpose(order))
        made = given if kind == "float" else self.xp.empty(given.shape, format.dtype)
        place = sums.ndim + axis if order is None else order.index(sums.ndim + axis)
        kernels(
            f"add_bias_{kind}", sums=given, bias=self.xp.ascontiguousarray(bias), target=made,
            inner=int(np.prod(given.shape[place + 1 :], dtype=np.int64)), channels=given.shape[place],
            count=given.size,
        )  # fmt: skip
        return made if order is None else made.transpose(_undone(order))

    def conv2d_with_bias(
        self, x: Array, weight: Array, bias: Array | None, geometry: dict[str, Any], format: Format | None, *,
        accumulate: str,
    ) -> Array:  # fmt: skip
        """Convolve, then add the bias and round in one pass."""
        sums = self.conv2d(x, weight, None, geometry, accumulate=accumulate)
        return self.add_bias(sums, bias, format, -3)

    def _rounded_apart(
        self, name: str, format: Format | None, arrays: tuple[Array, ...], numbers: dict[str, float]
    ) -> Array | None:
        """Run the kernel of float32 where that of a 16-bit format would run, and round: to the same bits."""
        if format is None or arrays[0].dtype != format.dtype:
            return None
        wide = tuple(self.wide(each) for each in arrays)
        made = self._activated(name, None, wide, numbers)
        return None if made is None else self.narrow(made, format)

    def _activated(
        self, name: str, format: Format | None, arrays: tuple[Array, ...], numbers: dict[str, float]
    ) -> Array | None:
        """Run a kernel on storage arrays; None where it does not take them."""
        kernels, first = self.kernels_in_force(), arrays[0]
        kind = SPELLINGS.get(first.dtype.name)
        if kernels is None or kind not in KINDS_SERVED or not first.size:
            return None
        if format is not None and first.dtype != format.dtype:
            return None
        if any(each.shape != first.shape or each.dtype not in (first.dtype, bool) for each in arrays[1:]):
            return None
        order = _turned(first)
        turned = arrays if order is None else [each.transpose(order) for each in arrays]
        laid = [self.xp.ascontiguousarray(each) for each in turned]
        made = self.xp.empty(turned[0].shape, first.dtype)  # of laid without axes CuPy makes one of one axis
        given = [each.view(np.uint8) if each.dtype == bool else each for each in laid]
        inputs = dict(zip(("source",) if len(given) == 1 else ("grad", "kept"), given, strict=True))
        kernels(f"{name}_{kind}", **inputs, target=made, count=made.size, **numbers)
        return made if order is None else made.transpose(_undone(order))


def _turned(array: Array) -> tuple[int, ...] | None:
    """Return the axes as they lie in memory; None where they do already, or there are gaps."""
    return None if array.flags.c_contiguous else memory_order(array)


def _undone(order: tuple[int, ...]) -> tuple[int, ...]:
    """Return the axes that put a transposed array back."""
    return tuple(order.index(axis) for axis in range(len(order)))
