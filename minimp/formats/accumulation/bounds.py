"""How far a sum can be from the exact one, before it is computed: one bound for each accumulation.

With y = sum_k a_k b_k + c exactly, S = sum_k |a_k b_k| + |c|, and y' what ``matmul`` gives:

    |y' - y| <= (relative S + absolute)(1 + u_out) + u_out |y| + eta_out / 2

u is the unit roundoff 2^-p of a format and eta its smallest number. ``relative`` and ``absolute`` are those
of the sum; the rest is its rounding to the output, which falls away where the output holds the sum as it is.
Nothing here holds beyond overflow: the bound is infinite where S comes near the largest number.

Running sums have the bound n u S for n additions, without the usual denominator 1 - n u, whatever K is. Let
E_n be the error after n additions and S_n the terms' magnitudes so far. The sum before, s, is a number of the
format, so adding t errs by at most |t|; also by at most u |s + t| <= u (E_(n-1) + S_n). Use the first where
|t| <= u S_(n-1), the second elsewhere: in both cases E_n <= E_(n-1) + u S_n + (n - 1) u |t|, so that
E_n <= n u S_n. (Rump 2012, for terms of the format; the terms may be any numbers here, as in a fused
multiply-add.) What underflow adds is eta/2 for each result that is no multiple of eta.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from minimp.errors import SettingError
from minimp.formats.accumulation.orders import Accumulate, parse_accumulate, require_room
from minimp.formats.accumulation.tensorcore import UNITS, unit_for
from minimp.formats.rounding import Float64s
from minimp.formats.table import FORMATS, Format, get

__all__ = ["BOUNDS", "ErrorBound", "error_bound"]

_FLOAT32 = FORMATS["float32"]


@dataclass(frozen=True)
class ErrorBound:
    """The bound of one accumulation.

    Attributes:
        accumulate: its name. terms: K.
        relative: what multiplies S; infinite where no bound is known.
        absolute: what underflow can add.
        output_unit: u_out, 0 where the output holds the sum.
        output_floor: eta_out / 2, 0 where the output holds the sum.
        limit: S from which on something may overflow: a quarter of the largest number, less what errors add.
        normalised: whether a product counts by its own size. A matrix unit does not normalise its factors: to
            it a subnormal factor is as large as the smallest normal number.
        formula: ``relative`` as text.
        source: where it comes from.
    """

    accumulate: str
    terms: int
    relative: float
    absolute: float
    output_unit: float
    output_floor: float
    limit: float
    formula: str
    source: str
    fmt: Format = field(repr=False)
    normalised: bool = True

    def magnitudes(self, a: npt.ArrayLike, b: npt.ArrayLike, c: npt.ArrayLike = 0.0) -> Float64s:
        """Compute S = |A| |B| + |C|.  (..., M, K), (..., K, N) -> (..., M, N)

        In float64, raised by what its own roundings can take off.
        """
        left, right = (np.abs(np.asarray(each).astype(np.float64)) for each in (a, b))
        if not self.normalised:
            smallest = self.fmt.smallest_normal
            left, right = (np.where(each > 0, np.maximum(each, smallest), 0.0) for each in (left, right))
        added = left @ right + np.abs(np.asarray(c, np.float64))
        return np.asarray(added * (1 + (self.terms + 2) * 2.0**-52))

    def of(self, magnitudes: npt.ArrayLike, result: npt.ArrayLike) -> Float64s:
        """How far each result can be from the exact one.

        Args:
            magnitudes: S, an array.
            result: the exact sums y, or the computed ones: a factor of 1 / (1 - u_out) covers the difference.

        Returns:
            The bound, an array of their shape; infinite where S reaches ``limit``.
        """
        size, value = np.asarray(magnitudes, np.float64), np.abs(np.asarray(result, np.float64))
        u = self.output_unit
        with np.errstate(invalid="ignore", over="ignore"):
            error = (self.relative * size + self.absolute) * (1 + u) + u * value + self.output_floor
            return np.asarray(np.where(size < self.limit, error / (1 - u) * (1 + 2.0**-50), np.inf))


@dataclass(frozen=True)
class Case:
    """What a bound depends on.

    Attributes:
        terms: K.
        how: the accumulation.
        fmt: the factors' format.
        bits: the significand bits of a product.
        lowest: the exponent of the last place of the smallest product.
    """

    terms: int
    how: Accumulate
    fmt: Format
    bits: int
    lowest: int

    def rounds(self, held: Format) -> bool:
        """Whether a product may be inexact in ``held``."""
        return self.bits > held.precision or self.vanishes(held)

    def vanishes(self, held: Format) -> bool:
        """Whether a product may be no multiple of ``held``'s smallest number."""
        return self.lowest < held.emin - held.mantissa_bits


Sized = tuple[float, float]  # relative, absolute


@dataclass(frozen=True)
class Row:
    """One row of ``BOUNDS``: the sum's error, the same as text, and its source."""

    error: Callable[[Case], Sized]
    formula: str
    source: str


