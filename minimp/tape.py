"""The tape: what an op records, and how gradients travel back over it.

Each recorded op leaves one :class:`Node`. :func:`backward` walks the nodes in the opposite order of
their creation, on raw arrays, with autocast off, in the formats of the forward.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any, ClassVar, Union

from minimp.errors import GradientError, ShapeError
from minimp.formats import Format, float32
from minimp.modes import MODES, Modes
from minimp.pieces import Pieces, as_array, join
from minimp.policy import format_of
from minimp.quiet import hush, speak

if TYPE_CHECKING:
    from minimp.door import Op
    from minimp.tensors import Tensor
    from minimp_backends.array_backend import ArrayBackend as Backend

__all__ = [
    "Array", "Edge", "Event", "Node", "Parts", "Value", "backward", "edge_gradients", "gradients",
    "require_saved", "tell_backward",
]  # fmt: skip

Array = Any
"""A raw array of the backend in use: `numpy.ndarray` on NumPy."""
FLOAT32 = float32.dtype
Edge = Union["Node", "Value"]
"""Where a gradient goes next: a recorded op, or a leaf, whose `.grad` it is added to."""

Hook = Callable[[Any, Edge], Any]
"""From a gradient, and where it is, to the gradient that goes on from there."""

_numbers = itertools.count()
_age = attrgetter("number")


class Value:
    """What the tape sees of a tensor: an array, where it lives, and the node that made it.

    An array is never changed in place by the engine: ops and optimizers make new ones. So a node can
    keep an array for backward without a copy.
    """

    __slots__ = ("__weakref__", "_grad", "array", "backend", "format", "hooks", "node", "requires_grad")

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


def backward(output: Value, grad: Array, *, keep: bool = False) -> None:
    """Add d(output)/d(leaf), weighted by `grad`, to the `.grad` of each leaf that requires a gradient.

    Args:
        output: a result of recorded ops.
        grad: the gradient of the output: an array of its shape and format.
        keep: keep what was saved, so that backward can run again (torch's `retain_graph`).

    Raises:
        GradientError: nothing was recorded, or what was saved has been freed by an earlier backward.
    """
    for leaf, found in gradients([(output, grad)], keep=keep).items():
        if isinstance(leaf, Value):
            total = found if leaf.grad is None else leaf.backend.add(leaf.grad.array, found)
            leaf.grad = Value.make(total, leaf.backend)


def gradients(
    starts: Sequence[tuple[Value, Array]], wanted: frozenset[Edge] = frozenset(), *, keep: bool = False
) -> dict[Edge, Array]:
    """Return the gradients of what is wanted, or of all leaves; no `.grad` is touched.

    They are read-only: one array may be the gradient of several tensors. Arguments and errors as
    :func:`backward` and :func:`edge_gradients`.
    """
    modes = MODES.get()

    def differentiate(node: Node, grad: Array) -> tuple[Array | None, ...]:
        if not node.recording:
            require_saved(node)
        op, grad = node.op, as_array(grad, node.backend) if grad.__class__ is Pieces else grad
        if op.piecewise is None or modes.listeners:
            parts = op.differentiate(node, grad)
            if modes.listeners:
                tell_backward(node, grad, parts, modes)
        else:
            parts = op.piecewise(node, grad)
        if not keep and node.saved:  # an op that saved nothing can go on: losses may share a weight's cast
            node.saved, node.recording = (), False
        return parts

    token = hush()
    try:
        found = edge_gradients(starts, wanted, differentiate=differentiate, add=_add)
        whole = {edge: as_array(grad, edge.backend) for edge, grad in found.items()}
    finally:
        speak(token)
    for edge, array in whole.items():
        edge.backend.freeze((array,))
    return whole


def _add(node: Edge, held: Any, part: Any) -> Any:
    if isinstance(held, Parts):
        return held.merged(part, node.backend.add)
    if isinstance(held, Pieces) or isinstance(part, Pieces):
        return join(held, part, node.backend)
    return node.backend.add(held, part)


def tell_backward(node: Node, grad: Any, parts: tuple[Array | None, ...], modes: Modes) -> None:
    """Tell the listeners that a gradient has run."""
    if not node.op.silent:
        incoming = tuple(grad.by_index.values()) if isinstance(grad, Parts) else (grad,)
        for listener in modes.listeners:
            listener(Event("backward", node, incoming, parts, (), modes))


def edge_gradients(
    starts: Sequence[tuple[Value, Any]], wanted: frozenset[Edge] = frozenset(), *,
    differentiate: Callable[[Node, Any], Sequence[Any]], add: Callable[[Edge, Any, Any], Any],
    stop: bool = False,
) -> dict[Edge, Any]:  # fmt: skip
    """Carry gradients back, node by node, newest first; return those of what is wanted, or of all leaves.

    Args:
        starts: where to begin, each with its gradient, of whatever kind `differentiate` and `add` take.
        wanted: if any, only what lies between them and the starts is differentiated, and its hooks called.
        differentiate: from a node and the gradient of its result to those of its inputs.
        add: the sum of two gradients that meet; the edge is one that they came from.
        stop: go no further back than `wanted`, and leave the hooks there to the walk that goes on.

    Raises:
        GradientError: nothing was recorded.
    """
    pending: dict[Edge, Any] = {}
    for output, grad in starts:
        start = _start(output)
        pending[start] = add(start, pending[start], grad) if start in pending else grad
    order = _newest_first(pending, wanted if stop else frozenset())
    between: set[Edge] = set()
    if wanted and not stop:
        between = _between(order, wanted)
        order = [edge for edge in order if edge in wanted or edge in between]
    done: dict[Edge, Any] = {}
    for node in order:
        here = pending.pop(node, None)
        if here is None:  # every path to this node ended in a gradient of None
            continue
        if getattr(node, "hooks", None) and not (stop and node in wanted):
            here = _hooked(node, here)
        if isinstance(node, Value) or (wanted and node in wanted):
            done[node] = here
            if node not in between:
                continue
            assert isinstance(node, Node)
        for source, part in zip(node.inputs, differentiate(node, here), strict=False):
            if source is None or part is None:
                continue
            held = pending.get(source)
            pending[source] = part if held is None else add(node, held, part)
    return done


def _start(output: Value) -> Edge:
    if output.edge is None:
        raise GradientError(
            "the tensor does not depend on anything that requires a gradient",
            help="make a leaf with requires_grad=True, and compute outside mp.no_grad()",
        )
    return output.edge


def _between(order: list[Edge], wanted: frozenset[Edge]) -> set[Edge]:
    """Return the nodes with something that is wanted behind them."""
    found: set[Edge] = set()
    for node in reversed(order):
        if isinstance(node, Node) and any(s in wanted or s in found for s in node.inputs if s is not None):
            found.add(node)
    return found


def _hooked(edge: Edge, grad: Any) -> Any:
    """Show a gradient to the hooks of its tensor, in the order of registration; each may replace it."""
    grad = as_array(grad, edge.backend)
    for hook in list((edge.hooks or {}).values()):
        grad = hook(grad, edge)
    return grad


def require_saved(node: Node) -> None:
    """Make sure that what a node saved is there; bring it back where it was let go on purpose.

    Raises:
        GradientError: an earlier backward has freed it.
    """
    if node.recording:
        return
    rerun = getattr(node, "rerun", None)
    if rerun is None:
        raise GradientError(
            "what this op saved was freed by an earlier backward",
            op=node.op.name, help="pass retain_graph=True to the first backward",
        )  # fmt: skip
    rerun()


def _newest_first(starts: Iterable[Edge], last: frozenset[Edge]) -> list[Edge]:
    """Return all that `starts` depend on, newest first, leaves last; nothing behind `last`; no recursion.

    The leaves come in an order of their own, the same in every run, for the sake of their hooks.
    """
    seen = dict.fromkeys(starts)
    stack = list(seen)
    while stack:
        node = stack.pop()
        if isinstance(node, Value) or node in last:
            continue
        for source in node.inputs:
            if source is not None and source not in seen:
                seen[source] = None
                stack.append(source)
    return sorted(seen, key=_age, reverse=True)
