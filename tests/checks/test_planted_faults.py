"""The contracts of op events catch what they are for: small faults, planted one at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import minimp as mp
from minimp import functional, ops
from minimp.checks import check_event, check_events
from minimp.checks.operations import call_of
from minimp.checks.running import arithmetic_of
from minimp.checks.tables import FAMILIES, forward_bound
from minimp.modes import listen
from minimp.ops import OPS
from minimp.tape import Event
from tests.arrays import host
from tests.ops.samples import DIFFERENTIABLE, SAMPLES, Sample, run

ULPS = {"exact": 1, "cast": 8, "rounded": 3, "function": 24}
"""Output ulps, by family, of the smallest fault that must be caught in float32; in 16 bits 2 are enough."""
LOW = ("float16", "bfloat16")


def _elementwise(sample: Sample) -> bool:
    return OPS[sample.op].bound in ULPS and all(np.prod(shape) > 0 for shape in sample.shapes)


def _spoiled(event: Event, change: Callable[[Any], Any], index: int = 0) -> Event:
    """Return the event with one output changed."""
    outputs = list(event.outputs)
    outputs[index] = change(np.array(host(outputs[index]), order="C"))
    return replace(event, outputs=tuple(outputs))


def _shift(ulps: int) -> Callable[[Any], Any]:
    """Move the element of largest magnitude outward by some units in the last place."""

    def change(array: Any) -> Any:
        if array.dtype.kind in "ib":
            array.ravel()[0] = not array.ravel()[0]
            return array
        flat = array.reshape(-1)
        at = int(np.argmax(np.abs(flat.astype(np.float64))))
        flat.view(f"u{array.itemsize}")[at] += ulps
        return array

    return change


@pytest.mark.parametrize("fmt", ["float32", *LOW])
@pytest.mark.parametrize("sample", [s for s in SAMPLES if _elementwise(s)], ids=str)
def test_a_few_ulps_are_caught(sample: Sample, fmt: str) -> None:
    """Oracle: a result known to be wrong by the ulps planted in it; unspoiled, it passes."""
    (event,) = [
        e for e in run(sample, fmt, "positive") if e.phase == "forward" and e.node.op.name == sample.op
    ]
    assert check_event(event)
    if not event.outputs[0].size:
        return  # nothing, of which nothing can be wrong
    wide = event.outputs[0].dtype.itemsize > 2
    found = check_event(_spoiled(event, _shift(ULPS[event.node.op.bound] if wide else 2)))
    assert not found
    assert "bound" in found.wrong[0].what or "reference" in found.wrong[0].what


@pytest.mark.parametrize("fmt", ["float32", *LOW])
@pytest.mark.parametrize("sample", DIFFERENTIABLE, ids=str)
def test_a_gradient_that_is_off_by_a_few_percent_is_caught(sample: Sample, fmt: str) -> None:
    """Oracle: the largest element of a gradient, wrong by 2^-4 of itself; unspoiled, it passes."""
    events = run(sample, fmt, "normal")
    forward = {e.node.number: e for e in events if e.phase == "forward"}
    for event in (e for e in events if e.phase == "backward"):
        for i, part in enumerate(event.outputs):
            if part is None or not np.abs(host(part).astype(np.float64)).max(initial=0.0) > 0:
                continue
            bits = mp.formats.get(part.dtype).mantissa_bits - 4
            found = check_event(_spoiled(event, _shift(1 << bits), i), forward[event.node.number])
            assert not found, f"{event.node.op.name} by {i}"


@pytest.mark.parametrize("fmt", ["float32", *LOW])
def test_a_dropped_term_is_caught(fmt: str) -> None:
    """Oracle: a dot product of 64 terms of similar size, one left out."""
    random = np.random.default_rng(3)
    a = mp.tensor(random.uniform(1, 2, (3, 64)), dtype=fmt)
    b = mp.tensor(random.uniform(1, 2, (64, 4)), dtype=fmt)
    events: list[Event] = []
    with listen(events.append):
        ops.matmul(a, b)
        ops.sum_(a, dim=1)
        ops.conv2d(a.reshape(3, 1, 8, 8), b.reshape(4, 1, 8, 8))
        ops.mean(a, dim=1)
    short = a.numpy().copy()
    short[:, -1] = 0
    with mp.no_grad():
        faulty = [
            ops.matmul(mp.tensor(short), b), ops.sum_(mp.tensor(short), dim=1),
            ops.conv2d(mp.tensor(short).reshape(3, 1, 8, 8), b.reshape(4, 1, 8, 8)),
            ops.mean(mp.tensor(short), dim=1),
        ]  # fmt: skip
    tested = [e for e in events if e.node.op.name != "reshape"]
    for event, wrong in zip(tested, faulty, strict=True):
        assert check_event(event)
        assert not check_event(replace(event, outputs=(wrong.array,))), event.node.op.name


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "nll_loss", "mse_loss"])
def test_a_class_left_out_is_caught(name: str) -> None:
    """Oracle: losses and softmax over 10 classes or elements, against the same over 9."""
    random = np.random.default_rng(4)
    x = mp.tensor(random.standard_normal((6, 10)), dtype="float16")
    masked = x.numpy().astype(np.float32)
    masked[:, 3] = -100.0 if name != "mse_loss" else 0.0
    labels = np.full(6, 4)
    call: Callable[[Any], Any] = {
        "softmax": functional.softmax,
        "log_softmax": functional.log_softmax,
        "nll_loss": lambda x: functional.nll_loss(x, labels),
        "mse_loss": lambda x: functional.mse_loss(x, np.zeros((6, 10), np.float16)),
    }[name]
    events: list[Event] = []
    with listen(events.append):
        call(x)
    event = next(e for e in events if e.node.op.name == name)
    assert check_event(event)
    wrong = call(mp.tensor(masked if name != "nll_loss" else masked * 1.01, dtype="float16")).array
    assert not check_event(replace(event, outputs=(wrong,)))


WRONG_RULES: dict[str, Callable[..., Any]] = {
    "tanh": lambda ctx, grad: ctx.round(ctx.wide(grad) * (1 - ctx.wide(ctx.saved[0]))),
    "exp": lambda ctx, grad: ctx.round(-ctx.wide(grad) * ctx.wide(ctx.saved[0])),
    "relu": lambda _, grad: grad,
    "sqrt": lambda ctx, grad: ctx.round(ctx.wide(grad) / ctx.wide(ctx.saved[0])),
    "matmul": lambda ctx, grad: (
        ctx.round(ctx.wide(grad) @ ctx.wide(ctx.saved[1]).T * 1.01),
        ctx.round(ctx.wide(ctx.saved[0]).T @ ctx.wide(grad)),
    ),
    "log_softmax": lambda ctx, grad, **_: ctx.round(
        ctx.wide(grad) - ctx.backend.xp.exp(ctx.wide(ctx.saved[0]))
    ),
    "sum": lambda ctx, grad, **_: ctx.round(
        0 * ctx.wide(grad) + ctx.backend.xp.ones(ctx.shape_of(0), "float32")
    ),
}


@pytest.mark.parametrize("name", list(WRONG_RULES))
def test_a_wrong_gradient_rule_is_caught_twice(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: rules with a factor, a sign or a term missing; by the bound, and as no derivative."""
    sample = next(s for s in SAMPLES if s.op == name and all(len(shape) == 2 for shape in s.shapes))
    kind = "positive" if name == "sqrt" else "normal"
    assert check_events(run(sample, "float32", kind))
    monkeypatch.setattr(OPS[name], "backward_rule", WRONG_RULES[name])
    found = check_events(run(sample, "float32", kind))
    rules = {wrong.what.split(" (")[0] for wrong in found}
    assert "lies within its bound of float64" in rules
    assert "its rule is the derivative of its forward, along one direction" in rules


