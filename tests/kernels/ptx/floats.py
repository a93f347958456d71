"""Floating-point arithmetic as PTX has it: each result rounded once, in the mode that the instruction names.

add, sub, mul and fma of FP32 are taken in float64 and rounded to odd where they are not exact there, so that
the one rounding to FP32 that follows is the right one (Boldo and Melquiond 2008, "Emulation of FMA and
correctly rounded sums: proved algorithms using rounding to odd"). A NaN that is made is NVIDIA's: all ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from tests.kernels.ptx.parsing import PtxError

__all__ = ["APPROXIMATE", "FORMATS", "Format", "arithmetic", "flushed", "larger_or_smaller", "rounded"]


@dataclass(frozen=True, slots=True)
class Format:
    """A binary float format: significant bits, the leading one among them; lowest exponent; maximum."""

    precision: int
    lowest: int
    largest: float
    infinite: bool = True


FORMATS = {
    "f64": Format(53, -1022, float(np.finfo(np.float64).max)),
    "f32": Format(24, -126, float(np.finfo(np.float32).max)),
    "tf32": Format(11, -126, (2 - 2.0**-10) * 2.0**127),
    "bf16": Format(8, -126, (2 - 2.0**-7) * 2.0**127),
    "f16": Format(11, -14, 65504.0),
    "e5m2": Format(3, -14, 57344.0),
    "e4m3": Format(4, -6, 448.0, infinite=False),
}

_TO_INTEGER: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "rn": np.rint,
    "rz": np.trunc,
    "rm": np.floor,
    "rp": np.ceil,
    "rna": lambda x: np.copysign(np.floor(np.abs(x) + 0.5), x),
}


def rounded(x: np.ndarray, name: str, mode: str = "rn", *, saturate: bool = False) -> np.ndarray:
    """Return float64 values rounded to a format, still as float64.

    Args:
        x: the values, exact or rounded to odd.
        name: of the format.
        mode: ``rn`` to nearest, ties to even; ``rna`` ties away; ``rz`` to zero; ``rm`` down; ``rp`` up.
        saturate: what is too large, infinities too, becomes the largest value (``.satfinite``).
    """
    to = FORMATS[name]
    if mode not in _TO_INTEGER:
        raise PtxError(f"unknown rounding .{mode}")
    exponent = np.frexp(x)[1] - 1  # of x = 1.f * 2^exponent
    quantum = np.maximum(exponent, to.lowest) - (to.precision - 1)
    finite = np.isfinite(x)
    grid = np.where(finite, np.ldexp(_TO_INTEGER[mode](np.ldexp(x, -quantum)), quantum), x)
    too_large = finite & (np.abs(grid) > to.largest)
    inward = {"rn": False, "rna": False, "rz": True, "rm": x > 0, "rp": x < 0}[mode]
    beyond = np.where(inward, to.largest, np.inf)
    result = np.where(too_large, np.copysign(beyond, x), grid)
    if saturate or not to.infinite:
        result = np.where(np.isinf(result), np.copysign(to.largest, x), result)
    return np.where(grid == 0, np.copysign(0.0, x), result)


def flushed(x: np.ndarray) -> np.ndarray:
    """Return float32 values with subnormals as zeros of their sign (``.ftz``)."""
    tiny = np.abs(x) < np.float32(2.0**-126)
    return np.where(tiny, np.copysign(np.float32(0), x), x)


def _odd(nearest: np.ndarray, error: np.ndarray) -> np.ndarray:
    """A float64 sum rounded to odd, from the sum rounded to nearest and the exact error of that."""
    even = nearest.view(np.uint64) & np.uint64(1) == 0
    move = even & (error != 0) & np.isfinite(nearest)
    return np.where(move, np.nextafter(nearest, np.where(error > 0, np.inf, -np.inf)), nearest)


def _sum_to_odd(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    total = a + b
    back = total - a
    return _odd(total, (a - (total - back)) + (b - back))


def _wide(name: str, values: list[np.ndarray]) -> np.ndarray:
    """The result for FP32 operands, in float64: exact, or rounded to odd."""
    wide = [each.astype(np.float64) for each in values]
    if name in {"fma", "mad"}:
        return _sum_to_odd(wide[0] * wide[1], wide[2])
    if name == "mul":
        return wide[0] * wide[1]
    if name in {"add", "sub"}:
        return _sum_to_odd(wide[0], wide[1] if name == "add" else -wide[1])
    raise PtxError(f"{name} has no result in one rounding here")


def _fma64(a: float, b: float, c: float) -> float:
    if not all(map(np.isfinite, (a, b, c))):
        return a * b + c
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    if exact == 0:
        return a * b + c  # the sign of zero
    try:
        return float(exact)
    except OverflowError:
        return float(np.copysign(np.inf, float(np.sign(exact))))


# By IEEE 754 correctly rounded in NumPy, in the format of the operands.
_NEAREST: dict[str, Callable[..., np.ndarray]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "sqrt": np.sqrt,
    "rcp": np.reciprocal,
    "fma": np.vectorize(_fma64, otypes=[np.float64]),
}
_DIRECTED = ("add", "sub", "mul", "fma", "mad")

APPROXIMATE: dict[str, Callable[..., np.ndarray]] = {
    "ex2": np.exp2,
    "lg2": np.log2,
    "rcp": np.reciprocal,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "sqrt": np.sqrt,
    "sin": np.sin,
    "cos": np.cos,
    "tanh": np.tanh,
    "div": np.divide,
}
"""What the special function unit computes to about 22 bits, in float64 here, rounded to FP32."""


def canonical(values: np.ndarray) -> np.ndarray:
    """Return the values with every NaN as NVIDIA makes it: all bits set but the sign."""
    unsigned = np.dtype(f"u{values.itemsize}")
    nan = unsigned.type(np.iinfo(unsigned).max >> 1).reshape(1).view(values.dtype)
    return np.where(np.isnan(values), nan, values)


def arithmetic(name: str, mode: str, values: list[np.ndarray]) -> np.ndarray:
    """Return add, sub, mul, fma, mad, div, sqrt or rcp of float32 or float64 values.

    Args:
        name: the instruction.
        mode: ``rn``, ``rz``, ``rm``, ``rp``, or ``approx`` (``full`` of div counts as that).
        values: the operands, all float32 or all float64.

    Raises:
        PtxError: there is no such operation here.
    """
    double = values[0].dtype == np.float64
    if mode == "approx" and not double and name in APPROXIMATE:
        result = APPROXIMATE[name](*(each.astype(np.float64) for each in values)).astype(np.float32)
    elif not double and name in _DIRECTED:
        wide = _wide(name, values)
        if mode in {"rz", "rm", "rp"} and name in {"add", "sub", "fma", "mad"}:
            wide = np.where(wide == 0, _zero(name, mode, values, wide), wide)
        result = rounded(wide, "f32", mode).astype(np.float32)
    elif mode == "rn" and name in _NEAREST and (double or name != "fma"):
        result = _NEAREST[name](*values)
    else:
        raise PtxError(f"no {name}.{mode} of {values[0].dtype} here")
    return canonical(result)


def _zero(name: str, mode: str, values: list[np.ndarray], wide: np.ndarray) -> np.ndarray:
    """The zero of a sum that cancels: -0 where the rounding is downward (IEEE 754-2019, 6.3)."""
    first, second = (values[0] * values[1], values[2]) if name in {"fma", "mad"} else (values[0], values[1])
    if name == "sub":
        second = -second
    opposite = np.signbit(first) != np.signbit(second)
    return np.where(opposite, -0.0 if mode == "rm" else 0.0, wide)


def larger_or_smaller(name: str, a: np.ndarray, b: np.ndarray, *, keep_nan: bool) -> np.ndarray:
    """Return min or max: of a NaN and a number the number, or NaN where asked; -0 is less than +0."""
    less = (a < b) | ((a == b) & np.signbit(a) & ~np.signbit(b))
    first = less if name == "min" else ~less
    chosen = np.where(first, a, b)
    chosen = np.where(np.isnan(a), b, np.where(np.isnan(b), a, chosen))
    if keep_nan:
        chosen = np.where(np.isnan(a) | np.isnan(b), np.array(np.nan, a.dtype), chosen)
    return canonical(chosen)
