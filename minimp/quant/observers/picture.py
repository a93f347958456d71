"""Pictures of what an observer saw, in text: where the values lie, what the codes cover, what is clipped."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from minimp.errors import SettingError

if TYPE_CHECKING:
    from minimp.quant.observers.base import Observer

__all__ = ["picture_of"]

ROWS = 20
LEAST_WIDTH = 60
LABELS = 13 + 3
"""Columns of an edge, and of the mark between two spaces."""


def picture_of(observer: Observer, width: int) -> str:
    """Return the picture, none of whose lines is longer than `width`.

    A histogram has a row for each stretch of values, from its lower edge; bars are as long as the logarithms
    of the counts. Marks: ``|`` within the codes, ``+`` where they end, ``x`` beyond: clipped. Channels
    have a row each, from their least code to their largest on one axis, 0 marked: at most 20, from the widest
    to the narrowest.

    Raises:
        SettingError: `width` is below 60.
        DataError: nothing was observed.
    """
    if width < LEAST_WIDTH:
        raise SettingError(f"a picture needs {LEAST_WIDTH} columns, got {width}", op="picture")
    affine, counts = observer.affine(), observer.seen()
    body = _histogram(observer, width) if affine.axis is None else _channels(observer, width)
    below, above = observer.clipped()
    share, zeros = (below + above) / counts.total, int(counts.zeros.sum())
    lines = [
        f"{type(observer).__name__}: batches {observer.batches:,}, values {counts.total:,}, zeros {zeros:,}",
        str(affine),
        *body,
        f"clipped: {below:,} below, {above:,} above ({share:.3%}); error {observer.error(affine):.1f} dB",
    ]
    if observer.infinities:
        lines.append(f"infinities left out: {observer.infinities:,}")
    return "\n".join(line[:width].rstrip() for line in lines)


def _histogram(observer: Observer, width: int) -> list[str]:
    """One row for each stretch of bins."""
    counts, affine = observer.seen(), observer.affine()
    bins, edges = counts.halved(counts.bins)[0], counts.edges()[0]
    used = np.flatnonzero(bins)
    first, last = int(used[0]), int(used[-1]) + 1
    stride = 1 << max(math.ceil(math.log2((last - first) / ROWS)), 0)
    first -= first % stride
    low, high = float(affine.low - affine.scale / 2), float(affine.high + affine.scale / 2)
    rows = [
        (float(edges[i]), float(edges[min(i + stride, counts.bins)]), int(bins[i : i + stride].sum()))
        for i in range(first, last, stride)
    ]
    top = math.log1p(max(count for _, _, count in rows))
    room = width - LABELS - len(f" {counts.total:,}")
    lines = []
    for start, end, count in rows:
        mark = "x" if end <= low or start >= high else "|" if start >= low and end <= high else "+"
        bar = "#" * math.ceil(room * math.log1p(count) / top)
        lines.append(f"{start:13.6g} {mark} {bar} {count:,}")
    return lines


def _channels(observer: Observer, width: int) -> list[str]:
    """One row for each channel that is shown."""
    affine = observer.affine()
    low, high = affine.low.astype(np.float64), affine.high.astype(np.float64)
    order = np.argsort(low - high, kind="stable")
    shown = order[np.unique(np.linspace(0, len(order) - 1, min(len(order), ROWS)).round().astype(int))]
    labels = [f"{i:7} [{low[i]:.4g}, {high[i]:.4g}]" for i in shown]
    margin = max(map(len, labels)) + 1
    room = width - margin - 1
    spread = max(float(high.max() - low.min()), 2.0**-126)

    def column(value: float) -> int:
        return round((value - float(low.min())) / spread * room)

    lines = [f"{len(shown)} of {len(order)} channels"] if len(shown) < len(order) else []
    for i, label in zip(shown, labels, strict=True):
        row = [" "] * (room + 1)
        start, end = column(float(low[i])), column(float(high[i]))
        row[start : end + 1] = "=" * (end - start + 1)
        row[column(0.0)] = "0"
        lines.append(f"{label:{margin}}{''.join(row)}")
    return lines
