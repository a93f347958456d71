"""Correctly rounded arithmetic in any format: + - * / sqrt and fused multiply-add.

For a format of p <= 24 bits (at most float32) the operation is done in float64:

- a product is exact there (2p <= 53);
- a sum, and a product with c added, is taken with its residue, and both are turned into the exact result
  rounded to odd, which may be rounded again to the format as if it were exact (Boldo and Melquiond 2008);
- a quotient or root that is no number of p + 1 bits is at least 2^-(2p + 2) of itself away from all of them,
  so float64's rounding never moves it onto a value of the format, or onto a tie (Figueroa 1995).

float64 itself uses the processor for ``nearest_even``, and exact fractions, one element at a time, for the
other modes and for fma.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from minimp.errors import FormatError, SettingError, ShapeError, unknown_name
from minimp.formats.dice import Dice, Source
from minimp.formats.errorfree import to_odd, two_sum
from minimp.formats.exact import floor_log2, round_fraction
from minimp.formats.rounding import Float64s, dice_for, representable, round_to, widen64
from minimp.formats.roundings import mode_named
from minimp.formats.table import FORMATS, Format, get

__all__ = ["OPERATIONS", "arithmetic", "as_values", "broadcast"]

Pair = tuple[Float64s, Float64s]  # a result rounded to nearest, and the sign of what is missing from it


@dataclass(frozen=True)
class Operation:
    """One operation, three times over.

    Attributes:
        operands: how many it takes.
        native: float64 in, float64 rounded to nearest out; also right for infinities and NaN.
        pair: the same for operands of at most float32's size, with the residue where it matters.
        exact: on fractions, exact (sqrt: to 120 bits).
        addends: the two numbers whose sum an exact zero would be, for the sign of that zero; None for * /
            sqrt.
    """

    operands: int
    native: Callable[..., Float64s]
    pair: Callable[..., Pair]
    exact: Callable[..., Fraction]
    addends: Callable[..., tuple[Float64s, Float64s]] | None = None


def _fma_native(a: Float64s, b: Float64s, c: Float64s) -> Float64s:
    """Right for special values only: a finite a·b that overflows must not meet c's infinity."""
    return np.where(np.isfinite(a) & np.isfinite(b) & ~np.isfinite(c), c, a * b + c)


