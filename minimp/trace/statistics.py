"""Statistics of one array: counts, extremes and a histogram by powers of two, each exact."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from math import frexp, fsum, isfinite
from typing import Any

import numpy as np
import numpy.typing as npt

from minimp import formats
from minimp.formats import Format

__all__ = ["Cuts", "Stats", "count_nonzero", "cuts_of", "cuts_wanted", "measure", "moved", "targets_of"]

Array = npt.NDArray[Any]
Cuts = Mapping[int, Mapping[int, int]]
"""n -> {exponent -> how many values lie at or above 2 - 2^-n in units of 2^exponent}; n = 0: exactly at 1."""

LONG, COMPARED = 32768, 11
"""From so many elements on, comparing with so many exponents is faster than counting element by element."""
SHORT, FEW = 16, 48
"""Up to so many elements, and near cuts, looking at each is quicker than asking NumPy one thing of all."""
HALF = 0x7FFF_FFFF
"""The highest 32 bits of a float without its sign."""
FLOAT32, FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)
FIRST_DIGITS = np.uint64(0xFFFF_FFFF_E000_0000)
"""The bits of a float64 that a float32 has too."""
FRACTION = np.uint64((1 << 52) - 1)


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
        mean: the mean of the finite elements, summed in float64; None if there is none, or the sum overflows.
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
    """Where a float has its exponent: `shift` bits above the end of its highest 32 bits."""

    shift: int
    bins: int
    bias: int


LAYOUTS = {
    FLOAT32: _Layout(23, 256, 127),
    FLOAT64: _Layout(20, 2048, 1023),
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
    if fmt is None or not size or wide.dtype not in LAYOUTS:  # codes of int8 are integers, too
        return _of_integers(stored)
    flat = np.asarray(wide).reshape(-1)
    if size <= SHORT:
        return _one_by_one(flat.tolist(), fmt, nbytes, targets)
    if flat.dtype == FLOAT64 and size >= LONG:
        known = _in_short(flat, fmt, nbytes, targets)
        if known is not None:
            return known
    layout = LAYOUTS[flat.dtype]
    heads = flat.view(np.uint32) if flat.dtype == FLOAT32 else (flat.view(np.uint64) >> 32).astype(np.uint32)
    powers = _powers(heads, layout)
    counts = _histogram(powers, layout.bins)
    low, bad = int(counts[0]), int(counts[-1])
    tiny = flat[(powers == 0) & (flat != 0)] if low and low + count_nonzero(flat) != size else flat[:0]
    nan = int(np.count_nonzero(np.isnan(flat))) if bad else 0
    binades = _by_exponent(counts, layout)
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
        cuts=_count_cuts(flat, heads, powers, targets, tiny, fmt.mantissa_bits, low) if targets else {},
    )  # fmt: skip


def _one_by_one(values: list[float], fmt: Format, nbytes: int, targets: tuple[Format, ...]) -> Stats:
    """Return the statistics of a short array."""
    known = [x for x in values if isfinite(x)]
    binades: dict[int, int] = {}
    cuts: dict[int, dict[int, int]] = {n: {} for n in cuts_wanted(targets)}
    for x in known:
        if not x:
            continue
        part, place = frexp(abs(x))
        binades[place - 1] = binades.get(place - 1, 0) + 1
        for n, by in cuts.items():
            if n <= fmt.mantissa_bits and (2 * part >= 2 - 2.0**-n if n else part == 0.5):
                by[place - 1] = by.get(place - 1, 0) + 1
    lowest, nan = lowest_exponent(fmt), sum(x != x for x in values)  # noqa: PLR0124 - NaN alone is not itself
    least, most = (min(known), max(known)) if known else (None, None)
    return Stats(
        len(values), nbytes, known.count(0.0),
        subnormals=sum(count for exponent, count in binades.items() if exponent < lowest),
        nan=nan, inf=len(values) - len(known) - nan, min=least, max=most,
        amax=None if least is None or most is None else max(-least, most), mean=_mean(known),
        binades=dict(sorted(binades.items())), cuts={n: dict(sorted(by.items())) for n, by in cuts.items()},
    )  # fmt: skip


def _mean(known: list[float]) -> float | None:
    try:
        return fsum(known) / len(known) if known else None
    except OverflowError:
        return None


def _in_short(flat: Array, fmt: Format, nbytes: int, targets: tuple[Format, ...]) -> Stats | None:
    """Return the statistics of float64 numbers by their first 24 digits, in float32; None if some do not fit.

    Cut off, not rounded: the exponent stays, and so do the digits that cuts look at.
    """
    short = (flat.view(np.uint64) & FIRST_DIGITS).view(np.float64).astype(np.float32)
    layout = LAYOUTS[FLOAT32]
    heads = short.view(np.uint32)
    powers = _powers(heads, layout)
    counts = _histogram(powers, layout.bins)
    low = int(counts[0])
    if counts[-1] or (low and low + count_nonzero(flat) != flat.size):
        return None
    binades = _by_exponent(counts, layout)
    least, most, mean = _extremes(flat)
    assert least is not None
    assert most is not None
    cuts = _count_cuts(flat, heads, powers, targets, flat[:0], fmt.mantissa_bits, low) if targets else {}
    return Stats(flat.size, nbytes, low, min=least, max=most, amax=max(-least, most), mean=mean,
                 binades=binades, cuts=cuts)  # fmt: skip


@cache
def lowest_exponent(fmt: Format) -> int:
    """Return e, 2^e being the smallest normal number."""
    return frexp(fmt.smallest_normal)[1] - 1


def _extremes(known: Array) -> tuple[float | None, float | None, float | None]:
    """Return the smallest and the largest number, and the mean."""
    if not known.size:
        return None, None, None
    mean = float(np.add.reduce(known, dtype=np.float64)) / known.size
    ends = float(np.minimum.reduce(known)), float(np.maximum.reduce(known))
    return *ends, mean if isfinite(mean) else None


def _powers(heads: Array, layout: _Layout) -> Array:
    """Return the biased exponents."""
    if layout.bins == 256:  # the low byte of what is left; the sign is the bit above
        return (heads >> np.uint32(23)).astype(np.uint8)
    return (heads >> np.uint32(20)).astype(np.uint16) & np.uint16(0x7FF)


def count_nonzero(array: Array) -> int:
    """Return how many elements are not 0; counting booleans is several times faster than counting floats."""
    return int(np.count_nonzero(array != 0))


def _histogram(powers: Array, bins: int) -> Array:
    """Return how often each exponent occurs: of long arrays the highest by comparing, which most have.

    Adding what is missing to the integers' range wraps the highest bin (infinities) to 0, so that it is not
    taken for the highest exponent.
    """
    if powers.size < LONG:
        return np.bincount(powers, minlength=bins)
    kind = powers.dtype.type
    counts = np.zeros(bins, np.int64)
    past = np.iinfo(powers.dtype).max - bins + 2
    highest = int((powers + kind(past)).max()) - past
    left, equal = powers.size, np.empty(powers.shape, np.bool_)
    end = max(highest - COMPARED, 0)
    for power in (0, bins - 1, *range(highest, end, -1)):
        if not left:
            return counts
        counts[power] = np.count_nonzero(np.equal(powers, kind(power), out=equal))
        left -= int(counts[power])
    rest = powers[np.flatnonzero((powers <= end) & (powers != 0))] if left else powers[:0]
    return counts + np.bincount(rest, minlength=bins)


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


@cache
def cuts_wanted(targets: tuple[Format, ...]) -> tuple[int, ...]:
    """Return the cuts of several formats, the smallest first."""
    return tuple(sorted({n for fmt in targets for n in cuts_of(fmt)}))


def _count_cuts(
    flat: Array, heads: Array, powers: Array, targets: tuple[Format, ...], tiny: Array, digits: int, low: int
) -> Cuts:
    """Count by binade; `tiny` are the subnormal numbers, whose codes have no exponent, `low` they and zeros.

    Numbers of so many binary digits after the point never lie at or above 2 - 2^-n for n > digits.
    """
    wanted = cuts_wanted(targets)
    layout = LAYOUTS[FLOAT32] if powers.dtype == np.uint8 else LAYOUTS[FLOAT64]
    one = 1 << layout.shift
    chosen = _near_powers(heads, powers, one, wanted[1], low)
    if not tiny.size and chosen.size <= FEW:
        return _cuts_of_few(flat, heads[chosen].tolist(), chosen, layout, wanted, digits)
    fractions, near = heads[chosen] & np.uint32(one - 1), powers[chosen]
    part, place = np.frexp(np.abs(tiny)) if tiny.size else (tiny, tiny)
    found: dict[int, dict[int, int]] = {}
    for n in wanted:
        if n > digits:
            found[n] = {}
            continue
        if n == 0:
            at = chosen[(fractions == 0) & (near != 0)]
            if flat.dtype == FLOAT64:  # the rest of the fraction is not in the heads
                at = at[flat.view(np.uint64)[at] & FRACTION == 0]
            held = powers[at]
        else:
            held = near[fractions >= np.uint32(one - (one >> n))]
        by = _by_exponent(np.bincount(held, minlength=layout.bins), layout) if held.size else {}
        if tiny.size:
            for exponent in place[part == 0.5 if n == 0 else 2 * part >= 2 - 2.0**-n].tolist():
                by[exponent - 1] = by.get(exponent - 1, 0) + 1
            by = dict(sorted(by.items()))
        found[n] = by
    return found


def _cuts_of_few(
    flat: Array, heads: list[int], places: Array, layout: _Layout, wanted: tuple[int, ...], digits: int
) -> Cuts:
    """Count one by one, which is quicker where few numbers lie near a cut."""
    one = 1 << layout.shift
    found: dict[int, dict[int, int]] = {n: {} for n in wanted}
    for head, place in sorted(zip(heads, places.tolist(), strict=True), key=lambda pair: pair[0] & HALF):
        power, fraction = (head & HALF) >> layout.shift, head & (one - 1)
        if not 0 < power < layout.bins - 1:
            continue
        for n in wanted:
            if n > digits:
                continue
            if n:
                counts = fraction >= one - (one >> n)
            else:
                counts = not fraction and (flat.dtype == FLOAT32 or frexp(flat[place])[0] in (0.5, -0.5))
            if counts:
                by = found[n]
                by[power - layout.bias] = by.get(power - layout.bias, 0) + 1
    return found


def _near_powers(heads: Array, powers: Array, one: int, n: int, low: int) -> Array:
    """Return where numbers lie at or above 2 - 2^-n, or at 1, in units of their binade.

    Adding 2^-n takes the former past the next power of two, and the latter to 2^-n above one, so that both
    have a small fraction.
    """
    short = one >> n
    moved_up = heads + np.uint32(short)
    moved_up &= np.uint32(one - 1)
    near = moved_up <= np.uint32(short)
    if 8 * low > heads.size:  # many zeros, whose fraction is 0, too
        near &= powers != 0
    return np.flatnonzero(near)


def _by_exponent(counts: Array, layout: _Layout) -> dict[int, int]:
    """Return exponent -> count of what is not 0, zeros and infinities left out."""
    places = counts[1:-1].nonzero()[0]
    return dict(zip((places + (1 - layout.bias)).tolist(), counts[places + 1].tolist(), strict=True))
