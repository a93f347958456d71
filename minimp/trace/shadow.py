"""The float64 shadow: each op again in float64, from the same inputs and from inputs never rounded.

The first run tells the error that an op *made*, the second one what it *inherited*: the difference of the
two. It is the op's own formula that runs, by float64 kernels; :mod:`minimp.checks` holds the formulas to an
independent reference. Shadows go with the arrays they belong to: an array that the recorder did not see being
made (a batch, a weight, what an optimizer wrote) is taken as exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minimp.door import OPS
from minimp.errors import MinimpError
from minimp.formats import Format, float64
from minimp.policy import format_of
from minimp.tape import Array, Event, Node
from minimp.trace.distances import Distances, distances, jumps, relative
from minimp.trace.events import Error, OpError
from minimp.trace.identity import ByIdentity
from minimp.trace.statistics import Stats, measure, targets_of

__all__ = ["FAULTS", "Shadow", "in_float64", "wide64"]

FAULTS = (MinimpError, ValueError, TypeError, IndexError, AttributeError)
"""What an op may complain with that cannot run in float64."""
WITHOUT = ("fp8", "quant")
"""In the names of ops that round to codes by design: float64 would not be what they stand for."""
JUMPING = frozenset({"ceil", "floor", "remainder", "round", "sign", "trunc"})
"""Ops whose result jumps."""
KINKED = frozenset(
    {
        "abs", "adaptive_max_pool2d", "amax", "amin", "clamp", "hardsigmoid", "hardswish", "hardtanh",
        "hinge_embedding_loss", "l1_loss", "leaky_relu", "margin_ranking_loss", "max_pool2d", "maximum",
        "minimum", "prelu", "relu",
    }
)  # fmt: skip
"""Ops whose gradient jumps: where a rounding moves an input across the kink, it comes out another one."""


@dataclass(frozen=True, slots=True)
class Twin:
    """An array in float64, and how far the real one is from it, as a norm."""

    array: Array
    relative: float


@dataclass(frozen=True, slots=True)
class Judged:
    """One output: its error, and what the op made zero or infinite of it."""

    error: OpError
    flushed: int
    overflowed: int


class _CannotRunError(Exception):
    """An op, or its gradient, does not run in float64."""


class Shadow:
    """What is known in float64 of the arrays that live.

    Attributes:
        inherits: whether gradients go on from the shadow's gradients. Not where a scaler multiplies them on
            their way.
        notes: op -> why it has no shadow.
    """

    def __init__(self) -> None:
        self.inherits = True
        self.notes: dict[str, str] = {}
        self._arrays: ByIdentity[Twin] = ByIdentity()
        self._nodes: ByIdentity[tuple[Node, Node, float]] = ByIdentity()
        self._arriving: ByIdentity[Array] = ByIdentity()
        self._parts: ByIdentity[tuple[Array, OpError]] = ByIdentity()
        self._measured: ByIdentity[Stats] = ByIdentity()

    def see(self, event: Event) -> tuple[Judged | None, ...]:
        """Run an op or a gradient in float64; return one judgement for each output."""
        op, nothing = event.node.op, (None,) * len(event.outputs)
        if OPS.get(op.name) is not op:
            self.notes[op.name] = "it is no op of the engine: its result is taken as exact"
            return nothing
        if op.on_tensors is not None or event.node.format is None:
            return nothing
        if any(word in op.name for word in WITHOUT):
            self.notes[op.name] = "it rounds to codes by design"
            return nothing
        try:
            return self._forward(event) if event.phase == "forward" else self._backward(event)
        except _CannotRunError as fault:
            self.notes[op.name] = str(fault).split("\n")[0]
            return nothing

    def leaf(self, leaf: Any, grad: Array, backend: Any) -> OpError | None:
        """Return the error of a leaf's gradient after backward, and forget the shadow's."""
        pure = self._arriving.pop(leaf)
        form = format_of(grad.dtype)
        if pure is None or form is None or pure.shape != grad.shape:
            return None
        held = self._parts.get(grad)
        if held is not None and held[0] is pure:  # one op alone made it
            total, unrounded = held[1].total, held[1].unrounded
        else:
            got, true = on_host(backend, backend.wide(grad), pure)
            total = distances(got, true, true, form).made
            unrounded = self._unrounded(pure, backend)
        return OpError(Error(), total, total, total.relative, unrounded)

    # ---- forward ----------------------------------------------------------------------------------------

    def _forward(self, event: Event) -> tuple[Judged | None, ...]:
        node, (result,) = event.node, event.outputs
        form = format_of(result.dtype) if result is not None else None
        if result is None or form is None:
            return (None,)
        twins = [self._arrays.get(x) if hasattr(x, "dtype") else None for x in event.inputs]
        same = [wide64(x, node.backend) for x in event.inputs]
        first, exact = _run(node, same, result)
        second, pure = first, exact
        if any(twins):
            inputs = [x if t is None else t.array for x, t in zip(same, twins, strict=True)]
            second, pure = _run(node, inputs, result)
        entering = max((t.relative for t in twins if t is not None), default=0.0)
        if node.recording:  # a gradient depends on the forward's inputs by what was saved alone
            self._nodes.put(node, (first, second, entering if second.saved else 0.0))
        widened = _is_widened(node, event.inputs[0], result)
        got, true, clean = on_host(node.backend, node.backend.wide(result), exact, pure)
        found = distances(got, true, clean, form, unrounded=widened)
        self._arrays.put(result, Twin(pure, found.total.relative))
        apart = jumps(true, clean) if node.op.name in JUMPING and pure is not exact else (0, 0.0)
        return (_judged(found, entering, None, apart),)

    # ---- backward ---------------------------------------------------------------------------------------

    def _backward(self, event: Event) -> tuple[Judged | None, ...]:
        node, (grad,) = event.node, event.inputs
        pair = self._nodes.get(node)
        arrived = self._arriving.pop(node) if self.inherits else None
        if pair is None:
            return (None,) * len(event.outputs)
        given = wide64(grad, node.backend)
        exacts = pures = _differentiated(node, pair[0], given)
        entering = 0.0
        if arrived is not None or pair[1] is not pair[0]:
            pures = _differentiated(node, pair[1], given if arrived is None else arrived)
        if arrived is not None:
            held = self._parts.get(grad)  # where one op made it, that is known
            known = held is not None and held[0] is arrived
            entering = (
                held[1].total.relative if held is not None and known
                else relative(*on_host(node.backend, given, arrived))
            )  # fmt: skip
        entering = max(entering, pair[2])
        return tuple(
            self._judged_part(node, i, (grad, part), exacts[i], pures[i], entering)
            for i, part in enumerate(event.outputs)
        )

    def _judged_part(
        self, node: Node, i: int, ends: tuple[Array, Array | None], exact: Array, pure: Array,
        entering: float,
    ) -> Judged | None:  # fmt: skip
        grad, part = ends
        edge = node.inputs[i] if i < len(node.inputs) else None
        if part is None or edge is None or exact is None or pure is None:
            return None
        if self.inherits:
            held = self._arriving.get(edge)
            self._arriving.put(edge, pure if held is None else held + pure)
        form = format_of(part.dtype)
        if form is None:
            return None
        widened = _is_widened(node, grad, part)
        got, true, clean = on_host(node.backend, node.backend.wide(part), exact, pure)
        found = distances(got, true, clean, form, unrounded=widened)
        apart = jumps(true, clean) if node.op.name in KINKED and pure is not exact else (0, 0.0)
        judged = _judged(found, entering, self._unrounded(pure, node.backend), apart)
        self._parts.put(part, (pure, judged.error))
        return judged

    def _unrounded(self, pure: Array, backend: Any) -> Stats:
        """Return the statistics of a float64 gradient, once where a cast hands it on."""
        held = self._measured.get(pure)
        if held is None:
            host = np.ascontiguousarray(*on_host(backend, pure))
            held = measure(host, float64, host, targets_of(float64))
            self._measured.put(pure, held)
        return held


def _is_widened(node: Node, before: Array, after: Array) -> bool:
    """Tell whether a cast, or its gradient, went to a wider format, which rounds nothing."""
    known = hasattr(before, "dtype") and format_of(before.dtype) is not None
    return node.op.name == "cast" and known and bool(before.dtype.itemsize < after.dtype.itemsize)


def _differentiated(node: Node, twin: Node, grad: Array) -> Sequence[Array]:
    """Return the gradients of a float64 node; a cast hands them on as they are."""
    if node.op.name == "cast":
        return (grad,)
    try:
        return node.op.differentiate(twin, grad)
    except FAULTS as fault:
        raise _CannotRunError(str(fault)) from fault


def _judged(
    found: Distances, entering: float, unrounded: Stats | None, apart: tuple[int, float]
) -> Judged:  # fmt: skip
    error = OpError(found.made, found.inherited, found.total, entering, unrounded, *apart)
    return Judged(error, found.flushed, found.overflowed)


def _run(node: Node, inputs: Sequence[Any], result: Array) -> tuple[Node, Array]:
    """Run the op of a node in float64; return the node that it leaves, and the result."""
    options = in_float64(node.options)
    twin = Node(node.op, node.inputs, options, node.backend, float64, "float64", node.recording)
    if node.op.name == "cast":  # nothing is rounded, forth or back
        return twin, inputs[0]
    if node.op.name == "dropout":  # the mask that was drawn; drawing again would move the generator
        twin.saved = node.saved or (node.backend.wide(result) != 0,)
        return twin, node.op.differentiate(twin, inputs[0])[0]
    try:
        made = node.op.forward(twin, *inputs, **options)
    except FAULTS as fault:
        raise _CannotRunError(str(fault)) from fault
    twin.shape = made.shape
    twin.ids = [*map(id, inputs), id(made)] if twin.saved else ()  # as the door leaves it
    return twin, made


def in_float64(options: dict[str, Any]) -> dict[str, Any]:
    """Return an op's options with float64 for every format that they name."""
    return {key: float64 if isinstance(value, Format) else value for key, value in options.items()}


def on_host(backend: Any, *arrays: Any) -> tuple[Any, ...]:
    """Return arrays where they are compared: on the host, one that is there twice once."""
    if backend.xp is np:
        return arrays
    hosts = {id(each): each for each in arrays}
    hosts = {place: np.asarray(backend.to_host(each)) for place, each in hosts.items()}
    return tuple(hosts[id(each)] for each in arrays)


def wide64(x: Any, backend: Any) -> Any:
    """Return floating arrays as float64, anything else as it is."""
    if not hasattr(x, "dtype") or format_of(x.dtype) is None:
        return x
    return backend.wide(x).astype(np.float64)  # by way of float32, which 16-bit arrays often have beside them
