"""Python's operators: + - * / ** @, comparisons, indexing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from minimp import ops
from minimp.errors import SettingError
from minimp.operators.common import plain_index
from minimp.ops.selection import operands
from minimp.tape import Value

if TYPE_CHECKING:
    from minimp.tensors import Tensor

__all__ = ["Arithmetic"]


class Arithmetic(Value):
    """What Python's own signs do with a tensor."""

    __slots__ = ()
    __array_priority__ = 1000
    __hash__ = object.__hash__

    def __add__(self, other: Any) -> Tensor:
        return ops.add(self, other)

    def __radd__(self, other: Any) -> Tensor:
        return ops.add(other, self)

    def __sub__(self, other: Any) -> Tensor:
        return ops.sub(self, other)

    def __rsub__(self, other: Any) -> Tensor:
        return ops.sub(other, self)

    def __mul__(self, other: Any) -> Tensor:
        return ops.mul(self, other)

    def __rmul__(self, other: Any) -> Tensor:
        return ops.mul(other, self)

    def __truediv__(self, other: Any) -> Tensor:
        return ops.div(self, other)

    def __rtruediv__(self, other: Any) -> Tensor:
        return (
            ops.mul(ops.reciprocal(self), other) if isinstance(other, int | float) else ops.div(other, self)
        )

    def __pow__(self, exponent: Any) -> Tensor:
        return ops.pow_(self, exponent)

    def __rpow__(self, base: Any) -> Tensor:
        return ops.pow_(base, self)

    def __mod__(self, other: Any) -> Tensor:
        return ops.remainder(*operands("remainder", self, other))

    def __rmod__(self, other: Any) -> Tensor:
        return ops.remainder(*operands("remainder", other, self))

    def __invert__(self) -> Tensor:
        return ops.bitwise_not(self)

    def __and__(self, other: Any) -> Tensor:
        return ops.bitwise_and(self, other)

    def __or__(self, other: Any) -> Tensor:
        return ops.bitwise_or(self, other)

    def __xor__(self, other: Any) -> Tensor:
        return ops.bitwise_xor(self, other)

    __rand__, __ror__, __rxor__ = __and__, __or__, __xor__

    def __matmul__(self, other: Any) -> Tensor:
        return ops.matmul(self, other)

    def __rmatmul__(self, other: Any) -> Tensor:
        return ops.matmul(other, self)

    def __neg__(self) -> Tensor:
        return ops.neg(self)

    def __abs__(self) -> Tensor:
        return ops.abs_(self)

    def __eq__(self, other: object) -> Tensor:  # type: ignore[override]  # elementwise, as in NumPy
        return ops.eq(self, other)

    def __ne__(self, other: object) -> Tensor:  # type: ignore[override]  # elementwise, as in NumPy
        return ops.ne(self, other)

    def __lt__(self, other: Any) -> Tensor:
        return ops.lt(self, other)

    def __le__(self, other: Any) -> Tensor:
        return ops.le(self, other)

    def __gt__(self, other: Any) -> Tensor:
        return ops.gt(self, other)

    def __ge__(self, other: Any) -> Tensor:
        return ops.ge(self, other)

    def __getitem__(self, index: Any) -> Tensor:
        return ops.getitem(self, index=plain_index(index))

    def __setitem__(self, index: Any, value: Any) -> None:
        raise SettingError(
            "a tensor is never changed in place: the tape may hold its array",
            help="write functional.where(mask, value, x), or build the array before mp.tensor(...)",
        )
