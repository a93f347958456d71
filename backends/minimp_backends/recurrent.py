"""Recurrences over a whole sequence, written once over an array namespace.

The products with the inputs come in for all steps at once, and those for the gradients of weights are left to
be made for all steps at once; what is done here is what each step needs of the step before. Between the
product and the new state everything is in the wide format: the gates are not rounded, the states are, each
once (as PyTorch's fused CUDA cells keep the gates of one step in float32).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from minimp.formats import Format
from minimp_backends.recurrent_cells import CELLS

__all__ = ["RecurrentKernels"]

Array = Any
PLAIN = ("float32", "float64")


class RecurrentKernels:
    """The loop over steps, around the formulas of :mod:`minimp_backends.recurrent_cells`."""

    xp: Any
    matmul: Callable[..., Array]
    narrow_into: Callable[..., None]
    keep_twin: Callable[[Array, Array], None]
    wide: Callable[[Array], Array]

    def recurrence(
        self, kind: str, gates: Array, first: Sequence[Array], weight: Array, bias: Array | None, *,
        format: Format, reverse: bool, accumulate: str,
    ) -> tuple[Array, tuple[Array, ...]]:  # fmt: skip
        """Return the states after each step, (S, T, N, H) in `format`, and what the gradient needs beside.

        That is, wide: the gates after their functions and what the cell keeps aside, or nothing.

        Args:
            kind: a name in :data:`minimp_backends.recurrent_cells.CELLS`.
            gates: (T, N, G H), wide: W_ih x + b_ih; its memory is taken over.
            first: the states before the first step, S arrays (N, H) in `format`.
            weight, bias: (G H, H) and (G H,) or None, in `format`.
            format: what states are rounded to.
            reverse: whether the last step is the first.
            accumulate: how the products with the states are summed.
        """
        cell, (steps, rows, _), size = CELLS[kind], gates.shape, weight.shape[1]
        into, b = self._operand(weight, accumulate).swapaxes(0, 1), None if bias is None else self.wide(bias)
        made = _Steps(self, (cell.states, steps, rows, size), format, gates.dtype)
        aside = self.xp.empty((steps, rows, size if cell.kept > 1 else 0), gates.dtype)
        low, wide = first, [self.wide(each) for each in first]
        for t in _order(steps, reverse):
            product = self._product(low[0], wide[0], into, accumulate)
            if b is not None:
                product += b
            found = cell.forward(self, gates[t], product, aside[t], wide)
            low, wide = made.put(t, found)
        return made.whole(), (gates, aside)[: cell.kept]

    def recurrence_gradient(
        self, kind: str, grad: Array, states: Array, first: Sequence[Array], kept: Sequence[Array],
        weight: Array, *, format: Format, reverse: bool, accumulate: str,
    ) -> tuple[Array, Array, list[Array]]:  # fmt: skip
        """Return the gradients of the gates' two halves, W_ih x + b_ih and W_hh h + b_hh, and of `first`.

        Args:
            kind, first, weight, format, reverse, accumulate: as in :meth:`recurrence`.
            grad: that of the states after each step, (S, T, N, H).
            states, kept: what :meth:`recurrence` made, in `format`.

        Returns:
            Twice (T, N, G H) in `format`, one array if the two are one, and S arrays (N, H), wide.
        """
        cell, g, made = CELLS[kind], self.wide(grad), self.wide(states)
        held, matrix = [self.wide(each) for each in kept], self._operand(weight, accumulate)
        shape, dtype = (1, *made.shape[1:3], len(weight)), g.dtype
        by_inputs = _Steps(self, shape, format, dtype)
        by_product = _Steps(self, shape, format, dtype) if cell.split else by_inputs
        carried = [self.xp.zeros(made.shape[2:], dtype) for _ in range(cell.states)]
        before = [self.wide(each) for each in first]
        order = list(_order(made.shape[1], reverse))
        for k in range(len(order) - 1, -1, -1):
            t = order[k]
            old = [made[s, order[k - 1]] for s in range(cell.states)] if k else before
            arrived = [g[s, t] + each for s, each in enumerate(carried)]
            rooms = (by_inputs.wide[0, t], by_product.wide[0, t])
            carried = cell.backward(self, arrived, [each[t] for each in held], old, made[:, t], rooms)
            by_inputs.seal(t)
            (low,), (wide,) = by_product.seal(t) if cell.split else by_inputs.at(t)
            carried[0] = carried[0] + self._product(low, wide, matrix, accumulate)
        found = by_inputs.whole()[0]
        return found, by_product.whole()[0] if cell.split else found, carried

    def _product(self, low: Array, wide: Array, matrix: Array, accumulate: str) -> Array:
        """Multiply the rows of one step; sums by name look at the format, in a copy that may get a twin."""
        left = wide if accumulate in PLAIN else low.copy()
        return self.matmul(left, matrix, accumulate=accumulate).astype(wide.dtype, copy=False)

    def _operand(self, weight: Array, accumulate: str) -> Array:
        """Widen once what is multiplied at every step."""
        return self.wide(weight) if accumulate in PLAIN else weight


class _Steps:
    """(K, T, ...) in a format, filled step by step, with the wide values beside them."""

    def __init__(self, backend: Any, shape: tuple[int, ...], format: Format, dtype: Any) -> None:
        self.backend = backend
        self.wide = backend.xp.empty(shape, dtype)
        self.low = self.wide if format.dtype == dtype else backend.xp.empty(shape, format.dtype)

    def put(self, t: int, values: Sequence[Array]) -> tuple[list[Array], list[Array]]:
        """Round the K values of step `t` once, each; return them in the format, and wide."""
        for k, value in enumerate(values):
            self.wide[k, t] = value
        return self.seal(t)

    def seal(self, t: int) -> tuple[list[Array], list[Array]]:
        """Round what stands at step `t`."""
        if self.low is not self.wide:
            for k in range(len(self.wide)):
                grid = self.wide[k, t].reshape(-1)
                self.backend.narrow_into(grid, self.low[k, t].reshape(-1), grid)
        return self.at(t)

    def at(self, t: int) -> tuple[list[Array], list[Array]]:
        """Return the values of step `t`, in the format and wide."""
        return [each[t] for each in self.low], [each[t] for each in self.wide]

    def whole(self) -> Array:
        """Return all steps in the format."""
        if self.low is not self.wide:
            self.backend.keep_twin(self.low, self.wide)
        return self.low


def _order(steps: int, reverse: bool) -> Iterator[int]:
    return iter(range(steps - 1, -1, -1) if reverse else range(steps))
