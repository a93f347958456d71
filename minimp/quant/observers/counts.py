"""How often which values were seen: histograms that can be added without loss.

Bins are [k 2^e, (k + 1) 2^e), N/2 on either side of 0. The exponent e is the least with which all values
fit, so it depends on what was seen and not on the order; making bins twice as wide adds up pairs, which is
exact. Two histograms added are therefore, count for count, the one of all their values.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import numpy.typing as npt

__all__ = ["Counts"]

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
EMPTY = -2000
"""The exponent where nothing but zeros was seen; any other is larger."""
FIELDS = ("exponents", "counts", "zeros", "signal")


class Counts:
    """Histograms of channels, one row each.

    Args:
        channels: C.
        bins: N, a multiple of 4.

    Attributes:
        exponents: (C,) e.
        counts: (C, N); zeros are not among them.
        zeros: (C,) how many values were exactly 0, which quantising never changes.
        signal: (C,) the sum of squares, float64.
    """

    def __init__(self, channels: int, bins: int) -> None:
        self.exponents = np.full(channels, EMPTY, np.int64)
        self.counts = np.zeros((channels, bins), np.int64)
        self.zeros = np.zeros(channels, np.int64)
        self.signal = np.zeros(channels)

    @property
    def bins(self) -> int:
        """N."""
        return self.counts.shape[1]

    @property
    def total(self) -> int:
        """How many values were counted."""
        return int(self.counts.sum() + self.zeros.sum())

    def add(self, rows: Floats) -> None:
        """Count (C, M) finite values."""
        channels, bins = self.counts.shape
        largest = np.abs(rows).max(axis=1, initial=0)
        self._widen(np.maximum(self.exponents, _exponent(largest, bins)))
        inverse = np.ldexp(1.0, -np.maximum(self.exponents, -1000))[:, None]
        places = np.floor(rows * inverse).astype(np.int64) + (bins // 2 + bins * np.arange(channels))[:, None]
        found = np.bincount(places.ravel(), minlength=channels * bins).reshape(channels, bins)
        zeros = rows.shape[1] - np.count_nonzero(rows, axis=1)
        found[:, bins // 2] -= zeros
        self.counts = self.counts + found
        self.zeros = self.zeros + zeros
        self.signal = self.signal + np.einsum("cm,cm->c", rows, rows, dtype=np.float64)

    def __add__(self, other: Self) -> Self:
        """Return the histograms of the values of both."""
        exponents = np.maximum(self.exponents, other.exponents)
        both = [self.copy(), other.copy()]
        for each in both:
            each._widen(exponents)
        made = both[0]
        made.counts, made.zeros = made.counts + both[1].counts, self.zeros + other.zeros
        made.signal = self.signal + other.signal
        return made

    def edges(self) -> Doubles:
        """Return the N + 1 edges of the bins of each channel, (C, N + 1)."""
        steps = np.arange(self.bins + 1) - self.bins // 2
        return np.ldexp(1.0, np.maximum(self.exponents, -1000))[:, None] * steps

    def halved(self, bins: int) -> npt.NDArray[np.int64]:
        """Return the counts in fewer bins over the same ends, zeros among them: (C, bins)."""
        counts = self.counts.copy()
        counts[:, self.bins // 2] += self.zeros
        return np.asarray(counts.reshape(len(counts), bins, -1).sum(axis=2), np.int64)

    def copy(self) -> Self:
        """Return a copy that changes on its own."""
        made = type(self)(*self.counts.shape)
        made.load(self.state())
        return made

    def state(self) -> dict[str, Any]:
        """Return all that there is, arrays by name."""
        return {name: getattr(self, name).copy() for name in FIELDS}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` returned."""
        for name in FIELDS:
            setattr(self, name, np.array(state[name]))

    def _widen(self, exponents: npt.NDArray[np.int64]) -> None:
        """Make bins wider, by powers of two."""
        quarter = self.bins // 4
        lag = np.where(self.exponents == EMPTY, 0, exponents - self.exponents)
        while (behind := lag > 0).any():
            pairs = self.counts[behind].reshape(int(behind.sum()), -1, 2).sum(axis=2)
            counts = self.counts.copy()
            counts[behind] = 0
            counts[behind, quarter:-quarter] = pairs
            self.counts = counts
            lag = lag - 1
        self.exponents = exponents


def _exponent(largest: Floats, bins: int) -> npt.NDArray[np.int64]:
    """The least e with largest < 2^e N/2, for N a power of two; EMPTY where the largest is 0."""
    exponent = np.frexp(largest)[1].astype(np.int64) - (bins // 2).bit_length() + 1
    return np.where(largest == 0, EMPTY, exponent)