def test_an_op_of_ones_own_is_checked_by_its_rule() -> None:
    """Oracle: x^3 with the right and with a wrong derivative, declared here."""

    def cube(ctx: Any, x: Any) -> Any:
        ctx.save(x)
        return ctx.round(ctx.wide(x) * ctx.wide(x) * ctx.wide(x))

    for factor, right in [(3.0, True), (2.0, False)]:
        own = ops.op()(cube)
        try:
            own.gradient(lambda ctx, g, c=factor: ctx.round(c * ctx.wide(g) * ctx.wide(ctx.saved[0]) ** 2))
            events: list[Event] = []
            with listen(events.append):
                own(mp.tensor([1.0, 2.0], dtype="float16", requires_grad=True)).sum().backward()
            found = check_events(events)
        finally:
            del OPS["cube"]
        assert bool(found) is right
        assert "cube has no reference: only its formats and its gradient rule are checked" in found.notes


def _under_autocast(call: Callable[[mp.Tensor], Any]) -> Event:
    events: list[Event] = []
    with mp.autocast("float16"), listen(events.append):
        call(mp.tensor(np.ones((4, 4)), dtype="float32", requires_grad=True))
    return events[-1]


def test_a_policy_that_was_not_obeyed_is_caught() -> None:
    """Oracle: CUDA autocast: matmul in float16, softmax in float32; events that did otherwise."""
    event = _under_autocast(lambda x: ops.matmul(x, x))
    assert check_event(event)
    wide = replace(event, inputs=tuple(x.astype(np.float32) for x in event.inputs))
    found = check_event(wide)
    assert [w.expected for w in found] == ["float16", "float16"]
    assert {w.what for w in found} == {"is cast as the policy asks"}

    event = _under_autocast(lambda x: functional.softmax(x.half()))
    assert check_event(event)
    low = replace(event, inputs=(event.inputs[0].astype(np.float16),))
    assert {(w.expected, w.got) for w in check_event(low)} == {("float32", "float16")}


