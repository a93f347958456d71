"""How far the result of a call, and its gradients, may be from those in float64: the ops' bounds, chained.

A call may be several ops (`cross_entropy` is two). Each op's bound (:mod:`minimp.checks.tables`) is a running
error analysis over numbers that know their own errors, so what one op gives is what the next one reads. The
middle of a bound is the float64 value of the whole call from the same inputs, with nothing rounded: any way
of computing it can be held to it, another library's too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from minimp import formats
from minimp.checks.accumulation import edge_of
from minimp.checks.bounds import is_plain
from minimp.checks.case import Case
from minimp.checks.running import U64, Running, arithmetic_of, finite_size
from minimp.checks.tables import FAMILIES, FORMATLESS, REFERENCE, gradient_bound
from minimp.formats import Format
from minimp.policy import Mixed, format_of
from minimp.tape import Edge, Event, Node

__all__ = ["Bound", "gradient_bounds", "result_bound"]

Array = np.ndarray[Any, Any]
STEADY = frozenset({"abs", "clamp", "hardtanh", "neg", "relu"})
"""Exact functions that move by no more than their first input does."""
MOVING = frozenset({"cat", "clone", "expand", "getitem", "permute", "reshape", "stack", "where"})
"""Exact ops whose result is elements of their inputs, chosen by what is no number to compute with."""


@dataclass(frozen=True, eq=False)
class Bound:
    """Values in float64, and how far a computed one may be from them; infinite where nothing is claimed."""

    exact: Array
    allowed: Array


class _Call:
    """The numbers of one call, by the identities of their arrays, which the events keep alive."""

    def __init__(self, forward: Sequence[Event]) -> None:
        self.forward = {event.node.number: event for event in forward}
        self.numbers: dict[int, Running] = {}
        self.results = {event.node.number: self._follow(event) for event in forward}

    def inputs(self, event: Event) -> tuple[Any, ...]:
        """Return the inputs of an op as running numbers in its arithmetic; what is no number as it is."""
        at = _arithmetic(event.node)
        known = [self.numbers.get(id(x)) for x in event.inputs]
        return tuple(
            x if is_plain(x) else at.number(x) if k is None else replace(k, at=at)
            for x, k in zip(event.inputs, known, strict=True)
        )

    def _follow(self, event: Event) -> Bound:
        """Work out one op, keep its result for those that read it, and return its bound."""
        node, inputs = event.node, self.inputs(event)
        name, programs = node.op.name, FAMILIES[node.op.bound].programs
        if programs is None:
            exact = np.asarray(REFERENCE[name](*map(_exact, inputs), **node.options))
            if name in FORMATLESS:
                return Bound(exact, np.zeros(exact.shape))
            rounded = Running(exact, _carried(name, inputs, exact, node.options), _arithmetic(node))
        else:
            rounded = programs[name](*inputs, **node.options).rounded(_output_format(node))
        rounded = _unsure(rounded, inputs)
        if not any(_error(x).any() for x in inputs):  # NaN of exact inputs is NaN in any arithmetic
            rounded = replace(rounded, error=np.where(np.isnan(rounded.exact), 0.0, rounded.error))
        self.numbers[id(event.outputs[0])] = _read_again(rounded, _output_format(node))
        return _bound(rounded)


def result_bound(events: Sequence[Event], result: Array) -> Bound:
    """Return the bound of a call's result.

    Args:
        events: its events in order; those of its gradients may be among them.
        result: the array of the result, the very object that one of the ops gave.
    """
    forward = _forward(events)
    made = next(event for event in forward if event.outputs[0] is result)
    return _Call(forward).results[made.node.number]


def gradient_bounds(
    events: Sequence[Event], grad: Array, top: Node, leaves: Sequence[Edge]
) -> list[Bound | None]:
    """Return the bound of the gradient by each leaf, None where there is no gradient.

    Args:
        events: the forward and backward events of a call in order.
        grad: the gradient of its result.
        top: the op that gave the result.
        leaves: what the gradients are by.
    """
    call = _Call(_forward(events))
    found = {id(top): arithmetic_of(_output_format(top)).number(grad)}
    for event in events:
        if event.phase == "backward":
            made = call.forward[event.node.number]
            incoming = _read_again(found[id(event.node)], _output_format(event.node))
            for i, part in _parts(event, made, call.inputs(made), incoming):
                edge = event.node.inputs[i]
                if edge is not None:
                    before = found.get(id(edge))
                    found[id(edge)] = part if before is None else _added(before, part)
    return [_bound(found[id(leaf)]) if id(leaf) in found else None for leaf in leaves]


def _forward(events: Sequence[Event]) -> list[Event]:
    return [event for event in events if event.phase == "forward"]


def _added(a: Running, b: Running) -> Running:
    """Add two gradients of one input, each rounded before and the sum after."""
    return (_read_again(a, a.at.fmt) + _read_again(b, b.at.fmt)).rounded()


def _parts(
    event: Event, made: Event, inputs: tuple[Any, ...], incoming: Running
) -> list[tuple[int, Running]]:
    """Return (index, gradient) for each input that got one."""
    node = event.node
    own = tuple(format_of(x.dtype) if hasattr(x, "dtype") else None for x in made.inputs)
    case = Case(
        _arithmetic(node), inputs, replace(incoming, at=_arithmetic(node)), node.options,
        _output_format(node), own if node.op.mixed is Mixed.KEEP else (),
    )  # fmt: skip
    wanted = [i for i, part in enumerate(event.outputs) if part is not None and node.inputs[i] is not None]
    return [(i, _unsure(_at_kinks(node.op.name, i, case), (*inputs, incoming))) for i in wanted]


def _at_kinks(name: str, index: int, case: Case) -> Running:
    """Return a gradient; of a function with kinks, wide enough for either side that the input may be on."""
    made = gradient_bound(name, index, case)
    if name not in STEADY or not any(_error(x).any() for x in case.inputs):
        return made
    for sign in (-1.0, 1.0):
        moved = tuple(
            replace(x, exact=x.exact + sign * x.error) if isinstance(x, Running) else x for x in case.inputs
        )
        there = gradient_bound(name, index, replace(case, inputs=moved))
        made = replace(made, error=np.maximum(made.error, np.abs(there.exact - made.exact) + there.error))
    return made


def _carried(name: str, inputs: Sequence[Any], exact: Array, options: Mapping[str, Any]) -> Array:
    """Return how far an exact op's result may be off, from how far its inputs may be."""
    errors = [_error(x) for x in inputs]
    if not any(error.any() for error in errors):
        return np.zeros(exact.shape)
    if name in MOVING:
        given = [e if isinstance(x, Running) else x for x, e in zip(inputs, errors, strict=True)]
        return np.asarray(REFERENCE[name](*given, **options), np.float64)
    return np.broadcast_to(errors[0] if name in STEADY else np.inf, exact.shape)


