"""Ops of your own: a class with a forward and a backward on tensors (torch.autograd.Function).

The ops of :mod:`minimp.ops` compute on arrays and round where they say so. A Function is written with tensors
and may do anything: its forward is not recorded, and its backward is believed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Self
from weakref import ref

from minimp import ops
from minimp.door import Op
from minimp.errors import GradientError, SettingError, ShapeError
from minimp.modes import MODES, setting
from minimp.policy import CastClass, Mixed, format_of
from minimp.tape import Array, Edge, Event, Node, Parts, Value

if TYPE_CHECKING:
    from minimp.tensors import Tensor

__all__ = ["Function", "FunctionContext"]


class FunctionContext:
    """The `ctx` that a Function's forward and backward share; any attribute may be set on it.

    Attributes:
        needs_input_grad: for each argument of `apply`, whether its gradient will be asked for.
    """

    needs_input_grad: tuple[bool, ...]

    def __init__(self, needs_input_grad: tuple[bool, ...]) -> None:
        self.needs_input_grad = needs_input_grad
        self._kept: tuple[Value | None, ...] = ()
        self._constant: list[Value] = []
        self._zeros = True
        self._again: list[Any] | None = None

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        """Keep tensors, inputs and outputs above all, for backward; they count as saved memory.

        Raises:
            SettingError: something else than a tensor or None; keep it as an attribute of `ctx`.
        """
        for each in tensors:
            if each is not None and not isinstance(each, Value):
                raise SettingError(
                    f"expected tensors or None, got {type(each).__name__}",
                    op="save_for_backward", help="set it as an attribute: ctx.name = value",
                )  # fmt: skip
        self._kept = tensors

    @property
    def saved_tensors(self) -> tuple[Any, ...]:
        """What :meth:`save_for_backward` kept; in backward only.

        Raises:
            GradientError: read outside of backward.
        """
        if self._again is None:
            raise GradientError(
                "saved_tensors can be read in backward only", op="ctx.saved_tensors",
                help="in forward, use the tensors themselves",
            )  # fmt: skip
        return tuple(self._again)

    def mark_non_differentiable(self, *outputs: Tensor) -> None:
        """Say which outputs of forward have no gradient (integers never have one)."""
        self._constant += outputs

    def set_materialize_grads(self, value: bool) -> None:
        """Say whether backward gets zeros (the default) or None for an output that nothing depended on."""
        self._zeros = bool(value)


class Function:
    """A differentiable function of your own; torch.autograd.Function's names.

    >>> class Cube(mp.Function):
    ...     @staticmethod
    ...     def forward(ctx, x):
    ...         ctx.save_for_backward(x)
    ...         return x * x * x
    ...
    ...     @staticmethod
    ...     def backward(ctx, grad):
    ...         (x,) = ctx.saved_tensors
    ...         return grad * 3 * x * x
    >>> x = mp.tensor(2.0, requires_grad=True)
    >>> Cube.apply(x).backward()
    >>> x.grad
    tensor(12.)

    `forward` runs unrecorded, in the autocast region in force, on the arguments as they are; it returns a
    tensor, or a tuple of tensors and other things. Where `setup_context(ctx, inputs, output)` is defined,
    `forward` takes no ctx. `backward` gets one gradient for each output, in its format, and returns one for
    each argument (None where there is none; trailing Nones may be left out), of the argument's shape; another
    format is cast to the argument's. It runs with autocast off (see :func:`minimp.custom_bwd`).

    With `create_graph=True` backward is recorded: written with differentiable ops on `grad` and
    `ctx.saved_tensors`, it has second derivatives, by its arguments, its outputs and tensors from outside.
    Arguments and outputs may be attributes of ctx too (inside a container, an output is a constant). As in
    torch, what forward computed on the way is a constant: for its second derivative, return it as an output
    or compute it again in backward.

    torch's `mark_dirty` does not exist: no tensor is changed in place here.
    """

    _op: ClassVar[_FunctionOp]

    @staticmethod
    def forward(*args: Any) -> Any:  # noqa: ARG004 - a subclass says what it takes
        """Compute the outputs; a subclass defines it."""
        raise SettingError("a Function needs a forward", help="define a static method forward(ctx, ...)")

    setup_context: ClassVar[Callable[..., None] | None] = None

    @staticmethod
    def backward(ctx: FunctionContext, *grads: Any) -> Any:  # noqa: ARG004 - the same
        """Compute the gradients of the arguments; a subclass defines it."""
        raise GradientError(
            "this Function has no backward", help="define a static method backward(ctx, *grads)"
        )

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls._op = _FunctionOp(cls)

    def __new__(cls, *_: Any) -> Self:
        """Refuse: a Function is applied, not made."""
        raise SettingError(f"{cls.__name__} cannot be made", help=f"call {cls.__name__}.apply(...)")

    @classmethod
    def apply(cls, *args: Any) -> Any:
        """Run `forward` and record it as one op.

        Raises:
            SettingError: `forward` returned no tensor.
        """
        modes = MODES.get()
        edges = [x.edge if isinstance(x, Value) and modes.grad_enabled else None for x in args]
        ctx = FunctionContext(tuple(edge is not None for edge in edges))
        with setting(grad_enabled=False):
            if cls.setup_context is None:
                raw = cls.forward(ctx, *args)
            else:
                raw = cls.forward(*args)
                cls.setup_context(ctx, args, raw)
        outputs = raw if isinstance(raw, tuple) else (raw,)
        if not any(isinstance(each, Value) for each in outputs):
            raise SettingError(
                f"expected forward to return tensors, got {type(raw).__name__}", op=cls.__name__,
                help="return a tensor, or a tuple with tensors in it",
            )  # fmt: skip
        made = _record(cls._op, ctx, edges, args, outputs)
        return made if isinstance(raw, tuple) else made[0]


def _record(
    op: Op, ctx: FunctionContext, edges: list[Edge | None], args: Sequence[Any], outputs: tuple[Any, ...]
) -> tuple[Any, ...]:
    """Put one node on the tape, and one that picks for each output if there are several."""
    modes = MODES.get()
    first = next(each for each in outputs if isinstance(each, Value))
    recording = any(edge is not None for edge in edges)
    node = Node(op, edges, {}, first.backend, first.format, modes.accumulate, recording)
    node.shape = first.shape
    kept = ctx._kept if recording else ()
    node.save(*(None if each is None else each.array for each in kept))
    node.ids = tuple(_place(each, args, outputs) for each in kept)
    node.memo = call = _Call(ctx, _looks(outputs), tuple(getattr(x, "format", None) for x in args))
    call.outside = {i: x.edge for i, x in enumerate(kept) if x is not None and node.ids[i] == len(args)}
    ctx._kept = ()
    made = []
    for i, each in enumerate(outputs):
        if not isinstance(each, Value):
            made.append(each)
        elif not recording or each.format is None or any(each is x for x in ctx._constant):
            made.append(Value.make(each.array, each.backend))
        else:
            call.moving.add(i)
            made.append(Value.make(each.array, each.backend, _edge_of(node, i)))
    held = {name: _place(x, args, outputs) for name, x in vars(ctx).items() if isinstance(x, Value)}
    call.loose = {name: -1 - place for name, place in held.items() if place < 0}
    if modes.listeners:
        _tell(node, args, outputs)
    return tuple(made)


@dataclass(slots=True)
class _Call:
    """What a Function's node remembers of the call.

    Attributes:
        ctx: the context that forward and backward share.
        looks: of each output, what zeros for it look like.
        formats: the formats of the arguments.
        outside: for each saved tensor that is neither argument nor output, where its gradient goes.
        moving: the outputs that have a gradient.
        picks: the nodes of several outputs, held weakly: they hold this.
        loose: the outputs that are attributes of ctx: name -> which.
    """

    ctx: FunctionContext
    looks: tuple[Any, ...]
    formats: tuple[Any, ...]
    outside: dict[int, Edge | None] = field(default_factory=dict)
    moving: set[int] = field(default_factory=set)
    picks: dict[int, ref[Node]] = field(default_factory=dict)
    loose: dict[str, int] = field(default_factory=dict)


def _looks(outputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return what zeros for each output look like: (shape, dtype, backend), None for what is no tensor."""
    return tuple(
        (each.shape, each.array.dtype, each.backend) if isinstance(each, Value) else None for each in outputs
    )