def _sqrt_exact(a: Fraction) -> Fraction:
    """The root cut to 120 bits: an irrational root of 53 bits differs from any 54-bit number before that."""
    shift = 120 - floor_log2(a) // 2
    scaled = a * Fraction(4) ** shift
    return math.isqrt(scaled.numerator // scaled.denominator) / Fraction(2) ** shift


def _lossless(operation: Callable[..., Float64s]) -> Callable[..., Pair]:
    """A float64 operation whose rounding need not be told."""
    return lambda *operands: (operation(*operands), np.zeros(()))


OPERATIONS: Mapping[str, Operation] = MappingProxyType(
    {
        "add": Operation(2, np.add, two_sum, lambda a, b: a + b, lambda a, b: (a, b)),
        "sub": Operation(
            2, np.subtract, lambda a, b: two_sum(a, -b), lambda a, b: a - b, lambda a, b: (a, -b)
        ),
        "mul": Operation(2, np.multiply, _lossless(np.multiply), lambda a, b: a * b),
        "div": Operation(2, np.divide, _lossless(np.divide), lambda a, b: a / b),
        "sqrt": Operation(1, np.sqrt, _lossless(np.sqrt), _sqrt_exact),
        "fma": Operation(
            3,
            _fma_native,
            lambda a, b, c: two_sum(a * b, c),
            lambda a, b, c: a * b + c,
            lambda a, b, c: (a * b, c),
        ),
    }
)


def arithmetic(
    op: str,
    *operands: npt.ArrayLike,
    fmt: Any,
    rounding: str = "nearest_even",
    overflow: str | None = None,
    rng: Source = None,
) -> Float64s:
    """Compute ``op`` on values of ``fmt`` and round the exact result to ``fmt``, once.

    Args:
        op: ``add`` a + b, ``sub`` a - b, ``mul`` a b, ``div`` a / b, ``sqrt``, ``fma`` a b + c.
        operands: values of ``fmt``, of shapes that broadcast together.
        fmt: anything that ``minimp.formats.get`` knows.
        rounding, overflow, rng: as in ``minimp.formats.round``; ``stochastic`` sees the result at 53 bits.

    Returns:
        A float64 array of the broadcast shape. Special values follow IEEE 754-2019, sections 6 and 7 (an
        exact zero sum of opposite signs is +0, -0 when rounding ``down``), as far as the format has them.

    Raises:
        FormatError: unknown format; an operand is no value of ``fmt``; or the result is NaN, and ``fmt`` has
            none.
        SettingError: unknown operation, rounding or overflow, or the wrong number of operands.
        ShapeError: the operands do not broadcast.

    float64 in a mode other than ``nearest_even``, and its fma, take some 10 microseconds an element: a
    reference, not a kernel.
    """
    fmt, rule = get(fmt), _operation(op, len(operands))
    mode_named(rounding)
    values = broadcast(op, [as_values(each, fmt, op) for each in operands])
    with np.errstate(all="ignore"):
        if fmt.within_float32:
            nearest, residue = rule.pair(*values)
            odd = to_odd(nearest, np.where(np.isfinite(nearest), residue, 0.0))
            odd = _signed_zero(odd, rule, values, rounding)
            result = round_to(odd, fmt, rounding, overflow, rng).astype(np.float64)
        elif rounding == "nearest_even" and op != "fma" and fmt is FORMATS["float64"]:
            result = round_to(rule.native(*values), fmt, rounding, overflow).astype(np.float64)
        else:
            nearest = _signed_zero(rule.native(*values), rule, values, rounding)
            result = _by_fractions(rule, nearest, values, fmt, rounding, overflow, rng)
    return result


def as_values(x: npt.ArrayLike, fmt: Format, op: str) -> Float64s:
    """x in float64, refused where it is no value of ``fmt``."""
    wide = widen64(x)
    strange = ~representable(wide, fmt)
    if strange.any():
        raise FormatError(
            f"expected values of {fmt.name}, but {int(strange.sum())} of {wide.size} are none,"
            f" {wide[strange].flat[0]!r} the first",
            op=op,
            shapes=(wide.shape,),
            formats=(fmt.name,),
            help=f"round first: minimp.formats.round(x, {fmt.name!r})",
        )
    return wide


def _operation(op: str, given: int) -> Operation:
    if op not in OPERATIONS:
        raise SettingError(unknown_name("operation", op, OPERATIONS), op="arithmetic")
    if OPERATIONS[op].operands != given:
        raise SettingError(
            f"expected {OPERATIONS[op].operands} operands, got {given}",
            op=op,
            help="fma takes a, b and c of a·b + c; sqrt takes one operand; the others two",
        )
    return OPERATIONS[op]


def broadcast(op: str, values: list[Float64s]) -> list[Float64s]:
    """Give operands one shape, contiguous; ShapeError if they have none in common."""
    shapes = [each.shape for each in values]
    try:
        return [np.ascontiguousarray(each).reshape(each.shape) for each in np.broadcast_arrays(*values)]
    except ValueError as fault:
        raise ShapeError(
            f"operands of shapes {', '.join(map(str, shapes))} do not broadcast",
            op=op,
            shapes=shapes,
            help="shapes are aligned at their last axis; each axis must agree or be 1",
        ) from fault


def _signed_zero(result: Float64s, rule: Operation, values: list[Float64s], rounding: str) -> Float64s:
    """IEEE 754-2019, 6.3: a zero sum of opposite signs is -0 when rounding down (float64 has given +0)."""
    if rule.addends is None or rounding != "down":
        return result
    left, right = rule.addends(*values)
    return np.where((result == 0) & (np.signbit(left) != np.signbit(right)), -0.0, result)


def _by_fractions(
    rule: Operation,
    native: Float64s,
    values: list[Float64s],
    fmt: Format,
    rounding: str,
    overflow: str | None,
    rng: Source,
) -> Float64s:
    """One exact fraction an element; ``native`` serves special operands and results that are exactly zero."""
    dice = dice_for(rounding, native.shape, rng, None)
    results = np.array(native, np.float64)  # to be filled
    defined = np.logical_and.reduce([np.isfinite(each) for each in values]) & ~np.isnan(native)
    for place in np.ndindex(native.shape):
        exact = _exact_value(rule, [float(each[place]) for each in values]) if defined[place] else None
        if exact:
            own = None if dice is None else Dice(dice.throw[place], dice.bits)
            results[place] = round_fraction(exact, fmt, rounding, overflow, dice=own)
    return round_to(results, fmt, overflow=overflow).astype(np.float64)


def _exact_value(rule: Operation, operands: list[float]) -> Fraction | None:
    try:
        return rule.exact(*map(Fraction, operands))
    except ZeroDivisionError:
        return None
