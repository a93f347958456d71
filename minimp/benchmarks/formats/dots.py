"""One dot product by each accumulation, on exact fractions: what the timed kernels are checked against.

A term at a time, in the words of ``minimp.formats.matmul``, and sharing nothing with its kernels but the
rounding of one fraction. Every sum starts from +0; no factor is zero, infinite or NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from functools import reduce
from itertools import pairwise as steps
from types import MappingProxyType

from minimp.errors import MinimpError
from minimp.formats.accumulation.orders import parse_accumulate
from minimp.formats.accumulation.tensorcore import unit_for
from minimp.formats.exact import floor_log2, round_fraction
from minimp.formats.table import FORMATS, Format

__all__ = ["DOTS", "allowed_error", "dot"]

Terms = Sequence[tuple[Fraction, Fraction]]
_FLOAT16, _BFLOAT16, _FLOAT32 = FORMATS["float16"], FORMATS["bfloat16"], FORMATS["float32"]


def _fl(value: Fraction, fmt: Format, rounding: str = "nearest_even") -> Fraction:
    return Fraction(round_fraction(value, fmt, rounding))


def _exact(terms: Terms) -> Fraction:
    return sum((a * b for a, b in terms), Fraction(0))


def _running(terms: Terms, fmt: Format) -> Fraction:
    return reduce(lambda total, ab: _fl(total + _fl(ab[0] * ab[1], fmt), fmt), terms, Fraction(0))


def _fused(terms: Terms, fmt: Format) -> Fraction:
    return reduce(lambda total, ab: _fl(total + ab[0] * ab[1], fmt), terms, Fraction(0))


def _runs(terms: Terms, size: int) -> Iterator[Terms]:
    return (terms[first:last] for first, last in steps([*range(0, len(terms), size), len(terms)]))


def _chunked(terms: Terms, size: int) -> Fraction:
    chunks = (_running(run, _FLOAT32) for run in _runs(terms, size))
    return reduce(lambda total, chunk: _fl(total + chunk, _FLOAT16), chunks, Fraction(0))


def _splitk(terms: Terms, parts: int) -> Fraction:
    sums = (_running(run, _FLOAT32) for run in _runs(terms, -(-len(terms) // parts)))
    return reduce(lambda total, part: _fl(total + part, _FLOAT32), sums)


def _pairwise(terms: Terms) -> Fraction:
    if len(terms) == 1:
        return _running(terms, _FLOAT32)
    half = 1 << (len(terms) - 1).bit_length() - 1
    return _fl(_pairwise(terms[:half]) + _pairwise(terms[half:]), _FLOAT32)


def _kahan(terms: Terms) -> Fraction:
    total = lost = Fraction(0)
    for a, b in terms:
        term = _fl(_fl(a * b, _FLOAT32) - lost, _FLOAT32)
        bigger = _fl(total + term, _FLOAT32)
        lost = _fl(_fl(bigger - total, _FLOAT32) - term, _FLOAT32)
        total = bigger
    return total


def _tensor_core(terms: Terms, name: str, inputs: Format) -> Fraction:
    unit = unit_for(name, inputs)
    total = Fraction(0)
    for block in _runs(terms, unit.terms):
        height = [_height(a, inputs) + _height(b, inputs) for a, b in block]
        top = max(unit.floor, _height(total, _FLOAT32) if total else unit.floor, *height)
        ulp = Fraction(2) ** (top - unit.fraction_bits)
        total = ulp * sum(int(each / ulp) for each in (total, *(a * b for a, b in block)))  # int() cuts
        total = _fl(total, unit.result, "toward_zero")
    return total


def _height(value: Fraction, fmt: Format) -> int:
    """The exponent that the code of a value has: a subnormal's is emin."""
    return max(floor_log2(abs(value)), fmt.emin)


Rule = Callable[[Terms, str, int, Format], Fraction]
DOTS: Mapping[str, Rule] = MappingProxyType(
    {
        "exact": lambda terms, *_: _exact(terms),
        "float32": lambda terms, *_: _exact(terms),
        "float64": lambda terms, *_: _exact(terms),
        "float32:sequential": lambda terms, *_: _running(terms, _FLOAT32),
        "float16": lambda terms, *_: _running(terms, _FLOAT16),
        "float16:fma": lambda terms, *_: _fused(terms, _FLOAT16),
        "bfloat16": lambda terms, *_: _running(terms, _BFLOAT16),
        "chunked:B": lambda terms, _, size, __: _chunked(terms, size),
        "pairwise": lambda terms, *_: _pairwise(terms),
        "kahan": lambda terms, *_: _kahan(terms),
        "splitk:S": lambda terms, _, size, __: _splitk(terms, size),
        "tensorcore": lambda terms, unit, _, inputs: _tensor_core(terms, unit, inputs),
    }
)
"""Order -> its sum of (terms, what follows ``tensorcore:``, B or S, the inputs' format)."""


def dot(a: Sequence[float], b: Sequence[float], accumulate: str, inputs: Format) -> Fraction:
    """Sum a_k b_k as `accumulate` says; the exact sum where it states no order. Not yet rounded to an output.

    Raises:
        MinimpError: there is no rule here for `accumulate`.
    """
    how = parse_accumulate(accumulate)
    family, _, unit = how.order.partition(":")
    rule = DOTS.get(how.order, DOTS.get(family) if family == "tensorcore" else None)
    if rule is None:
        raise MinimpError(
            f"accumulate={accumulate!r} has no reference to be checked against",
            op="bench formats",
            help="add its rule to minimp.benchmarks.formats.dots.DOTS",
        )
    terms = [(Fraction(x), Fraction(y)) for x, y in zip(a, b, strict=True)]
    return rule(terms, unit, how.size or 0, inputs)


def allowed_error(a: Sequence[float], b: Sequence[float], accumulate: str, output: Format) -> float:
    """How far a result may be from :func:`dot` rounded to `output`: 0 but where the order is not stated.

    There it is gamma_K sum|a||b|, gamma_K = K u / (1 - K u), and one ulp of the output, into which that may
    carry the rounding.
    """
    if accumulate not in ("float32", "float64"):
        return 0.0
    unit = 0.5 * FORMATS[accumulate].eps
    mass = float(sum(abs(x * y) for x, y in zip(a, b, strict=True)))
    gamma = len(a) * unit / (1.0 - len(a) * unit)
    return mass * (gamma + output.eps)
