"""Ranges cut from a histogram whose bins are powers of two wide: at a percentile, or by relative entropy."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from minimp.errors import SettingError
from minimp.quant.observers.base import BINS, Observer

__all__ = ["EntropyObserver", "PercentileObserver", "divergences"]

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
SMOOTH = 1e-4


class _EndsObserver(Observer):
    """Keeps the ends of what was seen beside the counts; cut ranges never lie beyond them."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.min_val, self.max_val = np.float32(np.inf), np.float32(-np.inf)

    def _take(self, rows: Floats) -> None:
        self.min_val, self.max_val = min(self.min_val, rows.min()), max(self.max_val, rows.max())

    def _join(self, other: Any) -> None:
        self.min_val, self.max_val = min(self.min_val, other.min_val), max(self.max_val, other.max_val)

    def _state(self) -> dict[str, Any]:
        return {"min_val": self.min_val, "max_val": self.max_val}

    def _load(self, state: Any) -> None:
        self.min_val, self.max_val = np.float32(state["min_val"]), np.float32(state["max_val"])

    def _cut(self, low: float, high: float) -> tuple[Floats, Floats]:
        low, high = max(low, float(self.min_val)), min(high, float(self.max_val))
        return np.asarray(low, np.float32), np.asarray(high, np.float32)


class PercentileObserver(_EndsObserver):
    """A range that leaves out a share of the values: (100 - percentile) %, half of it at either end.

    With `symmetric`, the share of |x| above the range. Ends lie on edges of bins, outward, and a bin is at
    most 1/2048 of the largest magnitude wide; onnxruntime's PercentileCalibrater (2048 bins, 99.999) takes
    the inner edge, and its bins come from the first batch. Infinities are left out. Merged observers are one
    observer of all values, exactly.

    Args:
        percentile: what stays within the range, above 0 and at most 100 %.
        settings: those of :class:`Observer`.
    """

    def __init__(self, percentile: float = 99.999, **settings: Any) -> None:
        super().__init__(**settings)
        if not 0 < percentile <= 100:
            raise SettingError(
                f"percentile must be above 0 and at most 100, got {percentile!r}", op="PercentileObserver"
            )
        self.percentile = percentile

    def _range(self) -> tuple[Floats, Floats]:
        counts = self.seen()
        bins, edges = counts.halved(counts.bins)[0], counts.edges()[0]
        half = counts.bins // 2
        out = (100 - self.percentile) / 100 * bins.sum()
        if self.symmetric:
            beyond = np.cumsum((bins[half:] + bins[half - 1 :: -1])[::-1])
            end = edges[counts.bins - int(np.searchsorted(beyond, out, side="right"))]
            return self._cut(-end, end)
        left = int(np.searchsorted(np.cumsum(bins), out / 2, side="right"))
        right = counts.bins - int(np.searchsorted(np.cumsum(bins[::-1]), out / 2, side="right"))
        return self._cut(edges[left], edges[right])

    def _settings(self) -> dict[str, Any]:
        return super()._settings() | {"percentile": self.percentile}


class EntropyObserver(_EndsObserver):
    """The range about 0 whose codes tell most: least relative entropy of values to what codes make of them.

    Of a histogram of `bins` bins about 0 the middle i on either side are taken, for each i from half of
    `quantized_bins` on: p, with what lies beyond added to its ends, against q, merged to `quantized_bins` and
    spread out again over the bins of p that hold something. Both are smoothed by 1e-4; the i with the least
    sum of p log(p / q) wins. Infinities are left out. Merged observers are one observer of all values,
    exactly.

    Args:
        bins: of the histogram, a power of two up to 8192. (onnxruntime's default, 128, leaves nothing to
            search until a later batch is larger than the first.)
        quantized_bins: that codes are modelled by.
        settings: those of :class:`Observer`.

    Source: Migacz 2017, "8-bit Inference with TensorRT" (GTC, session S7310); onnxruntime 1.32,
    HistogramCollector.get_entropy_threshold, whole counts and all.
    """

    def __init__(self, bins: int = 2048, quantized_bins: int = 128, **settings: Any) -> None:
        super().__init__(**settings)
        if bins & (bins - 1) or not 2 <= quantized_bins <= bins <= BINS or quantized_bins % 2:
            raise SettingError(
                f"bins must be a power of two up to {BINS}, and quantized_bins even and not more, "
                f"got {bins} and {quantized_bins}", op="EntropyObserver",
            )  # fmt: skip
        self.bins, self.quantized_bins = bins, quantized_bins

    def _range(self) -> tuple[Floats, Floats]:
        counts = self.seen()
        bins, edges = counts.halved(self.bins)[0], counts.edges()[0, :: counts.bins // self.bins]
        found = divergences(bins, self.quantized_bins)
        reach = int(np.argmin(found)) + self.quantized_bins // 2
        half = self.bins // 2
        return self._cut(edges[half - reach], edges[min(half + reach + 1, self.bins)])

    def _settings(self) -> dict[str, Any]:
        return super()._settings() | {"bins": self.bins, "quantized_bins": self.quantized_bins}


def divergences(bins: Integers, quantized: int) -> Doubles:
    """Return the relative entropy for i = quantized/2 ... N/2 bins to either side of the middle one."""
    middle, sums = len(bins) // 2, np.concatenate([[0], np.cumsum(bins)])
    found = []
    for i in range(quantized // 2, middle + 1):
        start, end = middle - i, min(middle + i + 1, len(bins))
        p = bins[start:end].copy()
        p[0] += sums[start]
        p[-1] += sums[-1] - sums[end]
        found.append(_divergence(p, bins[start:end], quantized))
    return np.array(found)


def _divergence(p: Integers, inside: Integers, quantized: int) -> float:
    """The relative entropy of p to its values merged into `quantized` bins and spread out again."""
    merged = len(inside) // quantized
    whole = merged * quantized
    sums = inside[:whole].reshape(quantized, merged).sum(axis=1)
    sums[-1] += inside[whole:].sum()
    filled = (p[:whole] != 0).reshape(quantized, merged).sum(axis=1)
    each = np.where(filled, sums / np.maximum(filled, 1), 0).astype(np.int64)
    q = np.concatenate([np.repeat(each, merged), np.zeros(len(p) - whole, np.int64)])
    a, b = _smooth(p), _smooth(q)
    if a is None or b is None:
        return np.inf
    a, b = a / a.sum(), b / b.sum()
    return float(np.sum(a * np.log(a / b)))


def _smooth(counts: Integers) -> Doubles | None:
    """Give empty bins 1e-4, taken evenly from the others; None where the others cannot give it."""
    empty = int((counts == 0).sum())
    filled = len(counts) - empty
    if not filled:
        return None
    given = SMOOTH * empty / filled
    return None if given >= 1 else np.where(counts == 0, SMOOTH, counts - given)
