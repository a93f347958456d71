"""How gradients travel back over the tape."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import Any

from minimp.errors import GradientError
from minimp.modes import MODES, Modes
from minimp.pieces import Pieces, as_array, join
from minimp.quiet import hush, speak
from minimp.tape.records import Array, Edge, Event, Node, Parts, Value

__all__ = ["edge_gradients", "gradients", "newest_first", "require_saved", "tell_backward"]

_age = attrgetter("number")


def gradients(
    starts: Sequence[tuple[Value, Array]], wanted: frozenset[Edge] = frozenset(), *, keep: bool = False
) -> dict[Edge, Array]:
    """Return the gradients of what is wanted, or of all leaves; no `.grad` is touched.

    They are read-only: one array may be the gradient of several tensors. Arguments and errors as
    :func:`minimp.tape.backward` and :func:`edge_gradients`.
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
    order = newest_first(pending, wanted if stop else frozenset())
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
    while not node.recording:  # a part inside a part: the outer one runs again, and then the inner one
        rerun = getattr(node, "rerun", None)
        if rerun is None:
            raise GradientError(
                "what this op saved was freed by an earlier backward",
                op=node.op.name, help="pass retain_graph=True to the first backward",
            )  # fmt: skip
        rerun()


def newest_first(starts: Iterable[Edge], last: frozenset[Edge]) -> list[Edge]:
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
