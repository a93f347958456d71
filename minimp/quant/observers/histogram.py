"""The range with the least squared error that a histogram predicts."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from minimp.errors import DataError, SettingError
from minimp.quant.observers.base import Observer

__all__ = ["HistogramObserver"]

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
UPSAMPLE = 16
STEP = 1e-5


class HistogramObserver(Observer):
    """A range cut where the squared error is least (torch.ao.quantization.HistogramObserver, torch 2.13.0).

    The values are counted in equal bins from the least to the largest. When the range grows, each old bin is
    split in 16 and each part counted where its middle lies. The search moves the ends of the range inward, by
    quantiles of 1e-5, always the end that skips more bins, until the error rises that a histogram of even
    density and 2^bits codes predicts.

    Torch counts 256 codes also where fewer are in use; here they are as many as there are. Infinities are
    left out. Merged observers cut within 2 % of one observer of all values: parts of bins move to
    neighbours. Values further apart than float32's largest number are refused (DataError).

    Args:
        bins: how many.
        settings: those of :class:`Observer`.

    Attributes:
        min_val, max_val: the ends of the histogram, float32.
        histogram: (bins,) float64; parts of a count where bins were split.
    """

    def __init__(self, bins: int = 2048, **settings: Any) -> None:
        super().__init__(**settings)
        if bins < 2:
            raise SettingError(f"bins must be at least 2, got {bins}", op="HistogramObserver")
        self.bins = bins
        self.histogram: Doubles = np.zeros(bins)
        self.min_val: Floats = np.float32(np.inf) * np.ones((), np.float32)
        self.max_val: Floats = -self.min_val

    def _take(self, rows: Floats) -> None:
        low, high = np.minimum(self.min_val, rows.min()), np.maximum(self.max_val, rows.max())
        with np.errstate(over="ignore"):
            wide = not np.isfinite(high - low)
        if wide:
            raise DataError(
                f"values from {low:g} to {high:g} lie further apart than float32 reaches",
                op="HistogramObserver", help="look for the layer that overflows",
            )  # fmt: skip
        old = self._within(low, high) if self.batches else 0
        self.histogram = _count(rows, self.bins, low, high) + old
        self.min_val, self.max_val = np.asarray(low), np.asarray(high)

    def _join(self, other: Self) -> None:
        low, high = np.minimum(self.min_val, other.min_val), np.maximum(self.max_val, other.max_val)
        self.histogram = self._within(low, high) + other._within(low, high)
        self.min_val, self.max_val = np.asarray(low), np.asarray(high)

    def _within(self, low: Floats, high: Floats) -> Doubles:
        """The histogram in the bins of a range that contains its own."""
        if (low, high) == (self.min_val, self.max_val):
            return self.histogram
        if self.min_val == self.max_val:
            return _count(self.min_val, self.bins, low, high) * float(self.histogram.sum())
        parts = self.bins * UPSAMPLE
        width = (self.max_val - self.min_val) / np.float32(parts)
        middles = _line(self.min_val, self.max_val, parts + 1)[:-1] + np.float32(0.5) * width
        edges = _line(low, high, self.bins + 1)
        places = np.clip(np.searchsorted(edges, middles, side="right") - 1, 0, self.bins - 1)
        weights = np.repeat(self.histogram / UPSAMPLE, UPSAMPLE)
        return np.bincount(places, weights, minlength=self.bins).astype(np.float64)

    def _range(self) -> tuple[Floats, Floats]:
        first, last = self._search()
        width = (self.max_val - self.min_val) / np.float32(self.bins)
        ends = np.float32(first) * width, np.float32(last + 1) * width
        return np.asarray(self.min_val + ends[0]), np.asarray(self.min_val + ends[1])

    def _search(self) -> tuple[int, int]:
        """The first and the last bin of the range."""
        sums = np.cumsum(self.histogram).tolist()
        total, alpha, beta = sums[-1], 0.0, 1.0
        first, last, least = 0, self.bins - 1, np.inf
        while alpha < beta:
            next_alpha, next_beta = alpha + STEP, beta - STEP
            left = min(max(bisect_left(sums, next_alpha * total), first), last)
            right = max(min(bisect_right(sums, next_beta * total) - 1, last), first)
            if left - first > last - right:
                chosen, alpha = (left, last), next_alpha
            else:
                chosen, beta = (first, right), next_beta
            if chosen == (first, last):
                continue
            lost = self._lost(*chosen)
            if lost > least:
                break
            least, (first, last) = lost, chosen
        return first, last

    def _lost(self, first: int, last: int) -> float:
        """The sum of squared errors if codes cover these bins; see the class. Widths are in bins.

        A bin is cut in three: to the end of the code it begins in, whole codes, and from the start of the
        code it ends in; each part costs the integral of the squared distance to the middle of its code. A
        bin beyond the range has its code at the range's end, and a whole code less between.
        """
        codes = 1 << (self.quant_max - self.quant_min).bit_length()
        width = (last - first + 1) / codes
        begin = np.arange(self.bins) - first
        at_begin, at_end = (np.clip(np.floor(x / width), 0, codes - 1) for x in (begin, begin + 1))
        half = width / 2
        from_begin = half**3 - (begin - (at_begin + 0.5) * width) ** 3
        to_end = (begin + 1 - (at_end * width + half)) ** 3 + half**3
        whole = (at_end - at_begin - 1) * 2 * half**3
        return float((self.histogram * (from_begin + to_end + whole)).sum())

    def _state(self) -> dict[str, Any]:
        return {"histogram": self.histogram, "min_val": self.min_val, "max_val": self.max_val}

    def _load(self, state: Mapping[str, Any]) -> None:
        low, high = (np.asarray(state[name], np.float32) for name in ("min_val", "max_val"))
        self.histogram = np.array(state["histogram"], np.float64)
        self.min_val, self.max_val = low, high

    def _settings(self) -> dict[str, Any]:
        return super()._settings() | {"bins": self.bins}


def _line(start: Floats, end: Floats, points: int) -> Floats:
    """Equal steps in float32, each half counted from its own end (torch.linspace)."""
    step = (end - start) / np.float32(points - 1)
    index = np.arange(points)
    from_end = end - step * (points - 1 - index).astype(np.float32)
    return np.where(index < points // 2, start + step * index.astype(np.float32), from_end)


def _count(rows: Floats, bins: int, low: Floats, high: Floats) -> Doubles:
    """Count values in equal bins from low to high, the last one closed (torch.histc, its float32 steps).

    Where low = high, torch widens the range by 1 to both sides.
    """
    if low == high:
        low, high = low - np.float32(1), high + np.float32(1)
    with np.errstate(over="ignore"):
        places = ((rows.ravel() - low) / (high - low) * np.float32(bins)).astype(np.int64)
    return np.bincount(np.minimum(places, bins - 1), minlength=bins).astype(np.float64)