def _unit(held: Format) -> float:
    return 2.0**-held.precision


def _products(case: Case, held: Format) -> Sized:
    """The error of all products rounded to ``held``."""
    relative = _unit(held) if case.bits > held.precision else 0.0
    return relative, case.terms * held.smallest_subnormal / 2 if case.vanishes(held) else 0.0


def _added(terms: Sized, additions: int, held: Format, vanishing: float = 0.0) -> Sized:
    """The error of a running sum in ``held`` of terms that are off by ``terms`` already.

    vanishing: what underflow can take in one addition, where the terms are finer than the format.
    """
    u, (relative, absolute) = _unit(held), terms
    growth = additions * u
    lost = additions * vanishing * (1 + u) ** additions
    return relative + growth * (1 + relative), absolute * (1 + growth) + lost


def _running(held: Format) -> Callable[[Case], Sized]:
    """K products, each rounded, and K additions, the first to c."""
    return lambda case: _added(_products(case, held), case.terms, held)


def _fused(held: Format) -> Callable[[Case], Sized]:
    """K additions of exact products."""

    def error(case: Case) -> Sized:
        vanishing = held.smallest_subnormal / 2 if case.vanishes(held) else 0.0
        return _added((0.0, 0.0), case.terms, held, vanishing)

    return error


def _gamma(roundings: int, u: float) -> float:
    """n u / (1 - n u): what n factors (1 + d), |d| <= u, can do together (Higham 2002, Lemma 3.1)."""
    return roundings * u / (1 - roundings * u) if roundings * u < 1 else math.inf


def _tree(held: Format, depth: Callable[[int], int]) -> Callable[[Case], Sized]:
    """A term meets its product's rounding and ``depth`` additions."""

    def error(case: Case) -> Sized:
        relative, absolute = _products(case, held)
        added = _gamma(depth(case.terms), _unit(held))
        return relative + added * (1 + relative), absolute * (1 + added)

    return error


def _kahan(case: Case) -> Sized:
    """3 u + 10 K u^2 for sums, K u <= 1/8.

    In each step the term less the correction is rounded once, and once more as the difference of two sums, if
    at all: 2 u |x_k|. The last sum's own rounding, which nothing corrects, adds u S. The corrections are off
    by u of themselves, and each is at most u S: 4 u^2 S a step, and 5 u^2 S in all.
    """
    u, (relative, absolute) = _unit(_FLOAT32), _products(case, _FLOAT32)
    added = 3 * u + 10 * case.terms * u * u if case.terms * u <= 1 / 8 else math.inf
    return relative + added * (1 + relative), absolute * (1 + added)


