"""Scaled dot-product attention and its gradient, written once over an array namespace.

With scores s = scale Q K^T, biased or masked, p = softmax(s) over the keys and m what dropout multiplies by,

    y = (p m) V;   with r = (g V^T) m:  dS = p (r - sum p r),  dQ = scale dS K,  dK = scale dS^T Q,
    dV = (p m)^T g

over the last two axes; the axes in front broadcast. A row without a key to attend to gives 0, and takes no
gradient. Forward keeps ln sum e^s of each row, from which backward makes p again (Dao et al. 2022,
"FlashAttention", arXiv 2205.14135, section 3.1): the (L, S) matrix of probabilities is never kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["AttentionKernels", "Masking"]

Array = Any
PLAIN = ("float32", "float64")


@dataclass(frozen=True)
class Masking:
    """What happens to scores and probabilities.

    Attributes:
        scale: the factor of the scores.
        causal: query i attends to keys 0..i alone.
        mask: bool (True: attend) or a floating bias, broadcast to (..., L, S); None for none.
        keep: bool, which probabilities dropout leaves, (..., L, S); None for all.
        factor: what the kept ones are multiplied by.
    """

    scale: float
    causal: bool = False
    mask: Array | None = None
    keep: Array | None = None
    factor: float = 1.0


class AttentionKernels:
    """The readable form, over the kernels of a backend; under a name of an accumulation, the only one."""

    xp: Any
    sum: Callable[..., Array]
    matmul: Callable[..., Array]
    narrow: Callable[..., Array]
    wide: Callable[[Array], Array]
    largest_along: Callable[..., Array]
    _format: Callable[[Array], Any]

    def attention(
        self, q: Array, k: Array, v: Array, how: Masking, *, accumulate: str
    ) -> tuple[Array, Array]:
        """(..., L, E), (..., S, E), (..., S, V) -> (..., L, V) and ln sum e^s (..., L, 1), both wide.

        Args:
            q, k, v: storage arrays of one format.
            how: what happens to scores and probabilities.
            accumulate: how products and the sums of softmax are accumulated.

        Products and the sums of softmax accumulate as named. Under "float32" and "float64" probabilities
        stay wide; other names add products of the format's own values, to which they are rounded first.
        """
        products = self.matmul(q, _swap(k), accumulate=accumulate)
        p, log_sum = self.attention_weights(products, how, accumulate=accumulate)
        y = self.matmul(*self._factors(self._drop(p, how), v, v, accumulate), accumulate=accumulate)
        return y, log_sum

    def attention_gradient(
        self, grad: Array, q: Array, k: Array, v: Array, log_sum: Array, how: Masking, *,
        needs_scores: bool, accumulate: str,
    ) -> tuple[Array, Array, Array, Array | None]:  # fmt: skip
        """Return the gradients of q, k, v and, if needed, of the biased scores: wide, of broadcast shapes."""
        products = self.matmul(q, _swap(k), accumulate=accumulate)
        r = self._drop(self.matmul(grad, _swap(v), accumulate=accumulate), how)
        p, ds = self.attention_slopes(products, log_sum, r, how, accumulate=accumulate)
        by_q, by_k, by_v = (
            self.matmul(*self._factors(a, b, q, accumulate), accumulate=accumulate)
            for a, b in ((ds, k), (_swap(ds), q), (_swap(self._drop(p, how)), grad))
        )
        return by_q * how.scale, by_k * how.scale, by_v, ds if needs_scores else None

    def attention_weights(self, products: Array, how: Masking, *, accumulate: str) -> tuple[Array, Array]:
        """Return the softmax of the scores, and ln sum e^s of each row: wide, (..., L, S) and (..., L, 1).

        Args:
            products: Q K^T, (..., L, S), fresh and wide.
            how: what makes scores of them.
            accumulate: how the sums are accumulated.
        """
        xp, scores = self.xp, self._scores(products, how)
        top = self.largest_along(scores, -1)
        top = xp.where(xp.isneginf(top), xp.zeros_like(top), top)
        e = xp.exp(scores - top)
        total = self.sum(e, axis=-1, keepdims=True, accumulate=accumulate)
        total = xp.where(total == 0, xp.ones_like(total), total)
        return e / total, top + xp.log(total)

    def attention_slopes(
        self, products: Array, log_sum: Array, r: Array, how: Masking, *, accumulate: str
    ) -> tuple[Array, Array]:
        """Return the probabilities again, and the gradient of the scores, p (r - sum p r).

        Args:
            products, how, accumulate: as of :meth:`attention_weights`.
            log_sum: what that gave.
            r: the gradient of the probabilities, wide.
        """
        p = self.xp.exp(self._scores(products, how) - log_sum)
        return p, p * (r - self.sum(p * r, axis=-1, keepdims=True, accumulate=accumulate))

    def masking(self, **settings: Any) -> Masking:
        """Return what happens to scores and probabilities; arguments as :class:`Masking`."""
        return Masking(**settings)

    def _scores(self, products: Array, how: Masking) -> Array:
        xp = self.xp
        scores = products * how.scale
        if how.causal:
            scores = xp.where(xp.tri(*scores.shape[-2:], dtype=bool), scores, -math.inf)
        if how.mask is None:
            return scores
        if how.mask.dtype.kind == "b":
            return xp.where(how.mask, scores, -math.inf)
        return scores + self.wide(how.mask)

    def _drop(self, p: Array, how: Masking) -> Array:
        return p if how.keep is None else self.xp.where(how.keep, p * how.factor, self.xp.zeros_like(p))

    def _factors(self, a: Array, b: Array, like: Array, accumulate: str) -> tuple[Array, Array]:
        """A wide matrix and a stored one as one product takes them: rounded, if the name adds a format's."""
        return (a, self.wide(b)) if accumulate in PLAIN else (self.narrow(a, self._format(like)), b)


def _swap(x: Array) -> Array:
    return x.swapaxes(-1, -2)
