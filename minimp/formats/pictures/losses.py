"""What a tensor would lose in a format: how many of its numbers are rounded, flushed to zero, out of range.

Everything is counted element by element, in blocks: the extra memory does not grow with the tensor.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from minimp.errors import SettingError
from minimp.formats.pictures.ranges import (
    EXPONENTS,
    Counts,
    Extent,
    binades,
    by_exponent,
    exponent_of,
    extent,
    filled,
    total,
    weighed_blocks,
)
from minimp.formats.rounding import Float64s, quantum_exponent, round_to
from minimp.formats.table import Format, get

__all__ = ["FATES", "Losses", "best_exponent", "compare_losses", "losses", "percent"]

FATES: Mapping[str, str] = MappingProxyType(
    {
        "zeros": "zero, and zero in the format",
        "exact": "a value of the format",
        "rounded": "rounded to a neighbour, which is not zero",
        "flushed": "rounded to zero",
        "clamped": "beyond the range: becomes the nearest end of it",
        "to_inf": "beyond the range: becomes infinite",
        "to_nan": "beyond the range: becomes NaN",
        "infinite": "infinite before",
        "nan": "NaN before",
    }
)
"""What can become of one element; each has exactly one of these fates."""


@dataclass(frozen=True)
class Losses:
    """What a tensor would lose in a format, rounding to nearest even.

    Every element has one fate; the nine counts ``zeros`` to ``nan`` (see ``FATES``) add up to ``count``.

    Attributes:
        format: the format.
        exponent: the numbers x · 2^exponent are what is stored.
        tensor: where the numbers lie before that scaling.
        zeros, exact, rounded, flushed, clamped, to_inf, to_nan, infinite, nan: elements by fate.
        subnormal: how many of ``exact`` and ``rounded`` become subnormal values of the format, which have
            fewer bits the smaller they are.
        sqnr_db: 10 log10(sum of x^2 / sum of (stored - x)^2) in dB over finite x; inf where nothing is
            changed, -inf where a number (or a 0) becomes inf or NaN, NaN where there is else no number but 0.
        max_relative_error: the largest |stored - x| / |x|; 1 where a number is flushed, inf where one becomes
            inf or NaN; 0 where there is no number other than 0.
        binades: exponent -> how many stored values lie in that binade.
        best_exponent: the largest s with max |x| · 2^s <= ``format.max``; None without a number other than 0.
        at_best: the same with that exponent; None where it is this one, or there is none.
    """

    format: Format
    exponent: int
    tensor: Extent
    zeros: int
    exact: int
    rounded: int
    flushed: int
    clamped: int
    to_inf: int
    to_nan: int
    infinite: int
    nan: int
    subnormal: int
    sqnr_db: float
    max_relative_error: float
    binades: Mapping[int, int] = field(repr=False)
    best_exponent: int | None
    at_best: Losses | None = field(repr=False)

    @property
    def count(self) -> int:
        """How many elements there are."""
        return self.tensor.count

    @property
    def overflowed(self) -> int:
        """How many finite elements lie beyond the range: ``clamped``, ``to_inf`` and ``to_nan`` together."""
        return self.clamped + self.to_inf + self.to_nan

    @property
    def shares(self) -> Mapping[str, float]:
        """Fate -> share of all elements, 0 to 1; and beside the fates ``subnormal`` and ``overflowed``."""
        names = (*FATES, "subnormal", "overflowed")
        return MappingProxyType({each: getattr(self, each) / self.count for each in names})

    @property
    def binades_used(self) -> int:
        """How many binades of the format hold a stored value, out of ``len(binades(format))``."""
        return len(self.binades)

    @property
    def advice(self) -> str:
        """One sentence: what is lost, and what the best power-of-two scale would make of it."""
        name, said = self.format.name, _loss(self)
        if self.best_exponent is None:
            return f"{name} has nothing to lose here: there is no number other than 0"
        if not said:
            return f"{name} {_kept(self)}"
        if self.at_best is None:
            return f"{name} {said}; no larger scale would fit"
        scaled = _loss(self.at_best) or _kept(self.at_best)
        return f"{name} {said}; scaled by 2^{self.best_exponent - self.exponent} it {scaled}"

    def __str__(self) -> str:
        """Several aligned lines for people."""
        own, scaled = self.tensor, f", scaled by 2^{self.exponent}" if self.exponent else ""
        ends = f" of magnitude {own.smallest:.4g} to {own.largest:.4g}" if own.largest else ""
        rows = [(name, getattr(self, name), note) for name, note in FATES.items()]
        rows.append(("subnormal", self.subnormal, "of the exact and the rounded: below the normal range"))
        width, of_all = len(str(self.count)), len(binades(self.format))
        lines = [f"{self.format.name}: what {self.count} numbers{ends} would lose{scaled}"]
        for name, count, note in rows:
            if count:
                lines.append(f"  {name:<10} {count:>{width}}  {percent(count, self.count):>8}  {note}")
        lines.append(
            f"  SQNR {self.sqnr_db:.1f} dB; largest relative error {self.max_relative_error:.3g}; "
            f"{self.binades_used} of {of_all} binades hold a stored value"
        )
        return "\n".join((*lines, f"  {self.advice}"))


def _loss(outcome: Losses) -> str:
    """What is lost in words, worst first; nothing where all is in the normal range."""
    parts = (
        ("puts {} beyond its range", outcome.overflowed),
        ("flushes {} to zero", outcome.flushed),
        ("makes {} subnormal", outcome.subnormal),
    )
    said = [words.format(percent(count, outcome.count)) for words, count in parts if count]
    return " and ".join((", ".join(said[:-1]), said[-1])) if len(said) > 1 else "".join(said)


def _kept(outcome: Losses) -> str:
    return f"keeps every number{' in its normal range' if outcome.rounded else ' exactly'}"


def percent(part: int, whole: int) -> str:
    """A share for people: three digits; 0 % and 100 % only where that is exact.

    >>> percent(1, 8), percent(0, 8), percent(999_999, 1_000_000), percent(1, 10**9)
    ('12.5 %', '0 %', '>99.9 %', '<0.001 %')
    """
    share = 100 * part / whole
    if part and share < 0.001:
        return "<0.001 %"
    return ">99.9 %" if part < whole and share >= 99.95 else f"{share:.3g} %"


def best_exponent(largest: float | None, fmt: Any) -> int | None:
    """The largest s with largest · 2^s <= ``fmt.max``; None for None. ``largest`` is finite and positive."""
    if largest is None:
        return None
    (part, exponent), (own_part, own_exponent) = math.frexp(largest), math.frexp(get(fmt).max)
    return own_exponent - exponent - (part > own_part)


def losses(x: npt.ArrayLike, fmt: Any, *, exponent: int = 0, overflow: str | None = None) -> Losses:
    """Count what x would lose if x · 2^exponent were stored in ``fmt``, rounded to nearest even.

    A number counts as beyond the range where its rounding to the format's precision, as if the exponent had
    no end, exceeds ``fmt.max`` or lies below ``fmt.lowest`` (IEEE 754-2019, 7.4): 65519 is rounded to
    float16's 65504, 65520 overflows. A negative number in an unsigned format is beyond its range too, and so
    is 0 in one that has no zero.

    Args:
        x: real numbers of any shape and format; not empty.
        fmt: anything that ``minimp.formats.get`` knows.
        exponent: the power of two to scale by.
        overflow: a key of ``minimp.formats.OVERFLOWS``; None means ``"ieee"``.

    Raises:
        FormatError: unknown format.
        SettingError: unknown overflow; an exponent that is no whole number, or takes x beyond float64.
        DataError: x is empty or not real numbers, or holds integers that float64 cannot hold.
    """
    return compare_losses(x, [fmt], exponent=exponent, overflow=overflow)[0]


def compare_losses(
    x: npt.ArrayLike, formats: Iterable[Any], *, exponent: int = 0, overflow: str | None = None
) -> tuple[Losses, ...]:
    """``losses`` in several formats, one after the other; arguments and errors are those of ``losses``."""
    chosen, own = [get(each) for each in formats], extent(x)
    exponent = _checked(exponent, own)
    return tuple(_losses(x, own, each, exponent, overflow) for each in chosen)


def _checked(exponent: int, own: Extent) -> int:
    """The exponent as an int; x · 2^exponent must be finite in float64, in which everything is computed."""
    try:
        exponent = operator.index(exponent)
    except TypeError as fault:
        raise SettingError(
            f"expected a whole number as exponent, got {exponent!r}",
            op="losses",
            help="the numbers are scaled by 2^exponent, so exponent=9 means 512",
        ) from fault
    if own.largest is not None and exponent_of(own.largest) + exponent > _HIGHEST:
        raise SettingError(
            f"the largest number, {own.largest:.4g}, times 2^{exponent} is beyond float64",
            op="losses",
            help="choose a smaller exponent",
        )
    return max(exponent, -_FARTHEST)


_HIGHEST = 1023  # the exponent of float64's largest number
_FARTHEST = 1 << 12  # what is scaled down by more is 0 all the same


def _losses(x: npt.ArrayLike, own: Extent, fmt: Format, exponent: int, overflow: str | None) -> Losses:
    best = best_exponent(own.largest, fmt)
    at_best = None if best in (None, exponent) else _losses(x, own, fmt, best, overflow)
    tally = _Tally(fmt, exponent, overflow)
    for values, weights in weighed_blocks(x):
        tally.add(values, weights)
    return Losses(
        fmt,
        exponent,
        own,
        **tally.counts,
        sqnr_db=_decibels(tally.signal, tally.noise, tally.counts["to_inf"] + tally.counts["to_nan"]),
        max_relative_error=tally.worst,
        binades=filled(tally.stored),
        best_exponent=best,
        at_best=at_best,
    )


class _Tally:
    """What is counted while blocks of a tensor go by."""

    def __init__(self, fmt: Format, exponent: int, overflow: str | None) -> None:
        self.format, self.exponent, self.overflow = fmt, exponent, overflow
        self.counts = dict.fromkeys((*FATES, "subnormal"), 0)
        self.stored = np.zeros(EXPONENTS)
        self.signal = self.noise = Fraction(0)
        self.worst = 0.0

    @np.errstate(
        over="ignore", divide="ignore", invalid="ignore"
    )  # numbers that leave the range are what is counted
    def add(self, values: Float64s, weights: Counts) -> None:
        finite, fmt = np.isfinite(values), self.format
        given = np.ldexp(np.where(finite, values, 0.0), self.exponent)
        stored = round_to(given, fmt, overflow=self.overflow).astype(np.float64)
        error = np.abs(stored - given)
        kept, size = finite & np.isfinite(stored), np.abs(stored)
        inside = kept & ~self._beyond(given, stored, error)
        same = (stored == given) & (np.ldexp(given, -self.exponent) == values)
        fates = {
            "zeros": inside & (values == 0),
            "exact": inside & (stored != 0) & same,
            "rounded": inside & (stored != 0) & ~same,
            "flushed": inside & (values != 0) & (stored == 0),
            "clamped": kept & ~inside,
            "to_inf": finite & np.isinf(stored),
            "to_nan": finite & np.isnan(stored),
            "infinite": np.isinf(values),
            "nan": np.isnan(values),
            "subnormal": inside & (stored != 0) & (size < fmt.smallest_normal),
        }
        for name, members in fates.items():
            self.counts[name] += total(members, weights)
        solid = kept & (stored != 0)
        self.stored += by_exponent(size[solid], weights[solid])
        self.signal += _sum_of_squares(given[kept], weights[kept])
        self.noise += _sum_of_squares(error[kept], weights[kept])
        relative = np.where(given == 0, 1.0, error / np.abs(given))
        relative[finite & ~kept] = np.inf
        self.worst = max(self.worst, float(np.max(relative, initial=0.0, where=finite & (values != 0))))

    def _beyond(self, given: Float64s, stored: Float64s, error: Float64s) -> npt.NDArray[np.bool_]:
        """Where a stored number is the end of the range and not the neighbour that rounding would take.

        Nearest even leaves an error of half an ulp at most, and of just half an ulp at even multiples only.
        """
        beyond = (given > self.format.max) | (given < self.format.lowest)
        beyond &= np.isfinite(stored)
        ends, off = np.abs(stored[beyond]), error[beyond]  # few, as a rule
        quantum = np.ldexp(1.0, quantum_exponent(ends, self.format))
        beyond[beyond] = (off > quantum / 2) | ((off == quantum / 2) & (ends / quantum % 2 == 1))
        return beyond


def _sum_of_squares(numbers: Float64s, weights: Counts) -> Fraction:
    """The weighed sum of squares; scaled by a power of two meanwhile, so that no square leaves float64."""
    largest = float(np.max(np.abs(numbers), initial=0.0))
    if largest == 0:
        return Fraction(0)
    exponent = exponent_of(largest)
    scaled = np.ldexp(numbers, -exponent)
    return Fraction(float(weights @ (scaled * scaled))) * Fraction(4) ** exponent


def _decibels(signal: Fraction, noise: Fraction, lost: int) -> float:
    if lost:
        return -math.inf
    if not signal:
        return math.nan
    return math.inf if not noise else 10 * (_log10(signal) - _log10(noise))


def _log10(number: Fraction) -> float:
    return math.log10(number.numerator) - math.log10(number.denominator)  # either may be beyond float64
