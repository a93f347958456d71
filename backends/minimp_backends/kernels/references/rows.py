"""What softmax.cu, norms.cu and norm_gradients.cu must give: float32 sums in one order, one rounding.

A row has a team of :func:`threads_of` threads, and a thread takes groups of eight neighbours: groups t,
t + T, t + 2T... of T threads. A sum begins at 0 in each thread, which adds its own numbers as they come; then
the threads of each warp are added by halves, then the warps. So sums do not depend on how a row is stored.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minimp_backends.kernels.references import exponentials

__all__ = [
    "WARP", "WARPS", "norm", "norm_columns", "norm_gradient", "row_totals", "softmax", "softmax_gradient",
    "sum_parts", "threads_of",
]  # fmt: skip

Array = Any
SINGLE = np.float32
WARP, HELD = 32, 8
"""Threads of a warp, and the neighbours that a thread takes at a time."""
TEAMS = (WARP, 128, 512, 1024)
WARPS = 8
"""Those of a block that sums columns."""


def threads_of(length: int) -> int:
    """Return how many threads share a row: as few as can hold it at once, at most 1024."""
    return next((team for team in TEAMS if length <= team * HELD), TEAMS[-1])


def row_totals(terms: Array) -> Array:
    """The sums over rows, (rows, length) float32 -> (rows, 1)."""
    team = threads_of(terms.shape[1])
    turns = -(-terms.shape[1] // (team * HELD))
    given = np.zeros((len(terms), turns * team * HELD), SINGLE)
    given[:, : terms.shape[1]] = terms
    given = given.reshape(len(terms), turns, team, HELD)
    found = np.zeros((len(terms), team), SINGLE)
    for turn in range(turns):
        for each in range(HELD):
            found = found + given[:, turn, :, each]
    warps = np.zeros((len(terms), WARP), SINGLE)
    warps[:, : team // WARP] = _by_halves(found.reshape(len(terms), -1, WARP))
    return _by_halves(warps)[:, None]


def _by_halves(terms: Array) -> Array:
    while terms.shape[-1] > 1:
        half = terms.shape[-1] // 2
        terms = terms[..., :half] + terms[..., half:]
    return terms[..., 0]


def _wide(array: Array, rows: int, length: int) -> Array:
    return array.reshape(rows, length).astype(SINGLE)


@np.errstate(all="ignore")
def softmax(x: Array, y: Array, logs: int, rows: int, length: int) -> None:
    """Write y = e^(x - max) / sum e^(x - max) of each row, or its logarithm: x - max - ln sum e^(x - max).

    The quotient is a product with 1 / sum. A row becomes NaN where one number of it is NaN or +inf, and where
    all are -inf.

    Args:
        x, y: (rows, length), of one format.
        logs: not 0: the logarithm.
        rows, length: at least 1 each.
    """
    shifted = _wide(x, rows, length)
    shifted = shifted - np.fmax.reduce(shifted, axis=1, keepdims=True)
    power = exponentials.exp(shifted)
    total = row_totals(power)
    made = shifted - exponentials.log(total) if logs else power * (SINGLE(1) / total)
    y.reshape(rows, length)[:] = made.astype(y.dtype)


@np.errstate(all="ignore")
def softmax_gradient(grad: Array, y: Array, dx: Array, logs: int, rows: int, length: int) -> None:
    """Write dx = y (g - sum g y) of each row, or of the logarithm g - e^y sum g; arguments as `softmax`."""
    g, p = _wide(grad, rows, length), _wide(y, rows, length)
    total = row_totals(g if logs else g * p)
    made = g - exponentials.exp(p) * total if logs else p * (g - total)
    dx.reshape(rows, length)[:] = made.astype(dx.dtype)


@np.errstate(all="ignore")
def norm(
    x: Array, weight: list[Array], bias: list[Array], y: Array, means: list[Array], scales: Array, eps: float,
    rows: int, length: int,
) -> None:  # fmt: skip
    """Write y = (x - m) s w + b of each row, its mean m, and s = 1 / sqrt(mean (x - m)^2 + eps).

    Args:
        x, y: (rows, length), of one format.
        weight, bias: one float32 array (length,) or none.
        means: one float32 array (rows,); none: m is taken to be 0, and the row is not centred.
        scales: float32, (rows,).
        eps: rounded to float32.
        rows, length: at least 1 each.
    """
    centred, count = _wide(x, rows, length), SINGLE(length)
    if means:
        mean = row_totals(centred) / count
        means[0].reshape(rows, 1)[:] = mean
        centred = centred - mean
    scale = SINGLE(1) / np.sqrt(row_totals(centred * centred) / count + SINGLE(eps))
    scales.reshape(rows, 1)[:] = scale
    made = centred * scale
    made = made * weight[0].reshape(1, length) if weight else made
    made = made + bias[0].reshape(1, length) if bias else made
    y.reshape(rows, length)[:] = made.astype(y.dtype)


@np.errstate(all="ignore")
def norm_gradient(
    grad: Array, x: Array, weight: list[Array], means: list[Array], scales: Array, dx: Array, rows: int,
    length: int,
) -> None:  # fmt: skip
    """Write dx = (h - mean h - z mean (h z)) s with h = g w and z = (x - m) s; without means, mean h is 0.

    Args:
        grad, x, dx: (rows, length), of one format.
        weight, means, scales, rows, length: as of :func:`norm`.
    """
    h, z = _wide(grad, rows, length), _normed(x, means, scales, rows, length)
    h = h * weight[0].reshape(1, length) if weight else h
    count = SINGLE(length)
    inner = row_totals(h * z) / count
    middle = row_totals(h) / count if means else SINGLE(0)
    made = ((h - middle) - z * inner) * scales.reshape(rows, 1)
    dx.reshape(rows, length)[:] = made.astype(dx.dtype)


@np.errstate(all="ignore")
def norm_columns(
    grad: Array, x: Array, means: list[Array], scales: Array, parts: Array, with_bias: int, rows: int,
    length: int, rows_each: int,
) -> None:  # fmt: skip
    """Write sums of g z, and of g, over every `rows_each` rows: the gradients of w and b, in parts.

    Of each part warp w of 8 takes rows w, w + 8...; then the warps' sums are added in their order.

    Args:
        grad, x, means, scales, rows, length: as of :func:`norm_gradient`.
        parts: float32, (parts, 2, length): by w, then by b; (parts, 1, length) where `with_bias` is 0.
        with_bias: not 0: sums of g are wanted.
        rows_each: rows of a part; the last may have fewer.
    """
    g = _wide(grad, rows, length)
    terms = np.stack([g * _normed(x, means, scales, rows, length), g], 1)[:, : 2 if with_bias else 1]
    made = parts.reshape(-1, terms.shape[1], length)
    for part, wanted in enumerate(made):
        some = terms[part * rows_each : (part + 1) * rows_each]
        warps = np.zeros((WARPS, *wanted.shape), SINGLE)
        for start in range(0, len(some), WARPS):
            turn = some[start : start + WARPS]
            warps[: len(turn)] += turn
        total = warps[0]
        for each in warps[1:]:
            total = total + each
        wanted[:] = total


@np.errstate(all="ignore")
def sum_parts(parts: Array, totals: Array, count: int, width: int) -> None:
    """Write the sum of each column of `parts` (count, width), one row after the other, into (width,)."""
    total = np.zeros(width, SINGLE)
    for each in parts.reshape(count, width):
        total = total + each
    totals.reshape(width)[:] = total


def _normed(x: Array, means: list[Array], scales: Array, rows: int, length: int) -> Array:
    centred = _wide(x, rows, length)
    centred = centred - means[0].reshape(rows, 1) if means else centred
    return centred * scales.reshape(rows, 1)
