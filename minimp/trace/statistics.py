"""Statistics of one array: counts, extremes and a histogram by powers of two, each exact."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from math import frexp
from typing import Any

import numpy as np
import numpy.typing as npt

from minimp import formats
from minimp.formats import Format

__all__ = ["Cuts", "Stats", "count_nonzero", "cuts_of", "measure", "moved", "targets_of"]

Array = npt.NDArray[Any]
Cuts = Mapping[int, Mapping[int, int]]
"""n -> {exponent -> how many values lie at or above 2 - 2^-n in units of 2^exponent}; n = 0: exactly at 1."""

LONG, MOST_COMPARED = 32768, 60
"""From so many elements on, comparing with so many exponents is faster than counting element by element."""
FLOAT32, FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)


@dataclass(frozen=True, slots=True)
class Stats:
    """What the numbers of one array are like.

    Attributes:
        size: the number of elements.
        bytes: what they take in their own format.
        zeros: elements that are 0.
        subnormals: elements below the format's smallest normal number that are not 0.
        nan: elements that are NaN.
        inf: elements that are infinite.
        min, max: the smallest and the largest finite element, None if there is none.
        amax: the largest magnitude of a finite element, None if there is none.
        mean: the mean of the finite elements (summed in float64), None if there is none.
        binades: exponent e -> the number of finite elements with 2^e <= |x| < 2^(e+1).
        cuts: of gradients: how many elements of a binade lie where rounding to a narrower range of exponents
            turns, see :data:`Cuts`.
    """

    size: int
    bytes: int
    zeros: int
    subnormals: int = 0
    nan: int = 0
    inf: int = 0
    min: float | None = None
    max: float | None = None
    amax: float | None = None
    mean: float | None = None
    binades: Mapping[int, int] = field(default_factory=dict)
    cuts: Cuts = field(default_factory=dict)

    @property
    def nonfinite(self) -> int:
        """The number of elements that are NaN or infinite."""
        return self.nan + self.inf

    @property
    def nonzero(self) -> int:
        """The number of elements that are not 0."""
        return self.size - self.zeros

    def __str__(self) -> str:
        if self.amax is None:
            return f"{self.size:,} elements, none finite" if self.size else "no elements"
        parts = [f"{self.size:,} elements", f"{self.min:.4g} to {self.max:.4g}"]
        counts = {"zeros": self.zeros, "subnormal": self.subnormals, "nan": self.nan, "inf": self.inf}
        return ", ".join([*parts, *(f"{count:,} {name}" for name, count in counts.items() if count)])


@dataclass(frozen=True)
class _Layout:
    """Where a float has its exponent: as integers of `codes`, shifted right by `shift`."""

    codes: type
    shift: int
    bins: int
    bias: int


LAYOUTS = {
    FLOAT32: _Layout(np.uint32, 23, 256, 127),
    FLOAT64: _Layout(np.uint64, 52, 2048, 1023),
}


def measure(stored: Array, fmt: Format | None, wide: Array, targets: tuple[Format, ...] = ()) -> Stats:
    """Return the statistics of an array.

    Args:
        stored: the array as it is kept.
        fmt: its format; None for integers and booleans.
        wide: the same values in float32 or float64 (of integers: `stored`).
        targets: the formats whose range gradients may be moved to; their cuts are counted.
    """
    size, nbytes = stored.size, stored.nbytes
    if fmt is None or not size:
        return _of_integers(stored)
    flat = np.asarray(wide).reshape(-1)
    layout = LAYOUTS[flat.dtype]
    codes: Array = flat.view(layout.codes)
    powers = _powers(codes, layout)
    counts = _histogram(powers, layout.bins)
    low, bad = int(counts[0]), int(counts[-1])
    tiny = flat[(powers == 0) & (flat != 0)] if low and low + count_nonzero(flat) != size else flat[:0]
    nan = int(np.count_nonzero(np.isnan(flat))) if bad else 0
    places = counts[1:-1].nonzero()[0]
    binades = dict(zip((places + (1 - layout.bias)).tolist(), counts[places + 1].tolist(), strict=True))
    for exponent in (np.frexp(tiny)[1] - 1).tolist() if tiny.size else ():
        binades[exponent] = binades.get(exponent, 0) + 1
    if tiny.size:
        binades = dict(sorted(binades.items()))
    lowest = lowest_exponent(fmt)
    least, most, mean = _extremes(flat[powers != layout.bins - 1] if bad else flat)
    return Stats(
        size, nbytes, low - tiny.size,
        subnormals=sum(count for exponent, count in binades.items() if exponent < lowest),
        nan=nan, inf=bad - nan, min=least, max=most,
        amax=None if least is None or most is None else max(-least, most),
        mean=mean, binades=binades,
        cuts=_count_cuts(codes, powers, layout, targets, tiny, fmt.mantissa_bits) if targets else {},
    )  # fmt: skip


@cache
def lowest_exponent(fmt: Format) -> int:
    """Return e, 2^e being the smallest normal number."""
    return frexp(fmt.smallest_normal)[1] - 1


def _extremes(known: Array) -> tuple[float | None, float | None, float | None]:
    """Return the smallest and the largest number, and the mean."""
    if not known.size:
        return None, None, None
    total = float(np.add.reduce(known, dtype=np.float64))
    return float(np.minimum.reduce(known)), float(np.maximum.reduce(known)), total / known.size


def _powers(codes: Array, layout: _Layout) -> Array:
    """Return the biased exponents."""
    if layout.bins == 256:  # the low byte of what is left; the sign is the bit above
        return (codes >> np.uint32(23)).astype(np.uint8)
    return (codes >> np.uint64(52)).astype(np.uint16) & np.uint16(0x7FF)


def count_nonzero(array: Array) -> int:
    """Return how many elements are not 0; counting booleans is several times faster than counting floats."""
    return int(np.count_nonzero(array != 0))


def _histogram(powers: Array, bins: int) -> Array:
    """Return how often each exponent occurs: of long arrays by comparing, from the highest down.

    Subtracting 1 wraps the lowest bin (zeros) to the far end, and adding what is missing wraps the highest
    one (infinities) to 0, so that neither widens the range that is looked through.
    """
    if powers.size < LONG:
        return np.bincount(powers, minlength=bins)
    kind = powers.dtype.type
    counts = np.zeros(bins, np.int64)
    past = np.iinfo(powers.dtype).max - bins + 2
    lowest, highest = int((powers - kind(1)).min()) + 1, int((powers + kind(past)).max()) - past
    if highest - lowest > MOST_COMPARED:
        return np.bincount(powers, minlength=bins)
    left, equal = powers.size, np.empty(powers.shape, np.bool_)
    for power in (0, bins - 1, *range(highest, lowest - 1, -1)):
        if not left:
            break
        counts[power] = np.count_nonzero(np.equal(powers, kind(power), out=equal))
        left -= int(counts[power])
    return counts


def moved(stats: Stats, power: int, fmt: Format, nbytes: int) -> Stats | None:
    """Return the statistics of the same numbers times 2^power in a wider format; None if some leave it.

    Args:
        stats: of the numbers as they are.
        power: an exponent.
        fmt: the format that they are exact in.
        nbytes: what they take in it.
    """
    lowest, highest = lowest_exponent(fmt), frexp(fmt.max)[1] - 1
    binades = {exponent + power: count for exponent, count in stats.binades.items()}
    if any(exponent < lowest or exponent > highest for exponent in binades):
        return None
    factor = 2.0**power
    ends = (None if x is None else x * factor for x in (stats.min, stats.max, stats.amax, stats.mean))
    least, most, amax, mean = ends
    cuts = {n: {e + power: count for e, count in found.items()} for n, found in stats.cuts.items()}
    return Stats(stats.size, nbytes, stats.zeros, 0, stats.nan, stats.inf, least, most, amax, mean,
                 binades, cuts)  # fmt: skip


def _of_integers(stored: Array) -> Stats:
    if not stored.size or stored.dtype.kind not in "iub":
        return Stats(stored.size, stored.nbytes, 0)
    low, high = stored.min(), stored.max()
    ends = float(low), float(high)
    zeros = stored.size - int(np.count_nonzero(stored))
    mean = float(stored.mean(dtype=np.float64))
    return Stats(
        stored.size, stored.nbytes, zeros, min=ends[0], max=ends[1], amax=max(map(abs, ends)), mean=mean
    )


def targets_of(fmt: Format | None) -> tuple[Format, ...]:
    """Return the formats that a gradient of `fmt` is asked to fit: its own, or the 16-bit ones."""
    if fmt is None:
        return ()
    return (fmt,) if fmt.bits <= 16 else (formats.float16, formats.bfloat16)


def cuts_of(fmt: Format) -> tuple[int, ...]:
    """Return the cuts that rounding to `fmt`, to nearest even, turns at.

    A power of two just below the smallest subnormal goes to 0 (n = 0: the tie); 2 - 2^-p below the smallest
    normal number goes up to it, and 2 - 2^-(p+1) in the highest binade overflows, for p bits of mantissa.
    """
    return 0, fmt.mantissa_bits, fmt.mantissa_bits + 1


def _count_cuts(
    codes: Array, powers: Array, layout: _Layout, targets: tuple[Format, ...], tiny: Array, digits: int
) -> Cuts:
    """Count by binade; `tiny` are the subnormal numbers of the layout, whose codes have no exponent.

    Numbers of so many binary digits after the point never lie at or above 2 - 2^-n for n > digits.
    """
    one = 1 << layout.shift
    fractions = codes & layout.codes(one - 1)
    part, place = np.frexp(np.abs(tiny)) if tiny.size else (tiny, tiny)
    found: dict[int, dict[int, int]] = {}
    for n in sorted({n for fmt in targets for n in cuts_of(fmt)}):
        if n > digits:
            found[n] = {}
            continue
        beyond = (fractions == 0) & (powers != 0) if n == 0 else fractions >= layout.codes(one - (one >> n))
        by: dict[int, int] = {}
        chosen = np.flatnonzero(beyond)
        if chosen.size:
            counts = np.bincount(powers[chosen], minlength=layout.bins)[1:-1]
            places = counts.nonzero()[0]
            by = dict(zip((places + (1 - layout.bias)).tolist(), counts[places].tolist(), strict=True))
        if tiny.size:
            more = place[part == 0.5 if n == 0 else 2 * part >= 2 - 2.0**-n].tolist()
            for exponent in more:
                by[exponent - 1] = by.get(exponent - 1, 0) + 1
        found[n] = dict(sorted(by.items())) if tiny.size else by
    return found
