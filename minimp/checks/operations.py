"""The contract of one op event, and of a list of them: formats, error bounds, gradient rules."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from minimp import formats
from minimp.checks.bounds import is_plain
from minimp.checks.case import Case
from minimp.checks.contracts import within
from minimp.checks.findings import Finding, Findings, compare, merge
from minimp.checks.rules import check_rule
from minimp.checks.running import U64, arithmetic_of, finite_size
from minimp.checks.tables import (
    FAMILIES,
    FORMATLESS,
    GRADIENTS,
    REFERENCE,
    forward_bound,
    gradient_bound,
)
from minimp.formats import Format
from minimp.policy import Mixed, common_format, compute_formats, format_of
from minimp.tape import Event, Node

__all__ = ["call_of", "check_event", "check_events"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Call:
    """A forward event on the host, as the checks read it.

    Attributes:
        node: the op's context.
        inputs: arrays on the host, Python numbers, None.
        output: the result.
        options: the keyword arguments; for dropout the mask too, read off the result.
    """

    node: Node
    inputs: tuple[Any, ...]
    output: Array
    options: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The op's name, and the order of its creation."""
        return f"{self.node.op.name}#{self.node.number}"

    @property
    def result_format(self) -> Format | None:
        """The format that the result must have."""
        if self.node.op.name in FORMATLESS:
            return None
        return self.options.get("format") or self.options.get("dtype") or self.node.format

    def exact(self) -> Any:
        """The result in float64, by the independent reference."""
        return REFERENCE[self.node.op.name](*(_wide(x) for x in self.inputs), **self.options)


def check_events(events: Iterable[Event], forward: Iterable[Event] = ()) -> Findings:
    """Check every event; a gradient is checked against the inputs of its op's forward event.

    Args:
        events: what listeners were told, in order.
        forward: earlier events, for gradients whose forward is not among `events`.
    """
    held = list(events)
    known = {e.node.number: e for e in (*forward, *held) if e.phase == "forward"}
    parts = [check_event(event, known.get(event.node.number)) for event in held]
    return merge(f"{len(held)} op events keep their contracts", parts)


def check_event(event: Event, forward: Event | None = None) -> Findings:
    """Check one op or one gradient.

    forward: the inputs were cast as the policy in force asks; the result has the op's format, and lies
    within its error bound (:mod:`minimp.checks.bounds`) of the float64 result from the same inputs.

    backward: each gradient has its input's shape and the op's working format, and lies within its bound of
    the float64 gradient from the same inputs and the same incoming gradient; and the op's own rule, run in
    float64, agrees with a difference quotient of the float64 forward (:mod:`minimp.checks.rules`).

    An op without a reference (one of your own) is checked for its formats and its rule. A
    :class:`minimp.Function` is not checked: the ops in its body are, and its backward is believed.

    Args:
        event: what a listener was told.
        forward: the forward event of a gradient's op; without it only shapes and formats are checked.
    """
    if event.node.op.on_tensors is not None:
        name = event.node.op.name
        return Findings(name, (), (f"{name} is a Function: the ops in its body are checked, it is not",))
    with np.errstate(all="ignore"):
        if event.phase == "forward":
            return _check_forward(call_of(event), event)
        return _check_backward(event, None if forward is None else call_of(forward))


# ---- forward ----------------------------------------------------------------------------------------------


def _check_forward(call: Call, event: Event) -> Findings:
    wrong = _obeys_policy(call, event)
    wanted, op = call.result_format, call.node.op
    if format_of(call.output.dtype) is not wanted:
        wrong += (Finding("has the op's format", _name(wanted), str(call.output.dtype), call.name),)
    formats_found = Findings(f"{call.name}: formats", wrong, checked=len(call.inputs))
    if wrong:
        return formats_found
    if op.name not in REFERENCE or op.bound not in FAMILIES or not FAMILIES[op.bound].knows(op.name):
        note = f"{op.name} has no reference: only its formats and its gradient rule are checked"
        return replace(formats_found, notes=(note,))
    return merge(f"{call.name}: formats and error bound", [formats_found, _within_bound(call)])


def _obeys_policy(call: Call, event: Event) -> tuple[Finding, ...]:
    """Compare what the inputs were cast to with what the rules make of the formats that were given."""
    op, region = call.node.op, event.modes.autocast
    have = [format_of(x.dtype) if hasattr(x, "dtype") else None for x in call.inputs]
    given = [g if g is not None else h for g, h in zip(event.given, have, strict=True)]
    if region is not None and region.enabled:
        rule = region.policy.rule(op)
        asked = compute_formats(rule, given, region.format, call.node.options, op=op.name)
        given = [g if a is None else a for g, a in zip(given, asked, strict=True)]
    kinds = [
        (g, x.ndim > 0) if hasattr(x, "dtype") else None for g, x in zip(given, call.inputs, strict=True)
    ]
    common = common_format(op.name, op.mixed, kinds)
    wanted = [g if k is None or common is None else common for g, k in zip(given, kinds, strict=True)]
    return tuple(
        Finding("is cast as the policy asks", _name(w), _name(h), f"{call.name} input {i}")
        for i, (w, h) in enumerate(zip(wanted, have, strict=True))
        if w is not h
    )