def _place(kept: Any, args: Sequence[Any], outputs: Sequence[Any]) -> int:
    """Where a saved tensor is from: i for argument i, -1 - i for output i, and far off for anything else."""
    for i, each in enumerate(args):
        if each is kept:
            return i
    for i, each in enumerate(outputs):
        if each is kept:
            return -1 - i
    return len(args)


def _edge_of(node: Node, index: int) -> Node | None:
    """Return the node of one output: of several, one of its own; None if it has no gradient."""
    call: _Call = node.memo
    if index not in call.moving:
        return None
    if len(call.looks) == 1:
        return node
    held = call.picks.get(index)
    chosen = None if held is None else held()
    if chosen is None:
        shape, dtype, backend = call.looks[index]
        chosen = Node(PICK, [node], {"index": index}, backend, format_of(dtype), node.accumulate, True)
        chosen.shape, chosen.ids = shape, ()
        call.picks[index] = ref(chosen)
    return chosen


def _tell(node: Node, args: Sequence[Any], outputs: Sequence[Any]) -> None:
    arrays = tuple(x.array if isinstance(x, Value) else x for x in args)
    results = tuple(y.array for y in outputs if isinstance(y, Value))
    given = tuple(getattr(x, "format", None) for x in args)
    modes = MODES.get()
    for listener in modes.listeners:
        listener(Event("forward", node, arrays, results, given, modes))


# ---- the two ops ------------------------------------------------------------------------------------------


