"""What adding up K terms can do to a sum: the bounds of :mod:`minimp.formats`, as the engine accumulates."""

from __future__ import annotations

from dataclasses import dataclass

from minimp import formats
from minimp.formats import Format
from minimp.formats.accumulation.bounds import error_bound
from minimp.formats.accumulation.orders import parse_accumulate

__all__ = ["U64", "Sum", "edge_of", "sum_of"]

U64 = 2.0**-53


@dataclass(frozen=True)
class Sum:
    """The error of a sum: |computed - exact| <= gamma · (sum of the terms' magnitudes) + floor.

    Attributes:
        gamma: the relative part; infinite where no bound is known.
        floor: what is lost by underflow.
        edge: magnitudes from here on may overflow on the way.
        least: what a factor that is not 0 counts as, at least; matrix units do not normalise subnormals.
    """

    gamma: float
    floor: float
    edge: float
    least: float


def sum_of(name: str, length: int, wide: Format, fmt: Format | None = None) -> Sum:
    """Return the error of a sum of `length` terms.

    Args:
        name: how it is accumulated, a name of :func:`minimp.formats.matmul`.
        length: K.
        wide: the format computed in; float64 tensors take the names "float32" and "float64" as float64.
        fmt: the factors' format, for products; None for terms, which are numbers of `wide`.
    """
    name = "float64" if wide is formats.float64 and name == "float32" else name
    factors = wide if fmt is None else fmt
    bound = error_bound(name, length, fmt=factors, output=formats.float64, products=fmt is not None)
    least = 0.0 if bound.normalised else factors.smallest_normal
    own = length * U64  # the reference is a float64 sum itself
    return Sum(bound.relative + own, bound.absolute, edge_of(parse_accumulate(name).format), least)


def edge_of(fmt: Format) -> float:
    """Return the smallest magnitude that rounds to infinity in `fmt`; float64's own largest number for it."""
    if fmt is formats.float64:
        return fmt.max
    return float(fmt.max + 2.0 ** (fmt.emax - fmt.mantissa_bits - 1))
