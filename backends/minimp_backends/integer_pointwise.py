"""Codes by table, products of two scales, and softmax: what is done code by code or along one axis.

**Tables.** A code has 256 values, so any function of one number is a table of 256 codes; it lies in the order
of bytes (:func:`code_table`), so that the byte of a code is the place of its result.

**Softmax.** With d = max q - q, a whole number from 0 to 255, e^(x - max x) = e^(-s d): 256 values, held as
E[d] = rint(2^30 e^(-s d)). A sum of these is exact in int64. With `steps` = 1/s_out, the result is

    qmin + min(floor((2 steps E[d] + S) / (2 S)), qmax - qmin),   S = sum E[d],

the quotient steps E/S rounded to nearest, halves up. E is off by 1/2 at most, E[0] not at all, so that S is
at least 2^30. With N codes along the axis, p the true softmax and code - qmin its estimate of steps p,

    |code - qmin - steps p| <= 1/2 + steps (N + 1) 2^-31

where nothing is clamped: 1/2 + 1.2e-7 (N + 1) for 256 steps. TFLite's reference kernel does the job in 32
bits (lite/kernels/internal/reference/softmax.h): gemmlowp's fixed-point exponential of s d in Q5.26, sums in
Q12.19, which end at 4096, a reciprocal by Newton's method, and no term at all where s d is beyond Q5.26. Its
optimised kernel has a table of float32 and sums in float32.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from minimp.errors import FormatError, SettingError, ShapeError
from minimp_backends.integer_checks import Array, check_codes
from minimp_backends.integer_checks import zero_points as as_zero_points
from minimp_backends.requantizing import Requantizing, clamp_of, requantize

__all__ = [
    "ONE", "IntegerPointwise", "code_table", "exp_table", "integer_lookup", "integer_mul", "integer_softmax",
]  # fmt: skip

ONE = 1 << 30
"""What stands for 1 in a table of exponentials."""


# ---- tables ----------------------------------------------------------------------------------------------


def code_table(codes: np.dtype[Any]) -> Array:
    """Return every code of a dtype, where its byte, read as uint8, points: 0..127, -128..-1 for int8."""
    return np.arange(256, dtype=np.uint8).view(codes)


def integer_lookup(x: Array, table: Array) -> Array:
    """Return the entry of a table for each code.  (...) int8 | uint8 -> (...) of the table's dtype.

    Args:
        x: codes.
        table: (256,), in the order of :func:`code_table` of x's dtype; int8 or uint8.

    Raises:
        FormatError: x or the table holds no codes.
        ShapeError: the table has another length.
    """
    op = "integer_lookup"
    check_codes(op, x, table)
    _check_table(op, table)
    return np.take(table, x.view(np.uint8), mode="clip")  # "raise" would go over the indices once more


def _check_table(op: str, table: Array) -> None:
    if table.shape != (256,):
        raise ShapeError(
            f"a table has an entry for each of 256 codes, got {table.shape}", op=op, shapes=(table.shape,),
            help="code_table(dtype) has the codes in the order of the entries",
        )  # fmt: skip


# ---- products --------------------------------------------------------------------------------------------


def integer_mul(
    a: Array, b: Array, multiplier: float, zero_points: tuple[int, int, int], qmin: int, qmax: int,
    mode: str = "float", *, relu: bool = False, dtype: npt.DTypeLike | None = None,
) -> Array:  # fmt: skip
    """Multiply codes of two scales: clamp(round((a - z_a) (b - z_b) M) + z, qmin, qmax), M = s_a s_b / s.

    int8 | uint8 of shapes that broadcast -> int8 | uint8. The product of differences, 255^2 at most, is exact
    in int32 and in float32.

    Args:
        a, b: codes.
        multiplier: M.
        zero_points: z_a, z_b and z.
        qmin, qmax, mode, relu, dtype: as of :func:`~minimp_backends.requantizing.requantize`.

    Raises:
        FormatError: a or b holds no codes.
        ShapeError: they do not broadcast.
        SettingError: a mode, multiplier, zero point or range of codes that cannot be.
    """
    op = "integer_mul"
    check_codes(op, a, b)
    clamp_of(op, zero_points[2], qmin, qmax, relu=relu, dtype=dtype)
    left, right = (
        each.astype(np.int32) - as_zero_points(op, "zero_points", zero, each, ()).astype(np.int32)
        for each, zero in zip((a, b), zero_points[:2], strict=True)
    )
    try:
        products = left * right
    except ValueError:
        raise ShapeError(
            f"codes of {a.shape} and {b.shape} do not broadcast", op=op, shapes=(a.shape, b.shape),
            help="give both one shape",
        ) from None  # fmt: skip
    return requantize(products, multiplier, zero_points[2], qmin, qmax, mode, relu=relu, dtype=dtype)


# ---- softmax ---------------------------------------------------------------------------------------------


def exp_table(scale: float) -> Array:
    """Return E[d] = rint(2^30 e^(-scale d)) for d = 0..255, int32.

    Raises:
        SettingError: a scale that is not positive and finite.
    """
    if not 0 < scale < np.inf:
        raise SettingError(f"a scale must be positive and finite, got {scale}", op="exp_table")
    with np.errstate(over="ignore", under="ignore"):
        terms: Array = np.rint(ONE * np.exp(-np.float64(scale) * np.arange(256)))
    return terms.astype(np.int32)


def integer_softmax(
    x: Array, table: Array, axis: int = -1, *, steps: int = 256, qmin: int = -128, qmax: int = 127,
    dtype: npt.DTypeLike | None = None,
) -> Array:  # fmt: skip
    """Return the codes of softmax along an axis, see the module's head.  (...) -> (...), int8 | uint8.

    Args:
        x: codes, all of one scale; their zero point does not matter.
        table: what :func:`exp_table` made of that scale.
        axis: where numbers are normalised.
        steps: the inverse of the result's scale.
        qmin, qmax: the least and the largest code; qmin is that of 0.
        dtype: of the codes; int8 where qmin is negative, else uint8.

    Raises:
        FormatError: x holds no codes, or the table no int32.
        ShapeError: x has no such axis, or nothing along it; a table of another length.
        SettingError: steps or codes that cannot be.
    """
    op = "integer_softmax"
    check_codes(op, x)
    (_, _, most), chosen = clamp_of(op, qmin, qmin, qmax, relu=False, dtype=dtype)
    _check_table(op, table)
    if table.dtype != np.int32:
        raise FormatError(
            f"expected a table of int32, got {table.dtype}", op=op, formats=(str(table.dtype),),
            help="exp_table makes it from the scale of the codes",
        )  # fmt: skip
    if steps < 1:
        raise SettingError(f"steps must be at least 1, got {steps}", op=op, help="256 for a scale of 1/256")
    if not -x.ndim <= axis < x.ndim or not x.shape[axis]:
        raise ShapeError(
            f"there is nothing along axis {axis} of {x.shape}", op=op, shapes=(x.shape,),
            help="softmax needs one number at least",
        )  # fmt: skip
    # The difference of two codes is at most 255: right in a byte, whichever way the codes' bytes are read.
    below = x.max(axis=axis, keepdims=True).view(np.uint8) - x.view(np.uint8)
    terms = np.take(table, below, mode="clip").astype(np.int64)
    total = terms.sum(axis=axis, keepdims=True)
    terms *= 2 * steps
    terms += total
    terms //= 2 * total
    np.minimum(terms, most - qmin, out=terms)
    made: Array = terms + qmin
    return made.astype(chosen)


# ---- what a backend has ----------------------------------------------------------------------------------


class IntegerPointwise(Requantizing):
    """The kernels of this module, on the host: the reference, and what runs on NumPy."""

    def integer_lookup(self, x: Any, table: Any) -> Any:
        """(...) codes -> the entries of a table, see :func:`integer_lookup`."""
        return self._taken(x, integer_lookup(self.to_host(x), self.to_host(table)))

    def integer_mul(self, a: Any, b: Any, *how: Any, **more: Any) -> Any:
        """Codes of two scales -> codes, see :func:`integer_mul`."""
        return self._taken(a, integer_mul(self.to_host(a), self.to_host(b), *how, **more))

    def exp_table(self, scale: float) -> Any:
        """A scale -> (256,) int32 on the host, see :func:`exp_table`."""
        return exp_table(scale)

    def integer_softmax(self, x: Any, table: Any, *how: Any, **more: Any) -> Any:
        """(...) codes -> (...) codes, see :func:`integer_softmax`."""
        return self._taken(x, integer_softmax(self.to_host(x), self.to_host(table), *how, **more))
