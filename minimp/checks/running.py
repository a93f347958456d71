"""Running error analysis: numbers that know how far the computed value may be from the exact one.

A :class:`Running` array holds `exact`, the value in float64 as if nothing had been rounded, and `error`, so
that whatever the engine computed lies within exact +- error. Each operation adds what one rounding of the
format computed in can add (Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., 2.2 and 3.3)::

    fl(x op y) = (x op y)(1 + d) + e,   |d| <= u,  |e| <= half the smallest subnormal

so writing down an op's formula gives its bound. An infinite error claims nothing: a value on the way may have
overflowed, or a divisor may have been 0. The float64 evaluation's own roundings count too.

NumPy's warnings of overflow and division by zero are the caller's to silence.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from minimp import formats
from minimp.checks.accumulation import U64, Sum, edge_of, sum_of
from minimp.checks.host import on_host
from minimp.formats import Format

__all__ = ["U64", "ULPS", "Arithmetic", "Running", "arithmetic_of", "finite_size"]

Float64s = npt.NDArray[np.float64]
Axis = int | tuple[int, ...] | None

ULPS = {
    "exp": 4.0, "log": 4.0, "tanh": 5.0, "power": 4.0, "erf": 2.0, "expm1": 4.0, "log1p": 4.0, "sin":
    4.0, "cos": 4.0, "tan": 4.0, "arcsin": 4.0, "arccos": 4.0, "arctan": 4.0, "arctan2": 4.0, "sinh":
    4.0, "cosh": 4.0, "log2": 4.0, "log10": 4.0, "remainder": 1.0,
}  # fmt: skip
"""Ulps by which a library function may be off, float32 and float64.

NumPy's own accuracy tests (numpy/_core/tests/test_umath_accuracy.py, 2.x) allow float32 exp, log and tanh up
to 4 ulp; its float64 loops and power go to the C library or SVML, 4 ulp by their documentation; one more for
tanh, whose vector form is the one that comes closest to its limit. erf is minimp_backends.special's.
"""


@dataclass(frozen=True)
class Arithmetic:
    """What an op computes in.

    Attributes:
        wide: the format of each operation: float32, float64 for float64 tensors.
        fmt: the working format: what inputs have, and results are rounded to.
        accumulate: how sums are accumulated, a name of :func:`minimp.formats.matmul`.
    """

    wide: Format
    fmt: Format
    accumulate: str = "float32"

    @property
    def unit(self) -> float:
        """u: half the distance from 1 to the next number, and the reference's own float64 rounding."""
        return float(self.wide.eps / 2 + U64)

    @property
    def sums(self) -> str:
        """How sums of terms are accumulated: float32 beside a matrix unit, which rules products alone."""
        return "float32" if self.accumulate.startswith("tensorcore:") else self.accumulate

    def number(self, value: Any) -> Running:
        """Return an input: an array as it is; NumPy rounds a Python number to the wide format first."""
        if not isinstance(value, int | float):
            exact = on_host(value).astype(np.float64)
            return Running(exact, np.zeros_like(exact), self)
        exact = np.asarray(value, np.float64)
        taken = exact.astype(self.wide.dtype).astype(np.float64)
        error = np.where(taken == exact, 0.0, np.abs(taken - exact))
        return Running(exact, np.where(np.isnan(error), np.inf, error), self)


def arithmetic_of(fmt: Format | None, accumulate: str = "float32") -> Arithmetic:
    """Return the arithmetic of tensors of `fmt`: float64 in float64, all others in float32."""
    wide = formats.float64 if fmt is formats.float64 else formats.float32
    return Arithmetic(wide, formats.float32 if fmt is None else fmt, accumulate)


