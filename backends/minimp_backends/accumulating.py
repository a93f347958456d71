"""Sums and convolutions accumulated by name: what :func:`minimp.formats.matmul` does, for whole layers.

Every function is given the wide values of its operands (float32, or float64 for float64 tensors), the format
that they are values of, and the name of an accumulation; "float32" and "float64" on their own are the fast
kernels' and do not come here. A sum is handed on in float32, which holds every running sum but that of
``exact``: that one comes as the exact sum rounded to odd in float64, so that one more rounding, to any format
of at most 51 bits, is the only one.

The terms of each output and their order, k = 0, 1, 2, ...:

* a product A B: k ascending;
* a convolution: (c, u, v) in C order, c within the group;
* its weight gradient: (n, i, j) in C order, images and output positions;
* its input gradient: (o, u, v) in C order, o within the group: the full correlation, in which each element of
  the input meets w[o, c, u, v] once, times the gradient at the output position that read it through (u, v);
* a sum: C order over the axes summed.

What lies outside an image, or between the positions of a stride, is a term as well: +0, or -0 times a
negative weight. It changes no running sum, but it has its place in the count: in ``chunked:B``, ``splitk:S``,
``pairwise`` and the blocks of a matrix unit it moves the borders.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from minimp import formats
from minimp.errors import SettingError
from minimp.formats import Format
from minimp.formats.accumulation.operands import Factors
from minimp.formats.accumulation.orders import multiply, parse_accumulate
from minimp.formats.accumulation.sums import sum_of
from minimp.formats.accumulation.tensorcore import unit_for
from minimp.formats.errorfree import to_odd
from minimp_backends.columns import (
    Array,
    Geometry,
    Tile,
    Tiling,
    check_gradient,
    columns_of,
    geometry_of,
    pixels,
    side_by_side,
    windows_of,
)

__all__ = [
    "BLOCK_BYTES", "conv2d_forward", "conv2d_input_gradient", "conv2d_weight_gradient", "name_for_sums",
    "product", "sum_terms",
]  # fmt: skip

BLOCK_BYTES = 8 << 20
"""Columns of float32 made at a time; a step works on some float64 copies of them."""
WHOLE_BYTES = 32 << 20
"""The same where a sum over the whole batch cannot be taken up again where it was left."""
RUNNING = frozenset({"float32:sequential", "float16", "float16:fma", "bfloat16"})
"""The orders with one running sum, which may start from any."""
FLOAT64 = np.dtype(np.float64)


def name_for_sums(accumulate: str) -> str:
    """Return how sums of terms are accumulated where products are as `accumulate` says.

    A matrix unit multiplies; the vector units beside it add in float32.
    """
    return "float32" if accumulate.startswith("tensorcore:") else accumulate


def product(a: Array, b: Array, fmt: Format, accumulate: str, start: Array | None = None) -> Array:
    """A B by name.  (..., M, K), (..., K, N) -> (..., M, N), float32 (float64 for "exact").

    Args:
        a, b: wide values of `fmt`.
        fmt: the format of the factors.
        accumulate: the name.
        start: the sums over earlier terms, to go on from, for a name that can (:func:`_grain`).

    Raises:
        SettingError: the name cannot act on values of `fmt`.
    """
    _require(fmt, accumulate)
    total = formats.matmul(a, b, start, fmt=fmt, accumulate=accumulate, output=formats.float64)
    if accumulate != "exact":
        return total.astype(np.float32)
    if fmt is formats.float64:
        return total
    residue = np.empty_like(total)  # in sign, what the exact sum has beyond the nearest float64
    multiply(Factors(a, b, -total, fmt), parse_accumulate(accumulate), residue, formats.float64)
    return to_odd(total, residue)


def _require(fmt: Format, accumulate: str) -> None:
    """Refuse float64 tensors where their terms would have to be rounded first."""
    if fmt is formats.float64 and accumulate not in ("float64", "exact"):
        name = parse_accumulate(accumulate).format.name
        raise SettingError(
            f"accumulate={accumulate!r} sums in {name}, which cannot hold float64 terms",
            formats=(fmt.name, name), help='use mp.accumulate("float64") or "exact", or float32 tensors',
        )  # fmt: skip


def sum_terms(x: Array, axis: Any, fmt: Format, accumulate: str, *, keepdims: bool = False) -> Array:
    """Sum over `axis` (None: all) by name; float32 (float64 for "exact")."""
    _require(fmt, accumulate)
    axis = axis if x.ndim else None  # a number has an axis of length 1, as NumPy sees it
    if accumulate != "exact" or fmt is formats.float64:
        total = sum_of(x, axis, fmt=fmt, accumulate=accumulate, output=formats.float64, keepdims=keepdims)
        return total if accumulate == "exact" else total.astype(np.float32)
    axes = range(x.ndim) if axis is None else np.lib.array_utils.normalize_axis_tuple(axis, x.ndim)
    kept = [i for i in range(x.ndim) if i not in axes]
    length = math.prod(x.shape[i] for i in axes)
    rows = x.transpose(*kept, *axes).reshape(math.prod(x.shape[i] for i in kept), length)
    found = product(rows, np.ones((length, 1), x.dtype), fmt, accumulate)
    shape = [1 if i in axes else n for i, n in enumerate(x.shape)]
    return found.reshape(shape if keepdims else [x.shape[i] for i in kept])


# ---- convolution ---------------------------------------------------------------------------------------


def conv2d_forward(x: Array, weight: Array, fmt: Format, accumulate: str, **sizes: Any) -> Array:
    """(N, C, H, W), (O, C/G, kh, kw) -> (N, O, OH, OW); arguments as the fast kernel's, no bias."""
    geometry = geometry_of("conv2d", (x, weight), x.shape, weight.shape, **sizes)
    tiling = Tiling.within(geometry, geometry.out_size[1] * x.itemsize, BLOCK_BYTES)
    columns = columns_of(x, geometry, tiling)
    return _by_tiles(geometry.matrix(weight), columns, geometry, fmt, accumulate)


