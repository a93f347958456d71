"""What attention.cu must give: float32 throughout, sums over rows in the order of references/rows.py."""

from __future__ import annotations

from typing import Any

import numpy as np

from minimp_backends.kernels.references import exponentials
from minimp_backends.kernels.references.rows import row_totals

__all__ = ["attention_slopes", "attention_weights"]

Array = Any
SINGLE = np.float32


@np.errstate(all="ignore")
def attention_weights(
    products: Array, p: Array, log_sums: Array, scale: float, causal: int, queries: int, rows: int,
    length: int,
) -> None:  # fmt: skip
    """Write p = e^(s - m) / sum e^(s - m) and m + ln sum e^(s - m), s = scale products and m the largest s.

    Where all of a row's scores are -inf, p is 0 and so is the second. The quotient is a product with 1 / sum.

    Args:
        products, p: float32, (rows, length): queries beside each other, `length` keys each.
        log_sums: float32, (rows,).
        scale: of the scores, rounded to float32.
        causal: not 0: query i attends to keys 0..i alone, the scores of others are -inf.
        queries: L; row r is of query r mod L.
        rows, length: at least 1 each.
    """
    scores = _scores(products, scale, causal, queries, rows, length)
    top = np.fmax.reduce(scores, axis=1, keepdims=True)
    top = np.where(np.isneginf(top), SINGLE(0), top)
    power = exponentials.exp(scores - top)
    total = row_totals(power)
    total = np.where(total == 0, SINGLE(1), total)
    p.reshape(rows, length)[:] = power * (SINGLE(1) / total)
    log_sums.reshape(rows, 1)[:] = top + exponentials.log(total)


@np.errstate(all="ignore")
def attention_slopes(
    products: Array, log_sums: Array, r: Array, p: Array, slopes: Array, scale: float, causal: int,
    queries: int, rows: int, length: int,
) -> None:  # fmt: skip
    """Write p = e^(s - log_sum) and p (r - sum p r); float32, arguments as of :func:`attention_weights`."""
    scores = _scores(products, scale, causal, queries, rows, length)
    power, given = exponentials.exp(scores - log_sums.reshape(rows, 1)), r.reshape(rows, length)
    p.reshape(rows, length)[:] = power
    slopes.reshape(rows, length)[:] = power * (given - row_totals(power * given))


def _scores(products: Array, scale: float, causal: int, queries: int, rows: int, length: int) -> Array:
    scores = products.reshape(rows, length) * SINGLE(scale)
    if causal:
        query = np.arange(rows)[:, None] % queries
        scores = np.where(np.arange(length) <= query, scores, SINGLE(-np.inf))
    return scores
