"""The number line of a format as text: zero, the subnormals, the normal numbers, the end, inf and NaN.

Several formats share one axis. Over each line stands how dense the values are, on top of all the numbers of
a tensor, so that one sees which of them fall below a format, among its subnormals, or beyond its end.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy.typing as npt

from minimp.errors import SettingError, unknown_name
from minimp.formats.pictures.axes import Axis, linear_axis, log_axis, short
from minimp.formats.pictures.losses import Losses, compare_losses, percent
from minimp.formats.pictures.ranges import Extent, binades, exponent_of, extent, values_in_binade
from minimp.formats.table import Format, get

__all__ = ["SCALES", "NumberLine", "number_line", "outline"]

SCALES = ("log", "linear")
LEAST_WIDTH, LONGEST_NAME = 60, 20
MARKED_BITS = 8  # formats of so many bits have each value marked on the linear axis
_BAR_ROWS = 4  # the height of the histogram, in lines
_ENDS = len(" inf NaN")


@dataclass(frozen=True)
class Glyphs:
    """The characters of a picture.

    Attributes:
        heights: from an empty cell to a full one.
        gap, subnormal, normal: the line below the smallest value, and in its two parts.
        first, edge, last: the smallest value, the smallest normal one, the largest.
        left, right: the line goes on beyond the axis.
        one, many: marks of one value, and of ten or more in one column.
        axis, tick: the axis.
    """

    heights: str
    gap: str
    subnormal: str
    normal: str
    first: str
    edge: str
    last: str
    left: str
    right: str
    one: str
    many: str
    axis: str
    tick: str


UNICODE = Glyphs(" ▁▂▃▄▅▆▇█", "┈", "╌", "━", "├", "┿", "┥", "◂", "▸", "│", "█", "─", "┴")
ASCII = Glyphs(" .:-=+*#@", ".", "-", "=", "|", "+", "|", "<", ">", "|", "#", "-", "+")


@dataclass(frozen=True)
class NumberLine:
    """Number lines of formats under one another; ``str()`` draws them.

    Attributes:
        formats: the formats, from top to bottom.
        scale: ``"log"`` or ``"linear"``.
        width: the most characters of a line.
        axis: the axis: which column a number falls into.
        tensor: where the numbers of x lie; None without x.
        bars: how many of them lie in each column's binades (log) or in each column (linear).
        losses: what x would lose in each format.
    """

    formats: tuple[Format, ...]
    scale: str
    width: int
    axis: Axis
    tensor: Extent | None = None
    bars: tuple[int, ...] = field(default=(), repr=False)
    losses: tuple[Losses, ...] = field(default=(), repr=False)

    def text(self, ascii_only: bool | None = None) -> str:
        """Draw the picture.

        Args:
            ascii_only: plain ASCII or not; None looks at what ``sys.stdout`` can encode.
        """
        plain = not _can_show(UNICODE) if ascii_only is None else ascii_only
        return "\n".join(line.rstrip() for line in _picture(self, ASCII if plain else UNICODE))

    def __str__(self) -> str:
        return self.text()

    @cached_property
    def most_dense(self) -> int:
        """The highest density of any format: values in a binade (log) or in a column (linear)."""
        if self.scale == "log":  # all normal binades are equal, but the last may lack codes
            return max(values_in_binade(fmt, each) for fmt in self.formats for each in binades(fmt)[-2:])
        columns = range(self.axis.columns)
        return max(self.axis.density(fmt, each) for fmt in self.formats for each in columns)


def number_line(
    formats: Any, x: npt.ArrayLike | None = None, scale: str = "log", width: int = 96
) -> NumberLine:
    """Draw where the positive values of formats lie, and with x where its magnitudes lie.

    Args:
        formats: anything that ``minimp.formats.get`` knows, or several such in a list or tuple.
        x: real numbers of any shape and format; not empty.
        scale: ``"log"``: powers of two at even distances. ``"linear"``: from 0 to the largest value; formats
            of at most 8 bits have each value marked.
        width: the most characters of a line, at least 60.

    Raises:
        FormatError: unknown format.
        SettingError: no format, an unknown scale, or too small a width.
        DataError: x is empty or not real numbers, or holds integers that float64 cannot hold.
    """
    chosen = tuple(get(each) for each in (formats if isinstance(formats, list | tuple) else [formats]))
    if scale not in SCALES:
        raise SettingError(unknown_name("scale", scale, SCALES), op="number_line")
    if not chosen or width < LEAST_WIDTH:
        raise SettingError(
            f"expected at least one format and {LEAST_WIDTH} characters, got {len(chosen)} and {width}",
            op="number_line",
            help='for example number_line(["fp16", "bf16"], width=96)',
        )
    columns = width - _gutter(chosen) - 1 - _ENDS
    own = None if x is None else extent(x)
    log, linear = log_axis(chosen, own, columns), linear_axis(chosen, columns)
    axis: Axis = log if scale == "log" else linear
    if x is None or own is None:
        return NumberLine(chosen, scale, width, axis)
    bars = log.bars(own) if scale == "log" else linear.bars(x)
    return NumberLine(chosen, scale, width, axis, own, bars, compare_losses(x, chosen))


def _gutter(formats: Iterable[Format]) -> int:
    return max(len(_name(each)) for each in formats) + 2


def _name(fmt: Format) -> str:
    return fmt.name if len(fmt.name) <= LONGEST_NAME else f"{fmt.name[: LONGEST_NAME - 2]}.."


def _can_show(glyphs: Glyphs) -> bool:
    encoding = getattr(sys.stdout, "encoding", None) or "ascii"
    try:
        "".join(vars(glyphs).values()).encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True


# ---- drawing -----------------------------------------------------------------------------------------------


def _picture(line: NumberLine, glyphs: Glyphs) -> list[str]:
    gutter = _gutter(line.formats)
    blank, rows = " " * (gutter + 1), list[str]()

    def say(text: str, head: str = "") -> None:
        rows.extend(
            textwrap.wrap(text, line.width, initial_indent=f"{head:<{gutter}} ", subsequent_indent=blank)
        )

    if line.tensor is not None:
        rows += [blank + each for each in _histogram(line.bars, glyphs)]
        say(_numbers(line.tensor, max(line.bars)), "x")
        rows.append("")
    for at, fmt in enumerate(line.formats):
        rows.append(blank + _densities(fmt, line, glyphs))
        rows.append(f"{_name(fmt):<{gutter}}{_line(fmt, line, glyphs)}")
        say(outline(fmt))
        if line.losses:
            say(_shares(line.losses[at]))
        rows.append("")
    rows += _axis(line.axis, gutter + 1, glyphs)
    say(_legend(line, glyphs))
    return rows


def _histogram(bars: Sequence[int], glyphs: Glyphs) -> list[str]:
    """Bars of a few lines, the highest as high as there is room; a single number is seen."""
    steps = len(glyphs.heights) - 1
    full = _BAR_ROWS * steps
    heights = [-(-full * each // max(1, *bars)) for each in bars]
    return [
        "".join(glyphs.heights[min(max(each - row * steps, 0), steps)] for each in heights)
        for row in reversed(range(_BAR_ROWS))
    ]


def _densities(fmt: Format, line: NumberLine, glyphs: Glyphs) -> str:
    """How dense the values are in each column: marks of single ones, or the height of log2."""
    counts = [line.axis.density(fmt, each) for each in range(line.axis.columns)]
    if line.scale == "linear" and fmt.bits <= MARKED_BITS:
        marks = (" ", glyphs.one, *map(str, range(2, 10)), glyphs.many)
        return "".join(marks[min(each, 10)] for each in counts)
    steps, top = len(glyphs.heights) - 1, line.most_dense.bit_length()
    return "".join(glyphs.heights[-(-steps * each.bit_length() // top)] for each in counts)


def _line(fmt: Format, line: NumberLine, glyphs: Glyphs) -> str:
    """The slot of zero, then the line itself, then what lies beyond."""
    axis = line.axis
    first, edge, last = axis.start(fmt), axis.column(fmt.smallest_normal), axis.column(fmt.max)
    gap = glyphs.gap if fmt.has_zero else " "
    cells = [
        gap if each < first else glyphs.subnormal if each < edge else glyphs.normal
        for each in range(max(1, min(last + 1, axis.columns)))
    ]
    for column, mark in ((last, glyphs.last), (edge, glyphs.edge), (first, glyphs.first)):
        if 0 <= column < len(cells):
            cells[column] = mark
    if first < 0:  # the line goes on to the left, or all of it lies there
        cells[0] = glyphs.left
    if last >= axis.columns:
        cells[-1] = glyphs.right
    beyond = " inf" * fmt.has_inf + " NaN" * fmt.has_nan
    zero = "0" if fmt.has_zero and line.scale == "log" else " "
    return zero + "".join(cells) + beyond


def outline(fmt: Any) -> str:
    """Where the parts of a format lie, in one line for people.

    >>> outline("fp16")
    'subnormal from 2^-24, normal from 2^-14 to 65504; 2^10 values a binade'
    """
    fmt = get(fmt)
    if fmt.is_integer:
        return f"whole numbers from {fmt.lowest:.0f} to {fmt.max:.0f}, evenly spaced"
    subnormal = f"subnormal from 2^{exponent_of(fmt.smallest_subnormal)}, " if fmt.has_subnormals else ""
    much = f"2^{fmt.mantissa_bits} values a binade" if fmt.mantissa_bits else "powers of two only"
    lacks = (
        ("no subnormals", fmt.has_subnormals),
        ("no zero", fmt.has_zero),
        ("nothing negative", fmt.signed),
    )
    absent = ", ".join(word for word, there in lacks if not there)
    normal = f"normal from 2^{exponent_of(fmt.smallest_normal)} to {short(fmt.max)}"
    return f"{subnormal}{normal}; {much}{'; ' * bool(absent)}{absent}"


def _numbers(own: Extent, highest: int) -> str:
    """What there is in x, in one line."""
    said = f"{own.count} numbers"
    if own.smallest and own.largest:
        said += f", magnitudes {short(own.smallest)} to {short(own.largest)}"
    others = (("zero", own.zeros), ("infinite", own.infinite), ("NaN", own.nan))
    said += "".join(f", {percent(count, own.count)} {word}" for word, count in others if count)
    return f"{said}; the highest bar is {percent(highest, own.count)}"


def _shares(lost: Losses) -> str:
    normal = lost.exact + lost.rounded - lost.subnormal
    parts = (
        ("flushed to 0", lost.flushed),
        ("subnormal", lost.subnormal),
        ("normal", normal),
        ("beyond the range", lost.overflowed),
    )
    return "x: " + ", ".join(f"{percent(count, lost.count)} {word}" for word, count in parts)


def _axis(axis: Axis, indent: int, glyphs: Glyphs) -> tuple[str, str]:
    """The axis with its ticks, and their labels, each centred below its tick."""
    cells, labels = [glyphs.axis] * axis.columns, ""
    for column, label in axis.ticks():
        cells[column] = glyphs.tick
        labels = labels.ljust(indent + column - len(label) // 2) + label
    return " " * indent + "".join(cells), labels


def _legend(line: NumberLine, glyphs: Glyphs) -> str:
    if line.scale == "log":
        return f"{line.axis.note}; height over a line: log2 of its values a binade"
    marked = [each.bits <= MARKED_BITS for each in line.formats]
    marks = f"{glyphs.one} is one value there, 2 to 9 so many, {glyphs.many} more" * any(marked)
    heights = "height: log2 of the values there" * (not all(marked))
    return "; ".join(each for each in (line.axis.note, marks, heights) if each)
