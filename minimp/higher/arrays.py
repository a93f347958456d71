"""An array that records: NumPy's face, and ops of the engine behind it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from minimp import formats, ops
from minimp.errors import GradientError
from minimp.formats import Format
from minimp.tape import Value

if TYPE_CHECKING:
    from minimp.tensors import Tensor

__all__ = ["FUNCTIONS", "Recorded", "array_of", "join", "wide_format"]


class Recorded:
    """What a gradient rule takes for an array: each operation on it is an op on the tape.

    Comparisons give plain arrays: where something is larger has no derivative.
    """

    __slots__ = ("tensor",)
    __array_ufunc__ = None  # an array beside it leaves the operation to us
    __hash__ = None  # type: ignore[assignment]  # == is elementwise

    def __init__(self, tensor: Any) -> None:
        self.tensor: Tensor = tensor

    def __array__(self, *_: Any, **__: Any) -> Any:
        """Refuse: as a plain array it would be a constant, with derivatives of 0 that nobody asked for."""
        raise unknown("gradient rule", "a recorded array as a plain one")

    # ---- what it looks like -----------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, ...]:
        """The lengths of the axes."""
        return self.tensor.array.shape  # type: ignore[no-any-return]  # arrays have no type here

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """The number of elements."""
        return int(self.tensor.array.size)

    @property
    def dtype(self) -> Any:
        """The dtype of the storage."""
        return self.tensor.array.dtype

    # ---- arithmetic -------------------------------------------------------------------------------------

    def __add__(self, other: Any) -> Recorded:
        return self._with(ops.add, other)

    def __sub__(self, other: Any) -> Recorded:
        return self._with(ops.sub, other)

    def __mul__(self, other: Any) -> Recorded:
        return self._with(ops.mul, other)

    def __truediv__(self, other: Any) -> Recorded:
        return self._with(ops.div, other)

    def __pow__(self, other: Any) -> Recorded:
        return self._with(ops.pow_, other)

    def __radd__(self, other: Any) -> Recorded:
        return self._with(ops.add, other, swapped=True)

    def __rsub__(self, other: Any) -> Recorded:
        return self._with(ops.sub, other, swapped=True)

    def __rmul__(self, other: Any) -> Recorded:
        return self._with(ops.mul, other, swapped=True)

    def __rtruediv__(self, other: Any) -> Recorded:
        return self._with(ops.div, other, swapped=True)

    def __rpow__(self, other: Any) -> Recorded:
        return self._with(ops.pow_, other, swapped=True)

    def __neg__(self) -> Recorded:
        return Recorded(ops.neg(self.tensor))

    def __abs__(self) -> Recorded:
        return Recorded(ops.abs_(self.tensor))

    def _with(self, op: Callable[..., Any], other: Any, *, swapped: bool = False) -> Recorded:
        pair = (self.tensor, beside(self, other))
        return Recorded(op(*(pair[::-1] if swapped else pair)))

    # ---- comparisons ------------------------------------------------------------------------------------

    def __eq__(self, other: object) -> Any:
        return array_of(self) == array_of(other)

    def __ne__(self, other: object) -> Any:
        return array_of(self) != array_of(other)

    def __lt__(self, other: Any) -> Any:
        return array_of(self) < array_of(other)

    def __le__(self, other: Any) -> Any:
        return array_of(self) <= array_of(other)

    def __gt__(self, other: Any) -> Any:
        return array_of(self) > array_of(other)

    def __ge__(self, other: Any) -> Any:
        return array_of(self) >= array_of(other)

    # ---- moving elements --------------------------------------------------------------------------------

    def __getitem__(self, index: Any) -> Recorded:
        return Recorded(ops.getitem(self.tensor, index=index))

    def reshape(self, *shape: Any) -> Recorded:
        """Return the same elements in another shape."""
        flat = shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape
        return Recorded(ops.reshape(self.tensor, shape=tuple(flat)))

    def transpose(self, *axes: Any) -> Recorded:
        """Return the axes in another order, reversed if none is said (NumPy's method)."""
        flat = axes[0] if len(axes) == 1 and not isinstance(axes[0], int) else axes
        return Recorded(ops.permute(self.tensor, dims=tuple(flat) or tuple(range(self.ndim))[::-1]))

    def swapaxes(self, a: int, b: int) -> Recorded:
        """Return the tensor with two axes exchanged."""
        order = list(range(self.ndim))
        order[a], order[b] = order[b], order[a]
        return self.transpose(order)

    def copy(self) -> Recorded:
        """Return itself: recorded arrays are never written to."""
        return self

    def astype(self, dtype: Any, copy: bool = True) -> Recorded:  # noqa: ARG002 - NumPy's argument
        """Return the values in another floating dtype, each rounded once."""
        return self.cast(formats.get(dtype))

    def cast(self, format: Format) -> Recorded:
        """Return the values in a format."""
        return self if self.tensor.format is format else Recorded(ops.cast(self.tensor, format=format))


def wide_format(format: Format | None) -> Format:
    """Return what values of a format are computed in."""
    return formats.float64 if format is formats.float64 else formats.float32


def array_of(x: Any) -> Any:
    """Return the plain array of a recorded one; anything else as it is."""
    return x.tensor.backend.wide(x.tensor.array) if isinstance(x, Recorded) else x


def beside(first: Recorded, other: Any) -> Any:
    """Return what an op takes beside a recorded array: its tensor, a number, or a constant of its format."""
    if isinstance(other, Recorded):
        return other.tensor
    if hasattr(other, "dtype"):
        backend = first.tensor.backend
        return Value.make(backend.xp.asarray(other).astype(first.dtype), backend)
    return other


def join(xp: Any, condition: Any, a: Any, b: Any) -> Any:
    """Return `a` where the condition holds, else `b` (NumPy's where)."""
    first = a if isinstance(a, Recorded) else b
    backend = first.tensor.backend
    mask = Value.make(xp.asarray(array_of(condition)).astype(bool), backend)
    parts = (x if isinstance(x, Recorded) else xp.asarray(x, first.dtype) for x in (a, b))
    return Recorded(ops.OPS["where"](mask, *(beside(first, part) for part in parts)))


def _spread(xp: Any, x: Recorded, shape: Any) -> Recorded:  # noqa: ARG001 - one signature
    return Recorded(ops.expand(x.tensor, shape=tuple(shape)))


def _called(name: str) -> Callable[..., Any]:
    return lambda xp, x: Recorded(ops.OPS[name](x.tensor))  # noqa: ARG005 - one signature


def _constant(name: str) -> Callable[..., Any]:
    """A function whose derivative is 0 wherever it has one: its value is a constant."""
    return lambda xp, x, *rest, **options: getattr(xp, name)(
        array_of(x), *(array_of(r) for r in rest), **options
    )


def _power(xp: Any, base: Any, exponent: Any) -> Recorded:  # noqa: ARG001 - one signature
    first: Recorded = base if isinstance(base, Recorded) else exponent
    return Recorded(ops.pow_(beside(first, base), beside(first, exponent)))


def _pair(name: str) -> Callable[..., Any]:
    def call(xp: Any, a: Any, b: Any) -> Recorded:  # noqa: ARG001 - one signature
        first = a if isinstance(a, Recorded) else b
        return Recorded(ops.OPS[name](beside(first, a), beside(first, b)))

    return call


def _sign(xp: Any, x: Recorded) -> Any:
    return xp.sign(array_of(x))


FUNCTIONS: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        "where": join,
        "power": _power,
        "sign": _sign,
        "broadcast_to": _spread,
        "abs": lambda xp, x: abs(x),  # noqa: ARG005 - one signature
        "absolute": lambda xp, x: abs(x),  # noqa: ARG005 - one signature
        "negative": lambda xp, x: -x,  # noqa: ARG005 - one signature
        "square": lambda xp, x: x * x,  # noqa: ARG005 - one signature
        "asarray": lambda xp, x, dtype=None: x if dtype is None else x.astype(dtype),  # noqa: ARG005 - one signature
        "add": lambda xp, a, b: a + b,  # noqa: ARG005 - one signature
        "subtract": lambda xp, a, b: a - b,  # noqa: ARG005 - one signature
        "multiply": lambda xp, a, b: a * b,  # noqa: ARG005 - one signature
        "divide": lambda xp, a, b: a / b,  # noqa: ARG005 - one signature
        "maximum": _pair("maximum"),
        "minimum": _pair("minimum"),
        **{name: _called(name) for name in (
            "exp", "log", "sqrt", "tanh", "sin", "cos", "tan", "sinh", "cosh", "log1p", "expm1", "log2",
            "log10", "reciprocal",
        )},
        **{name: _constant(name) for name in (
            "zeros_like", "ones_like", "empty_like", "isfinite", "isnan", "isinf", "floor", "floor_divide",
            "ceil", "rint", "trunc", "argmax", "argmin", "argsort", "any", "all", "signbit",
        )},
    }
)  # fmt: skip
"""NumPy's functions over recorded arrays; the first argument is the array namespace."""


def unknown(op: str, what: str) -> GradientError:
    """The error for a rule that does something of which no derivative is known here."""
    return GradientError(
        f"its gradient uses {what}, of which no derivative is known: there is no second derivative",
        op=op, help="write the op's gradient with recorded operations, or declare its composite",
    )  # fmt: skip
