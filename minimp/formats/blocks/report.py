"""What a tensor loses in a format: an error report, for one format or several side by side."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from minimp.errors import DataError, FormatError, SettingError, ShapeError, unknown_name
from minimp.formats.blocks.arrays import BlockArray, quantize, tile_values
from minimp.formats.blocks.grid import Grid, grid_of
from minimp.formats.blocks.scales import block_scales
from minimp.formats.blocks.table import BLOCK_FORMATS, BlockFormat, block_format, rule_for
from minimp.formats.casting import round as round_to
from minimp.formats.dice import Source
from minimp.formats.rounding import widen64
from minimp.formats.table import FORMATS, Format, get

__all__ = ["BlockComparison", "BlockReport", "WorstBlock", "block_report", "compare_blocks"]

Float64s = npt.NDArray[np.float64]


@dataclass(frozen=True)
class WorstBlock:
    """The block with the most noise, the largest sum of squared errors.

    Attributes:
        index: its place among the scales.
        amax: its largest magnitude.
        rms_error: the root of the mean squared error of its numbers.
    """

    index: tuple[int, ...]
    amax: float
    rms_error: float


@dataclass(frozen=True)
class BlockReport:
    """What a tensor x loses as q. Shares are fractions of 1.

    Numbers that are infinite or NaN, and those that share a block with one, count in ``lost`` only.

    Attributes:
        format: the format's name.
        scale_rule: the rule of its block scales; None without blocks.
        count: how many numbers x has.
        sqnr_db: signal to quantisation noise, 10 log10(sum x^2 / sum (x - q)^2), in dB; inf if q = x (or
            so nearly that float64 sums do not tell), -inf if only zeros were changed.
        max_abs_error: max |q - x|.
        max_rel_error: max |q - x| / |x| over x != 0; at most 1 unless a number was rounded up from below the
            smallest value.
        bias: mean of q - x.
        saturated: share of numbers clamped to the largest value: further beyond it than half an ulp.
        flushed: share of numbers that are not 0 and became 0.
        scale_clamped: share of blocks whose scale is not what the rule asks, because the scale format has no
            such value (or for ``smallest_amax``); 0 without blocks.
        lost: share of numbers left out, see above.
        bits_per_value: bits a number takes, scales and padding included.
        worst: the block with the most noise; None without blocks, or where nothing is lost.
    """

    format: str
    scale_rule: str | None
    count: int
    sqnr_db: float
    max_abs_error: float
    max_rel_error: float
    bias: float
    saturated: float
    flushed: float
    scale_clamped: float
    lost: float
    bits_per_value: float
    worst: WorstBlock | None

    def __str__(self) -> str:
        """A small table for people, with what each number means."""
        title = f"{self.format}" + (f", scales by {self.scale_rule}" if self.scale_rule else "")
        worst = self.worst
        rows = [
            ("SQNR", f"{self.sqnr_db:.2f} dB", "sum of x² over sum of squared errors; 6 dB is one bit"),
            ("largest error", f"{self.max_abs_error:.6g}", "the largest |q - x|"),
            ("relative", f"{self.max_rel_error:.6g}", "the largest |q - x| / |x|; 1 is a number gone"),
            ("bias", f"{self.bias:.6g}", "the mean of q - x"),
            ("saturated", _percent(self.saturated), "of the numbers were clamped to the largest value"),
            ("flushed", _percent(self.flushed), "of the numbers became 0 and were not"),
            ("scale clamped", _percent(self.scale_clamped), "of the blocks wanted a scale out of range"),
            ("lost", _percent(self.lost), "of the numbers are inf or NaN, or in a block with one"),
            ("size", f"{self.bits_per_value:.5g}", "bits a value, scales and padding included"),
        ]
        if worst:
            where = f"{list(worst.index)}: largest |x| {worst.amax:.6g}, rms error {worst.rms_error:.6g}"
            rows.append(("worst block", where, ""))
        lines = (f"  {name:<14}{value:>12}  {text}".rstrip() for name, value, text in rows)
        return "\n".join((f"{title}: {self.count} numbers", *lines))


@dataclass(frozen=True)
class BlockComparison:
    """Reports of one tensor in several formats; ``str()`` puts them side by side.

    Attributes:
        reports: one a format, in the order asked for.
    """

    reports: tuple[BlockReport, ...]

    def __str__(self) -> str:
        """A table of at most 100 columns, one line a format, and what its columns mean."""
        head = ("format", "bits", "SQNR dB", "max error", "max rel", "bias", "satur.", "flushed", "scales")
        lines = [_line(head)]
        for each in self.reports:
            name = each.format + (f" {each.scale_rule}" if each.scale_rule else "")
            numbers = (f"{each.max_abs_error:.3g}", f"{each.max_rel_error:.3g}", f"{each.bias:.2e}")
            shares = (_percent(share) for share in (each.saturated, each.flushed, each.scale_clamped))
            lines.append(
                _line((name, f"{each.bits_per_value:.4g}", f"{each.sqnr_db:.2f}", *numbers, *shares))
            )
        return "\n".join((*lines, "", *_LEGEND))


_LEGEND = (
    "bits: a value takes, scales and padding included. SQNR: signal over quantisation noise, the more",
    "the better, 6 dB a bit. max error: the largest |q - x|; max rel: over |x|, 1 is a number gone.",
    "bias: mean of q - x. satur.: numbers clamped to the largest value. flushed: numbers that became 0.",
    "scales: blocks whose scale was clamped to the range of its format.",
)
_WIDTHS = (28, 6, 8, 10, 8, 10, 9, 10, 9)


def _line(cells: Iterable[str]) -> str:
    first, *rest = cells
    left = first if len(first) <= _WIDTHS[0] else first[: _WIDTHS[0] - 1] + "…"
    return f"{left:<{_WIDTHS[0]}}" + "".join(
        f"{cell:>{width}}" for cell, width in zip(rest, _WIDTHS[1:], strict=True)
    )


def _percent(share: float) -> str:
    return "0" if share == 0 else f"{100 * share:.2g}%" if share < 0.1 else f"{100 * share:.1f}%"


def block_report(
    x: npt.ArrayLike,
    fmt: Any,
    *,
    axis: int = -1,
    scale_rule: str | None = None,
    rounding: str = "nearest_even",
    rng: Source = None,
) -> BlockReport:
    """Report what x loses in a format.

    Args:
        x: real numbers, at least one.
        fmt: a block format or its name; a plain format or its name (each number is rounded alone, and
            clamped to the largest value); or the ``BlockArray`` that x was quantised to.
        axis, scale_rule, rounding, rng: as in ``minimp.formats.quantize``. With a ``BlockArray`` none
            may be given, with a plain format neither axis nor scale_rule.

    Raises:
        FormatError: unknown format. SettingError: a setting that cannot act.
        DataError: x is empty. ShapeError: a ``BlockArray`` of another shape.
    """
    x, found = np.asarray(x), _found(fmt)
    if x.size == 0:
        raise DataError("expected at least one number, got none", op="block_report", shapes=(x.shape,))
    _refuse_idle(found, (axis != -1, scale_rule is not None), (rounding != "nearest_even", rng is not None))
    if isinstance(found, BlockFormat):
        found = quantize(x, found, axis=axis, scale_rule=scale_rule, rounding=rounding, rng=rng)
    if isinstance(found, BlockArray):
        return _report_blocks(x, found)
    return _report_plain(x, found, rounding, rng)


def compare_blocks(x: npt.ArrayLike, formats: Iterable[Any], *, axis: int = -1) -> BlockComparison:
    """Report what x loses in several formats.

    Args:
        x: real numbers, at least one.
        formats: block formats and plain ones, or their names; a pair (block format, scale rule) names a rule.
        axis: the axis that blocks extend along.

    Raises: as :func:`block_report`.
    """
    reports = []
    for each in formats:
        fmt, rule = each if isinstance(each, tuple) else (each, None)
        blocks = isinstance(_found(fmt), BlockFormat)
        reports.append(block_report(x, fmt, axis=axis if blocks else -1, scale_rule=rule))
    return BlockComparison(tuple(reports))


def _found(fmt: Any) -> BlockFormat | BlockArray | Format:
    if isinstance(fmt, BlockFormat | BlockArray):
        return fmt
    for look in (block_format, get):
        try:
            return look(fmt)
        except FormatError:
            continue
    raise FormatError(
        unknown_name("block or number format", fmt, (*BLOCK_FORMATS, *FORMATS)),
        op="block_report",
        help="a name such as 'mxfp8_e4m3' or 'float16', a BlockFormat, a Format or a BlockArray",
    )


def _refuse_idle(found: Any, lying: tuple[bool, ...], rounding: tuple[bool, ...]) -> None:
    """Refuse settings that cannot act on what has no blocks, or is quantised already."""
    problem = ""
    if isinstance(found, Format) and any(lying):
        problem = f"expected neither axis nor scale_rule for {found.name}, which has no blocks"
    elif isinstance(found, BlockArray) and any(lying + rounding):
        problem = "expected no axis, scale_rule, rounding or rng for a BlockArray, which is quantised already"
    if problem:
        raise SettingError(problem, op="block_report", help="leave them out")


@dataclass
class _Sums:
    """Running sums over the tiles, in units of a power of two near the largest magnitude."""

    unit: int
    signal: list[float] = field(default_factory=list)
    noise: list[float] = field(default_factory=list)
    error: list[float] = field(default_factory=list)
    counted: int = 0
    saturated: int = 0
    flushed: int = 0
    max_abs: float = 0.0
    max_rel: float = 0.0

    def add(self, x: Float64s, q: Float64s, counts: npt.NDArray[np.bool_], limit: Any) -> Float64s:
        """Count a tile's numbers; return their squared errors in the unit, 0 where not counted.

        Args:
            x, q: the numbers and what became of them.
            counts: which of them count.
            limit: half an ulp beyond the largest value; a magnitude above it was clamped.
        """
        x, q = np.where(counts, x, 0.0), np.where(counts, q, 0.0)
        error, magnitude = q - x, np.abs(x)
        scaled = np.ldexp(error, -self.unit)
        squares = scaled * scaled
        self.signal.append(float(np.sum(np.ldexp(x, -self.unit) ** 2)))
        self.noise.append(float(np.sum(squares)))
        self.error.append(float(np.sum(scaled)))
        self.counted += int(counts.sum())
        self.saturated += int((magnitude > limit).sum())
        self.flushed += int(((q == 0) & (x != 0)).sum())
        self.max_abs = max(self.max_abs, float(np.max(np.abs(error), initial=0.0)))
        with np.errstate(over="ignore"):
            relative = np.divide(np.abs(error), magnitude, out=np.zeros(x.shape), where=magnitude > 0)
        self.max_rel = max(self.max_rel, float(np.max(relative, initial=0.0)))
        return squares

    def finish(self, size: int, **more: Any) -> BlockReport:
        """The report, of `size` numbers in all."""
        signal, noise = math.fsum(self.signal), math.fsum(self.noise)
        known = self.counted > 0
        return BlockReport(
            count=size,
            sqnr_db=_decibel(signal, noise) if known else math.nan,
            max_abs_error=self.max_abs if known else math.nan,
            max_rel_error=self.max_rel if known else math.nan,
            bias=math.ldexp(math.fsum(self.error) / self.counted, self.unit) if known else math.nan,
            saturated=self.saturated / size,
            flushed=self.flushed / size,
            lost=1 - self.counted / size,
            **more,
        )


def _decibel(signal: float, noise: float) -> float:
    return math.inf if noise == 0 else 10 * math.log10(signal / noise) if signal else -math.inf


def _unit_of(x: npt.NDArray[Any]) -> int:
    """The exponent of the power of two above the largest finite magnitude."""
    largest = 0.0
    for piece in _pieces(x):
        magnitude = np.abs(piece)
        largest = max(largest, float(np.max(magnitude, where=np.isfinite(magnitude), initial=0.0)))
    return math.frexp(largest)[1]


def _pieces(x: npt.NDArray[Any]) -> Iterator[Float64s]:
    flat = x.reshape(-1)
    for first in range(0, flat.size, 1 << 17):
        yield widen64(flat[first : first + (1 << 17)])


def _report_plain(x: npt.NDArray[Any], fmt: Format, rounding: str, rng: Source) -> BlockReport:
    sums = _Sums(_unit_of(x))
    limit = fmt.max + 0.5 * 2.0 ** (fmt.emax - fmt.mantissa_bits + fmt.is_integer)
    for piece in _pieces(x):
        counts = np.isfinite(piece)
        q = round_to(np.where(counts, piece, 0.0), fmt, rounding, "saturate", rng)
        sums.add(piece, q.astype(np.float64), counts, limit)
    bits = 8 * fmt.dtype.itemsize if fmt.padding else fmt.bits
    return sums.finish(
        x.size, format=fmt.name, scale_rule=None, scale_clamped=0.0, bits_per_value=float(bits), worst=None
    )


def _report_blocks(x: npt.NDArray[Any], q: BlockArray) -> BlockReport:
    if x.shape != q.shape:
        raise ShapeError(
            f"expected x of the BlockArray's shape {q.shape}, got {x.shape}",
            op="block_report",
            shapes=(x.shape, q.shape),
        )
    grid = grid_of(x.shape, q.format.block, q.axis, "block_report")
    viewed, sums = x.reshape(grid.view), _Sums(_unit_of(x))
    amax, noise = np.zeros(grid.scale_view), np.zeros(grid.scale_view)
    top = q.format.element_max + q.format.element_top_ulp / 2
    scales = q.scales.reshape(grid.scale_view) * q.tensor_scale
    ends = np.where(scales > 0, scales * top, np.inf)  # under a scale of 0 numbers are flushed, not clamped
    for tile in grid.tiles():
        numbers = widen64(viewed[tile.numbers])
        counts = grid.spread(np.isfinite(scales[tile.blocks]), numbers.shape)
        limit = grid.spread(ends[tile.blocks], numbers.shape)
        squares = sums.add(numbers, tile_values(q, grid, tile), counts, limit)
        amax[tile.blocks] = grid.fold(np.where(counts, np.abs(numbers), 0.0)).max(axis=(1, 3))
        noise[tile.blocks] = grid.fold(squares).sum(axis=(1, 3))
    asked = block_scales(amax, q.format, rule_for(q.scale_rule, q.format), q.tensor_scale)
    return sums.finish(
        x.size,
        format=q.format.name,
        scale_rule=q.scale_rule,
        scale_clamped=float(asked.clamped.mean()),
        bits_per_value=q.bits_per_value,
        worst=_worst(amax, noise, grid, sums.unit),
    )


def _worst(amax: Float64s, noise: Float64s, grid: Grid, unit: int) -> WorstBlock | None:
    place = int(np.argmax(noise))
    if noise.flat[place] == 0:
        return None
    index = tuple(int(i) for i in np.unravel_index(place, grid.scale_shape))
    held = _numbers_in(grid, np.unravel_index(place, grid.scale_view))
    return WorstBlock(index, float(amax.flat[place]), math.ldexp(math.sqrt(noise.flat[place] / held), unit))


def _numbers_in(grid: Grid, block: tuple[Any, ...]) -> int:
    """How many numbers a block holds: fewer than it could at the array's end."""
    _, row, column, _ = (int(i) for i in block)
    (high, wide), (_, rows, columns, _) = grid.block, grid.view
    return min(high, rows - row * high) * min(wide, columns - column * wide)