def _within_bound(call: Call) -> Findings:
    """Compare the result with the float64 reference, element by element."""
    node, output, fmt = call.node, call.output, call.result_format
    exact = np.asarray(call.exact())
    if exact.shape != output.shape:
        what = Finding("has the result's shape", str(exact.shape), str(output.shape), call.name)
        return Findings(call.name, (what,))
    at = arithmetic_of(node.format, node.accumulate)
    bound = forward_bound(node.op.bound, node.op.name, at, call.inputs, call.options) if fmt else None
    if bound is None:
        wrong = compare("equals the reference", call.name, output, exact, ~_equal(output, exact))
        return Findings(call.name, wrong, checked=output.size)
    twice = 4 * U64 * finite_size(exact)  # the reference and the bound are two float64 evaluations
    return _judge(call.name, output, exact, bound.rounded(fmt).error + twice)


def _judge(name: str, got: Array, exact: Any, allowed: Any) -> Findings:
    """Compare values with their bounds, and say where there are none."""
    exact, allowed = np.broadcast_to(exact, got.shape), np.broadcast_to(allowed, got.shape)
    far = ~within(got, exact, allowed)
    wrong = compare("lies within its bound of float64", name, got, exact, far, detail=allowed)
    unclaimed = int(np.isposinf(allowed).sum())
    note = (
        f"{name}: no claim on {unclaimed:,} of {got.size:,} elements: overflow, or 0 / 0, may be on the way"
    )
    return Findings(name, wrong, (note,) if unclaimed else (), got.size)


# ---- backward ---------------------------------------------------------------------------------------------


def _check_backward(event: Event, call: Call | None) -> Findings:
    node = event.node
    name = f"gradient of {node.op.name}#{node.number}"
    parts = [None if p is None else node.backend.to_host(p) for p in event.outputs]
    given = _own_formats(node, call)
    found = Findings(f"{name}: formats", _gradient_formats(node, parts, given, name), checked=len(parts))
    if call is None:
        note = "gradients without their forward event: only shapes and formats are checked"
        return replace(found, notes=(note,))
    if not found:
        return found
    grad = node.backend.to_host(event.inputs[0])
    known = node.op.name in GRADIENTS
    bounds = _gradients_within_bounds(call, parts, grad, name) if known else []
    rule = Findings(f"{name}: rule", check_rule(node, call.inputs, grad, _asked(call)))
    return merge(f"{name}: formats, bounds and rule", [found, *bounds, rule])


def _asked(call: Call) -> dict[str, Any]:
    """The options that the op was called with, on the host."""
    return {key: call.options[key] for key in call.node.options}


def _own_formats(node: Node, call: Call | None) -> tuple[Format | None, ...]:
    """The formats of the inputs of an op that takes them as they are, else ()."""
    if call is None or node.op.mixed is not Mixed.KEEP:
        return ()
    return tuple(format_of(x.dtype) if hasattr(x, "dtype") else None for x in call.inputs)


def _gradient_formats(
    node: Node, parts: Sequence[Array | None], given: Sequence[Format | None], name: str
) -> tuple[Finding, ...]:
    found = []
    for i, (source, part) in enumerate(zip(node.inputs, parts, strict=False)):
        if source is None or part is None:
            continue
        if part.shape != source.shape:
            found.append(
                Finding("has its input's shape", str(source.shape), str(part.shape), f"{name} by {i}")
            )
        wanted = given[i] if given else node.format
        if format_of(part.dtype) is not wanted:
            what = "has its input's format" if given else "has the working format"
            found.append(Finding(what, _name(wanted), str(part.dtype), f"{name} by {i}"))
    return tuple(found)


def _gradients_within_bounds(
    call: Call, parts: Sequence[Array | None], grad: Array, name: str
) -> list[Findings]:
    node = call.node
    at = arithmetic_of(node.format, node.accumulate)
    inputs = tuple(x if is_plain(x) else at.number(x) for x in call.inputs)
    own = _own_formats(node, call)
    case = Case(at, inputs, at.number(grad), call.options, call.result_format or formats.float32, own)
    found = []
    for i, part in enumerate(parts):
        if part is None or i >= len(inputs) or node.inputs[i] is None:
            continue
        if node.op.name == "dropout":  # where x is 0, the result does not show the mask
            keep = np.where(inputs[0].exact == 0, part != 0, call.options["keep"])
            case = replace(case, options={**call.options, "keep": keep})
        wanted = gradient_bound(node.op.name, i, case)
        found.append(_judge(f"{name} by {i}", part, wanted.exact, wanted.error))
    return found


# ---- reading events ---------------------------------------------------------------------------------------


def call_of(event: Event) -> Call:
    """Bring a forward event to the host."""
    node = event.node
    inputs = tuple(node.backend.to_host(x) if hasattr(x, "dtype") else x for x in event.inputs)
    output = node.backend.to_host(event.outputs[0])
    options = {key: _host(value, node) for key, value in node.options.items()}
    if node.op.name == "dropout":
        options["keep"] = _wide(output) != 0
    return Call(node, inputs, output, options)


def _host(value: Any, node: Node) -> Any:
    """Bring the arrays of an option to the host: an index, or parts of one."""
    if isinstance(value, tuple | list):
        return type(value)(_host(part, node) for part in value) if type(value) in (tuple, list) else value
    return node.backend.to_host(value) if isinstance(value, node.backend.xp.ndarray) else value


def _wide(x: Any) -> Any:
    """Floating arrays as float64; integers, numbers and None as they are."""
    return x.astype(np.float64) if hasattr(x, "dtype") and format_of(x.dtype) is not None else x


def _equal(got: Array, wanted: Array) -> Array:
    values, truth = got.astype(np.float64), wanted.astype(np.float64)
    return np.asarray((got == wanted) | (np.isnan(values) & np.isnan(truth)))


def _name(fmt: Format | None) -> str:
    return "no number format" if fmt is None else fmt.name
