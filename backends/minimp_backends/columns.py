"""What a convolution reads: its sizes, and its images laid out as columns, a tile at a time.

The *columns* of an image are the matrix of (c, u, v) by (i, j) whose entries are the values of x that weight
(o, c, u, v) meets at output position (i, j): x[n, c, s i + d u - p, s j + d v - p], and 0 outside the image.
One strided copy makes them, for so few images (or so few rows of a large image) at a time that they stay in
the cache. Images with few positions are laid side by side to make one product of useful width.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from minimp.errors import FormatError, ShapeError

__all__ = [
    "Array", "Geometry", "Pair", "Tile", "Tiling", "check_gradient", "columns_of", "geometry_of", "pixels",
    "side_by_side", "tiles_of", "windows_of",
]  # fmt: skip

Array = NDArray[Any]
Pair = tuple[int, int]

COLUMN_BYTES = 3 << 20  # columns made at a time; measured, and half or double of it differs by 2 %
SIDE_BY_SIDE_BYTES = 8 << 20  # and where images lie side by side: there, wide products matter more
FEW_POSITIONS = 64  # with up to so many output positions, one image makes too narrow a product for GEMM


@dataclass(frozen=True, slots=True)
class Geometry:
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
        """Height and width with the padding."""
        return self.size[0] + 2 * self.padding[0], self.size[1] + 2 * self.padding[1]

    @property
    def out_size(self) -> Pair:
        """OH and OW."""
        (height, width), (dh, dw), (kh, kw) = self.padded, self.dilation, self.kernel
        return (
            (height - dh * (kh - 1) - 1) // self.stride[0] + 1,
            (width - dw * (kw - 1) - 1) // self.stride[1] + 1,
        )

    @property
    def positions(self) -> int:
        """OH OW."""
        return self.out_size[0] * self.out_size[1]

    @property
    def out_shape(self) -> tuple[int, int, int, int]:
        """(N, O, OH, OW)."""
        return (self.images, self.out_channels, *self.out_size)

    def matrix(self, weight: Array) -> Array:
        """The weights as one matrix a group.  (O, C/G, kh, kw) -> (G, O/G, depth)."""
        return weight.reshape(self.groups, self.out_channels // self.groups, self.depth)

    def by_group(self, y: Array) -> Array:
        """Split an output or its gradient by group.  (N, O, OH, OW) -> (N, G, O/G, OH*OW)."""
        return y.reshape(self.images, self.groups, self.out_channels // self.groups, self.positions)


@dataclass(frozen=True, slots=True)
class Tiling:
    """How many images, or how many output rows of one image, are worked on at a time."""

    images: int
    rows: int
    side_by_side: bool  # the images' columns form one matrix; else there is a matrix an image

    @classmethod
    def of(cls, geometry: Geometry, width: int, itemsize: int) -> Tiling:
        """Choose a tiling for columns of ``width`` entries an output row."""
        many = geometry.images > 1 and geometry.positions <= FEW_POSITIONS
        tiling = cls.within(geometry, width * itemsize, SIDE_BY_SIDE_BYTES if many else COLUMN_BYTES)
        return cls(tiling.images, tiling.rows, many and tiling.images > 1)

    @classmethod
    def within(cls, geometry: Geometry, row_bytes: int, budget: int) -> Tiling:
        """Lay side by side what fits in ``budget`` bytes; ``row_bytes`` of one output row at one depth."""
        height, row_bytes = geometry.out_size[0], geometry.groups * geometry.depth * row_bytes
        images = max(1, min(geometry.images, budget // max(1, row_bytes * height)))
        rows = height if images > 1 else max(1, min(height, budget // max(1, row_bytes)))
        return cls(images, rows, side_by_side=True)


@dataclass(frozen=True, slots=True)
class Tile:
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


def geometry_of(
    op: str,
    arrays: tuple[Array, ...],
    input_shape: tuple[int, ...],
    weight_shape: tuple[int, ...],
    **sizes: Any,
) -> Geometry:
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
    geometry = Geometry(images, groups, channels, weight_shape[0], (height, width), kernel, **chosen)
    smallest = min(*kernel, *geometry.stride, *geometry.dilation, 1 + min(geometry.padding))
    if smallest < 1 or min(geometry.out_size) < 1:
        raise ShapeError(
            f"a kernel of {kernel} with {chosen} has no place in an image of {(height, width)}",
            op=op,
            shapes=shapes,
            help="use a larger image, more padding, or a smaller kernel or dilation",
        )
    return geometry


def check_gradient(op: str, geometry: Geometry, grad: Array) -> None:
    """Refuse a gradient that has not the output's shape."""
    if grad.shape != geometry.out_shape:
        raise ShapeError(
            f"expected the gradient of an output {geometry.out_shape}, got {grad.shape}",
            op=op,
            shapes=(geometry.out_shape, grad.shape),
            help="stride, padding, dilation and groups must be those of the forward call",
        )


def tiles_of(geometry: Geometry, tiling: Tiling) -> Iterator[Tile]:
    """Yield the tiles, images first to last, rows top to bottom."""
    for first in range(0, geometry.images, tiling.images):
        for top in range(0, geometry.out_size[0], tiling.rows):
            yield Tile(
                slice(first, min(first + tiling.images, geometry.images)),
                slice(top, min(top + tiling.rows, geometry.out_size[0])),
            )


def pixels(tile: Tile, geometry: Geometry) -> slice:
    """The output positions of a tile, in an image laid out flat."""
    width = geometry.out_size[1]
    return slice(tile.rows.start * width, tile.rows.stop * width)


def side_by_side(part: Array) -> Array:
    """Join the images of a gradient along its positions.  (n, G, O/G, P) -> (1, G, O/G, n*P)."""
    groups, channels = part.shape[1:3]
    return part.transpose(1, 2, 0, 3).reshape(1, groups, channels, -1)


def columns_of(x: Array, geometry: Geometry, tiling: Tiling) -> Iterator[tuple[Tile, Array]]:
    """Yield each tile with its columns, (images, G, depth, positions); they last until the next one."""
    (ph, pw), (height, width) = geometry.padding, geometry.size
    room = np.empty(
        tiling.images * geometry.groups * geometry.depth * tiling.rows * geometry.out_size[1], x.dtype
    )
    image = x
    if ph or pw:
        image = np.zeros((tiling.images, geometry.in_channels, *geometry.padded), x.dtype)
    windows = windows_of(image, geometry)
    for tile in tiles_of(geometry, tiling):
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


def windows_of(image: Array, geometry: Geometry) -> Array:
    """View a padded image as what each tap sees.  (n, C, H, W) -> (n, C, kh, kw, OH, OW)."""
    (kh, kw), (sh, sw), (dh, dw) = geometry.kernel, geometry.stride, geometry.dilation
    windows = sliding_window_view(image, (dh * (kh - 1) + 1, dw * (kw - 1) + 1), axis=(2, 3))
    return windows[:, :, ::sh, ::sw, ::dh, ::dw].transpose(0, 1, 4, 5, 2, 3)
