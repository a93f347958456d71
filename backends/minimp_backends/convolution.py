"""Convolution of images by im2col and GEMM, and its two gradients.

Arrays are NCHW, weights OIHW (channels of one group), all of one dtype, float32 or float64, as in
``torch.nn.functional.conv2d``. With G groups, for output position (i, j) and strides s, paddings p,
dilations d::

    y[n, o, i, j] = b[o] + sum over c, u, v of w[o, c, u, v] x[n, c, s i + d u - p, s j + d v - p]

The *columns* of an image are the matrix of (c, u, v) by (i, j) whose entries are those values of x. One
strided copy makes them, for so few images (or so few rows of a large image) at a time that they stay in
the cache, and then

* forward is W columns, which lands in y as it is, with no transposition;
* the weight gradient is the sum over images of columns times the transposed gradient;
* the input gradient is W transposed times the gradient, each of its (u, v) slices added where it came from.

Images with few positions are laid side by side to make one product of useful width.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from minimp.errors import FormatError, ShapeError
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

Array = NDArray[Any]
Pair = tuple[int, int]

COLUMN_BYTES = 3 << 20  # columns made at a time; measured, and half or double of it differs by 2 %
SIDE_BY_SIDE_BYTES = 8 << 20  # and where images lie side by side: there, wide products matter more
FEW_POSITIONS = 64  # with up to so many output positions, one image makes too narrow a product for GEMM


@dataclass(frozen=True, slots=True)
class _Geometry:
    """The sizes of one convolution."""

    images: int
    groups: int
    in_channels: int  # of all groups
    out_channels: int
    size: Pair
    kernel: Pair
    stride: Pair
    padding: Pair
    dilation: Pair

    @property
    def depth(self) -> int:
        """The terms of one output element."""
        return self.in_channels // self.groups * self.kernel[0] * self.kernel[1]

    @property
    def padded(self) -> Pair:
        return self.size[0] + 2 * self.padding[0], self.size[1] + 2 * self.padding[1]

    @property
    def out_size(self) -> Pair:
        (height, width), (dh, dw), (kh, kw) = self.padded, self.dilation, self.kernel
        return (
            (height - dh * (kh - 1) - 1) // self.stride[0] + 1,
            (width - dw * (kw - 1) - 1) // self.stride[1] + 1,
        )

    @property
    def positions(self) -> int:
        return self.out_size[0] * self.out_size[1]

    @property
    def out_shape(self) -> tuple[int, int, int, int]:
        return (self.images, self.out_channels, *self.out_size)

    def matrix(self, weight: Array) -> Array:
        """The weights as one matrix a group.  (O, C/G, kh, kw) -> (G, O/G, depth)."""
        return weight.reshape(self.groups, self.out_channels // self.groups, self.depth)

    def by_group(self, y: Array) -> Array:
        """Split an output or its gradient by group.  (N, O, OH, OW) -> (N, G, O/G, OH*OW)."""
        return y.reshape(self.images, self.groups, self.out_channels // self.groups, self.positions)


@dataclass(frozen=True, slots=True)
class _Tiling:
    """How many images, or how many output rows of one image, are worked on at a time."""

    images: int
    rows: int
    side_by_side: bool  # the images' columns form one matrix; else there is a matrix an image

    @classmethod
    def of(cls, geometry: _Geometry, width: int, itemsize: int) -> _Tiling:
        """Choose a tiling for columns of ``width`` entries an output row."""
        height = geometry.out_size[0]
        row_bytes = geometry.groups * geometry.depth * width * itemsize
        side_by_side = geometry.images > 1 and geometry.positions <= FEW_POSITIONS
        budget = SIDE_BY_SIDE_BYTES if side_by_side else COLUMN_BYTES
        images = max(1, min(geometry.images, budget // max(1, row_bytes * height)))
        rows = height if images > 1 else max(1, min(height, budget // max(1, row_bytes)))
        return cls(images, rows, side_by_side and images > 1)


@dataclass(frozen=True, slots=True)
class _Tile:
    """The images and output rows of one step."""

    images: slice
    rows: slice


def _check_dtypes(op: str, arrays: tuple[Array, ...]) -> None:
    dtypes = {each.dtype for each in arrays}
    if len(dtypes) > 1 or not dtypes <= {np.dtype(np.float32), np.dtype(np.float64)}:
        names = [str(each.dtype) for each in arrays]
        raise FormatError(
            f"expected float32 or float64 throughout, got {', '.join(names)}",
            op=op,
            formats=names,
            help="widen float16 and bfloat16 to float32 first",
        )


def _geometry(
    op: str,
    arrays: tuple[Array, ...],
    input_shape: tuple[int, ...],
    weight_shape: tuple[int, ...],
    **sizes: Any,
) -> _Geometry:
    """Check the arguments of one call against each other; raises ShapeError and FormatError."""
    _check_dtypes(op, arrays)
    shapes = (tuple(input_shape), tuple(weight_shape))
    groups = sizes["groups"]
    if (
        len(input_shape) != 4
        or len(weight_shape) != 4
        or groups < 1
        or input_shape[1] != weight_shape[1] * groups
        or weight_shape[0] % groups
    ):
        raise ShapeError(
            f"input {shapes[0]} and weight {shapes[1]} do not fit together in {groups} groups",
            op=op,
            shapes=shapes,
            help="expected (N, C, H, W) and (O, C / groups, kh, kw), groups a divisor of C and of O",
        )
    images, channels, height, width = input_shape
    chosen = {name: sizes[name] for name in ("stride", "padding", "dilation")}
    kernel = (weight_shape[2], weight_shape[3])
    geometry = _Geometry(images, groups, channels, weight_shape[0], (height, width), kernel, **chosen)
    smallest = min(*kernel, *geometry.stride, *geometry.dilation, 1 + min(geometry.padding))
    if smallest < 1 or min(geometry.out_size) < 1:
        raise ShapeError(
            f"a kernel of {kernel} with {chosen} has no place in an image of {(height, width)}",
            op=op,
            shapes=shapes,
            help="use a larger image, more padding, or a smaller kernel or dilation",
        )
    return geometry


def _check_gradient(op: str, geometry: _Geometry, grad: Array) -> None:
    if grad.shape != geometry.out_shape:
        raise ShapeError(
            f"expected the gradient of an output {geometry.out_shape}, got {grad.shape}",
            op=op,
            shapes=(geometry.out_shape, grad.shape),
            help="stride, padding, dilation and groups must be those of the forward call",
        )


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
    geometry = _geometry("conv2d_forward", arrays, x.shape, weight.shape, **sizes)
    tiling = _Tiling.of(geometry, geometry.out_size[1], x.itemsize)
    y = np.empty(geometry.out_shape, x.dtype)
    by_group, matrix = geometry.by_group(y), geometry.matrix(weight)
    for tile, columns in _columns(x, geometry, tiling):
        target = by_group[tile.images, :, :, _pixels(tile, geometry)]
        if tiling.side_by_side:
            product = np.matmul(matrix, columns)[0]  # (G, O/G, n*OH*OW)
            target[...] = product.reshape(*product.shape[:2], -1, geometry.positions).transpose(2, 0, 1, 3)
        else:
            np.matmul(matrix, columns, out=target)
        if bias is not None:
            np.add(target, bias.reshape(*matrix.shape[:2], 1), out=target)
    return y


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
    geometry = _geometry("conv2d_weight_gradient", (x, grad), x.shape, weight_shape, **sizes)
    _check_gradient("conv2d_weight_gradient", geometry, grad)
    tiling = _Tiling.of(geometry, geometry.out_size[1], x.itemsize)
    by_group = geometry.by_group(np.ascontiguousarray(grad))
    total = np.zeros((geometry.groups, geometry.depth, by_group.shape[2]), x.dtype)
    for tile, columns in _columns(x, geometry, tiling):
        part = by_group[tile.images, :, :, _pixels(tile, geometry)]
        if tiling.side_by_side:
            part = _side_by_side(part)
        products = np.matmul(columns, part.swapaxes(-1, -2))  # (images, G, depth, O/G)
        for product in products:
            np.add(total, product, out=total)
    return np.ascontiguousarray(total.swapaxes(1, 2)).reshape(weight_shape)


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
    geometry = _geometry("conv2d_input_gradient", (grad, weight), input_shape, weight.shape, **sizes)
    _check_gradient("conv2d_input_gradient", geometry, grad)
    row = geometry.padded[1] if geometry.stride == (1, 1) else geometry.out_size[1]
    tiling = _Tiling.of(geometry, row, grad.itemsize)
    transposed = geometry.matrix(weight).swapaxes(-1, -2)  # (G, depth, O/G)
    grads = grad.reshape(geometry.images, geometry.groups, transposed.shape[2], *geometry.out_size)
    dx = np.zeros(input_shape, grad.dtype)
    room = np.empty(tiling.images * geometry.groups * geometry.depth * tiling.rows * row, grad.dtype)
    for tile, target in _targets(dx, geometry, tiling):
        part = _lengthened(grads[tile.images, ..., tile.rows, :], row)
        part = _side_by_side(part) if tiling.side_by_side else part
        columns = room[: part.size // part.shape[2] * geometry.depth]
        columns = columns.reshape(len(part), geometry.groups, geometry.depth, -1)
        np.matmul(transposed, part, out=columns)
        _add_columns(columns, target, tile, geometry, row)
    return dx


# ---- tiles ---------------------------------------------------------------------------------------------


def _tiles(geometry: _Geometry, tiling: _Tiling) -> Iterator[_Tile]:
    for first in range(0, geometry.images, tiling.images):
        for top in range(0, geometry.out_size[0], tiling.rows):
            yield _Tile(
                slice(first, min(first + tiling.images, geometry.images)),
                slice(top, min(top + tiling.rows, geometry.out_size[0])),
            )


def _pixels(tile: _Tile, geometry: _Geometry) -> slice:
    width = geometry.out_size[1]
    return slice(tile.rows.start * width, tile.rows.stop * width)


def _side_by_side(part: Array) -> Array:
    """Join the images of a gradient along its positions.  (n, G, O/G, P) -> (1, G, O/G, n*P)."""
    groups, channels = part.shape[1:3]
    return part.transpose(1, 2, 0, 3).reshape(1, groups, channels, -1)


def _columns(x: Array, geometry: _Geometry, tiling: _Tiling) -> Iterator[tuple[_Tile, Array]]:
    """Yield each tile with its columns, (images, G, depth, positions); they last until the next one."""
    (ph, pw), (height, width) = geometry.padding, geometry.size
    room = np.empty(
        tiling.images * geometry.groups * geometry.depth * tiling.rows * geometry.out_size[1], x.dtype
    )
    image = x
    if ph or pw:
        image = np.zeros((tiling.images, geometry.in_channels, *geometry.padded), x.dtype)
    windows = _windows(image, geometry)
    for tile in _tiles(geometry, tiling):
        seen = windows[tile.images]
        if ph or pw:
            count = tile.images.stop - tile.images.start
            if tile.rows.start == 0:
                image[:count, :, ph : ph + height, pw : pw + width] = x[tile.images]
            seen = windows[:count]
        seen = seen[..., tile.rows, :]  # (n, C, kh, kw, rows, OW)
        seen = seen.transpose(1, 2, 3, 0, 4, 5)[np.newaxis] if tiling.side_by_side else seen
        packed = room[: seen.size].reshape(seen.shape)
        packed[...] = seen
        yield tile, packed.reshape(len(packed), geometry.groups, geometry.depth, -1)


def _windows(image: Array, geometry: _Geometry) -> Array:
    """View a padded image as what each tap sees.  (n, C, H, W) -> (n, C, kh, kw, OH, OW)."""
    (kh, kw), (sh, sw), (dh, dw) = geometry.kernel, geometry.stride, geometry.dilation
    windows = sliding_window_view(image, (dh * (kh - 1) + 1, dw * (kw - 1) + 1), axis=(2, 3))
    return windows[:, :, ::sh, ::sw, ::dh, ::dw].transpose(0, 1, 4, 5, 2, 3)


# ---- the way back --------------------------------------------------------------------------------------


def _targets(dx: Array, geometry: _Geometry, tiling: _Tiling) -> Iterator[tuple[_Tile, Array]]:
    """Yield each tile with its images' zeroed gradient, borders included; then drop the borders."""
    (ph, pw), (height, width) = geometry.padding, geometry.size
    padded = np.empty((tiling.images, geometry.in_channels, *geometry.padded), dx.dtype) if ph or pw else dx
    for tile in _tiles(geometry, tiling):
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


def _add_columns(columns: Array, target: Array, tile: _Tile, geometry: _Geometry, row: int) -> None:
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
