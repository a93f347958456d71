"""The gradient of an embedding's table on the GPU: one owner for each sum, so no atomics.

The places are sorted, stably, by CuPy; a kernel of ours then adds the rows of each place in their order, in
float32, and rounds once. So the bits are the same in every run, as atomics' are not. What the kernel does not
take (float64, other accumulation, ``use_route("arrays")``) is done with array functions.
"""

from __future__ import annotations

import numpy as np

from minimp.formats import Format
from minimp_backends.array_backend import Array
from minimp_backends.cupy_casts import CupyCasts
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
        given = rows if at_once else self.wide(rows)
        xp, (vocabulary, width) = self.xp, shape
        places = index.reshape(-1).astype(np.int64, copy=False)
        if left_out is not None:  # sorted behind the last row of the table, where no sum looks
            places = xp.where(places == left_out, vocabulary, places)
        order = xp.argsort(places, kind="stable")
        starts = xp.searchsorted(places[order], xp.arange(vocabulary + 1))
        table = xp.empty(shape, given.dtype)
        kernels(
            f"sum_segments_{SPELLINGS[given.dtype.name]}",
            rows=xp.ascontiguousarray(given.reshape(places.size, width)),
            order=order.astype(np.int64, copy=False), starts=starts.astype(np.int64, copy=False),
            table=table, vocabulary=vocabulary, width=width,
        )  # fmt: skip
        return table if at_once else self.narrow(table, format)
