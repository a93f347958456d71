"""Elementary functions, steps, blends and truth, elementwise."""

from __future__ import annotations

from typing import Any

from minimp import ops
from minimp.functional.common import tensor_of
from minimp.tensors import Tensor

__all__ = [
    "acos", "addcdiv", "addcmul", "asin", "atan", "atan2", "ceil", "cos", "cosh", "erf", "expm1", "floor",
    "isfinite", "isinf", "isnan", "lerp", "log1p", "log2", "log10", "logical_and", "logical_not",
    "logical_or", "logical_xor", "remainder", "round", "rsqrt", "sign", "sin", "sinh", "square", "tan",
    "trunc",
]  # fmt: skip


def expm1(input: Any) -> Tensor:
    """e^x - 1, accurate near 0."""
    return ops.expm1(input)


def log1p(input: Any) -> Tensor:
    """ln(1 + x), accurate near 0."""
    return ops.log1p(input)


def log2(input: Any) -> Tensor:
    """The logarithm to the base 2."""
    return ops.log2(input)


def log10(input: Any) -> Tensor:
    """The logarithm to the base 10."""
    return ops.log10(input)


def rsqrt(input: Any) -> Tensor:
    """1 / sqrt x."""
    return ops.rsqrt(input)


def erf(input: Any) -> Tensor:
    """The error function."""
    return ops.erf(input)


def sin(input: Any) -> Tensor:
    """The sine of x radians."""
    return ops.sin(input)


def cos(input: Any) -> Tensor:
    """The cosine of x radians."""
    return ops.cos(input)


def tan(input: Any) -> Tensor:
    """The tangent of x radians."""
    return ops.tan(input)


def asin(input: Any) -> Tensor:
    """The angle from -pi/2 to pi/2 of this sine."""
    return ops.asin(input)


def acos(input: Any) -> Tensor:
    """The angle from 0 to pi of this cosine."""
    return ops.acos(input)


def atan(input: Any) -> Tensor:
    """The angle from -pi/2 to pi/2 of this tangent."""
    return ops.atan(input)


def sinh(input: Any) -> Tensor:
    """(e^x - e^-x) / 2."""
    return ops.sinh(input)


def cosh(input: Any) -> Tensor:
    """(e^x + e^-x) / 2."""
    return ops.cosh(input)


def sign(input: Any) -> Tensor:
    """-1, 0 or 1; NaN stays NaN (torch gives 0)."""
    return ops.sign(input)


def floor(input: Any) -> Tensor:
    """The largest whole number not above x."""
    return ops.floor(input)


def ceil(input: Any) -> Tensor:
    """The smallest whole number not below x."""
    return ops.ceil(input)


def trunc(input: Any) -> Tensor:
    """x without its fraction."""
    return ops.trunc(input)


def isnan(input: Any) -> Tensor:
    """Whether each element is NaN."""
    return ops.isnan(input)


def isinf(input: Any) -> Tensor:
    """Whether each element is infinite."""
    return ops.isinf(input)


def isfinite(input: Any) -> Tensor:
    """Whether each element is neither infinite nor NaN."""
    return ops.isfinite(input)


def logical_not(input: Any) -> Tensor:
    """Whether each element is 0."""
    return ops.logical_not(input)


def round(input: Any) -> Tensor:  # noqa: A001 - torch's name
    """The nearest whole number, the even one of two (torch's `decimals` are not offered)."""
    return ops.round_(input)


def square(input: Any) -> Tensor:
    """x^2, by :func:`pow` as in torch, which autocast computes in float32."""
    return tensor_of(input).square()


def atan2(input: Any, other: Any) -> Tensor:
    """The angle from -pi to pi of the point (other, input)."""
    return tensor_of(input).atan2(other)


def remainder(input: Any, other: Any) -> Tensor:
    """x - y floor(x / y), which has the sign of y."""
    return tensor_of(input).remainder(other)


def lerp(input: Any, end: Any, weight: Any) -> Tensor:
    """x + weight (end - x), rounded once; weight is a number or a tensor."""
    return ops.lerp(input, end, weight)


def addcmul(input: Any, tensor1: Any, tensor2: Any, *, value: float = 1) -> Tensor:
    """x + value tensor1 tensor2, rounded once."""
    return ops.addcmul(input, tensor1, tensor2, value=value)


def addcdiv(input: Any, tensor1: Any, tensor2: Any, *, value: float = 1) -> Tensor:
    """x + value tensor1 / tensor2, rounded once."""
    return ops.addcdiv(input, tensor1, tensor2, value=value)


def logical_and(input: Any, other: Any) -> Tensor:
    """Whether neither element is 0."""
    return ops.logical_and(input, other)


def logical_or(input: Any, other: Any) -> Tensor:
    """Whether either element is not 0."""
    return ops.logical_or(input, other)


def logical_xor(input: Any, other: Any) -> Tensor:
    """Whether one element is 0 and the other is not."""
    return ops.logical_xor(input, other)
