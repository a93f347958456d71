"""Convolution of images by im2col and GEMM, and its two gradients.

Arrays are NCHW, weights OIHW (channels of one group), all of one dtype, float32 or float64, as in
``torch.nn.functional.conv2d``. With G groups, for output position (i, j) and strides s, paddings p,
dilations d::

    y[n, o, i, j] = b[o] + sum over c, u, v of w[o, c, u, v] x[n, c, s i + d u - p, s j + d v - p]

With the columns of :mod:`minimp_backends.columns`,

* forward is W columns, which lands in y as it is, with no transposition;
* the weight gradient is the sum over images of columns times the transposed gradient;
* the input gradient is W transposed times the gradient, each of its (u, v) slices added where it came from.

The sums are float32's or float64's, in BLAS's order; every other accumulation is
:mod:`minimp_backends.accumulating`'s.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from minimp_backends.columns import (
    Array,
    Geometry,
    Pair,
    Tile,
    Tiling,
    check_gradient,
    columns_of,
    geometry_of,
    pixels,
    side_by_side,
    tiles_of,
)
from minimp_backends.pooling import (
    avg_pool2d_backward,
    avg_pool2d_forward,
    max_pool2d_backward,
    max_pool2d_forward,
)

__all__ = [
    "avg_pool2d_backward",
    "avg_pool2d_forward",
    "conv2d_forward",
    "conv2d_input_gradient",
    "conv2d_weight_gradient",
    "max_pool2d_backward",
    "max_pool2d_forward",
]


QUIETLY = np.errstate(all="ignore")
"""An overflow is a result; and BLAS may raise flags of numbers that it read beside its own and dropped."""


@QUIETLY
def conv2d_forward(
    x: Array, weight: Array, bias: Array | None, *, stride: Pair, padding: Pair, dilation: Pair, groups: int
) -> Array:
    """Convolve images with a bank of filters.  (N, C, H, W), (O, C/G, kh, kw), (O,) -> (N, O, OH, OW).

    Sums are in the dtype of the arrays, in BLAS's order. OH = (H + 2 p - d (kh - 1) - 1) // s + 1, OW alike.

    Raises:
        ShapeError: shapes, groups and kernel do not fit together.
        FormatError: the arrays are not all float32 or all float64.
    """
    arrays = (x, weight) if bias is None else (x, weight, bias)
    sizes = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    geometry = geometry_of("conv2d_forward", arrays, x.shape, weight.shape, **sizes)
    tiling = Tiling.of(geometry, geometry.out_size[1], x.itemsize)
    y = np.empty(geometry.out_shape, x.dtype)
    by_group, matrix = geometry.by_group(y), geometry.matrix(weight)
    for tile, columns in columns_of(x, geometry, tiling):
        target = by_group[tile.images, :, :, pixels(tile, geometry)]
        if tiling.side_by_side:
            product = np.matmul(matrix, columns)[0]  # (G, O/G, n*OH*OW)
            target[...] = product.reshape(*product.shape[:2], -1, geometry.positions).transpose(2, 0, 1, 3)
        else:
            np.matmul(matrix, columns, out=target)
        if bias is not None:
            np.add(target, bias.reshape(*matrix.shape[:2], 1), out=target)
    return y


@QUIETLY
def conv2d_weight_gradient(
    x: Array,
    grad: Array,
    weight_shape: tuple[int, ...],
    *,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
) -> Array:
    """The gradient of the weights: the sum over images of columns times the transposed gradient.

    dw[o, c, u, v] = sum over n, i, j of grad[n, o, i, j] x[n, c, s i + d u - p, s j + d v - p]. Arguments
    and errors are those of :func:`conv2d_forward`; ``grad`` has the output's shape.
    """
    sizes = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    geometry = geometry_of("conv2d_weight_gradient", (x, grad), x.shape, weight_shape, **sizes)
    check_gradient("conv2d_weight_gradient", geometry, grad)
    tiling = Tiling.of(geometry, geometry.out_size[1], x.itemsize)
    by_group = geometry.by_group(np.ascontiguousarray(grad))
    total = np.zeros((geometry.groups, geometry.depth, by_group.shape[2]), x.dtype)
    for tile, columns in columns_of(x, geometry, tiling):
        part = by_group[tile.images, :, :, pixels(tile, geometry)]
        if tiling.side_by_side:
            part = side_by_side(part)
        products = np.matmul(columns, part.swapaxes(-1, -2))  # (images, G, depth, O/G)
        for product in products:
            np.add(total, product, out=total)
    return np.ascontiguousarray(total.swapaxes(1, 2)).reshape(weight_shape)


@QUIETLY
def conv2d_input_gradient(
    grad: Array,
    weight: Array,
    input_shape: tuple[int, ...],
    *,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
) -> Array:
    """The gradient of the input: the adjoint of :func:`conv2d_forward`, a transposed convolution of ``grad``.

    Arguments and errors are those of :func:`conv2d_forward`; ``grad`` has the output's shape. With stride
    1 the gradient's rows are lengthened by zeros to those of the image, which makes each slice one run;
    an infinite weight may therefore leave NaN in a pixel near the left or right edge that it does not reach.
    """
    sizes = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    geometry = geometry_of("conv2d_input_gradient", (grad, weight), input_shape, weight.shape, **sizes)
    check_gradient("conv2d_input_gradient", geometry, grad)
    row = geometry.padded[1] if geometry.stride == (1, 1) else geometry.out_size[1]
    tiling = Tiling.of(geometry, row, grad.itemsize)
    transposed = geometry.matrix(weight).swapaxes(-1, -2)  # (G, depth, O/G)
    grads = grad.reshape(geometry.images, geometry.groups, transposed.shape[2], *geometry.out_size)
    dx = np.zeros(input_shape, grad.dtype)
    room = np.empty(tiling.images * geometry.groups * geometry.depth * tiling.rows * row, grad.dtype)
    for tile, target in _targets(dx, geometry, tiling):
        part = _lengthened(grads[tile.images, ..., tile.rows, :], row)
        part = side_by_side(part) if tiling.side_by_side else part
        columns = room[: part.size // part.shape[2] * geometry.depth]
        columns = columns.reshape(len(part), geometry.groups, geometry.depth, -1)
        np.matmul(transposed, part, out=columns)
        _add_columns(columns, target, tile, geometry, row)
    return dx


# ---- the way back --------------------------------------------------------------------------------------


def _targets(dx: Array, geometry: Geometry, tiling: Tiling) -> Iterator[tuple[Tile, Array]]:
    """Yield each tile with its images' zeroed gradient, borders included; then drop the borders."""
    (ph, pw), (height, width) = geometry.padding, geometry.size
    padded = np.empty((tiling.images, geometry.in_channels, *geometry.padded), dx.dtype) if ph or pw else dx
    for tile in tiles_of(geometry, tiling):
        if not (ph or pw):
            yield tile, dx[tile.images]
            continue
        target = padded[: tile.images.stop - tile.images.start]
        if tile.rows.start == 0:
            target.fill(0)
        yield tile, target
        if tile.rows.stop == geometry.out_size[0]:
            dx[tile.images] = target[:, :, ph : ph + height, pw : pw + width]


