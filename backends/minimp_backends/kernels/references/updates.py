"""The end of a step: what the kernels of updates.cu and advancing.cu must give.

The rules are those of :class:`minimp_backends.updates.Updates`, whose methods run here on NumPy arrays. What
is added is what a device decides: a step that found an infinity or NaN changes nothing, and does not count.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from minimp_backends.updates import Room, Updates

__all__ = ["FIRST", "MAXIMIZES", "NESTEROV", "ON_GRID", "adam", "adam_advance", "power", "sgd"]

Array = Any
Arrays = Sequence[Any]
MAXIMIZES, NESTEROV, FIRST, ON_GRID = 1, 2, 4, 8
"""`enum Option` of updates.cuh."""


class _Plain(Updates):
    """The update kernels of the engine over plain NumPy."""

    xp = np

    def adam_by_numbers(
        self, room: Room, weight: Array, grad: Array, kept: Sequence[Array | None], *, size: float,
        correction: float, beta1: float, beta2: float, eps: float, weight_decay: float, shrink: float,
        maximize: bool,
    ) -> None:  # fmt: skip
        """:meth:`adam` after its first line: the numbers that follow from the count of steps are given."""
        for part, w, given, m, v, p, t, s in self.blocks(room, weight, grad, *kept):
            g = self._gradient(w, given, t, s, weight_decay, maximize)
            self._moments(m, v, g, s, beta1, beta2)
            root = v if p is None else np.maximum(p, v, out=p)
            self._divisor(root, correction, eps, t)
            np.multiply(m, size, out=s)
            np.divide(s, t, out=s)
            self._add(part, w, s, t, shrink)


_PLAIN = _Plain()
Tensor = tuple[int, int, Room, Array, Array]


def _tensors(
    weights: Arrays, grads: Arrays, results: Sequence[Arrays], counts: Sequence[int], factor: Arrays,
    found: Arrays, options: int,
) -> Iterator[Tensor]:  # fmt: skip
    """Yield (place, count, room for the results, weight, unscaled gradient) of each tensor not skipped."""
    for at, count in enumerate(counts):
        new, change, low, compensation = (_part(each, at, count) for each in results)
        weight, grad = weights[at].reshape(-1)[:count], grads[at].reshape(-1)[:count].astype(np.float32)
        if found and found[0][0]:
            _leave(weight, new, change, low)
            continue
        grid = new if options & ON_GRID else None if compensation is None else np.empty_like(new)
        room = Room(new, change, low, grid, compensation)
        yield at, count, room, weight, grad * np.float32(factor[0][0]) if factor else grad


def _part(arrays: Arrays, at: int, count: int) -> Array | None:
    return arrays[at].reshape(-1)[:count] if arrays else None


def _leave(weight: Array, new: Array, change: Array | None, low: Array | None) -> None:
    new[...] = weight
    if change is not None:
        change[...] = 0
    if low is not None:
        low[...] = weight


def sgd(
    weights: Arrays, grads: Arrays, buffers: Arrays, news: Arrays, changes: Arrays, lows: Arrays,
    compensations: Arrays, counts: Sequence[int], factor: Arrays, found: Arrays, first: Arrays, lr: float,
    momentum: float, dampening: float, weight_decay: float, options: int,
) -> None:  # fmt: skip
    """Take one step of ``Updates.sgd`` with each tensor; ``first`` or FIRST says whether it is the first."""
    begins = bool(options & FIRST) or bool(first and first[0][0])
    results = (news, changes, lows, compensations)
    for at, count, room, weight, grad in _tensors(weights, grads, results, counts, factor, found, options):
        _PLAIN.sgd(
            room, weight, grad, _part(buffers, at, count), lr=lr, momentum=momentum,
            dampening=dampening, weight_decay=weight_decay, nesterov=bool(options & NESTEROV),
            maximize=bool(options & MAXIMIZES), first=begins,
        )  # fmt: skip


def adam(
    weights: Arrays, grads: Arrays, means: Arrays, squares: Arrays, peaks: Arrays, news: Arrays,
    changes: Arrays, lows: Arrays, compensations: Arrays, counts: Sequence[int], factor: Arrays,
    found: Arrays, numbers: Arrays, size: float, correction: float, beta1: float, beta2: float, eps: float,
    weight_decay: float, shrink: float, options: int,
) -> None:  # fmt: skip
    """Take one step of ``Updates.adam`` with each tensor; ``numbers`` may hold (size, correction)."""
    if numbers:
        size, correction = numbers[0].tolist()
    results = (news, changes, lows, compensations)
    for at, count, room, weight, grad in _tensors(weights, grads, results, counts, factor, found, options):
        kept = [_part(each, at, count) for each in (means, squares, peaks)]
        _PLAIN.adam_by_numbers(
            room, weight, grad, kept, size=size, correction=correction, beta1=beta1, beta2=beta2, eps=eps,
            weight_decay=weight_decay, shrink=shrink, maximize=bool(options & MAXIMIZES),
        )  # fmt: skip


def adam_advance(
    step: Array, numbers: Array, found: Arrays, by: int, lr: float, beta1: float, beta2: float
) -> None:
    """Add ``by`` to the count unless ``found[0]``; write -lr / (1 - beta1^t) and sqrt(1 - beta2^t)."""
    if found and found[0][0]:
        return
    step[0] += by
    t = int(step[0])
    numbers[:] = -lr / (1 - power(beta1, t)), math.sqrt(1 - power(beta2, t))


def power(base: float, exponent: int) -> float:
    """Return base^exponent, 0 <= base <= 1, by squaring pairs of float64, rounded to float64 at the end.

    The pairs have a relative error of some exponent · 2^-102, so the result is the float64 nearest to the
    power but where two are all but equally near. Python's pow is within 1 ULP of the power, so both differ by
    1 ULP at most, and seldom.
    """
    result, square = (1.0, 0.0), (float(base), 0.0)
    while exponent > 0:
        if exponent & 1:
            result = _times(result, square)
        square = _times(square, square)
        exponent >>= 1
    return result[0]


def _times(a: tuple[float, float], b: tuple[float, float]) -> tuple[float, float]:
    """Return a b as a pair (Dekker 1971, "A floating-point technique for extending the precision")."""
    product = a[0] * b[0]
    (xh, xl), (yh, yl) = _halves(a[0]), _halves(b[0])
    error = ((xh * yh - product) + xh * yl + xl * yh) + xl * yl
    error += a[0] * b[1] + a[1] * b[0]
    total = product + error
    return total, error - (total - product)


def _halves(x: float) -> tuple[float, float]:
    raised = x * 134217729.0  # 2^27 + 1
    upper = raised - (raised - x)
    return upper, x - upper
