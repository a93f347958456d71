"""Operations on exact numbers, and what their rounding does to an operand."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from types import MappingProxyType

import numpy as np

from minimp.formats.exact import floor_log2
from minimp.formats.inspection.anatomy import Inspection, inspect
from minimp.formats.operations import OPERATIONS
from minimp.formats.table import Format

__all__ = ["absorbed", "before_rounding", "cancelled", "exactly", "is_irrational", "with_sign"]

Exact = Fraction | float
ROOT_BITS = 300
"""To which an irrational root is cut: far beyond any format, so that it is rounded like the root itself."""


def _root(a: Fraction) -> Fraction | None:
    if a < 0:
        return None
    whole = Fraction(math.isqrt(a.numerator), math.isqrt(a.denominator))
    if whole * whole == a:
        return whole
    shift = ROOT_BITS - floor_log2(a) // 2
    scaled = a * Fraction(4) ** shift
    return math.isqrt(scaled.numerator // scaled.denominator) / Fraction(2) ** shift


_RULES: Mapping[str, Callable[..., Fraction | None]] = MappingProxyType(
    {
        "neg": lambda a: -a,
        "abs": abs,
        "add": lambda a, b: a + b,
        "sub": lambda a, b: a - b,
        "mul": lambda a, b: a * b,
        "div": lambda a, b: a / b if b else None,
        "fma": lambda a, b, c: a * b + c,
        "sqrt": _root,
    }
)


def exactly(operation: str, *operands: Fraction) -> Fraction | None:
    """Calculate with fractions, roots to 300 bits; None where the result is no number."""
    return _RULES[operation](*operands)


def is_irrational(operation: str, operand: Exact, exact: Exact) -> bool:
    """Whether an exact result is an irrational root, which has been cut."""
    return operation == "sqrt" and isinstance(exact, Fraction) and exact * exact != Fraction(operand)


def with_sign(operation: str, x: Exact) -> Exact:
    """``neg`` or ``abs`` of an exact number; a negative zero is a float."""
    if isinstance(x, Fraction):
        return abs(x) if operation == "abs" else -x if x else -0.0
    return abs(x) if operation == "abs" else -x


def before_rounding(operation: str, operands: list[float]) -> tuple[Exact, tuple[str, ...]]:
    """The result of an operation on values of a format, not yet rounded; and IEEE 754's flags that came up.

    Operands that are infinite or NaN, a zero divisor and the root of a negative number give inf or NaN as
    IEEE 754-2019 has it (6.1, 7.2, 7.3).
    """
    if operation in ("neg", "abs"):
        changed = with_sign(operation, operands[0])
        return (Fraction(changed) if math.isfinite(changed) else changed), ()
    finite = all(map(math.isfinite, operands))
    exact = exactly(operation, *map(Fraction, operands)) if finite else None
    if exact is not None:
        return exact, ()
    with np.errstate(all="ignore"):  # their warnings are the flags here
        special = float(OPERATIONS[operation].native(*map(np.float64, operands)))
    if math.isnan(special):
        return special, () if any(map(math.isnan, operands)) else ("invalid",)
    return special, ("division_by_zero",) * (operation == "div" and finite)


def _addends(operation: str, operands: list[float]) -> tuple[Fraction, Fraction] | None:
    """The two numbers that an operation adds; None where it adds none, or they are not finite."""
    if operation not in ("add", "sub", "fma") or not all(map(math.isfinite, operands)):
        return None
    *factors, last = map(Fraction, operands)
    return math.prod(factors, start=Fraction(1)), -last if operation == "sub" else last


def absorbed(operation: str, operands: list[float], seen: Inspection) -> int | None:
    """The index of the operand that had no effect on a rounded sum; None if both had.

    seen: the result. In ``fma`` 0 stands for the product. An exact or overflowing sum has absorbed nothing.
    """
    addends = _addends(operation, operands)
    if addends is None or not all(addends) or "inexact" not in seen.flags or "overflow" in seen.flags:
        return None
    first, last = addends
    if seen.value == last:
        return 0
    if operation == "fma" and seen.rounding != "stochastic":
        first = Fraction(_finite(inspect(first, seen.format, seen.rounding).value))
    return len(operands) - 1 if seen.value == first else None


def _finite(x: float) -> float:
    return x if math.isfinite(x) else 0.0


def cancelled(operation: str, operands: list[float], exact: Exact, fmt: Format) -> int:
    """How many leading bits cancel in a sum: floor(log2) of the larger addend less that of the exact sum."""
    addends = _addends(operation, operands)
    if addends is None or not isinstance(exact, Fraction) or addends[0] * addends[1] >= 0:
        return 0
    if not exact:
        return fmt.precision
    return max(0, floor_log2(max(map(abs, addends))) - floor_log2(abs(exact)))
