"""Range pictures by matplotlib: number lines of formats, and the rounding error over their range.

matplotlib is an extra, ``pip install "minimp[plot]"``, and is imported when a picture is drawn. Nothing here
shows a window: that is the caller's ``plt.show()``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import cycle
from typing import Any

import numpy as np
import numpy.typing as npt

from minimp.errors import SettingError, unknown_name
from minimp.formats.codes import decode
from minimp.formats.pictures.axes import LinearAxis, linear_axis, shown_binades
from minimp.formats.pictures.figures import load, new_axes
from minimp.formats.pictures.losses import Losses, compare_losses, percent
from minimp.formats.pictures.number_line import MARKED_BITS, SCALES, outline
from minimp.formats.pictures.ranges import Extent, binades, exponent_of, extent, values_in_binade
from minimp.formats.rounding import round_to
from minimp.formats.table import Format, get

__all__ = ["figure_height", "plot_number_line", "plot_rounding_error"]

# Okabe and Ito's colours, which people with any colour vision tell apart; hatches and markers say it again.
_NORMAL, _SUBNORMAL, _NUMBERS, _INK = "#0072B2", "#E69F00", "#999999", "#333333"
_CURVES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = "osD^vPX"
_MOST_BINADES = 100  # of a picture with numbers: beyond this a wide format is cut
_HILL, _HISTOGRAM = 0.46, 0.9  # heights in lanes: of a format's hill, of the histogram
_CELLS = 240  # of the linear axis
_FARTHEST = 1e300  # on the linear axis: matplotlib calculates beyond its ends


def plot_number_line(
    formats: Any, x: npt.ArrayLike | None = None, ax: Any = None, *, scale: str = "log"
) -> Any:
    """Draw where the positive values of formats lie, one lane a format, and with x a histogram on top.

    On the log scale the height of a lane is log2 of the values a binade: it climbs through the subnormals
    (hatched) and is level where numbers are normal. On the linear scale formats of at most 8 bits have a mark
    for each value; the height of others is log2 of the values in one of 240 equal parts of the axis.

    Args:
        formats: anything that ``minimp.formats.get`` knows, or several such in a list or tuple.
        x: real numbers of any shape and format; not empty.
        ax: the matplotlib Axes to draw on; None makes a figure of pyplot's.
        scale: ``"log"`` or ``"linear"``.

    Returns:
        The Axes. On the log scale its horizontal coordinate is log2: 2^-3 is at -3.

    Raises:
        FormatError: unknown format.
        SettingError: no format, an unknown scale, float64 on the linear scale; matplotlib is not installed.
        DataError: x is empty or not real numbers, or holds integers that float64 cannot hold.
    """
    chosen = _chosen(formats, "plot_number_line")
    if scale not in SCALES:
        raise SettingError(unknown_name("scale", scale, SCALES), op="plot_number_line")
    farthest = max(each.max for each in chosen)
    if scale == "linear" and farthest > _FARTHEST:
        said = f"matplotlib has no linear axis up to {farthest:.3g}"
        raise SettingError(said, op="plot_number_line", help='leave that format out, or scale="log"')
    own = None if x is None else extent(x)
    lost = () if x is None else compare_losses(x, chosen)
    ax = new_axes(9.6, figure_height(len(chosen), own is not None)) if ax is None else ax
    (_log_lanes if scale == "log" else _linear_lanes)(ax, chosen, x, own)
    ticks = [(_HILL / 2 - row, fmt.name) for row, fmt in enumerate(chosen)]
    for row, fmt in enumerate(chosen):
        _caption(ax, -row, fmt, lost[row] if lost else None)
    top = _HILL + 0.12
    if own is not None:
        ticks.append((top + _HISTOGRAM / 2, "x"))
        top += _HISTOGRAM + 0.25
    ax.set_ylim(0.45 - len(chosen), top)
    ax.set_yticks([at for at, _ in ticks], [name for _, name in ticks])
    ax.tick_params(axis="y", length=0)
    ax.spines[["top", "right", "left"]].set_visible(False)
    _legend(ax, chosen)
    return ax


def figure_height(lanes: int, histogram: bool) -> float:
    """Inches for so many lanes, the histogram if there is one, the axis and the legend."""
    return 0.95 + 0.85 * (lanes + (_HISTOGRAM + 0.25) * histogram)


def _chosen(formats: Any, op: str) -> tuple[Format, ...]:
    chosen = tuple(get(each) for each in (formats if isinstance(formats, list | tuple) else [formats]))
    if not chosen:
        raise SettingError("expected at least one format, got none", op=op, help="for example fp16")
    return chosen


def _caption(ax: Any, floor: float, fmt: Format, lost: Losses | None) -> None:
    said = outline(fmt)
    if lost is not None:
        normal = lost.exact + lost.rounded - lost.subnormal
        counts = (lost.flushed, lost.subnormal, normal, lost.overflowed)
        words = ("flushed to 0", "subnormal", "normal", "beyond the range")
        shares = (f"{percent(count, lost.count)} {word}" for count, word in zip(counts, words, strict=True))
        said += "\nx: " + ", ".join(shares)
    _say(ax, floor - 0.06, said, "top")


def _say(ax: Any, height: float, text: str, side: str) -> None:
    """Write at the left end, powers of two as such, on white: guides pass behind."""
    text = re.sub(r"2\^(-?\d+)", r"$2^{\1}$", text)
    box = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}
    place = {"transform": ax.get_yaxis_transform(), "va": side}
    ax.text(0, height, text, fontsize="small", color=_INK, bbox=box, zorder=1, **place)


def _legend(ax: Any, formats: Sequence[Format]) -> None:
    patch = load("matplotlib.patches").Patch
    even = all(each.is_integer for each in formats)
    entries = [patch(**_PARTS["normal"], label="evenly spaced" if even else "normal")]
    if any(each.has_subnormals for each in formats):
        entries.insert(0, patch(**_PARTS["subnormal"], label="subnormal"))
    ax.legend(handles=entries, **_ABOVE)


_ABOVE: dict[str, Any] = {
    "loc": "lower right",
    "bbox_to_anchor": (1, 1),
    "ncols": 4,
    "frameon": False,
    "fontsize": "small",
}
_PARTS: dict[str, dict[str, Any]] = {
    "subnormal": {"facecolor": _SUBNORMAL, "edgecolor": "white", "hatch": "////", "linewidth": 0},
    "normal": {"facecolor": _NORMAL, "edgecolor": _NORMAL, "linewidth": 0},
}


def _histogram(ax: Any, counts: Sequence[int], edges: Any, own: Extent) -> None:
    """The numbers of x on top, and lines that lead their ends down through the lanes."""
    floor, highest = _HILL + 0.12, max(*counts, 1)
    heights = [floor + _HISTOGRAM * each / highest for each in counts]
    ax.stairs(heights, edges, baseline=floor, fill=True, color=_NUMBERS)
    ax.axhline(floor, color=_NUMBERS, linewidth=0.8)
    said = f"{own.count} numbers; highest bar {percent(max(counts), own.count)}"
    others = (("zero", own.zeros), ("infinite", own.infinite), ("NaN", own.nan))
    said += "".join(f"; {percent(count, own.count)} {word}" for word, count in others if count)
    _say(ax, floor + _HISTOGRAM + 0.03, said, "bottom")


def _beyond(fmt: Format) -> str:
    return ", ".join(word for word, there in (("inf", fmt.has_inf), ("NaN", fmt.has_nan)) if there)


# ---- the log scale -----------------------------------------------------------------------------------------


def _log_lanes(ax: Any, formats: Sequence[Format], _: Any, own: Extent | None) -> None:
    low, high = shown_binades(formats, own, _MOST_BINADES)
    margin = 0.03 * (high - low + 1)
    most = max(values_in_binade(fmt, each) for fmt in formats for each in binades(fmt)[-2:])
    for row, fmt in enumerate(formats):
        spanned = [each for each in binades(fmt) if low <= each <= high]
        split = sum(each < fmt.emin for each in spanned) * fmt.has_subnormals
        for exponents, part in ((spanned[:split], "subnormal"), (spanned[split:], "normal")):
            if exponents:
                tops = [values_in_binade(fmt, each).bit_length() / most.bit_length() for each in exponents]
                edges = [*exponents, min(exponents[-1] + 1, max(math.log2(fmt.max), exponents[-1] + 0.1))]
                ax.stairs(
                    [_HILL * each - row for each in tops], edges, baseline=-row, fill=True, **_PARTS[part]
                )
        _log_ends(ax, fmt, -row, (low, high + 1), margin)
    if own is not None and own.smallest and own.largest:
        _histogram(
            ax, [own.binades.get(each, 0) for each in range(low, high + 1)], np.arange(low, high + 2), own
        )
        for end in (own.smallest, own.largest):
            ax.axvline(math.log2(end), color=_NUMBERS, linewidth=0.8, linestyle=":", zorder=0)
    ax.set_xlim(low - margin, high + 1 + 3 * margin)
    _powers(ax.xaxis, low, high + 1, 14)
    ax.set_xlabel("magnitude, powers of two at even distances; height of a lane: log2 of its values a binade")


def _log_ends(ax: Any, fmt: Format, floor: float, shown: tuple[int, int], margin: float) -> None:
    """Zero, the gap above it, what lies beyond the largest value; arrows where the picture cuts a lane."""
    low, high = shown
    first, last = math.log2(fmt.smallest_subnormal), math.log2(fmt.max)
    words = {"va": "bottom", "fontsize": "small", "color": _INK}
    if fmt.has_zero:
        ax.text(low - 0.75 * margin, floor, "0", ha="right", **words)
        ax.plot([low - 0.5 * margin, max(first, low)], [floor, floor], ":", color=_INK, linewidth=0.8)
    if first < low:
        ax.plot(low, floor + _HILL / 3, "<", color=_INK, markersize=5, clip_on=False)
    if last > high:
        ax.plot(high, floor + _HILL / 3, ">", color=_INK, markersize=5, clip_on=False)
    ax.text(min(last, high) + 0.4 * margin, floor, _beyond(fmt), ha="left", **words)


# ---- the linear scale --------------------------------------------------------------------------------------


def _linear_lanes(ax: Any, formats: Sequence[Format], x: Any, own: Extent | None) -> None:
    axis: LinearAxis = linear_axis(formats, _CELLS)
    step = float(axis.step)
    edges = (np.arange(_CELLS + 1) - 0.5) * step
    counts = {fmt: [axis.density(fmt, each) for each in range(_CELLS)] for fmt in formats}
    most = max(max(counts[fmt]) for fmt in formats)
    for row, fmt in enumerate(formats):
        ax.plot([0, fmt.max], [-row, -row], color=_NORMAL, linewidth=0.8)
        ax.text(fmt.max + 3 * step, -row, _beyond(fmt), va="bottom", fontsize="small", color=_INK)
        if fmt.bits <= MARKED_BITS:
            _marks(ax, fmt, -row)
        else:
            tops = [_HILL * each.bit_length() / most.bit_length() - row for each in counts[fmt]]
            ax.stairs(tops, edges, baseline=-row, fill=True, **_PARTS["normal"])
    if own is not None:
        _histogram(ax, axis.bars(x), edges, own)
    ax.set_xlim(-4 * step, axis.high + 16 * step)
    marked = [fmt.bits <= MARKED_BITS for fmt in formats]
    said = ["a mark for each value"] * any(marked)
    said += [f"height: log2 of the values in one {_CELLS}th of the axis"] * (not all(marked))
    ax.set_xlabel("; ".join(("magnitude", *said)))


def _marks(ax: Any, fmt: Format, floor: float) -> None:
    values = decode(np.arange(1 << fmt.bits), fmt)
    values = np.unique(values[np.isfinite(values) & (values >= 0)])
    small = (values < fmt.smallest_normal) & (values > 0)
    for chosen, colour, top in ((values[~small], _NORMAL, _HILL), (values[small], _SUBNORMAL, 0.6 * _HILL)):
        ax.vlines(chosen, floor, floor + top, color=colour, linewidth=1)


# ---- the rounding error ------------------------------------------------------------------------------------


def plot_rounding_error(formats: Any, ax: Any = None) -> Any:
    """Draw the largest relative error of rounding to nearest, |stored - x| / |x|, over the range of formats.

    Near x it is half the distance of the neighbours of x over |x|. In each binade of the normal range it
    falls from 2^-(m+1) to half of that, and jumps back at the next power of two: a sawtooth. Among the
    subnormals the distance stays the same, so that the error doubles with each binade further down, up to
    100 % at half the smallest value, below which everything becomes 0. With a single format, dots show the
    error of numbers at even distances on the axis.

    Args:
        formats: anything that ``minimp.formats.get`` knows, or several such in a list or tuple.
        ax: the matplotlib Axes to draw on; None makes a figure of pyplot's.

    Returns:
        The Axes. Both of its coordinates are log2.

    Raises:
        FormatError: unknown format.
        SettingError: no format; or matplotlib is not installed.
    """
    chosen = _chosen(formats, "plot_rounding_error")
    ax = new_axes(9.6, 4.2) if ax is None else ax
    low, high = shown_binades(chosen, None, 0)
    if len(chosen) == 1:
        at, errors = _sampled_errors(chosen[0], low - 2)
        ax.plot(at, errors, ".", color=_NUMBERS, markersize=2, label="single numbers", rasterized=True)
    styles = zip(cycle(_CURVES), cycle(_MARKERS))
    for fmt, (colour, marker) in zip(chosen, styles, strict=False):
        at, errors = _error_bound(fmt, low - 2)
        ax.plot(at, errors, marker=marker, markevery=[-1], color=colour, linewidth=1.2, label=fmt.name)
    deepest = max(each.mantissa_bits for each in chosen)
    ax.set(xlim=(low - 2.5, high + 2), ylim=(-deepest - 3, 1.2))
    ax.text(low - 2, 0.2, "100 %: becomes 0", va="bottom", fontsize="small", color=_INK)
    _powers(ax.xaxis, low - 2, high + 1, 14)
    _powers(ax.yaxis, -deepest - 3, 0, 10)
    ax.set_xlabel("magnitude |x| (log scale); a marker stands at the largest value")
    ax.set_ylabel("largest relative error")
    ax.grid(color="#DDDDDD", linewidth=0.6)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(**_ABOVE)
    return ax


def _powers(axis: Any, low: int, high: int, most: int) -> None:
    """Ticks at powers of two, no more than ``most``."""
    step = 1 << max(0, math.ceil(math.log2((high - low + 1) / most)))
    ticks = range(-(-low // step) * step, high + 1, step)
    axis.set_ticks(list(ticks), [f"$2^{{{each}}}$" for each in ticks])


def _error_bound(fmt: Format, low: int) -> tuple[list[float], list[float]]:
    """Corners of the curve: log2 |x|, and log2 of half the distance of x's neighbours over |x|."""
    first = exponent_of(fmt.smallest_subnormal)
    corners = [(float(low), 0.0), (first - 1.0, 0.0), (float(first), -1.0)] if fmt.has_zero else []
    for exponent in binades(fmt):
        half = max(exponent, fmt.emin) - fmt.mantissa_bits - 1
        end = math.log2(fmt.max) if exponent == fmt.emax else exponent + 1
        corners += [(float(exponent), float(half - exponent)), (end, half - end)]
    return [at for at, _ in corners], [error for _, error in corners]


def _sampled_errors(fmt: Format, low: int) -> tuple[Any, Any]:
    at = np.linspace(low if fmt.has_zero else fmt.emin, math.log2(fmt.max), _SAMPLES)[:-1]
    x = np.exp2(at)
    x, at = x[x > 0], at[x > 0]  # what float64 holds
    errors = np.abs(round_to(x, fmt).astype(np.float64) - x) / x
    return at[errors > 0], np.log2(errors[errors > 0])


_SAMPLES = 6000