def _arithmetic(node: Node) -> Any:
    return arithmetic_of(node.format, node.accumulate)


def _output_format(node: Node) -> Format:
    """Return the format of an op's result: the working one, or what an option chose."""
    chosen = node.options.get("format") or node.options.get("dtype") or node.format
    return formats.float32 if chosen is None else chosen


def _read_again(number: Running, fmt: Format) -> Running:
    """Return what the next op reads: nothing is claimed where it may have become infinite."""
    flown = (finite_size(number.exact) + number.error >= edge_of(fmt)) & np.isfinite(number.exact)
    return replace(number, error=np.where(flown & (number.error > 0), np.inf, number.error))


def _unsure(number: Running, inputs: Sequence[Any]) -> Running:
    """Claim nothing on infinities and NaN made from what may have overflowed before."""
    if not any(np.isinf(_error(x)).any() for x in inputs):
        return number
    unsure = ~np.isfinite(number.exact) | np.isnan(number.error)
    return replace(number, error=np.where(unsure, np.inf, number.error))


def _bound(number: Running) -> Bound:
    """Return a bound for an array: the reference and the bound are two float64 evaluations."""
    return Bound(number.exact, number.error + 4 * U64 * finite_size(number.exact))


def _exact(x: Any) -> Any:
    return x.exact if isinstance(x, Running) else x


def _error(x: Any) -> Array:
    return x.error if isinstance(x, Running) else np.zeros(())
