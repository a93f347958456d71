"""The walk of a backward that is itself recorded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from minimp import ops
from minimp.errors import GradientError
from minimp.higher.arrays import Recorded, wide_format
from minimp.higher.context import RecordedContext, tensor_at
from minimp.modes import MODES, setting
from minimp.policy import format_of
from minimp.tape import Edge, Node, Parts, Value, edge_gradients, require_saved, tell_backward

if TYPE_CHECKING:
    from minimp.tensors import Tensor

__all__ = ["recorded_gradients"]


def recorded_gradients(
    starts: Sequence[tuple[Value, Tensor]], wanted: frozenset[Edge] = frozenset()
) -> dict[Edge, Tensor]:
    """Carry gradients back, recording; return those of what is wanted, or of all leaves.

    What was saved is kept. Each gradient has the values that :func:`minimp.tape.backward` gives, bit for bit,
    but for ops that have a composite: those are differentiated as what they are composed of.

    Args:
        starts: the tensors to differentiate, each with its gradient, which may be recorded too.
        wanted: as in :func:`minimp.tape.edge_gradients`.

    Raises:
        GradientError: nothing was recorded, or an op on the way has no second derivative.
    """
    with setting(grad_enabled=True, autocast=None):
        return edge_gradients(starts, wanted, differentiate=_differentiate, add=_add)


def _add(node: Edge, held: Any, part: Any) -> Any:  # noqa: ARG001 - the array's way needs the node
    return held.merged(part, ops.add) if isinstance(held, Parts) else ops.add(held, part)


def _differentiate(node: Node, grad: Any) -> Sequence[Any]:
    """Run one gradient rule on recorded arrays, and tell the listeners."""
    require_saved(node)
    rule = node.op.on_tensors or (_by_rule if node.op.composed is None else _through_composite)
    with setting(accumulate=node.accumulate):
        parts = rule(node, grad)
    if MODES.get().listeners and not node.op.silent:
        arrays = tuple(None if part is None else part.array for part in parts)
        tell_backward(node, _arrays(grad), arrays, MODES.get())
    return parts


def _arrays(grad: Any) -> Any:
    if isinstance(grad, Parts):
        return Parts({index: part.array for index, part in grad.by_index.items()})
    return grad.array


def _by_rule(node: Node, grad: Tensor) -> list[Tensor | None]:
    found = node.op.differentiate(RecordedContext(node), Recorded(grad))  # type: ignore[arg-type]  # the face of a Node
    return [_tensor(node, part) for part in found]


def _tensor(node: Node, part: Any) -> Tensor | None:
    if part is None:
        return None
    return part.tensor if isinstance(part, Recorded) else Value.make(part, node.backend)


def _through_composite(node: Node, grad: Tensor) -> list[Tensor | None]:
    """Run the op again as what it is composed of, in the wide format, and differentiate that."""
    assert node.op.composed is not None
    inputs = [_input(node, i) for i in range(len(node.inputs))]
    wide = [_widened(x) for x in inputs]
    output = node.op.composed(*wide, **node.options)
    if node.format is not None and output.format is not node.format and not node.options.get("dtype"):
        output = ops.cast(output, format=node.format)
    edges = [
        x.edge if isinstance(x, Value) and node.inputs[i] is not None else None for i, x in enumerate(inputs)
    ]
    wanted = frozenset(edge for edge in edges if edge is not None)
    found = edge_gradients([(output, grad)], wanted, differentiate=_differentiate, add=_add, stop=True)
    return [None if edge is None else found.pop(edge, None) for edge in edges]  # one tensor given twice: once


def _input(node: Node, index: int) -> Any:
    """Return input `index` as it came, from what was saved or from its leaf."""
    known, edge = node.ids[index], node.inputs[index]
    if known == id(None):
        return None
    held = next((each for each in node.saved if id(each) == known), None)
    if isinstance(edge, Value):
        return tensor_at(node, edge, edge.array if held is None and id(edge.array) == known else held)
    if held is None:
        return _of_no_account(node, index)
    if not hasattr(held, "dtype"):
        return held
    return Value.make(held, node.backend) if edge is None else tensor_at(node, edge, held)


def _of_no_account(node: Node, index: int) -> Any:
    """Return zeros for an input that was not saved: no gradient reads it, as that of a sum reads no term.

    Unless the gradient reads the result, from which an input could be told.
    """
    edge = node.inputs[index]
    if not isinstance(edge, Node) or any(id(each) == node.ids[-1] for each in node.saved):
        raise GradientError(
            f"input {index} was not saved, so there is no second derivative", op=node.op.name,
            help="an op with a composite saves its inputs",
        )  # fmt: skip
    form: Any = edge.options.get("format") or edge.options.get("dtype") or edge.format
    return Value.make(node.backend.xp.zeros(edge.shape, form.dtype), node.backend, edge)


def _widened(x: Any) -> Any:
    if not isinstance(x, Value) or format_of(x.array.dtype) is None:
        return x
    wide = wide_format(x.format)
    return x if x.format is wide else ops.cast(x, format=wide)
