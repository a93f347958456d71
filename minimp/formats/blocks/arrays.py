"""Quantising arrays to block formats, and back.

For a block of numbers x, its largest magnitude amax, and t the tensor scale (1 where the format has none):

    s = the scale that the rule makes of amax / t          (block_table.SCALE_RULES)
    e = x / (t · s), rounded once to the element format, clamped to its largest value
    x ~ t · s · e                                            exact in float64

x / (t · s) is not rounded before e is: dividing by a power of two is exact, and any other quotient is carried
as if it had all its digits. torchao, Transformer Engine and DeepGEMM compute that quotient in float32 (the
last two as x times a rounded 1/s), and NVFP4's amax / (6 t) too; their codes differ from these only where the
exact quotient lies within about 2^-22 of itself from a tie between two codes.

What is defined where the sources leave a choice:

- A block of zeros has the smallest scale of its format (MX: code 0, 2^-127, as torchao writes; NVFP4: 0) and
  codes of zero.
- A block with an infinity or NaN has a NaN scale, so all of it reads back as NaN (OCP MX 1.0: a NaN
  scale makes the block NaN; torchao does so for both); its element codes are zero. The rest of the tensor is
  not touched: the tensor scale is taken over the other blocks.
- Numbers beyond the largest element are clamped (OCP MX 1.0, 6.3), in e5m2 too, which has infinities.
  mxint8's -128 is left unused, as MX 1.0 allows and microxcaling does.
- A scale outside the range of its format is clamped (the largest e8m0 scale is 2^127, as ``cvt.satfinite``
  takes it; microxcaling and torchao write NaN there; float32 input cannot reach it but with mxint8's
  ``ceil``). Below, elements lose their precision and then their value; ``block_report`` counts such blocks.
- An NVFP4 scale may be subnormal, or round to 0: then the block reads back as zeros (Transformer Engine);
  torchao keeps it at 2^-6 or more, which is the rule ``amax_normal``.
- An axis that is no multiple of the block is filled up with zeros that belong to no code: ``codes`` has x's
  shape, ``padding`` says how many zeros there were, and ``nbytes`` counts full blocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from minimp.errors import FormatError, SettingError
from minimp.formats.blocks.grid import Grid, Tile, grid_of
from minimp.formats.blocks.scales import block_scales, quotient, tensor_scale
from minimp.formats.blocks.table import BlockFormat, block_format, rule_for
from minimp.formats.casting import decode, encode
from minimp.formats.dice import Counter, Source
from minimp.formats.rounding import dice_for, widen
from minimp.formats.roundings import mode_named

__all__ = ["BlockArray", "dequantize", "quantize"]

Codes = npt.NDArray[np.unsignedinteger[Any]]
Floats = npt.NDArray[np.floating[Any]]
Float64s = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False, repr=False)
class BlockArray:
    """An array in a block format.

    Attributes:
        codes: element codes in the array's shape, right-aligned; ``minimp.formats.packing.pack`` takes them.
        scale_codes: codes of ``format.scale``, one a block: the array's shape with the number of blocks along
            the block axes. A float32 scale is its bit pattern.
        tensor_scale: t, 1 where the format has none.
        axis: the axis that blocks extend along (the last of them, if two).
        format: the block format.
        scale_rule: the rule that chose the scales.
    """

    codes: Codes
    scale_codes: Codes
    tensor_scale: float
    axis: int
    format: BlockFormat
    scale_rule: str

    @property
    def shape(self) -> tuple[int, ...]:
        """The array's shape."""
        return self.codes.shape

    @property
    def scales(self) -> Float64s:
        """The block scales s as float64, in the shape of ``scale_codes``; NaN where a block is NaN."""
        return np.asarray(decode(self.scale_codes, self.format.scale), np.float64)

    @property
    def grid(self) -> Grid:
        """Where the blocks lie."""
        return grid_of(self.shape, self.format.block, self.axis, "BlockArray")

    @property
    def padding(self) -> tuple[int, ...]:
        """Zeros that fill the last block up, along each axis of a block."""
        return self.grid.padding[-len(self.format.block) :]

    @property
    def nbytes(self) -> int:
        """Bytes of the packed array: full blocks of elements, their scales, and the tensor scale."""
        bits = self.grid.block_count * self.format.values_per_block * self.format.element.bits
        scale_bits = self.grid.block_count * self.format.scale.bits
        return -(-bits // 8) + -(-scale_bits // 8) + 4 * self.format.tensor_scale

    @property
    def bits_per_value(self) -> float:
        """8 · nbytes / number of values; NaN of an empty array."""
        return 8 * self.nbytes / self.codes.size if self.codes.size else float("nan")

    def dequantize(self, dtype: npt.DTypeLike = np.float32) -> Floats:
        """The numbers t · s · e.

        Args:
            dtype: float64 holds every product exactly; float32 is rounded to once, and overflows to infinity
                above 2^128 (OCP MX 1.0 leaves that open).

        Raises:
            SettingError: another dtype.
        """
        return dequantize(self, dtype)

    def __repr__(self) -> str:
        return f"BlockArray({self.format.name}, shape={self.shape}, axis={self.axis}, {self.nbytes} bytes)"

    def __str__(self) -> str:
        """Several aligned lines for people."""
        scales = self.scales[np.isfinite(self.scales)]
        between = f"{scales.min():.6g} .. {scales.max():.6g}" if scales.size else "none finite"
        extent = " x ".join(str(n) for n in self.format.block)
        padded = " and ".join(str(n) for n in self.padding)
        rows = (
            ("shape", f"{self.shape}, blocks of {extent} along axis {self.axis}, {padded} zeros of padding"),
            ("elements", f"{self.codes.size} of {self.format.element.name}"),
            (
                "scales",
                f"{self.scale_codes.size} of {self.format.scale.name} by {self.scale_rule}, {between}",
            ),
            *(
                (("tensor", f"{self.tensor_scale:.9g} times every scale"),)
                if self.format.tensor_scale
                else ()
            ),
            ("size", f"{self.nbytes} bytes packed, {self.bits_per_value:.6g} bits a value"),
        )
        return "\n".join((self.format.name, *(f"  {name:<10} {text}" for name, text in rows)))


def quantize(
    x: npt.ArrayLike,
    fmt: Any,
    *,
    axis: int = -1,
    scale_rule: str | None = None,
    rounding: str = "nearest_even",
    rng: Source = None,
) -> BlockArray:
    """Quantise an array to a block format; the rules are the module's.

    Args:
        x: real numbers of any shape with at least one axis (two for two-dimensional blocks).
        fmt: a ``BlockFormat``, or a name in ``BLOCK_FORMATS``.
        axis: the axis that blocks extend along. Two-dimensional blocks cover the axis before it, too.
        scale_rule: a key of ``SCALE_RULES``; the format's own for None.
        rounding: how elements are rounded, a key of ``minimp.formats.ROUNDINGS``. (Scales are rounded as
            their rule says.)
        rng: for ``stochastic``, as in ``minimp.formats.round``. A Counter or seed gives an element the bits
            of its place in x (in C order), whatever else there is; a Generator is drawn from piece by piece.

    Returns:
        A ``BlockArray``. Beside it some 10 MiB are needed, and a copy of an x that is not in C order.

    Raises:
        FormatError: unknown format; an infinity or NaN in x where ``scale`` has no NaN.
        SettingError: unknown rule or rounding; a rule whose scales the format cannot hold; no random source
            where one is needed.
        ShapeError: no such axis. DataError: x is not real numbers.
    """
    fmt = block_format(fmt)
    rule = rule_for(scale_rule, fmt)
    mode_named(rounding)
    source = Counter(int(rng)) if isinstance(rng, int | np.integer) else rng
    dice_for(rounding, (0,), source, None)  # an empty array is refused what a full one is
    x = np.asarray(x)
    grid = grid_of(x.shape, fmt.block, axis, "quantize")
    viewed = x.reshape(grid.view)
    amax = _largest(viewed, grid)
    _refuse_lost(amax, fmt)
    tensor = tensor_scale(amax, fmt)
    scales = block_scales(amax, fmt, rule, tensor)
    divisors = scales.values * tensor * 2.0**fmt.element_exponent
    codes = np.zeros(grid.view, fmt.element.code_dtype)
    for tile in grid.tiles():
        codes[tile.numbers] = _elements(
            viewed[tile.numbers], divisors[tile.blocks], fmt, grid, tile, rounding, source
        )
    scale_codes = scales.codes.reshape(grid.scale_shape)
    return BlockArray(codes.reshape(x.shape), scale_codes, tensor, grid.axis, fmt, rule.name)


def _largest(viewed: npt.NDArray[Any], grid: Grid) -> Float64s:
    """The largest magnitude in each block, NaN where a block holds an infinity or NaN."""
    amax = np.zeros(grid.scale_view)
    for tile in grid.tiles():
        numbers = np.abs(widen(viewed[tile.numbers]))
        largest = grid.fold(numbers).max(axis=(1, 3)).astype(np.float64)
        amax[tile.blocks] = np.where(np.isfinite(largest), largest, np.nan)
    return amax


def _refuse_lost(amax: Float64s, fmt: BlockFormat) -> None:
    lost = int(np.isnan(amax).sum())
    if lost and not fmt.scale.has_nan:
        raise FormatError(
            f"{lost} of {amax.size} blocks hold an infinity or NaN, and {fmt.scale.name} scales have no NaN",
            op="quantize",
            formats=(fmt.scale.name,),
            help="find where they came from, or choose a scale format with NaN",
        )


def _elements(
    numbers: npt.NDArray[Any],
    divisors: Float64s,
    fmt: BlockFormat,
    grid: Grid,
    tile: Tile,
    rounding: str,
    source: Source,
) -> Codes:
    """Codes of a tile's numbers (r, c, inner); divisors (block rows, block columns, inner) hold s t 2^k."""
    usable = np.isfinite(divisors) & (divisors > 0)
    spread = grid.spread(np.where(usable, divisors, 1.0), numbers.shape)
    ratio = _ratio(widen(numbers), spread, fmt)
    if not usable.all():
        ratio = np.where(grid.spread(usable, numbers.shape), ratio, np.copysign(0.0, ratio))
    np.clip(ratio, -fmt.element.max, fmt.element.max, out=ratio)  # symmetric, int8 too
    if rounding != "stochastic" or not isinstance(source, Counter):
        return encode(ratio, fmt.element, rounding, "saturate", source)
    if tile.whole_rows:
        return encode(ratio, fmt.element, rounding, "saturate", source.advance(tile.start))
    codes = np.empty(ratio.shape, fmt.element.code_dtype)
    for r, row in enumerate(ratio):
        place = source.advance(tile.start + r * grid.view[2] * grid.view[3])
        codes[r] = encode(row, fmt.element, rounding, "saturate", place)
    return codes


def _ratio(numbers: Floats, divisors: Float64s, fmt: BlockFormat) -> Float64s:
    """Numbers / divisors, so that rounding it to the elements is rounding the exact quotient."""
    wide = np.where(np.isfinite(numbers), numbers, 0.0).astype(np.float64)
    # 24 bits divided by 29 bits is a number of p bits, or 2^-(30+p) away from it: more than float64 loses.
    short = numbers.dtype == np.float32 and fmt.element.precision <= 20
    return wide / divisors if short else quotient(wide, divisors)


def dequantize(q: BlockArray, dtype: npt.DTypeLike = np.float32) -> Floats:
    """The numbers t · s · e of a ``BlockArray``; see ``BlockArray.dequantize``."""
    kind = np.dtype(dtype)
    if kind not in (np.float32, np.float64):
        raise SettingError(
            f"expected float32 or float64, got {kind}",
            op="dequantize",
            help="dequantize to float32, then round with minimp.formats.round",
        )
    grid = q.grid
    values = np.empty(grid.view, kind)
    with np.errstate(over="ignore", under="ignore"):
        for tile in grid.tiles():
            values[tile.numbers] = tile_values(q, grid, tile)
    return values.reshape(q.shape)


def tile_values(q: BlockArray, grid: Grid, tile: Tile) -> Float64s:
    """The numbers of one tile, exact."""
    elements = decode(q.codes.reshape(grid.view)[tile.numbers], q.format.element)
    scales = decode(q.scale_codes.reshape(grid.scale_view)[tile.blocks], q.format.scale)
    scales = scales * q.tensor_scale * 2.0**q.format.element_exponent
    return np.asarray(elements * grid.spread(scales, elements.shape), np.float64)
