"""The gradients of one call of a torch function, by autograd's graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Arrived", "hear_gradients"]

VIEWS = {"ViewBackward0", "UnsafeViewBackward0", "ReshapeAliasBackward0"}
"""Nodes that give a result another shape."""
PASSED = VIEWS | {"ToCopyBackward0", "TBackward0", "LogSoftmaxBackward0"}
"""Nodes between a call's own and those of its inputs: of autocast, of a weight's transposition, and the first
half of a cross-entropy, whose second half hands on a gradient of the same shape."""
LONGEST = 6


@dataclass(frozen=True)
class Arrived:
    """The gradient that came to a call's result, and what it made of it: one for each input, or None."""

    came: Any
    parts: tuple[Any, ...]


@dataclass(frozen=True)
class _Way:
    """From a place among a node's gradients to an input, and whether a transposition lies between."""

    place: int
    to: int
    turned: bool


def hear_gradients(result: Any, inputs: Sequence[Any], hear: Callable[[Arrived], None]) -> None:
    """Call `hear` when the gradient of a call has been computed; never, if none is or can be told.

    Args:
        result: what the call returned.
        inputs: what it was given: tensors, and None for anything else.
        hear: called with what :class:`Arrived` tells.
    """
    if getattr(result, "grad_fn", None) is None:
        return
    own = [_node_of(x) for x in inputs]
    node = _last_computing(result.grad_fn, own)
    ways = list(_ways(node, own))
    if not ways:
        return

    def heard(made: Sequence[Any], came: Sequence[Any]) -> None:
        if came[0] is None:
            return
        parts: list[Any] = [None] * len(inputs)
        for way in ways:
            part, x = made[way.place], inputs[way.to]
            if part is not None and part.numel() == x.numel():
                parts[way.to] = (part.t() if way.turned else part).reshape(x.shape)
        given = came[0]
        hear(Arrived(given.reshape(result.shape) if given.numel() == result.numel() else given, tuple(parts)))

    node.register_hook(heard)


def _node_of(x: Any) -> Any:
    """Return what tells an input in the graph: its node, or itself if it is a leaf."""
    if x is None or not x.requires_grad:
        return None
    return x if x.grad_fn is None else x.grad_fn


def _place_of(node: Any, own: Sequence[Any], taken: set[int]) -> int | None:
    """Return which input a node stands for; of one that was given twice, the first that is left."""
    here = getattr(node, "variable", node)
    return next((i for i, each in enumerate(own) if each is here and i not in taken), None)


def _last_computing(node: Any, own: Sequence[Any]) -> Any:
    """Return the node that computes, where a change of shape stands after it."""
    for _ in range(LONGEST):
        if node.name() not in VIEWS:
            break
        following = node.next_functions[0][0]
        if following is None or _place_of(following, own, set()) is not None:
            break
        node = following
    return node


def _ways(node: Any, own: Sequence[Any]) -> list[_Way]:
    found: list[_Way] = []
    taken: set[int] = set()
    for place, (start, _) in enumerate(node.next_functions):
        step, turned = start, False
        for _ in range(LONGEST):
            to = None if step is None else _place_of(step, own, taken)
            if to is not None:
                found.append(_Way(place, to, turned))
                taken.add(to)
                break
            if step is None or step.name() not in PASSED:
                break
            turned ^= step.name() == "TBackward0"
            step = step.next_functions[0][0]
    return found
