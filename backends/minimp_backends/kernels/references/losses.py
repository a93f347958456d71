"""What losses.cu must give: the sums in the order of :mod:`.rows`, one rounding at the end."""

from __future__ import annotations

from typing import Any

import numpy as np

from minimp_backends.kernels.references import exponentials
from minimp_backends.kernels.references.rows import row_totals

__all__ = ["cross_entropy", "cross_entropy_gradient"]

Array = Any
SINGLE = np.float32


def _shares(labels: Array, weight: list[Array], peak: float, spread: float, length: int) -> Array:
    """How much of each row's loss each class is, (rows, length)."""
    places = np.where(labels < 0, 0, labels)
    shares = np.where(np.equal(places[:, None], np.arange(length)), SINGLE(peak), SINGLE(spread))
    shares = shares * weight[0].reshape(1, length) if weight else shares
    return shares * (labels >= 0).astype(SINGLE)[:, None]


def _times(shares: Array, x: Array) -> Array:
    return np.where(shares == 0, SINGLE(0), shares * x)


def _stored(x: Array, like: Array) -> Array:
    return x.astype(like.dtype).astype(SINGLE)


def _picked(labels: Array, terms: Array) -> Array:
    """The terms of the labels, (rows, 1)."""
    return terms[np.arange(len(labels)), np.where(labels < 0, 0, labels)][:, None]


@np.errstate(all="ignore")
def cross_entropy(
    x: Array, labels: Array, weight: list[Array], losses: Array, tops: Array, log_sums: Array, peak: float,
    spread: float, rows: int, length: int,
) -> None:  # fmt: skip
    """Write -sum share y of each row, y = x - max - ln sum e^(x - max), and what is taken off its numbers.

    y is rounded to the format of `x`, as log_softmax stores it. A class has a share of `peak` if it is the
    row's label, else of `spread`, times its weight. Where a share is 0, so is its term.

    Args:
        x: (rows, length), scores.
        labels: int64, (rows,); less than 0: the row counts for nothing.
        weight: one float32 array (length,), or none.
        losses, tops, log_sums: float32, (rows,).
        peak, spread: float32. Where `spread` is 0, only the term of the label is taken.
        rows, length: at least 1 each.
    """
    wide = x.reshape(rows, length).astype(SINGLE)
    top = np.fmax.reduce(wide, axis=1, keepdims=True, initial=-np.inf)  # which it is where all are NaN
    shifted = wide - top
    log_sum = exponentials.log(row_totals(exponentials.exp(shifted)))
    y = _stored(shifted - log_sum, x)
    terms = _times(_shares(labels, weight, peak, spread, length), y)
    losses.reshape(rows, 1)[:] = -(_picked(labels, terms) if SINGLE(spread) == 0 else row_totals(terms))
    tops.reshape(rows, 1)[:], log_sums.reshape(rows, 1)[:] = top + SINGLE(0), log_sum  # 0 is no -0


@np.errstate(all="ignore")
def cross_entropy_gradient(
    x: Array, labels: Array, weight: list[Array], tops: Array, log_sums: Array, grads: Array, dx: Array,
    peak: float, spread: float, each: int, rows: int, length: int,
) -> None:  # fmt: skip
    """Write dx = s - e^y sum s of each row, with s = -share g, rounded once.

    s and y are rounded to the format of `x` before, as the gradient of nll_loss and log_softmax store them.

    Args:
        x, labels, weight, tops, log_sums, peak, spread, rows, length: as of :func:`cross_entropy`.
        grads: g, float32, (rows,), or (1,) for all rows.
        dx: (rows, length), in the format of `x`.
        each: 1 where each row has a g of its own, else 0.
    """
    wide = x.reshape(rows, length).astype(SINGLE)
    g = grads.reshape(-1)[np.arange(rows) * each][:, None]
    shares = _shares(labels, weight, peak, spread, length)
    slopes = _stored(-_times(shares, np.broadcast_to(g, shares.shape)), x)
    if SINGLE(spread) == 0:
        is_label = np.equal(np.where(labels < 0, 0, labels)[:, None], np.arange(length))
        total, slopes = _picked(labels, slopes), np.where(is_label, slopes, SINGLE(0))
    else:
        total = row_totals(slopes)
    y = _stored((wide - tops.reshape(rows, 1)) - log_sums.reshape(rows, 1), x)
    made = slopes - exponentials.exp(y) * total
    dx.reshape(rows, length)[:] = made.astype(dx.dtype)
