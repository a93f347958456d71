"""What adding up K terms can do to a sum, for each way in which the engine accumulates."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from minimp import formats
from minimp.formats import Format
from minimp.formats.accumulation import Accumulate, parse_accumulate
from minimp.formats.tensorcore import unit_for

__all__ = ["GAMMAS", "U64", "Sum", "edge_of", "sum_of"]

U64 = 2.0**-53
_U32, _U16, _UB16 = 2.0**-24, 2.0**-11, 2.0**-8


@dataclass(frozen=True)
class Sum:
    """The error of a sum: |computed - exact| <= gamma · (sum of the terms' magnitudes) + floor.

    Attributes:
        gamma: the relative part; infinite where no bound holds (K u >= 1).
        floor: what products lose by underflow.
        edge: magnitudes from here on may overflow on the way.
    """

    gamma: float
    floor: float
    edge: float


@dataclass(frozen=True)
class Terms:
    """What a gamma depends on.

    Attributes:
        length: K, the number of terms.
        how: the accumulation as it was named.
        fmt: the format of the factors.
    """

    length: int
    how: Accumulate
    fmt: Format


def _higham(roundings: float) -> float:
    """gamma = n u / (1 - n u), given n u (Higham, Accuracy and Stability, 2nd ed., Lemma 3.1)."""
    return roundings / (1 - roundings) if roundings < 1 else float("inf")


def _plain(unit: float, more: int = 0) -> Callable[[Terms], float]:
    """A term passes K roundings, its product's and at most K - 1 sums'; or `more` than that."""
    return lambda terms: _higham((terms.length + more) * unit)


def _tree(terms: Terms) -> float:
    """A term passes its product's rounding and at most ceil(log2 K) sums."""
    return _higham((1 + math.ceil(math.log2(max(terms.length, 1)))) * _U32)


def _compensated(terms: Terms) -> float:
    """2 u + O(K u^2) for Kahan's sum (Higham, section 4.3), and u for the product."""
    return _higham(3 * _U32) + 8 * terms.length * _U32**2


def _runs(terms: Terms) -> float:
    """ceil(K / S) roundings inside a run, then S sums of runs."""
    runs = terms.how.size or 1
    return _higham((-(-terms.length // runs) + runs) * _U32)


def _chunks(terms: Terms) -> float:
    """B float32 roundings inside a chunk, then one float16 rounding for each chunk."""
    size = terms.how.size or 1
    return _higham(min(terms.length, size) * _U32 + -(-terms.length // size) * _U16)


def _unit(terms: Terms) -> float:
    """Each step cuts L + 1 terms F bits below the largest, and the sum to float32.

    The largest exponent belongs to a product's factors or to the running sum, so 2^emax is at most the sum of
    the magnitudes, and a step loses less than ((L + 1) 2^-F + 2^-23) of that.
    """
    unit = unit_for(terms.how.name.partition(":")[2], terms.fmt)
    steps = -(-terms.length // unit.terms)
    return _higham(steps * ((unit.terms + 1) * 2.0**-unit.fraction_bits + 2.0**-23))


def _rounded_at_the_end(_: Terms) -> float:
    """The exact sum comes as float64."""
    return U64


GAMMAS: Mapping[str, Callable[[Terms], float]] = MappingProxyType(
    {
        "exact": _rounded_at_the_end,
        "float64": _plain(U64),
        "float32": _plain(_U32),
        "float32:sequential": _plain(_U32),
        "pairwise": _tree,
        "kahan": _compensated,
        "splitk:S": _runs,
        "float16": _plain(_U16, more=1),
        "float16:fma": _plain(_U16),
        "bfloat16": _plain(_UB16, more=1),
        "chunked:B": _chunks,
    }
)
"""The order of accumulation, a key of :data:`minimp.formats.accumulation.ACCUMULATES` -> its gamma.

The orders that are missing here are matrix units: :func:`_unit`.
"""


def sum_of(name: str, length: int, wide: Format, fmt: Format | None = None) -> Sum:
    """Return the error of a sum of `length` terms.

    Args:
        name: how it is accumulated, a name of :func:`minimp.formats.matmul`.
        length: K.
        wide: the format computed in; float64 tensors take the names "float32" and "float64" as float64.
        fmt: the factors' format; only tensor cores ask.
    """
    how = parse_accumulate("float64" if wide is formats.float64 and name == "float32" else name)
    gamma = GAMMAS.get(how.order, _unit)(Terms(length, how, formats.float16 if fmt is None else fmt))
    floor = length * how.format.smallest_subnormal
    if how.size and how.order == "chunked:B":  # products are float32's; only the sums of chunks may be cut
        floor = length * formats.float32.smallest_subnormal
        floor += -(-length // how.size) * how.format.smallest_subnormal
    return Sum(gamma + length * U64, floor, edge_of(how.format))


def edge_of(fmt: Format) -> float:
    """Return the smallest magnitude that rounds to infinity in `fmt`; float64's own largest number for it."""
    if fmt is formats.float64:
        return fmt.max
    return float(fmt.max + 2.0 ** (fmt.emax - fmt.mantissa_bits - 1))
