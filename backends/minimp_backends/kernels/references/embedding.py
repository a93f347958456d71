"""The gradient of an embedding's table: what embedding.cu must give."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["sum_segments"]


@np.errstate(all="ignore")
def sum_segments(rows: Any, order: Any, starts: Any, table: Any, vocabulary: int, width: int) -> None:
    """Write ``table[v]``, the sum of ``rows[order[k]]`` over k from ``starts[v]`` to ``starts[v + 1]`` - 1.

    The sum begins at 0, is taken in float32 one row after the other, and is rounded once.

    Args:
        rows: (K, width), the gradient of what was looked up.
        order: (K,) int64, the rows sorted by their places; rows of one place in their own order.
        starts: (vocabulary + 1,) int64, where each place's rows begin in `order`.
        table: (vocabulary, width), in the format of `rows`; places without rows become zeros.
        vocabulary, width: of the table.
    """
    given, wanted = rows.reshape(-1, width), table.reshape(vocabulary, width)
    for place in range(vocabulary):
        total = np.zeros(width, np.float32)
        for row in order[starts[place] : starts[place + 1]]:
            total += given[row].astype(np.float32)
        wanted[place] = total.astype(table.dtype)
