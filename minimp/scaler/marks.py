"""Which gradients are multiplied by a loss scale right now.

A gradient is an array like any other; nothing in its numbers says that it is S times too large. So a backward
pass that starts from a scaled loss leaves a note for each leaf it reaches, and unscaling takes it away again.
What compares gradients with something (clipping, a norm) asks here before it does so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from weakref import ref

from minimp.tape import Edge, Value
from minimp.tensors import Tensor

__all__ = ["forget", "scale_of", "watch"]


@dataclass(frozen=True, slots=True)
class _Mark:
    """The gradient of one leaf is S times what it should be.

    Attributes:
        leaf: the leaf.
        before: the gradient it had when backward began; as long as it has that one, nothing was added to it.
        scale: S.
        scaler: whose scale that is.
    """

    leaf: ref[Value]
    before: Callable[[], Any]
    scale: float
    scaler: ref[Any]


_marks: dict[int, _Mark] = {}


def watch(scaled: Tensor, scale: float, scaler: Any) -> None:
    """Mark the gradients that a backward pass from `scaled`, which is S times a loss, will make."""
    if not scaled.requires_grad or scale == 1.0:
        return
    assert scaled.edge is not None
    edge, owner = ref(scaled.edge), ref(scaler)  # the edge holds this hook: it must not be held by it

    def mark(_: Any) -> None:
        for leaf in _leaves(edge()):
            before = _nothing if leaf.grad is None else ref(leaf.grad)
            held = _marks.get(id(leaf))
            if held is None or not _holds(held, leaf):
                _marks[id(leaf)] = _Mark(ref(leaf, _dropper(id(leaf))), before, scale, owner)

    scaled.register_hook(mark)


def scale_of(gradients: Iterable[Value]) -> list[tuple[float, Any]]:
    """Return (S, whose scale it is) for each gradient tensor, and (1, None) for one that carries no scale."""
    found: dict[int, tuple[float, Any]] = {}
    for mark in list(_marks.values()):
        leaf = mark.leaf()
        if leaf is not None and _holds(mark, leaf):
            found[id(leaf.grad)] = (mark.scale, mark.scaler())
    return [found.get(id(grad), (1.0, None)) for grad in gradients]


def forget(leaves: Iterable[Value] | None = None, *, scaler: Any = None) -> None:
    """Take away the marks of leaves whose gradients were unscaled or dropped, or all of one scaler."""
    for leaf in leaves or ():
        _marks.pop(id(leaf), None)
    if scaler is not None:
        for key in [key for key, mark in _marks.items() if mark.scaler() in (scaler, None)]:
            _marks.pop(key, None)


def _holds(mark: _Mark, leaf: Value) -> bool:
    """Tell whether the leaf has a gradient that came, or was added to, after the mark was made."""
    return leaf.grad is not None and leaf.grad is not mark.before()


def _leaves(start: Edge | None) -> Iterator[Value]:
    """Yield the leaves that a gradient at `start` will reach."""
    seen: set[Edge] = set()
    stack = [start]
    while stack:
        edge = stack.pop()
        if edge is None or edge in seen:
            continue
        seen.add(edge)
        if isinstance(edge, Value):
            yield edge
        else:
            stack.extend(edge.inputs)


def _nothing() -> None:
    return None


def _dropper(key: int) -> Callable[[Any], None]:
    """Return what takes a mark away when its leaf is gone; the number may belong to another one later."""

    def drop(_: Any) -> None:
        _marks.pop(key, None)

    return drop
