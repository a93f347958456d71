"""Attention on the GPU: between the products, our kernels, one pass over the scores for each direction.

What they do not take (float64, sums by another name, ``use_route("arrays")``) is done with array functions,
as on every device. A mask is added by them too; the kernels then begin with scores.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minimp_backends.accumulating import name_for_sums
from minimp_backends.array_backend import FLOAT32, Array
from minimp_backends.attention import Masking
from minimp_backends.cupy_casts import CupyCasts

__all__ = ["CupyAttention"]


class CupyAttention(CupyCasts):
    """The kernels of attention."""

    def attention_weights(self, products: Array, how: Masking, *, accumulate: str) -> tuple[Array, Array]:
        """Return the probabilities and ln sum e^s of each row, in one launch."""
        kernels = self.kernels_in_force()
        if kernels is None or name_for_sums(accumulate) != "float32" or not _serves(products):
            return super().attention_weights(products, how, accumulate=accumulate)
        given, numbers = self._begun(products, how)
        p = self.xp.empty(given.shape, FLOAT32)
        log_sum = self.xp.empty((*given.shape[:-1], 1), FLOAT32)
        kernels("attention_weights", products=given, p=p, log_sums=log_sum, **numbers)
        return p, log_sum

    def attention_slopes(
        self, products: Array, log_sum: Array, r: Array, how: Masking, *, accumulate: str
    ) -> tuple[Array, Array]:
        """Return the probabilities again and the gradient of the scores, in one launch."""
        kernels = self.kernels_in_force()
        if kernels is None or name_for_sums(accumulate) != "float32" or not _serves(products, r):
            return super().attention_slopes(products, log_sum, r, how, accumulate=accumulate)
        given, numbers = self._begun(products, how)
        if given.shape != np.broadcast_shapes(given.shape, r.shape, log_sum.shape):
            return super().attention_slopes(products, log_sum, r, how, accumulate=accumulate)
        p, slopes = (self.xp.empty(given.shape, FLOAT32) for _ in range(2))
        r, kept = (
            self.xp.ascontiguousarray(self.xp.broadcast_to(each, (*given.shape[:-1], each.shape[-1])))
            for each in (r, log_sum)
        )
        kernels("attention_slopes", products=given, log_sums=kept, r=r, p=p, slopes=slopes, **numbers)
        return p, slopes

    def _begun(self, products: Array, how: Masking) -> tuple[Array, dict[str, Any]]:
        """Return what the kernels begin with, products or masked scores, and the numbers they want."""
        scale, causal = (how.scale, how.causal) if how.mask is None else (1.0, False)
        given = products if how.mask is None else self._scores(products, how)
        length = given.shape[-1]
        return self.xp.ascontiguousarray(given), {
            "scale": scale, "causal": int(causal), "queries": given.shape[-2],
            "rows": given.size // length, "length": length,
        }  # fmt: skip


def _serves(*arrays: Array) -> bool:
    return all(each.dtype == FLOAT32 and each.size for each in arrays)