def conv2d_input_gradient(
    grad: Array, weight: Array, shape: tuple[int, ...], fmt: Format, accumulate: str, **sizes: Any
) -> Array:
    """(N, O, OH, OW), (O, C/G, kh, kw) -> `shape` (N, C, H, W)."""
    geometry = geometry_of("conv2d", (grad, weight), shape, weight.shape, **sizes)
    check_gradient("conv2d", geometry, grad)
    _require(fmt, accumulate)
    (kh, kw), (dh, dw), groups = geometry.kernel, geometry.dilation, geometry.groups
    full = replace(
        geometry, in_channels=geometry.out_channels, out_channels=geometry.in_channels, stride=(1, 1),
        padding=(0, 0), size=(shape[2] + dh * (kh - 1), shape[3] + dw * (kw - 1)),
    )  # fmt: skip
    by_group = weight.reshape(groups, -1, *weight.shape[1:])  # (G, O/G, C/G, kh, kw)
    matrix = by_group.swapaxes(1, 2).reshape(groups, weight.shape[1], full.depth)
    return _by_tiles(matrix, _correlated(grad, geometry, full), full, fmt, accumulate)


def conv2d_weight_gradient(
    x: Array, grad: Array, shape: tuple[int, ...], fmt: Format, accumulate: str, **sizes: Any
) -> Array:
    """(N, C, H, W), (N, O, OH, OW) -> `shape` (O, C/G, kh, kw).

    A sum runs over the whole batch. A running sum is taken up tile after tile; the others are formed whole,
    for as many channels and filters at a time as fit in WHOLE_BYTES (one, where it alone is longer).
    """
    geometry = geometry_of("conv2d", (x, grad), x.shape, shape, **sizes)
    check_gradient("conv2d", geometry, grad)
    _require(fmt, accumulate)
    grain = _grain(accumulate, fmt)
    if grain is None:
        return _whole_sums(x, geometry.by_group(grad), geometry, fmt, accumulate).reshape(shape)
    total: Array = np.zeros((geometry.groups, shape[0] // geometry.groups, geometry.depth), np.float32)
    for a, b in _in_grains(_met(x, geometry.by_group(grad), geometry), grain):
        total = product(a, b.swapaxes(-1, -2), fmt, accumulate, start=total)
    return total.reshape(shape)


def _grain(accumulate: str, fmt: Format) -> int | None:
    """In multiples of how many terms a sum can be left and taken up again; None if not at all."""
    how = parse_accumulate(accumulate)
    if how.name.startswith("tensorcore:"):
        return unit_for(how.name.partition(":")[2], fmt).terms
    return how.size if how.order == "chunked:B" else 1 if how.order in RUNNING else None


def _met(x: Array, grads: Array, geometry: Geometry) -> Iterator[tuple[Array, Array]]:
    """Yield (G, O/G, n) gradients and the (G, depth, n) columns that they meet, n positions a tile."""
    tiling = Tiling.within(geometry, geometry.out_size[1] * x.itemsize, BLOCK_BYTES)
    for tile, columns in columns_of(x, geometry, tiling):
        part = grads[tile.images, :, :, pixels(tile, geometry)]
        yield side_by_side(part)[0], columns[0]


def _in_grains(pairs: Iterator[tuple[Array, Array]], grain: int) -> Iterator[tuple[Array, Array]]:
    """Cut pairs of arrays anew along their last axis, so that all but the last are of whole grains."""
    rest: tuple[Array, Array] | None = None
    for pair in pairs:
        a, b = (
            pair if rest is None else (np.concatenate(both, axis=-1) for both in zip(rest, pair, strict=True))
        )
        whole = a.shape[-1] // grain * grain
        if whole:
            yield a[..., :whole], b[..., :whole]
        rest = (a[..., whole:].copy(), b[..., whole:].copy()) if whole < a.shape[-1] else None
    if rest is not None:
        yield rest


def _whole_sums(x: Array, grads: Array, geometry: Geometry, fmt: Format, accumulate: str) -> Array:
    """The weight gradient, each sum at once.  -> (G, O/G, C/G, taps)."""
    groups, filters, channels = geometry.groups, grads.shape[2], geometry.in_channels // geometry.groups
    taps, length = geometry.depth // channels, geometry.images * geometry.positions
    images = x.reshape(geometry.images, groups, channels, *geometry.size)
    exact = accumulate == "exact"
    budget = (BLOCK_BYTES if exact else WHOLE_BYTES) // max(1, 2 * length * x.itemsize)
    step_c, step_o = max(1, budget // taps), max(1, budget)
    dw = np.empty((groups, filters, channels, taps), FLOAT64 if exact else np.float32)
    for group, c in itertools.product(range(groups), range(0, channels, step_c)):
        columns = _channel_columns(images[:, group, c : c + step_c], geometry)
        for o in range(0, filters, step_o):
            part = grads[:, group, o : o + step_o].swapaxes(0, 1)
            part = part.reshape(len(part), length)
            found = product(part, columns, fmt, accumulate)
            dw[group, o : o + step_o, c : c + step_c] = found.reshape(len(part), -1, taps)
    return dw


def _by_tiles(
    matrix: Array, columns: Iterator[tuple[Tile, Array]], geometry: Geometry, fmt: Format, accumulate: str
) -> Array:
    """Multiply one matrix a group with the columns of each tile.  (G, O/G, depth) -> (N, O, OH, OW)."""
    y = np.empty(geometry.out_shape, FLOAT64 if accumulate == "exact" else np.float32)
    by_group = geometry.by_group(y)
    for tile, part in columns:
        found = product(matrix, part[0], fmt, accumulate)  # (G, O/G, n*rows*OW)
        count = tile.images.stop - tile.images.start
        target = by_group[tile.images, :, :, pixels(tile, geometry)]
        target[...] = found.reshape(*found.shape[:2], count, -1).transpose(2, 0, 1, 3)
    return y


def _channel_columns(images: Array, geometry: Geometry) -> Array:
    """Lay out some channels of all images.  (N, c, H, W) -> (N*OH*OW, c*kh*kw)."""
    (ph, pw) = geometry.padding
    padded = np.pad(images, [(0, 0), (0, 0), (ph, ph), (pw, pw)])
    seen = windows_of(padded, geometry)  # (N, c, kh, kw, OH, OW)
    length = math.prod(seen.shape[1:4])
    return seen.transpose(0, 4, 5, 1, 2, 3).reshape(geometry.images * geometry.positions, length)


def _correlated(grad: Array, geometry: Geometry, full: Geometry) -> Iterator[tuple[Tile, Array]]:
    """Yield each tile of the input with what its elements meet, (1, G, O/G*kh*kw, n*rows*W).

    Element (y, x) meets through tap (u, v) the gradient at (i, j) with s i = y + p - d u, and 0 where there
    is none: the gradient with zeros between its positions, read backwards.
    """
    tiling = Tiling.within(full, full.out_size[1] * grad.itemsize, BLOCK_BYTES)
    height = full.out_size[0]
    for first in range(0, full.images, tiling.images):
        images = slice(first, min(first + tiling.images, full.images))
        seen = windows_of(_spread_out(grad[images], geometry, full), full)[:, :, ::-1, ::-1]
        for top in range(0, height, tiling.rows):
            rows = slice(top, min(top + tiling.rows, height))
            part = seen[..., rows, :].transpose(1, 2, 3, 0, 4, 5)
            yield Tile(images, rows), part.reshape(1, full.groups, full.depth, -1)


def _spread_out(grad: Array, geometry: Geometry, full: Geometry) -> Array:
    """Place gradient (i, j) at s i + d (k - 1) - p along each axis of an image of zeros of the full size."""
    places, sources = [], []
    for axis in (0, 1):
        at = np.arange(grad.shape[2 + axis]) * geometry.stride[axis] - geometry.padding[axis]
        at += geometry.dilation[axis] * (geometry.kernel[axis] - 1)
        inside = (at >= 0) & (at < full.size[axis])
        places.append(at[inside])
        sources.append(np.flatnonzero(inside))
    spread = np.zeros((*grad.shape[:2], *full.size), grad.dtype)
    spread[:, :, places[0][:, None], places[1]] = grad[:, :, sources[0][:, None], sources[1]]
    return spread
