"""The gradient of a table whose rows were looked up: the rows that came back, summed by their places."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from minimp.formats import Format

__all__ = ["Lookups"]

Array = Any


class Lookups:
    """The readable form, over the kernels of a backend."""

    keep_where: Callable[[Array, Array], Array]
    narrow: Callable[[Array, Format | None], Array]
    scatter_add: Callable[..., Array]
    wide: Callable[[Array], Array]

    def sum_rows(
        self, shape: tuple[int, ...], index: Array, rows: Array, format: Format | None, *,
        left_out: int | None = None, accumulate: str,
    ) -> Array:  # fmt: skip
        """Return the table (V, D) whose row v is the sum of the rows of v, rounded once to `format`.

        Args:
            shape: (V, D).
            index: (...), integers from 0 to V - 1: to which row of the table each of the rows goes.
            rows: (..., D), a storage array.
            format: of the result; None: the sums stay wide.
            left_out: a row of the table that takes none and becomes zeros; None: all take theirs.
            accumulate: how the sums are taken, in the order of the rows (under "float32", in any).
        """
        if left_out is not None:
            rows = self.keep_where(rows, (index != left_out)[..., None])
        return self.narrow(self.scatter_add(shape, index, self.wide(rows), accumulate=accumulate), format)
