"""Rows added at places that may meet, on the GPU: one owner for each sum, so no atomics.

The places are sorted, stably, by CuPy; a kernel of ours then adds the rows of each place in their order, in
float32, and rounds once. So the bits are the same in every run, as atomics' are not. This is the gradient of
an embedding's table, and of every look-up of rows. What the kernel does not take (float64, other
accumulation, places along other axes, ``use_route("arrays")``) is done with array functions.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minimp.formats import Format
from minimp_backends.array_backend import FLOAT32, Array
from minimp_backends.cupy_casts import CupyCasts
from minimp_backends.gpu import Kernels
from minimp_backends.kernels.calls import SPELLINGS
from minimp_backends.kernels.families.embedding import KINDS_SERVED

__all__ = ["CupyEmbedding"]


class CupyEmbedding(CupyCasts):
    """The kernel of lookups."""

    def sum_rows(
        self, shape: tuple[int, ...], index: Array, rows: Array, format: Format | None, *,
        left_out: int | None = None, accumulate: str,
    ) -> Array:  # fmt: skip
        """Sort the places, and sum the rows of each in one launch."""
        kernels, served = self.kernels_in_force(), SPELLINGS.get(rows.dtype.name) in KINDS_SERVED
        if kernels is None or not served or accumulate != "float32" or not rows.size:
            return super().sum_rows(shape, index, rows, format, left_out=left_out, accumulate=accumulate)
        at_once = format is not None and format.dtype == rows.dtype and not self.rounds_apart(format)
        places = index.reshape(-1).astype(np.int64, copy=False)
        if left_out is not None:  # sorted behind the last row of the table, where no sum looks
            places = self.xp.where(places == left_out, shape[0], places)
        table = self._summed(kernels, shape, places, rows if at_once else self.wide(rows))
        return table if at_once else self.narrow(table, format)

    def scatter_add(self, shape: tuple[int, ...], index: Any, values: Array, *, accumulate: str) -> Array:
        """As everywhere; float32 rows at places along the first axis are added in their order."""
        index, kernels = self.places(index), self.kernels_in_force()
        places = index[0] if isinstance(index, tuple) and len(index) == 1 else index
        if (
            kernels is None
            or accumulate != "float32"
            or values.dtype != FLOAT32
            or not values.size
            or not isinstance(places, self.xp.ndarray)
            or places.dtype.kind not in "iu"
            or values.shape != (*places.shape, *shape[1:])
        ):
            return super().scatter_add(shape, index, values, accumulate=accumulate)
        return self._summed(
            kernels, shape, places.reshape(-1).astype(np.int64, copy=False) % shape[0], values
        )

    def _summed(self, kernels: Kernels, shape: tuple[int, ...], places: Array, rows: Array) -> Array:
        """Return the sums of the rows of each place, in the format of the rows.

        Args:
            kernels: what runs the kernel.
            shape: (V, ...), of the result.
            places: int64, (K,), from 0 to V; what goes to V is left out.
            rows: K times the shape behind V, in the order of the places.
        """
        xp, vocabulary, width = self.xp, shape[0], math.prod(shape[1:])
        order = xp.argsort(places, kind="stable")
        starts = xp.searchsorted(places[order], xp.arange(vocabulary + 1))
        table = xp.empty(shape, rows.dtype)
        kernels(
            f"sum_segments_{SPELLINGS[rows.dtype.name]}",
            rows=xp.ascontiguousarray(rows.reshape(places.size, width)),
            order=order.astype(np.int64, copy=False), starts=starts.astype(np.int64, copy=False),
            table=table, vocabulary=vocabulary, width=width,
        )  # fmt: skip
        return table
