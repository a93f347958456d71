"""Elementwise functions, as methods with torch's names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from minimp import ops
from minimp.operators.common import format_of
from minimp.operators.naming import naming_itself
from minimp.tape import Value

if TYPE_CHECKING:
    from minimp.tensors import Tensor

__all__ = ["Mathematics"]


class Mathematics(Value):
    """Functions of each element."""

    __slots__ = ()

    def exp(self) -> Tensor:
        """Return e^x."""
        return ops.exp(self)

    def log(self) -> Tensor:
        """Return ln x."""
        return ops.log(self)

    def sqrt(self) -> Tensor:
        """Return the square root."""
        return ops.sqrt(self)

    def pow(self, exponent: Any) -> Tensor:
        """Return x^p."""
        return ops.pow_(self, exponent)

    def abs(self) -> Tensor:
        """Return |x|."""
        return ops.abs_(self)

    def relu(self) -> Tensor:
        """Return max(x, 0)."""
        return ops.relu(self)

    def tanh(self) -> Tensor:
        """Return tanh x."""
        return ops.tanh(self)

    def sigmoid(self) -> Tensor:
        """Return 1 / (1 + e^-x)."""
        return ops.sigmoid(self)

    def expm1(self) -> Tensor:
        """Return e^x - 1, accurate near 0."""
        return ops.expm1(self)

    def log1p(self) -> Tensor:
        """Return ln(1 + x), accurate near 0."""
        return ops.log1p(self)

    def log2(self) -> Tensor:
        """Return the logarithm to the base 2."""
        return ops.log2(self)

    def log10(self) -> Tensor:
        """Return the logarithm to the base 10."""
        return ops.log10(self)

    def rsqrt(self) -> Tensor:
        """Return 1 / sqrt x."""
        return ops.rsqrt(self)

    def reciprocal(self) -> Tensor:
        """Return 1 / x."""
        return ops.reciprocal(self)

    def neg(self) -> Tensor:
        """Return -x."""
        return ops.neg(self)

    def sin(self) -> Tensor:
        """Return the sine."""
        return ops.sin(self)

    def cos(self) -> Tensor:
        """Return the cosine."""
        return ops.cos(self)

    def tan(self) -> Tensor:
        """Return the tangent."""
        return ops.tan(self)

    def asin(self) -> Tensor:
        """Return the angle of this sine."""
        return ops.asin(self)

    def acos(self) -> Tensor:
        """Return the angle of this cosine."""
        return ops.acos(self)

    def atan(self) -> Tensor:
        """Return the angle of this tangent."""
        return ops.atan(self)

    def sinh(self) -> Tensor:
        """Return (e^x - e^-x) / 2."""
        return ops.sinh(self)

    def cosh(self) -> Tensor:
        """Return (e^x + e^-x) / 2."""
        return ops.cosh(self)

    def erf(self) -> Tensor:
        """Return the error function."""
        return ops.erf(self)

    def sign(self) -> Tensor:
        """Return -1, 0 or 1; NaN stays NaN."""
        return ops.sign(self)

    def floor(self) -> Tensor:
        """Return the largest whole number not above x."""
        return ops.floor(self)

    def ceil(self) -> Tensor:
        """Return the smallest whole number not below x."""
        return ops.ceil(self)

    def trunc(self) -> Tensor:
        """Return x without its fraction."""
        return ops.trunc(self)

    def isnan(self) -> Tensor:
        """Return whether each element is NaN."""
        return ops.isnan(self)

    def isinf(self) -> Tensor:
        """Return whether each element is infinite."""
        return ops.isinf(self)

    def logical_not(self) -> Tensor:
        """Return whether each element is 0."""
        return ops.logical_not(self)

    def bitwise_not(self) -> Tensor:
        """Return every bit of integers turned."""
        return ops.bitwise_not(self)

    def round(self) -> Tensor:
        """Return the nearest whole number, the even one of two (torch's `decimals` are not offered)."""
        return ops.round_(self)

    def square(self) -> Tensor:
        """Return x^2, by :func:`pow` as in torch."""
        return ops.pow_(self, 2)

    @naming_itself
    def matmul(self, other: Any) -> Tensor:
        """Return the matrix product."""
        return ops.matmul(self, other)

    @naming_itself
    def softmax(self, dim: int, dtype: Any = None) -> Tensor:
        """Return softmax over `dim`."""
        return ops.softmax(self, dim=dim, dtype=format_of(dtype))

    @naming_itself
    def log_softmax(self, dim: int, dtype: Any = None) -> Tensor:
        """Return the logarithm of softmax over `dim`."""
        return ops.log_softmax(self, dim=dim, dtype=format_of(dtype))

    def isfinite(self) -> Tensor:
        """Return whether each element is finite."""
        return ops.isfinite(self)
