"""What sums.cu must give: float32 sums of rows, in the order of references/rows.py."""

from __future__ import annotations

from typing import Any

import numpy as np

from minimp_backends.kernels.references.rows import row_totals

__all__ = ["row_sum"]

Array = Any


@np.errstate(all="ignore")
def row_sum(x: Array, y: Array, rows: int, length: int) -> None:
    """Write y = sum x of each row.

    Args:
        x: (rows, length), of any format.
        y: (rows,), float32.
        rows, length: at least 1 each.
    """
    y.reshape(-1)[:] = row_totals(x.reshape(rows, length).astype(np.float32))[:, 0]
