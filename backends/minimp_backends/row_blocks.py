"""Formulas on NumPy in blocks that stay in the cache: elementwise ones, rows, and layer normalisation.

A formula on a block makes temporaries that are read again before they leave the cache, and whose memory the
next block takes over; on a whole array of some MiB, each temporary goes to memory and back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from minimp_backends.rows import RowKernels

__all__ = ["BLOCK", "BlockedRows", "memory_order"]

Array = np.ndarray[Any, Any]
BLOCK = 1 << 15
"""Elements of a block: 128 KiB of float32, of which a few fit a level-2 cache."""
FLOAT64 = np.dtype(np.float64)


class BlockedRows(RowKernels):
    """The kernels of :class:`RowKernels`, a block at a time."""

    def elementwise(self, formula: Callable[..., Array], *arrays: Array) -> Array:
        """Block by block in the order in which the first array lies in memory."""
        first = arrays[0]
        if first.size <= BLOCK or (order := memory_order(first)) is None:
            return formula(self, *arrays)
        out = np.empty_like(first)
        flat = [x.transpose(order).reshape(-1) for x in (out, *arrays)]
        for start in range(0, first.size, BLOCK):
            target, *parts = (x[start : start + BLOCK] for x in flat)
            target[...] = formula(self, *parts)
        return out

    def by_rows(self, formula: Callable[..., Array], *arrays: Array) -> Array:
        """Some rows at a time."""
        first = arrays[0]
        if first.size <= BLOCK or not all(x.flags.c_contiguous for x in arrays):
            return formula(self, *arrays)
        rows = [x.reshape(-1, first.shape[-1]) for x in arrays]
        out: Array | None = None
        for part in _blocks(len(rows[0]), first.shape[-1]):
            found = formula(self, *(x[part] for x in rows))
            out = np.empty(rows[0].shape, found.dtype) if out is None else out
            out[part] = found
        assert out is not None
        return out.reshape(first.shape)

    def layer_norm(
        self, x: Array, weight: Array | None, bias: Array | None, axes: tuple[int, ...], eps: float, *,
        accumulate: str,
    ) -> tuple[Array, Array, Array]:  # fmt: skip
        """Some rows at a time, their sums by BLAS; by name, the readable form."""
        wide = self.wide(x)
        if not _suits(accumulate, wide):
            return super().layer_norm(x, weight, bias, axes, eps, accumulate=accumulate)
        length = math.prod(wide.shape[axis] for axis in axes)
        rows = wide.reshape(-1, length)
        y, ones = np.empty_like(rows), np.ones((length, 1), wide.dtype)
        mean, scale = (np.empty((len(rows), 1), wide.dtype) for _ in range(2))
        w, b = (None if each is None else self.wide(each).reshape(1, length) for each in (weight, bias))
        for part in _blocks(len(rows), length):
            m, s, z = mean[part], scale[part], y[part]
            np.divide(np.matmul(rows[part], ones), length, out=m)
            np.subtract(rows[part], m, out=z)
            np.divide(1, np.sqrt(np.matmul(z * z, ones) / length + eps), out=s)
            z *= s
            if w is not None:
                z *= w
            if b is not None:
                z += b
        kept = (*wide.shape[: wide.ndim - len(axes)], *(1 for _ in axes))
        return y.reshape(wide.shape), mean.reshape(kept), scale.reshape(kept)

    def layer_norm_gradient(
        self, grad: Array, x: Array, weight: Array | None, mean: Array, scale: Array,
        axes: tuple[int, ...], needs: tuple[bool, bool, bool], *, accumulate: str,
    ) -> tuple[Array | None, Array | None, Array | None]:  # fmt: skip
        """Some rows at a time, their sums by BLAS; by name, the readable form."""
        g, wide = self.wide(grad), self.wide(x)
        if not _suits(accumulate, wide) or not g.flags.c_contiguous:
            return super().layer_norm_gradient(
                grad, x, weight, mean, scale, axes, needs, accumulate=accumulate
            )
        length = math.prod(wide.shape[axis] for axis in axes)
        w = None if weight is None else self.wide(weight).reshape(1, length)
        rows = [each.reshape(-1, size) for each, size in ((g, length), (wide, length), (mean, 1), (scale, 1))]
        by_x = np.empty_like(rows[0]) if needs[0] else None
        by_weight, by_bias = (np.zeros((1, length), g.dtype) if need else None for need in needs[1:])
        for part in _blocks(len(rows[0]), length):
            _layer_norm_block([each[part] for each in rows], w, by_x, by_weight, by_bias, part)
        shape = wide.shape[wide.ndim - len(axes) :]
        return (
            None if by_x is None else by_x.reshape(wide.shape),
            None if by_weight is None else by_weight.reshape(shape),
            None if by_bias is None else by_bias.reshape(shape),
        )


def _layer_norm_block(
    rows: list[Array], w: Array | None, by_x: Array | None, by_weight: Array | None, by_bias: Array | None,
    part: slice,
) -> None:  # fmt: skip
    """Put the gradients of some rows in their places, or add them up."""
    g, x, mean, scale = rows
    z = x - mean
    z *= scale
    above = np.ones((1, len(g)), g.dtype)
    if by_weight is not None:
        by_weight += np.matmul(above, g * z)
    if by_bias is not None:
        by_bias += np.matmul(above, g)
    if by_x is not None:
        length, ones = g.shape[1], np.ones((g.shape[1], 1), g.dtype)
        h = np.multiply(g, 1 if w is None else w, out=by_x[part])
        inner = np.matmul(h * z, ones) / length
        h -= np.matmul(h, ones) / length
        z *= inner
        h -= z
        h *= scale


def _suits(accumulate: str, wide: Array) -> bool:
    """Tell whether sums are BLAS's own, and the rows lie one after the other."""
    plain = accumulate == "float32" or (accumulate == "float64" and wide.dtype == FLOAT64)
    return plain and wide.size > 0 and wide.flags.c_contiguous


def _blocks(count: int, length: int) -> Iterator[slice]:
    """Yield slices of rows, each of about a block."""
    step = max(1, BLOCK // max(1, length))
    for start in range(0, count, step):
        yield slice(start, start + step)


def memory_order(array: Array) -> tuple[int, ...] | None:
    """Return the axes in the order in which they lie in memory, outermost first; None if there are gaps."""
    if array.flags.c_contiguous:
        return tuple(range(array.ndim))
    order = tuple(sorted(range(array.ndim), key=lambda axis: -array.strides[axis]))
    return order if array.transpose(order).flags.c_contiguous else None
