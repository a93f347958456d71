"""What the tape is made of: values, the nodes that ops leave, and what a listener is told."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Union

from minimp.errors import GradientError, ShapeError
from minimp.formats import Format, float32
from minimp.modes import Modes
from minimp.policy import format_of

if TYPE_CHECKING:
    from minimp.door import Op
    from minimp.tape.scales import Mark
    from minimp.tensors import Tensor
    from minimp_backends.array_backend import ArrayBackend as Backend

__all__ = ["Array", "Edge", "Event", "Node", "Parts", "Value", "WideNode"]

Array = Any
"""A raw array of the backend in use: `numpy.ndarray` on NumPy."""
FLOAT32 = float32.dtype
Edge = Union["Node", "Value"]
"""Where a gradient goes next: a recorded op, or a leaf, whose `.grad` it is added to."""

Hook = Callable[[Any, Edge], Any]
"""From a gradient, and where it is, to the gradient that goes on from there."""

_numbers = itertools.count()


class Value:
    """What the tape sees of a tensor: an array, where it lives, and the node that made it.

    An array is never changed in place by the engine: ops and optimizers make new ones. So a node can
    keep an array for backward without a copy.
    """

    __slots__ = (
        "__weakref__", "_grad", "array", "backend", "format", "hooks", "mark", "node", "requires_grad",
    )  # fmt: skip

    make: ClassVar[Callable[..., Tensor]]
    """What ops return, and what plain arrays are turned into; :mod:`minimp.tensors` sets both."""
    lift: ClassVar[Callable[..., Tensor]]

    array: Array
    backend: Backend
    format: Format | None
    requires_grad: bool
    node: Node | None
    number: ClassVar[int] = -1  # a leaf is older than every node
    hooks: dict[int, Hook]  # there only where one was registered
    mark: Mark  # there only on a gradient that carries a loss scale, or did
    _grad: Tensor | None

    def __init__(self, array: Array, backend: Backend, node: Node | None = None) -> None:
        self.array = array
        self.backend = backend
        self.format = format_of(array.dtype)
        self.requires_grad = node is not None
        self.node = node

    @property
    def grad(self) -> Tensor | None:
        """The gradient that backward has added up here, or None."""
        return getattr(self, "_grad", None)

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        if not isinstance(value, Value | None):
            raise GradientError(
                f"expected a tensor or None for .grad, got {type(value).__name__}",
                help="wrap it: mp.tensor(array)",
            )
        if value is not None and (value.array.shape != self.array.shape or value.format is not self.format):
            raise ShapeError(
                f"expected a gradient of shape {self.array.shape} in {self.format}, "
                f"got {value.array.shape} in {value.format}",
                help="cast or reshape it, or assign None",
            )
        self._grad = value

    @property
    def shape(self) -> tuple[int, ...]:
        """The lengths of the axes."""
        return self.array.shape  # type: ignore[no-any-return]  # arrays have no type here

    @property
    def edge(self) -> Edge | None:
        """Where a gradient of this value goes: to its node, to its own `.grad`, or nowhere."""
        return (self.node or self) if self.requires_grad else None


class Node:
    """One recorded op, and the context (`ctx`) that its forward and its gradient work with.

    Attributes:
        op: the op.
        inputs: for each positional argument, where its gradient goes, or None if it needs none.
        options: the keyword arguments.
        memo: anything small that is no array (lengths, a shape) which forward leaves for the gradient.
        saved: the arrays kept for backward, exactly those that the op's forward passed to `save`.
        ids: the identities of the inputs' arrays and of the result's, in this order: they tell which of what
            was saved is which. There only if something was.
        hooks: what to call with the gradient of the result, or None.
        rerun: what brings back what was saved, where it was let go on purpose (:mod:`minimp.rerun`), or None.
        backend: the backend; its kernels are called on raw arrays.
        accumulate: how this op's sums are accumulated, in both directions.
        format: the working format: what the inputs were cast to, and what results are rounded to.
        shape: the shape of the result.
        number: the order of creation.
    """

    __slots__ = (
        "__weakref__", "accumulate", "backend", "format", "hooks", "ids", "inputs", "memo", "number", "op",
        "options", "recording", "rerun", "saved", "shape",
    )  # fmt: skip

    ids: Sequence[int]
    memo: Any
    rerun: Callable[[], None] | None
    saved: tuple[Array, ...]
    shape: tuple[int, ...]

    def __init__(
        self, op: Op, inputs: Sequence[Edge | None], options: dict[str, Any],
        backend: Backend, format: Format | None, accumulate: str, recording: bool,
    ) -> None:  # fmt: skip
        self.op = op
        self.inputs = inputs
        self.options = options
        self.backend = backend
        self.format = format
        self.accumulate = accumulate
        self.recording = recording
        self.saved = ()
        self.hooks: dict[int, Hook] | None = None
        self.number = next(_numbers)

    def save(self, *arrays: Array) -> None:
        """Keep arrays for the gradient; read them there as `ctx.saved`. Nothing else is kept.

        They are frozen, so that nobody changes them through `Tensor.numpy` meanwhile.
        """
        if self.recording:
            self.saved = arrays
            self.backend.freeze(arrays)

    def needs(self, index: int) -> bool:
        """Tell whether the gradient of positional argument `index` will be asked for."""
        return self.recording and self.inputs[index] is not None

    def wide(self, array: Array) -> Array:
        """Return the values of a storage array to compute with (float32 for the 16-bit formats)."""
        return self.backend.wide(array)

    def round(self, array: Array) -> Array:
        """Round a fresh result once, to the working format; its memory may be taken over."""
        return self.backend.narrow(array, self.format)

    def shape_of(self, index: int) -> tuple[int, ...]:
        """Return the shape of positional argument `index`, which must need a gradient."""
        source = self.inputs[index]
        assert source is not None
        return source.shape


class WideNode(Node):
    """The context of an op whose working format is float32, which is computed in as it is.

    The same as :class:`Node`, without asking the backend what need not be done.
    """

    __slots__ = ()

    def wide(self, array: Array) -> Array:
        """Return the array: its values are computed with as they are."""
        return array

    def round(self, array: Array) -> Array:
        """Round if the sums were accumulated in a wider format."""
        return array if array.dtype is FLOAT32 else self.backend.narrow(array, self.format)


@dataclass(frozen=True, slots=True)
class Parts:
    """Gradients of some of an op's several results, by their positions."""

    by_index: dict[int, Any]

    def merged(self, other: Parts, add: Callable[[Any, Any], Any]) -> Parts:
        """Return both, added up where they meet."""
        total = dict(self.by_index)
        for index, part in other.by_index.items():
            total[index] = add(total[index], part) if index in total else part
        return Parts(total)


@dataclass(frozen=True, slots=True)
class Event:
    """What a listener is told after an op or a gradient has run.

    Attributes:
        phase: ``"forward"`` or ``"backward"``.
        node: the op's context.
        inputs: forward: the arrays after casting; backward: the one incoming gradient (of a Function with
            several outputs: those that there are).
        outputs: forward: the one result (of a Function: all); backward: a gradient, or None, for each input.
        given: the formats of the inputs before casting (forward only).
        modes: the settings in force (forward only; backward runs with autocast off).
    """

    phase: str
    node: Node
    inputs: tuple[Array, ...]
    outputs: tuple[Array | None, ...]
    given: tuple[Format | None, ...]
    modes: Modes
