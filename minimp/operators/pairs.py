"""Functions of two tensors, and choosing between elements, as methods with torch's names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from minimp import ops
from minimp.errors import SettingError
from minimp.ops.selection import as_operand, operands
from minimp.tape import Value

if TYPE_CHECKING:
    from minimp.tensors import Tensor

__all__ = ["Pairs"]


class Pairs(Value):
    """Functions of an element and another one."""

    __slots__ = ()

    def add(self, other: Any) -> Tensor:
        """Return x + y."""
        return ops.add(self, other)

    def sub(self, other: Any) -> Tensor:
        """Return x - y."""
        return ops.sub(self, other)

    def mul(self, other: Any) -> Tensor:
        """Return x y."""
        return ops.mul(self, other)

    def div(self, other: Any) -> Tensor:
        """Return x / y."""
        return ops.div(self, other)

    def atan2(self, other: Any) -> Tensor:
        """Return the angle of the point (other, x)."""
        return ops.atan2(*operands("atan2", self, other))

    def remainder(self, other: Any) -> Tensor:
        """Return x - y floor(x / y), which has the sign of y."""
        return ops.remainder(*operands("remainder", self, other))

    def lerp(self, end: Any, weight: Any) -> Tensor:
        """Return x + weight (end - x)."""
        return ops.lerp(self, end, weight)

    def addcmul(self, tensor1: Any, tensor2: Any, *, value: float = 1) -> Tensor:
        """Return x + value tensor1 tensor2, rounded once."""
        return ops.addcmul(self, tensor1, tensor2, value=value)

    def addcdiv(self, tensor1: Any, tensor2: Any, *, value: float = 1) -> Tensor:
        """Return x + value tensor1 / tensor2, rounded once."""
        return ops.addcdiv(self, tensor1, tensor2, value=value)

    def logical_and(self, other: Any) -> Tensor:
        """Return whether neither element is 0."""
        return ops.logical_and(self, other)

    def logical_or(self, other: Any) -> Tensor:
        """Return whether either element is not 0."""
        return ops.logical_or(self, other)

    def logical_xor(self, other: Any) -> Tensor:
        """Return whether one element is 0 and the other is not."""
        return ops.logical_xor(self, other)

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