def _chunked(case: Case) -> Sized:
    """B - 1 additions in a chunk, whose first term meets +0; then one addition for each chunk."""
    size, held = case.how.size or 1, case.how.format
    inside = _added(_products(case, _FLOAT32), min(size, case.terms) - 1, _FLOAT32)
    vanishing = held.smallest_subnormal / 2 if case.vanishes(held) else 0.0
    return _added(inside, -(-case.terms // size), held, vanishing)


def _splitk(case: Case) -> Sized:
    """ceil(K / S) additions in a run, then one for each run but the first."""
    length = max(1, -(-case.terms // (case.how.size or 1)))
    inside = _added(_products(case, _FLOAT32), length, _FLOAT32)
    return _added(inside, -(-case.terms // length) - 1, _FLOAT32)


def _matrix_unit(case: Case) -> Sized:
    """A step cuts L of its L + 1 terms at 2^(emax - F), and its sum to p bits.

    The term with the largest exponent is whole above that place, and 2^emax is at most the largest of the
    magnitudes. Cutting makes nothing larger, so every sum stays within S, and the steps' errors just add up.
    A first accumulator of float32 may be cut too. Where all is below float32's smallest normal number, so is
    the place of the cut.
    """
    unit = unit_for(case.how.name.partition(":")[2], case.fmt)
    taken, steps = min(unit.terms, case.terms), -(-case.terms // unit.terms)
    place, last = 2.0**-unit.fraction_bits, unit.result.mantissa_bits
    relative = (steps * taken + 1) * place + steps * 2.0**-last
    lowest = unit.result.smallest_subnormal + (unit.terms + 1) * place * unit.result.smallest_normal
    return relative, steps * lowest


_RUMP = "Rump 2012 (BIT 52:201), sums; the module's own step for any terms"
_HIGHAM = "Higham 2002, Accuracy and Stability of Numerical Algorithms, 2nd ed., {}"

_ROWS = {
    "float32": Row(
        _tree(_FLOAT32, lambda K: K),
        "r + gamma_K (1 + r), gamma_K = K u / (1 - K u), u = 2^-24",
        _HIGHAM.format("section 4.2, any order"),
    ),
    "float32:sequential": Row(_running(_FLOAT32), "r + K u (1 + r), u = 2^-24", _RUMP),
    "float64": Row(
        _tree(FORMATS["float64"], lambda K: K),
        "r + gamma_K (1 + r), gamma_K = K u / (1 - K u), u = 2^-53",
        _HIGHAM.format("section 4.2, any order"),
    ),
    "exact": Row(lambda _: (0.0, 0.0), "0", "one rounding, to the output (IEEE 754-2019, 4.3.1)"),
    "float16": Row(_running(FORMATS["float16"]), "r + K u (1 + r), u = 2^-11", _RUMP),
    "float16:fma": Row(_fused(FORMATS["float16"]), "K u, u = 2^-11", _RUMP),
    "bfloat16": Row(_running(FORMATS["bfloat16"]), "r + K u (1 + r), u = 2^-8", _RUMP),
    "chunked:B": Row(
        _chunked,
        "e + ceil(K/B) u (1 + e), e = r + (B - 1) v (1 + r), u = 2^-11, v = 2^-24",
        "Blanchard, Higham and Mary 2020 (SIAM J. Sci. Comput. 42:A1541), with two precisions",
    ),
    "pairwise": Row(
        _tree(_FLOAT32, lambda K: 1 + math.ceil(math.log2(max(K, 1)))),
        "r + gamma_n (1 + r), n = 1 + ceil(log2 K), gamma_n = n u / (1 - n u), u = 2^-24",
        _HIGHAM.format("section 4.2, (4.6)"),
    ),
    "kahan": Row(
        _kahan,
        "r + e (1 + r), e = 3 u + 10 K u^2, u = 2^-24, K u <= 1/8",
        _HIGHAM.format("section 4.3, (4.8): 2 u + O(K u^2)") + "; constants derived here",
    ),
    "splitk:S": Row(
        _splitk,
        "e + (R - 1) u (1 + e), e = r + m u (1 + r), m = ceil(K/S), R = ceil(K/m), u = 2^-24",
        "Blanchard, Higham and Mary 2020 (SIAM J. Sci. Comput. 42:A1541), blocks of one precision",
    ),
}
_UNIT_ROW = Row(
    _matrix_unit,
    "(n L + 1) 2^-F + n 2^-m, n = ceil(K/L); m bits of the result's fraction",
    "derived from the model of Fasi, Higham, Mikaitis and Pranesh 2021 (PeerJ CS 7:e330)",
)
BOUNDS: Mapping[str, Row] = MappingProxyType(_ROWS | {f"tensorcore:{name}": _UNIT_ROW for name in UNITS})


def error_bound(
    accumulate: str, K: int, *, fmt: Any, output: Any = None, products: bool = True
) -> ErrorBound:
    """Bound the error of ``matmul`` and ``sum`` before anything is computed.

    Args:
        accumulate: a name that ``minimp.formats.matmul`` knows.
        K: how many terms a sum has. A start c is counted in S, and its addition in the bound.
        fmt: the factors' format.
        output: the format of the result; ``fmt`` when None.
        products: whether terms are products of two values of ``fmt``, or (sums) single values.

    Returns:
        The bound; see ``ErrorBound``. r in its formula is u of the format that products are rounded to, or 0
        where they are exact there.

    Raises:
        FormatError: unknown format.
        SettingError: unknown accumulation, one that cannot hold ``fmt``, or K < 0.
    """
    fmt, how = get(fmt), parse_accumulate(accumulate)
    target = fmt if output is None else get(output)
    require_room(fmt, how, "error_bound")
    if K < 0:
        raise SettingError(f"expected a number of terms, got {K}", op="error_bound", help="K is 0 or more")
    twice, lowest = 2 if products else 1, fmt.emin - fmt.mantissa_bits
    case = Case(K, how, fmt, twice * fmt.precision, twice * lowest)
    row = BOUNDS[how.order]
    relative, absolute = row.error(case) if K else (0.0, 0.0)
    held = None if how.order == "exact" else how.format
    rounded = held is None or not _holds(target, held)
    edges = [_edge(each) for each in (held, target, _FLOAT32 if how.order == "chunked:B" else None) if each]
    return ErrorBound(
        accumulate,
        K,
        relative,
        absolute,
        _unit(target) if rounded else 0.0,
        _floor(target) if rounded else 0.0,
        (min(edges) / 4 - absolute) / (1 + relative),
        row.formula,
        row.source,
        fmt,
        normalised=not how.order.startswith("tensorcore:"),
    )


def _holds(wide: Format, narrow: Format) -> bool:
    """Whether every value of one format is a value of another."""
    places = wide.emin - wide.mantissa_bits <= narrow.emin - narrow.mantissa_bits
    return places and wide.precision >= narrow.precision and wide.max >= narrow.max


def _floor(fmt: Format) -> float:
    """How far a tiny number moves at most: half the smallest, or all of it where subnormals are missing."""
    return fmt.smallest_subnormal / 2 if fmt.has_subnormals or fmt.is_integer else fmt.smallest_normal


def _edge(held: Format) -> float:
    """Magnitudes below this round to finite numbers."""
    return min(held.max, -held.lowest)