@dataclass(frozen=True, eq=False)
class Running:
    """An array of numbers, each with a bound on the error of its computed value.

    Attributes:
        exact: the values, float64, with no rounding but float64's.
        error: how far the computed values may be from them; infinite where nothing is claimed.
        at: the arithmetic in which the next operation is computed.
    """

    exact: Float64s
    error: Float64s
    at: Arithmetic

    # ---- one rounding each ------------------------------------------------------------------------------

    def __add__(self, other: Any) -> Running:
        a, b = self._pair(other)
        return a._rounded_once(a.exact + b.exact, a.error + b.error)

    def __sub__(self, other: Any) -> Running:
        return self + -self._lift(other)

    def __mul__(self, other: Any) -> Running:
        a, b = self._pair(other)
        error = _scaled(b.error, finite_size(a.exact)) + _scaled(a.error, finite_size(b.exact) + b.error)
        unsure = (np.isinf(a.exact) & b._may_vanish()) | (np.isinf(b.exact) & a._may_vanish())
        return a._rounded_once(a.exact * b.exact, np.where(unsure, np.inf, error))

    def __truediv__(self, other: Any) -> Running:
        a, b = self._pair(other)
        quotient = a.exact / b.exact
        room = np.abs(b.exact) - b.error  # the least that the divisor can have been
        carried = (a.error + _scaled(b.error, finite_size(quotient))) / np.where(room > 0, room, 1.0)
        sure = ((room > 0) | (b.error == 0)) & ~((b.exact == 0) & a._may_vanish())
        return a._rounded_once(quotient, np.where(sure, carried, np.inf))

    def __radd__(self, other: Any) -> Running:
        return self._lift(other) + self

    def __rsub__(self, other: Any) -> Running:
        return self._lift(other) - self

    def __rmul__(self, other: Any) -> Running:
        return self._lift(other) * self

    def __rtruediv__(self, other: Any) -> Running:
        return self._lift(other) / self

    # ---- nothing is rounded -----------------------------------------------------------------------------

    def __neg__(self) -> Running:
        return Running(-self.exact, self.error, self.at)

    def __abs__(self) -> Running:
        return Running(np.abs(self.exact), self.error, self.at)

    def move(self, change: Callable[[Any], Any]) -> Running:
        """Return the elements moved or selected by `change`."""
        return Running(np.asarray(change(self.exact)), np.asarray(change(self.error)), self.at)

    def where(self, mask: Any, other: Any = 0.0) -> Running:
        """Return these numbers where `mask` is true, else `other`."""
        a, b = self._pair(other)
        exact, error = np.where(mask, a.exact, b.exact), np.where(mask, a.error, b.error)
        return Running(exact, error, self.at)

    # ---- functions --------------------------------------------------------------------------------------

    def sqrt(self) -> Running:
        """The square root, correctly rounded."""
        x = self._operand()
        root = np.sqrt(x.exact)
        carried = x.error / np.where(root > 0, root, 1.0)
        return x._rounded_once(root, np.where((x.exact > x.error) | (x.error == 0), carried, np.inf))

    def root(self) -> Running:
        """The square root of a sum of squares: never below 0, so an error d moves it by at most sqrt(d)."""
        x = self._operand()
        root = np.sqrt(x.exact)
        carried = np.minimum(x.error / np.where(root > 0, root, np.finfo(float).tiny), np.sqrt(x.error))
        return x._rounded_once(root, carried)

    def exp(self) -> Running:
        """e^x: an error d of x multiplies it by at most e^d."""
        x = self._operand()
        y = np.exp(x.exact)
        return x._called("exp", y, _scaled(np.expm1(x.error), finite_size(y)))

    def log(self) -> Running:
        """ln x: an error d of x moves it by at most -ln(1 - d/x)."""
        x = self._operand()
        part = x.error / np.where(x.exact > 0, x.exact, 1.0)
        moved = -np.log1p(-np.where(part < 1, part, 0.0))
        return x._called("log", np.log(x.exact), np.where((part < 1) | (x.error == 0), moved, np.inf))

    def tanh(self) -> Running:
        """tanh x, whose slope is at most 1."""
        x = self._operand()
        return x._called("tanh", np.tanh(x.exact), x.error)

    def function(self, name: str, y: Float64s, slope: float) -> Running:
        """Another library function: its values, and its largest slope."""
        x = self._operand()
        return x._called(name, y, x.error * slope)

    def power(self, other: Any) -> Running:
        """x^p: errors d of x and q of p multiply it by at most e^(|ln x| q + (|p| + q) |ln(1 - d/x)|)."""
        x, p = self._pair(other)
        y = np.power(x.exact, p.exact)
        size = np.abs(x.exact)
        part = x.error / np.where(size > 0, size, 1.0)
        sure = (part < 1) & ((size > 0) | ((x.error == 0) & (p.error == 0)))
        sure &= (x.exact >= 0) | (
            p.error == 0
        )  # below 0, an exponent next to a whole number may become whole
        slip = -np.log1p(-np.where(part < 1, part, 0.0))
        turn = (
            _scaled(p.error, np.abs(np.log(np.where(size > 0, size, 1.0))))
            + (np.abs(p.exact) + p.error) * slip
        )
        carried = _scaled(np.expm1(turn), finite_size(y))
        return x._called("power", y, np.where(sure, carried, np.inf))

    # ---- sums -------------------------------------------------------------------------------------------

    def sum(self, axis: Axis = None, *, keepdims: bool = False) -> Running:
        """Sum over `axis`, accumulated as the op's setting says."""

        def add(a: Any) -> Any:
            return np.asarray(np.sum(a, axis=axis, keepdims=keepdims))

        return self.gather(add, None)

    def gather(self, add: Callable[[Any], Any], length: int | None) -> Running:
        """Return sums of elements.

        Args:
            add: from an array to its sums.
            length: the terms in the longest sum; None: all sums have as many.
        """
        x = self._operand()
        exact = add(x.exact)
        terms = x.exact.size // max(exact.size, 1) if length is None else length
        rule = sum_of(self.at.sums, terms, self.at.wide)
        return x._accumulated(exact, add(finite_size(x.exact)), add(x.error), rule, terms)

    def product(self, other: Running, multiply: Callable[[Any, Any], Any], length: int) -> Running:
        """Return sums of products, `multiply` giving them: a matrix product, a convolution.

        Args:
            other: the second factor.
            multiply: bilinear, from two arrays; called on the values and on magnitudes.
            length: K, the products in each sum.
        """
        a, b = self._operand(), other._operand()
        rule = sum_of(self.at.accumulate, length, self.at.wide, self.at.fmt)
        size_a, size_b = (
            np.where(x.exact != 0, np.maximum(finite_size(x.exact), rule.least), 0) for x in (a, b)
        )
        exact, mass = multiply(a.exact, b.exact), multiply(size_a, size_b)
        carried = np.zeros_like(exact)
        if a.error.any() or b.error.any():
            carried = multiply(a.error, size_b + b.error) + multiply(size_a, b.error)
        return a._accumulated(exact, mass, carried, rule, length)

    def _accumulated(
        self, exact: Float64s, mass: Float64s, carried: Float64s, rule: Sum, length: int
    ) -> Running:
        """|error| <= carried + gamma · (mass + carried) + floor, unless something overflows on the way."""
        error = carried + _scaled(np.asarray(rule.gamma), mass + carried) + rule.floor
        if self.at.sums in ("float64", "exact"):  # handed on in float64, and rounded to the wide format
            error = error + self.at.unit * (finite_size(exact) + error) + self.at.wide.smallest_subnormal
        overflows = (mass + error >= rule.edge) & ~np.isnan(exact)
        if length == 1 and rule.edge >= edge_of(self.at.wide):  # one term, and it fits
            overflows &= False
        return Running(exact, np.where(overflows, np.inf, error), self.at)

    # ---- the last step ----------------------------------------------------------------------------------

    def rounded(self, fmt: Format | None = None) -> Running:
        """Round once to storage of `fmt` (default: the working format); nothing if it is computed in that."""
        fmt = self.at.fmt if fmt is None else fmt
        if fmt is self.at.wide:
            return self
        size = finite_size(self.exact) + self.error
        error = self.error + formats.ulp(size, fmt) / 2
        return Running(self.exact, np.where(np.isnan(error), np.inf, error), self.at)

    def stored(self, fmt: Format | None = None) -> Running:
        """As :meth:`rounded`, for a value that is read again: nothing is claimed where it may be infinite."""
        fmt = self.at.fmt if fmt is None else fmt
        kept = self.rounded(fmt)
        flown = (finite_size(kept.exact) + kept.error >= edge_of(fmt)) & np.isfinite(kept.exact)
        return Running(kept.exact, np.where(flown, np.inf, kept.error), self.at)

    # ---- inside -----------------------------------------------------------------------------------------

    def _may_vanish(self) -> npt.NDArray[np.bool_]:
        """Tell where the computed value may be 0, or have the other sign, and the exact one not."""
        return (self.error > 0) & (np.abs(self.exact) <= self.error)

    def _lift(self, other: Any) -> Running:
        return other if isinstance(other, Running) else self.at.number(other)

    def _pair(self, other: Any) -> tuple[Running, Running]:
        return self._operand(), self._lift(other)._operand()

    def _operand(self) -> Running:
        """Return what the next operation reads: nothing is claimed where it may have overflowed."""
        flown = (finite_size(self.exact) + self.error >= edge_of(self.at.wide)) & np.isfinite(self.exact)
        flown &= self.error > 0
        return Running(self.exact, np.where(flown, np.inf, self.error), self.at) if flown.any() else self

    def _rounded_once(self, exact: Float64s, carried: Float64s, units: float | None = None) -> Running:
        """Add the error of one rounding, or of `units` of them; a representable result is not rounded."""
        size, count = finite_size(exact) + carried, 1.0 if units is None else units
        error = carried + count * (self.at.unit * size + self.at.wide.smallest_subnormal)
        if units is None and self.at.wide is formats.float32:
            kept = (carried == 0) & (exact.astype(np.float32) == exact)
            error = np.where(kept, 0.0, error)
        return Running(np.asarray(exact), np.where(np.isnan(error), np.inf, error), self.at)

    def _called(self, name: str, exact: Float64s, carried: Float64s) -> Running:
        """A library function: n ulps are at most 2 n u of the value."""
        return self._rounded_once(exact, carried, 2 * ULPS[name])


def finite_size(x: Float64s) -> Float64s:
    """|x|, and 0 for infinities and NaN: those come out right or wrong, not near."""
    return np.where(np.isfinite(x), np.abs(x), 0.0)


def _scaled(error: Float64s, size: Float64s) -> Float64s:
    """Error · size, where an infinite error stays infinite and 0 stays 0."""
    product = np.where(error == 0, 0.0, error) * np.where(error == 0, 0.0, size)
    return np.where(np.isinf(error), np.inf, product)
