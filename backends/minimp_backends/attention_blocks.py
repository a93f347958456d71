"""Attention on NumPy, a few heads and rows of queries at a time, so that scores stay in the cache.

It differs from the readable form (:mod:`minimp_backends.attention`) in where float32 rounds: the queries are
scaled, not the scores. Keys that lie after all queries of a block are not looked at under a causal mask.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from minimp_backends.attention import AttentionKernels, Masking

__all__ = ["BlockedAttention", "attend", "attend_gradient"]

Array = np.ndarray[Any, Any]
ROWS = 64
"""Queries of one block where a causal mask lets later keys be left out."""
BLOCK = 1 << 16
"""Scores that are worked on together: 256 KiB of float32."""
FLOAT64 = np.dtype(np.float64)


class BlockedAttention(AttentionKernels):
    """Attention in blocks; under a name of an accumulation, the readable form."""

    def attention(
        self, q: Array, k: Array, v: Array, how: Masking, *, accumulate: str
    ) -> tuple[Array, Array]:
        """A few heads and queries at a time; by name, the readable form."""
        if not self._is_own(accumulate, q):
            return super().attention(q, k, v, how, accumulate=accumulate)
        return attend(self.wide(q), self.wide(k), self.wide(v), self._widened(how))

    def attention_gradient(
        self, grad: Array, q: Array, k: Array, v: Array, log_sum: Array, how: Masking, *,
        needs_scores: bool, accumulate: str,
    ) -> tuple[Array, Array, Array, Array | None]:  # fmt: skip
        """The same blocks, their probabilities made again."""
        if not self._is_own(accumulate, q):
            return super().attention_gradient(
                grad, q, k, v, log_sum, how, needs_scores=needs_scores, accumulate=accumulate
            )
        grad, q, k, v = (self.wide(x) for x in (grad, q, k, v))
        return attend_gradient(grad, q, k, v, log_sum, self._widened(how), needs_scores=needs_scores)

    def _widened(self, how: Masking) -> Masking:
        return how if how.mask is None else replace(how, mask=self.wide(how.mask))

    def _is_own(self, accumulate: str, array: Array) -> bool:
        """Tell whether sums of this array are accumulated in the format that it is computed in."""
        return accumulate == "float32" or (accumulate == "float64" and array.dtype == FLOAT64)


def attend(q: Array, k: Array, v: Array, how: Masking) -> tuple[Array, Array]:
    """As :meth:`AttentionKernels.attention`, on wide arrays, in their own precision."""
    plan = _Plan(q, k, v, how)
    y = np.empty_like(plan.q, shape=(*plan.lead, plan.rows, v.shape[-1]))  # in the memory order of q
    log_sum = np.empty((*plan.lead, plan.rows, 1), q.dtype)
    ones = np.ones((1, plan.keys), q.dtype)
    for at in plan.heads():
        heads = _Heads(plan, at)
        for rows, keys in plan.blocks():
            p = heads.scores(rows, keys)
            top = _largest(p)
            np.copyto(top, 0, where=top == -math.inf)
            np.exp(np.subtract(p, top, out=p), out=p)
            total = np.matmul(ones[:, :keys], p)
            np.copyto(total, 1, where=total == 0)
            p /= total
            heads.drop(p, rows, keys)
            np.matmul(_swap(p), heads.v[..., :keys, :], out=y[at][..., rows, :])
            np.add(np.log(total, out=total), top, out=_swap(log_sum[at][..., rows, :]))
    return plan.shaped(y), plan.shaped(log_sum)


def attend_gradient(
    grad: Array, q: Array, k: Array, v: Array, log_sum: Array, how: Masking, *, needs_scores: bool = False
) -> tuple[Array, Array, Array, Array | None]:
    """As :meth:`AttentionKernels.attention_gradient`; the gradient of the scores only if it is needed."""
    plan = _Plan(q, k, v, how)
    by_q, by_k, by_v = (np.zeros_like(x) for x in (plan.q, plan.k, plan.v))
    by_scores = np.zeros((*plan.lead, plan.rows, plan.keys), q.dtype) if needs_scores else None
    grad, log_sum = (x.reshape(*plan.lead, *x.shape[-2:]) for x in (grad, log_sum))
    ones = np.ones((1, plan.keys), q.dtype)
    for at in plan.heads():
        heads = _Heads(plan, at)
        for rows, keys in plan.blocks():
            g = grad[at][..., rows, :]
            p = heads.scores(rows, keys)
            np.exp(np.subtract(p, _swap(log_sum[at][..., rows, :]), out=p), out=p)
            r = np.matmul(heads.v[..., :keys, :], _swap(g))
            heads.drop(r, rows, keys)
            r -= np.matmul(ones[:, :keys], p * r)
            r *= p
            if by_scores is not None:
                by_scores[at][..., rows, :keys] = _swap(r)
            np.multiply(np.matmul(_swap(r), heads.k[..., :keys, :]), how.scale, out=by_q[at][..., rows, :])
            by_k[at][..., :keys, :] += np.matmul(r, heads.q[..., rows, :])
            heads.drop(p, rows, keys)
            by_v[at][..., :keys, :] += np.matmul(p, g)
    scores = None if by_scores is None else plan.shaped(by_scores)
    return plan.shaped(by_q), plan.shaped(by_k), plan.shaped(by_v), scores


def _swap(x: Array) -> Array:
    return x.swapaxes(-1, -2)


def _largest(x: Array) -> Array:
    """(..., n, m) -> (..., 1, m): the maximum, NaN if there is one, by halves that lie side by side."""
    count = x.shape[-2]
    if count <= 1:
        return np.asarray(x.max(axis=-2, keepdims=True, initial=-math.inf))
    while count > 1:
        half = count // 2
        kept = np.maximum(x[..., :half, :], x[..., half : 2 * half, :])
        if count % 2:
            np.maximum(kept[..., :1, :], x[..., -1:, :], out=kept[..., :1, :])
        x, count = kept, half
    return x


class _Plan:
    """The arrays, broadcast against each other, and how the work on them is cut up."""

    def __init__(self, q: Array, k: Array, v: Array, how: Masking) -> None:
        given = [x for x in (q, k, v, how.mask, how.keep) if x is not None]
        self.shape = np.broadcast_shapes(*(x.shape[:-2] for x in given))
        self.lead = self.shape or (1,)
        self.q, self.k, self.v = (np.broadcast_to(x, (*self.lead, *x.shape[-2:])) for x in (q, k, v))
        self.rows, self.keys = q.shape[-2], k.shape[-2]
        scores = (*self.lead, self.rows, self.keys)
        self.mask, self.keep = (
            None if x is None else np.broadcast_to(x, scores) for x in (how.mask, how.keep)
        )
        self.how = how
        most = ROWS if how.causal else self.rows
        self.step = max(1, min(most, self.rows, BLOCK // max(self.keys, 1)))

    def blocks(self) -> Iterator[tuple[slice, int]]:
        """Yield (queries, how many keys they look at)."""
        for start in range(0, self.rows, self.step):
            stop = min(start + self.step, self.rows)
            yield slice(start, stop), min(stop, self.keys) if self.how.causal else self.keys

    def heads(self) -> Iterator[tuple[Any, ...]]:
        """Yield indices into the axes in front, each for as many matrices as fit a block."""
        room = max(1, BLOCK // max(1, self.step * self.keys))
        axis = len(self.lead)
        while axis and room >= self.lead[axis - 1]:  # these axes are taken whole
            axis -= 1
            room //= max(1, self.lead[axis])
        if axis == 0:
            yield ()
            return
        for before in itertools.product(*map(range, self.lead[: axis - 1])):
            for start in range(0, self.lead[axis - 1], room):
                yield (*before, slice(start, start + room))

    def shaped(self, x: Array) -> Array:
        """Take the axis away again that a single matrix was given."""
        return x if self.shape else x[0]


class _Heads:
    """The matrices of some heads; the queries already scaled.

    Scores are laid out (..., keys, queries): what goes over the keys of a query goes over rows of memory,
    which NumPy does several queries at a time.
    """

    def __init__(self, plan: _Plan, at: tuple[Any, ...]) -> None:
        self.q, self.k, self.v = plan.q[at] * plan.how.scale, plan.k[at], plan.v[at]
        self.mask, self.keep = (None if x is None else _swap(x[at]) for x in (plan.mask, plan.keep))
        self.causal, self.factor = plan.how.causal, plan.how.factor

    def scores(self, rows: slice, keys: int) -> Array:
        """(..., S, L) of the first keys and some queries, masked."""
        s: Array = np.matmul(self.k[..., :keys, :], _swap(self.q[..., rows, :]))
        if self.causal and keys > rows.start:
            late = np.tri(keys - rows.start, rows.stop - rows.start, -1, dtype=bool)
            np.copyto(s[..., rows.start :, :], -math.inf, where=late)
        if self.mask is not None:
            mask = self.mask[..., :keys, rows]
            if mask.dtype.kind == "b":
                np.copyto(s, -math.inf, where=~mask)
            else:
                s += mask
        return s

    def drop(self, p: Array, rows: slice, keys: int) -> None:
        """Put the dropped ones to 0 and multiply the others."""
        if self.keep is not None:
            p *= self.factor
            np.copyto(p, 0, where=~self.keep[..., :keys, rows])
