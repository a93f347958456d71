"""Recurrences over a sequence as one op; oracle: the same, step by step with other ops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import minimp as mp
from minimp import ops
from minimp.checks import check_events
from minimp.errors import FormatError, ShapeError
from minimp.modes import listen
from minimp.tape import Event
from tests.arrays import host
from tests.tolerances import assert_close

KINDS = {"lstm": (4, 2), "gru": (3, 1), "rnn_tanh": (1, 1), "rnn_relu": (1, 1)}
LENGTH, ROWS, INNER, SIZE = 6, 9, 10, 11


def inputs_of(kind: str, fmt: str, rows: int = ROWS, size: int = SIZE) -> list[mp.Tensor]:
    """Return inputs for a recurrence, with parameters as layers draw them."""
    rng = np.random.default_rng(3)
    gates, states = KINDS[kind]
    first = [(rows, size)] * states
    weights = [(gates * size, INNER), (gates * size, size), (gates * size,), (gates * size,)]
    made = [rng.standard_normal(shape) for shape in [(LENGTH, rows, INNER), *first]]
    made += [rng.uniform(-1, 1, shape) / np.sqrt(size) for shape in weights]
    return [mp.tensor(a, dtype=fmt, requires_grad=True) for a in made]


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_one_op_is_its_steps(kind: str, reverse: bool) -> None:
    """Oracle: the composite in float32: states of the same bits; gradients, whose sums have another order."""
    op, inputs = ops.OPS[kind], inputs_of(kind, "float32")
    assert op.composed is not None
    y, composed = op(*inputs, reverse=reverse), op.composed(*inputs, reverse=reverse)
    np.testing.assert_array_equal(host(y.detach()), host(composed.detach()))
    slope = mp.tensor(np.random.default_rng(4).standard_normal(y.shape), dtype="float32")
    found, wanted = mp.grad(y, inputs, slope), mp.grad(composed, inputs, slope)
    for a, b in zip(found, wanted, strict=True):
        assert_close(host(a), host(b), "parity_gradient_fp32")


@pytest.mark.parametrize("fmt", ["float16", "bfloat16"])
@pytest.mark.parametrize(("rows", "size"), [(3, 5), (40, 64)])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_rounded_is_the_states(kind: str, rows: int, size: int, fmt: str) -> None:
    """Oracle: one step of float32 from states rounded to 16 bits, rounded once; small arrays and large.

    The sums are exact, so that their bits do not hang on how many rows are multiplied together.
    """
    inputs, states = [x.detach() for x in inputs_of(kind, fmt, rows, size)], KINDS[kind][1]
    with mp.accumulate("exact"):
        y = ops.OPS[kind](*inputs)
    for t in range(LENGTH):
        before = [y[k, t - 1] if kind == "lstm" else y[t - 1] for k in range(states)]
        first = inputs[1 : 1 + states] if t == 0 else before
        wide = [x.float() for x in (inputs[0][t : t + 1], *first, *inputs[1 + states :])]
        with mp.accumulate("exact"):
            wanted = ops.OPS[kind](*wide).to(fmt)
        found = y[:, t : t + 1] if kind == "lstm" else y[t : t + 1]
        np.testing.assert_array_equal(host(found.float()), host(wanted.float()))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "name", ["float64", "exact", "float32:sequential", "kahan", "float16", "bfloat16", "tensorcore:ampere"]
)
def test_sums_by_name_keep_their_bounds(kind: str, name: str) -> None:
    """Oracle: the contracts of the op and of its gradient, with the gamma of each accumulation."""
    events: list[Event] = []
    with mp.accumulate(name), listen(events.append):
        y = ops.OPS[kind](*inputs_of(kind, "float16", rows=3, size=5))
        y.backward(mp.tensor(np.ones(y.shape), dtype="float16"))
    found = check_events(events)
    assert found, str(found)


def test_gradients_that_nobody_needs_are_not_made() -> None:
    """Oracle: None for what does not require a gradient; nothing kept under no_grad."""
    inputs = [x.detach() for x in inputs_of("gru", "float32")]
    inputs[2].requires_grad_()
    y = ops.OPS["gru"](*inputs)
    parts = y.node.op.differentiate(y.node, y.backend.from_host(np.ones(y.shape, np.float32)))
    assert [part is None for part in parts] == [True, True, False, True, True, True]
    with mp.no_grad():
        assert ops.OPS["gru"](*inputs).node is None


@pytest.mark.parametrize(
    ("change", "shape"),
    [(0, (LENGTH, ROWS)), (0, (0, ROWS, INNER)), (1, (ROWS, 3)), (3, (40, INNER)), (4, (44, 3)), (6, (3,))],
)
def test_what_does_not_fit_is_named(change: int, shape: tuple[int, ...]) -> None:
    """Oracle: the shapes in the docstring."""
    inputs: list[Any] = inputs_of("lstm", "float32")
    inputs[change] = np.zeros(shape, np.float32)
    with pytest.raises(
        ShapeError, match=r"lstm: expected \(T, N, in\), states \(N, H\), weights \(4 H, in\)"
    ):
        ops.OPS["lstm"](*inputs)


def test_formats_are_one() -> None:
    """Oracle: Mixed.SAME: products of mixed formats are refused, as linear refuses them."""
    inputs = inputs_of("gru", "float32")
    with pytest.raises(FormatError, match="gru"):
        ops.OPS["gru"](inputs[0].half(), *inputs[1:])
