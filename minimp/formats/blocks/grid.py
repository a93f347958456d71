"""Where blocks lie in an array, and in which pieces it is worked through."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from minimp.errors import ShapeError

__all__ = ["Grid", "Tile", "grid_of"]

Index = tuple[int, slice, slice]
_TILE = 1 << 17  # numbers: a few float64 arrays of this size are what a call needs beside its result


@dataclass(frozen=True)
class Tile:
    """A piece of an array that is whole blocks, but for the array's end.

    Attributes:
        numbers: its index into an array viewed as ``Grid.view``.
        blocks: its index into the scales viewed as ``Grid.scale_view``.
        start: the place (in C order) of its first number.
        whole_rows: whether its numbers follow one another in the array.
    """

    numbers: Index
    blocks: Index
    start: int
    whole_rows: bool


@dataclass(frozen=True)
class Grid:
    """The blocks of an array of some shape.

    Attributes:
        shape: of the array.
        axis: the last of the axes that blocks extend along, not negative.
        block: the extent of a block over rows and columns of the view.
        view: the array as (batch, rows, columns, inner): blocks lie over rows and columns.
    """

    shape: tuple[int, ...]
    axis: int
    block: tuple[int, int]
    view: tuple[int, int, int, int]

    @property
    def scale_view(self) -> tuple[int, int, int, int]:
        """The shape of the scales, in the view: one a block."""
        batch, rows, columns, inner = self.view
        return batch, -(-rows // self.block[0]), -(-columns // self.block[1]), inner

    @property
    def scale_shape(self) -> tuple[int, ...]:
        """The shape of the scales: the array's, with blocks in place of numbers along the block axes."""
        _, rows, columns, _ = self.scale_view
        shape = list(self.shape)
        shape[self.axis] = columns
        if self.block[0] > 1:
            shape[self.axis - 1] = rows
        return tuple(shape)

    @property
    def padding(self) -> tuple[int, int]:
        """Zeros that make the last block full: how many along rows' axis, how many along columns'."""
        _, rows, columns, _ = self.view
        return -rows % self.block[0], -columns % self.block[1]

    @property
    def block_count(self) -> int:
        """How many blocks there are."""
        return math.prod(self.scale_view)

    def tiles(self) -> Iterator[Tile]:
        """Cut the array into tiles, in C order: some rows of blocks, or part of one row of blocks."""
        batch, block_rows, block_columns, inner = self.scale_view
        _, rows, columns, _ = self.view
        high, wide = self.block
        width = max(1, columns * inner)
        step = max(1, _TILE // (high * width))
        piece = block_columns if high * width <= _TILE else max(1, _TILE // (high * wide * inner))
        if self.block_count == 0:
            return
        for b in range(batch):
            for r in range(0, block_rows, step):
                for c in range(0, block_columns, piece):
                    down, along = slice(r, min(r + step, block_rows)), slice(c, min(c + piece, block_columns))
                    yield Tile(
                        (b, _numbers(down, high, rows), _numbers(along, wide, columns)),
                        (b, down, along),
                        ((b * rows + r * high) * columns + c * wide) * inner,
                        piece == block_columns or high == 1,
                    )

    def fold(self, numbers: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """A tile's numbers (r, c, inner) as (block rows, high, block columns, wide, inner), zeros added."""
        (high, wide), (r, c, inner) = self.block, numbers.shape
        if r % high or c % wide:
            numbers = np.pad(numbers, ((0, -r % high), (0, -c % wide), (0, 0)))
        return numbers.reshape(-(-r // high), high, -(-c // wide), wide, inner)

    def spread(self, per_block: npt.NDArray[Any], like: tuple[int, ...]) -> npt.NDArray[Any]:
        """One value a block (block rows, block columns, inner) as one a number of a tile of shape `like`."""
        high, wide = self.block
        wider = np.repeat(per_block, wide, axis=1)[:, : like[1]]
        return wider if high == 1 else np.repeat(wider, high, axis=0)[: like[0]]


def _numbers(blocks: slice, extent: int, end: int) -> slice:
    return slice(blocks.start * extent, min(blocks.stop * extent, end))


def grid_of(shape: tuple[int, ...], block: tuple[int, ...], axis: int, op: str) -> Grid:
    """Lay blocks over an array.

    Args:
        shape: of the array.
        block: one extent along `axis`, or two: along the axis before it and along `axis`.
        axis: may be negative.
        op: what to call the operation in an error.

    Raises:
        ShapeError: there is no such axis, or none before it for the second extent.
    """
    axis = operator.index(axis)
    place = axis + len(shape) if axis < 0 else axis
    if not len(block) - 1 <= place < len(shape):
        raise ShapeError(
            f"expected an axis of an array of {len(shape)} axes"
            + (" with another one before it" if len(block) == 2 else "")
            + f", got axis={axis}",
            op=op,
            shapes=(shape,),
            help=f"blocks of {' x '.join(map(str, block))} lie along {len(block)} axes, the last is `axis`",
        )
    inner = math.prod(shape[place + 1 :])
    if len(block) == 1:
        return Grid(shape, place, (1, block[0]), (1, math.prod(shape[:place]), shape[place], inner))
    view = (math.prod(shape[: place - 1]), shape[place - 1], shape[place], inner)
    return Grid(shape, place, (block[0], block[1]), view)
