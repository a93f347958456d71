"""Elementwise functions, as methods with torch's names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from minimp import ops
from minimp.errors import SettingError
from minimp.operators.common import format_of
from minimp.ops.selection import as_operand, operands
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

    def matmul(self, other: Any) -> Tensor:
        """Return the matrix product."""
        return ops.matmul(self, other)

    def softmax(self, dim: int, dtype: Any = None) -> Tensor:
        """Return softmax over `dim`."""
        return ops.softmax(self, dim=dim, dtype=format_of(dtype))

    def log_softmax(self, dim: int, dtype: Any = None) -> Tensor:
        """Return the logarithm of softmax over `dim`."""
        return ops.log_softmax(self, dim=dim, dtype=format_of(dtype))

    def isfinite(self) -> Tensor:
        """Return whether each element is finite."""
        return ops.isfinite(self)

    # ---- selection --------------------------------------------------------------------------------------

    def where(self, condition: Any, other: Any) -> Tensor:
        """Return this tensor's elements where the condition holds, else those of `other`."""
        a, b = operands("where", self, other)
        return ops.where(condition, a, b)

    def masked_fill(self, mask: Any, value: Any) -> Tensor:
        """Return `value`, a number or a tensor without axes, where the mask holds, else x."""
        if isinstance(value, Value):
            if value.array.ndim:
                raise SettingError(f"masked_fill: expected a value without axes, got shape {value.shape}")
            return ops.where(mask, ops.cast(value, format=self.format) if self.format else value, self)
        return ops.masked_fill(self, mask, value=value)

    def clamp(self, min: Any = None, max: Any = None) -> Tensor:  # noqa: A002 - torch's names
        """Return min(max(x, `min`), `max`); bounds are numbers or tensors, at least one."""
        if max is not None:
            max = as_operand(max, self)  # noqa: A001 - torch's name
        if min is None:
            return ops.clamp(self) if max is None else ops.clamp(self, None, max)
        min = as_operand(min, self)  # noqa: A001 - torch's name
        return ops.clamp(self, min) if max is None else ops.clamp(self, min, max)

    clip = clamp

    def maximum(self, other: Any) -> Tensor:
        """Return the larger of two elements."""
        return ops.maximum(*operands("maximum", self, other))

    def minimum(self, other: Any) -> Tensor:
        """Return the smaller of two elements."""
        return ops.minimum(*operands("minimum", self, other))
