"""Convolution of images on a device: im2col, one product for each group, col2im.

The columns are laid out in the storage format, (G, depth, n P), those of all images side by side, so that a
product is one large one; see :mod:`minimp_backends.convolution` for the equations, and
:mod:`minimp_backends.columns` for what columns are. Images are taken so many at a time that the columns stay
within COLUMN_BYTES.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from minimp_backends.columns import Geometry, check_gradient, geometry_of

__all__ = ["columns_on_device", "conv2d_forward", "conv2d_input_gradient", "conv2d_weight_gradient"]

Array = Any
COLUMN_BYTES = 256 << 20
"""Columns made at a time."""


def conv2d_forward(backend: Any, x: Array, weight: Array, accumulate: str, **sizes: Any) -> Array:
    """(N, C, H, W), (O, C/G, kh, kw) storage arrays of one format -> (N, O, OH, OW), the wide sums."""
    geometry = geometry_of("conv2d_forward", (), x.shape, weight.shape, **sizes)
    matrix = geometry.matrix(weight)
    parts = []
    for images, columns in columns_on_device(backend.xp, x, geometry):
        product = backend.matmul(matrix, columns, accumulate=accumulate)  # (G, O/G, n P)
        count = images.stop - images.start
        product = product.reshape(*product.shape[:2], count, geometry.positions).transpose(2, 0, 1, 3)
        parts.append(product.reshape(count, *geometry.out_shape[1:]))
    return _joined(backend.xp, parts)


def conv2d_weight_gradient(
    backend: Any, x: Array, grad: Array, shape: tuple[int, ...], accumulate: str, **sizes: Any
) -> Array:
    """(N, C, H, W), (N, O, OH, OW) storage arrays -> `shape` (O, C/G, kh, kw), the wide sums."""
    geometry = geometry_of("conv2d_weight_gradient", (), x.shape, shape, **sizes)
    check_gradient("conv2d_weight_gradient", geometry, grad)
    by_group, total = geometry.by_group(grad), None
    for images, columns in columns_on_device(backend.xp, x, geometry):
        part = _side_by_side(by_group[images])
        found = backend.matmul(part, columns.swapaxes(-1, -2), accumulate=accumulate)  # (G, O/G, depth)
        total = found if total is None else total + found
    assert total is not None
    return total.reshape(shape)


def conv2d_input_gradient(
    backend: Any, grad: Array, weight: Array, shape: tuple[int, ...], accumulate: str, **sizes: Any
) -> Array:
    """(N, O, OH, OW), (O, C/G, kh, kw) storage arrays -> `shape` (N, C, H, W), the wide sums."""
    geometry = geometry_of("conv2d_input_gradient", (), shape, weight.shape, **sizes)
    check_gradient("conv2d_input_gradient", geometry, grad)
    transposed, by_group = geometry.matrix(weight).swapaxes(-1, -2), geometry.by_group(grad)
    parts = []
    for images in _images(geometry, 4):  # bytes of a wide column entry
        part = _side_by_side(by_group[images])
        columns = backend.matmul(transposed, part, accumulate=accumulate)  # (G, depth, n P)
        parts.append(_added_up(backend.xp, columns, images.stop - images.start, geometry))
    return _joined(backend.xp, parts)


def _images(geometry: Geometry, itemsize: int) -> Iterator[slice]:
    """Cut the batch into as many images as COLUMN_BYTES hold."""
    row = geometry.groups * geometry.depth * geometry.positions * itemsize
    step = max(1, COLUMN_BYTES // max(1, row))
    for first in range(0, max(1, geometry.images), step):  # of no images, one part of none
        yield slice(first, min(first + step, geometry.images))


def columns_on_device(xp: Any, x: Array, geometry: Geometry) -> Iterator[tuple[slice, Array]]:
    """Yield images and their columns, (G, depth, n P), in the dtype of x."""
    (kh, kw), (sh, sw), (dh, dw) = geometry.kernel, geometry.stride, geometry.dilation
    span = (dh * (kh - 1) + 1, dw * (kw - 1) + 1)
    for images in _images(geometry, x.dtype.itemsize):
        image = _padded(xp, x[images], geometry)
        windows = xp.lib.stride_tricks.sliding_window_view(image, span, axis=(2, 3))
        seen = windows[:, :, ::sh, ::sw, ::dh, ::dw].transpose(1, 4, 5, 0, 2, 3)  # (C, kh, kw, n, OH, OW)
        yield images, seen.reshape(geometry.groups, geometry.depth, len(image) * geometry.positions)


def _padded(xp: Any, x: Array, geometry: Geometry) -> Array:
    (ph, pw), (height, width) = geometry.padding, geometry.size
    if not (ph or pw):
        return x
    image = xp.zeros((*x.shape[:2], *geometry.padded), x.dtype)
    image[:, :, ph : ph + height, pw : pw + width] = x
    return image


def _side_by_side(part: Array) -> Array:
    """(n, G, O/G, P) -> (G, O/G, n P)."""
    return part.transpose(1, 2, 0, 3).reshape(*part.shape[1:3], len(part) * part.shape[3])


def _added_up(xp: Any, columns: Array, count: int, geometry: Geometry) -> Array:
    """Add every slice of the columns where its tap read.  (G, depth, n P) -> (n, C, H, W)."""
    (kh, kw), (sh, sw), (dh, dw) = geometry.kernel, geometry.stride, geometry.dilation
    (ph, pw), (height, width), (rows, across) = geometry.padding, geometry.size, geometry.out_size
    slices = columns.reshape(geometry.in_channels, kh, kw, count, rows, across)
    image = xp.zeros((count, geometry.in_channels, *geometry.padded), columns.dtype)
    for u in range(kh):
        for v in range(kw):
            down = slice(u * dh, u * dh + (rows - 1) * sh + 1, sh)
            right = slice(v * dw, v * dw + (across - 1) * sw + 1, sw)
            image[:, :, down, right] += slices[:, u, v].swapaxes(0, 1)
    return image[:, :, ph : ph + height, pw : pw + width]


def _joined(xp: Any, parts: list[Array]) -> Array:
    return xp.ascontiguousarray(parts[0] if len(parts) == 1 else xp.concatenate(parts))