class _FunctionOp(Op):
    """The op of a Function: its gradient is the class's backward, on tensors."""

    def __init__(self, cls: type[Function]) -> None:
        super().__init__(_no_forward, CastClass.KEEP, Mixed.KEEP, "unknown")
        self.name = self.__name__ = cls.__name__
        self.__doc__ = cls.__doc__
        self.function = cls

    def differentiate(self, node: Node, grad: Array) -> tuple[Array | None, ...]:
        """Run backward, unrecorded."""
        with setting(grad_enabled=False, autocast=None, accumulate=node.accumulate):
            parts = self.on_tensors(node, grad)
        return tuple(None if part is None else part.array for part in parts)

    def on_tensors(self, node: Node, grad: Any) -> list[Tensor | None]:
        """Run backward, recorded or not, as the settings in force say."""
        call: _Call = node.memo
        given = dict(grad.by_index) if isinstance(grad, Parts) else {_only(call.looks): grad}
        grads = [self._gradient(call.ctx, given.get(i), shape) for i, shape in enumerate(call.looks)]
        with _reconnected(node):
            found = self.function.backward(call.ctx, *grads)
        parts = found if isinstance(found, tuple) else (found,)
        count = len(node.inputs)
        if any(part is not None for part in parts[count:]):
            raise GradientError(
                f"expected {count} gradients, got {len(parts)}", op=self.name,
                help="return one for each argument of apply, None where there is none",
            )  # fmt: skip
        parts = (*parts[:count], *[None] * (count - len(parts)))
        return [self._fitted(node, i, part) for i, part in enumerate(parts)]

    def _gradient(self, ctx: FunctionContext, held: Any, like: Any) -> Tensor | None:
        if held is None:
            if like is None or not ctx._zeros:
                return None
            shape, dtype, backend = like
            return Value.make(backend.xp.zeros(shape, dtype), backend)
        return held if isinstance(held, Value) else Value.make(held, like[2])  # type: ignore[return-value]  # every Value is a Tensor

    def _fitted(self, node: Node, index: int, part: Any) -> Tensor | None:
        """Hold a gradient to its argument: shape, then format."""
        edge, wanted = node.inputs[index], node.memo.formats[index]
        if edge is None or part is None:
            return None
        if not isinstance(part, Value):
            if MODES.get().grad_enabled:
                raise GradientError(
                    f"the gradient of argument {index} is no tensor ({type(part).__name__}), so there is no "
                    "second derivative", op=f"{self.name}.backward",
                    help="compute it with tensors, or mark backward as function_casts.once_differentiable",
                )  # fmt: skip
            part = Value.lift(part, node.backend)
        if part.shape != edge.shape:
            raise ShapeError(
                f"expected the gradient of argument {index} in shape {edge.shape}, got {part.shape}",
                op=f"{self.name}.backward", shapes=[edge.shape, part.shape],
                help="sum it over the axes that were broadcast",
            )  # fmt: skip
        return part if part.format is wanted else ops.cast(part, format=wanted)


class _PickOp(Op):
    """One output of several: its gradient is one part of theirs."""

    silent = True

    def differentiate(self, node: Node, grad: Array) -> tuple[Any, ...]:
        """Give the gradient its place among those of the other outputs."""
        return (Parts({node.options["index"]: grad}),)

    def on_tensors(self, node: Node, grad: Any) -> list[Any]:
        """The same, for recorded gradients."""
        return [Parts({node.options["index"]: grad})]


def _no_forward(ctx: Node, *arrays: Array) -> Array:  # noqa: ARG001 - a forward's signature
    raise SettingError("this op runs by Function.apply", op=ctx.op.name)


PICK = _PickOp(_no_forward, CastClass.KEEP, Mixed.KEEP, "exact")
PICK.name = "pick"


def _only(like: Sequence[Any]) -> int:
    """The index of the one tensor among the outputs."""
    return next(i for i, each in enumerate(like) if each is not None)


@contextmanager
def _reconnected(node: Node) -> Iterator[None]:
    """Give ctx what it kept, each at its place on the tape, for the time of a backward."""
    call: _Call = node.memo
    ctx = call.ctx
    before = ctx._again
    held = {name: getattr(ctx, name) for name in call.loose}
    ctx._again = [_again(node, i) for i in range(len(node.saved))]
    for name, index in call.loose.items():
        setattr(ctx, name, Value.make(held[name].array, node.backend, _edge_of(node, index)))
    try:
        yield
    finally:
        ctx._again = before
        for name, each in held.items():
            setattr(ctx, name, each)


def _again(node: Node, index: int) -> Any:
    """Return saved tensor `index`, at its place on the tape."""
    array, place = node.saved[index], node.ids[index]
    if array is None:
        return None
    edge: Edge | None
    if place < 0:
        edge = _edge_of(node, -1 - place)
    else:
        edge = node.inputs[place] if place < len(node.inputs) else node.memo.outside.get(index)
    if not isinstance(edge, Value):
        return Value.make(array, node.backend, edge)
    if edge.array is array:
        return edge
    if MODES.get().grad_enabled:
        raise GradientError(
            "a leaf was given another array after the forward: its derivative there is lost",
            op=node.op.name, help="differentiate before the optimizer's step",
        )  # fmt: skip
    return Value.make(array, node.backend)