def _lengthened(part: Array, row: int) -> Array:
    """Lengthen rows by zeros.  (n, G, O/G, rows, OW) -> (n, G, O/G, rows*row)."""
    if part.shape[-1] != row:
        longer = np.zeros((*part.shape[:-1], row), part.dtype)
        longer[..., : part.shape[-1]] = part
        part = longer
    return part.reshape(*part.shape[:3], -1)


def _add_columns(columns: Array, target: Array, tile: Tile, geometry: Geometry, row: int) -> None:
    """Add every slice of the columns where its tap read: the adjoint of the strided copy."""
    (kh, kw), (sh, sw), (dh, dw) = geometry.kernel, geometry.stride, geometry.dilation
    count, rows, width = len(target), tile.rows.stop - tile.rows.start, geometry.out_size[1]
    slices = columns.reshape(-1, geometry.in_channels, kh, kw, count // len(columns), rows, row)
    slices = slices.transpose(2, 3, 0, 4, 1, 5, 6).reshape(kh, kw, count, geometry.in_channels, rows * row)
    flat = target.reshape(count, geometry.in_channels, -1)
    for u in range(kh):
        for v in range(kw):
            top = tile.rows.start * sh + u * dh
            if (sh, sw) == (1, 1):
                start, length = top * row + v * dw, (rows - 1) * row + width
                part = flat[:, :, start : start + length]
                np.add(part, slices[u, v, :, :, :length], out=part)
            else:
                part = target[
                    :, :, top : top + (rows - 1) * sh + 1 : sh, v * dw : v * dw + (width - 1) * sw + 1 : sw
                ]
                np.add(part, slices[u, v].reshape(part.shape), out=part)