def test_wrong_formats_and_shapes_are_caught() -> None:
    """Oracle: results and gradients changed to another format or shape."""
    sample = next(s for s in SAMPLES if s.op == "tanh")
    forward, backward = run(sample, "float16", "normal")
    for event, known in [(forward, None), (backward, forward)]:
        assert check_event(event, known)
        wide = check_event(_spoiled(event, lambda a: a.astype(np.float32)), known)
        assert [(w.expected, w.got) for w in wide] == [("float16", "float32")]
        assert not check_event(_spoiled(event, lambda a: a[:1]), known)
    alone = check_event(backward)
    assert alone
    assert alone.notes == ("gradients without their forward event: only shapes and formats are checked",)


def test_overflow_must_be_met_by_infinity() -> None:
    """Oracle: 90,000 is infinite in float16, and 65504 in its place a fault; 40,000 is not."""
    x = mp.tensor([300.0, 200.0], dtype="float16")
    events: list[Event] = []
    with listen(events.append):
        ops.mul(x, x)
    (event,) = events
    assert check_event(event)
    assert not check_event(_spoiled(event, lambda a: np.array([65504, a[1]], a.dtype)))
    assert not check_event(_spoiled(event, lambda a: np.array([a[0], np.inf], a.dtype)))
    assert not check_event(_spoiled(event, lambda a: np.array([-np.inf, a[1]], a.dtype)))


def test_where_nothing_is_claimed_is_said() -> None:
    """Oracle: 3e38 + 3e38 - 3e38 overflows on the way in float32 or does not, as the order has it."""
    events: list[Event] = []
    with listen(events.append):
        ops.sum_(mp.tensor(np.array([[3e38, 3e38, -3e38], [1.0, 1.0, 1.0]], np.float32)), dim=1)
    found = check_events(events)
    assert found
    (note,) = found.notes
    assert note.partition(": ")[2] == "no claim on 1 of 2 elements: overflow, or 0 / 0, may be on the way"


@pytest.mark.parametrize("fmt", ["float64", "float32", *LOW])
@pytest.mark.parametrize("sample", SAMPLES, ids=str)
def test_bounds_claim_something(sample: Sample, fmt: str) -> None:
    """Oracle: on ordinary numbers no bound is infinite, nor above 2^-3 of the result's magnitude."""
    for event in run(sample, fmt, "positive"):
        op = event.node.op
        if event.phase == "backward" or FAMILIES[op.bound].programs is None or op.name == "dropout":
            continue
        at = arithmetic_of(event.node.format, event.node.accumulate)
        call = call_of(event)  # on the host
        bound = forward_bound(op.bound, op.name, at, call.inputs, call.options)
        assert bound is not None
        error = bound.rounded(mp.formats.get(event.outputs[0].dtype)).error
        assert (error <= 0.125 * np.abs(bound.exact).max(initial=0.0) + 1e-7).all()
