"""Faults that were planted are found by name, by the question that is asked for them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import minimp as mp
from minimp import trace
from tests.tolerances import assert_close
from tests.trace.cases import batch, grown, make_step


def test_an_overflow_in_one_layer_is_named_and_sized() -> None:
    """Oracle: NumPy's float32 product of the recorded inputs, and 65504 from IEEE 754-2019, table 3.5."""
    step = make_step(change=grown(2, 1.5e5))
    with trace.record(values="all") as made:
        step(*batch())
    first = made.first_nonfinite()
    assert first is not None
    assert (first.event.op, first.event.module, first.event.phase) == ("linear", "2", "forward")
    x, w, b = (np.float32(made.values(s.links[0])["out0"]) for s in first.event.inputs)
    exact = x @ w.T + b
    (side,) = first.event.outputs
    assert side is not None
    assert side.overflowed == np.count_nonzero(np.abs(exact) >= 65520)
    assert_close(side.reach, np.abs(exact).max(), "layout_fp32")
    assert "65,504" in first.cause
    assert [event.op for event in first.chain] == ["cast"]  # the weight, which is nearest to the limit
    assert first.chain[0].inputs[0].links == ("2.weight",)
    assert made.overflow("module").rows[0][0] == "2"
    assert not first.by_scaling
    assert all(len(line) <= 100 for line in str(first).splitlines())


def test_gradients_that_overflow_by_the_loss_scale_alone_are_told_apart() -> None:
    """Oracle: the same step at a scale of 1, which has no infinity."""
    with trace.record() as plain:
        make_step(scale=1.0)(*batch())
    assert plain.first_nonfinite() is None
    with trace.record() as made:
        report = make_step(scale=2.0**24)(*batch())
    assert report.skipped
    first = made.first_nonfinite()
    assert first is not None
    assert (first.event.phase, first.by_scaling, first.finite_at_one) == ("backward", True, True)
    assert first.event in made.finite_at_one()
    assert "at a loss scale of 1 it would be finite" in str(first)


def test_an_overflow_at_every_scale_is_no_matter_of_scaling() -> None:
    """Oracle: the same step at a scale of 1, whose gradient overflows as well."""

    def loss(y: Any, _: Any) -> Any:
        return (y * y).sum() * 1e6

    with trace.record() as made:
        make_step(scale=2.0, loss=loss)(*batch())
    first = made.first_nonfinite()
    assert first is not None
    assert first.event.phase == "backward"
    assert first.finite_at_one is False
    with trace.record() as plain, pytest.warns(mp.errors.ScaleWarning, match="collapsing"):
        make_step(scale=1.0, loss=loss)(*batch())
    assert plain.first_nonfinite() is not None


def test_a_softmax_in_fp16_is_named() -> None:
    """Oracle: autocast's table, by which softmax runs in float32, and the edit that lowers it."""
    scores = mp.tensor(batch()[0], dtype=mp.float16)
    found = {}
    for policy in (mp.policies["torch-cuda"], mp.policies["torch-cuda"].with_(softmax="lower")):
        with trace.record(shadow=True) as made, mp.autocast("float16", policy=policy):
            mp.functional.softmax(scores * 8.0, dim=-1)
        row = next(row for row in made.counts() if row["op"] == "softmax")
        found[row["inputs"]] = next(r for r in made.errors() if r["op"] == "softmax")["made rel"]
    assert set(found) == {"float32", "float16"}
    assert found["float16"] > 100 * found["float32"]


def test_a_missing_cast_is_named() -> None:
    """Oracle: the layer that was wrapped so as to leave the autocast region."""

    class Apart(mp.nn.Linear):
        def forward(self, x: Any) -> Any:
            with mp.autocast("float16", enabled=False):
                return mp.functional.linear(x.float(), self.weight, self.bias)

    def change(model: Any) -> None:
        apart = Apart(16, 16)
        apart.load_state_dict(model[2].state_dict())
        model[2] = apart

    traces = []
    for planted in (None, change):
        with trace.record(values="all") as made:
            make_step(change=planted)(*batch())
        traces.append(made)
    honest, faulty = traces
    wide = [e for e in faulty.select(op="linear", phase="forward") if e.outputs[0].format == "float32"]
    assert [event.module for event in wide] == ["2"]
    assert not [e for e in honest.select(op="linear", phase="forward") if e.outputs[0].format == "float32"]
    parted = honest.diff(faulty)
    assert parted.first is not None
    assert (parted.first.ours.op, parted.first.ours.module) == ("linear", "2")
    assert {event.op for event in parted.only_theirs} == {"cast"}
    assert not parted.same
    assert honest.diff(honest).same


def test_swallowed_updates_are_counted_by_parameter() -> None:
    """Oracle: NumPy on the weights before and after: those that an update did not move."""
    step = make_step("bf16", lr=1e-4, optimizer=mp.optim.SGD)
    before = {name: np.array(p.array, np.float32) for name, p in step.model.named_parameters()}
    with trace.record() as made:
        step(*batch())
    rows = {row["parameter"]: row for row in made.swallowed()}
    gradients = {side.name: side for side in made.select(phase="stage", op="clip")[0].outputs}
    for name, p in step.model.named_parameters():
        moved = np.count_nonzero(before[name] != np.array(p.array, np.float32))
        assert rows[name]["non-zero"] == gradients[name].stats.nonzero
        assert rows[name]["swallowed"] == rows[name]["non-zero"] - moved
    assert rows["2.weight"]["share"] > 0.9
    assert step.optimizer.measure_updates is False
    assert step.optimizer.last_update is None


def test_an_infinity_from_a_bad_label_came_in_from_outside() -> None:
    """Oracle: the label that was made infinite by hand; the loss is the first op that reads it."""
    x, _ = batch()
    labels = np.zeros((8, 4), np.float32)
    labels[3, 1] = np.inf
    with trace.record() as made:
        make_step(loss=mp.functional.mse_loss)(x, labels)
    first = made.first_nonfinite()
    assert first is not None
    assert first.event.stage == "loss"
    assert "came from outside" in first.cause
    assert "1 infinite of 32 elements" in first.cause
    assert not first.by_scaling


def test_a_weight_that_is_nan_is_called_by_its_name() -> None:
    """Oracle: the parameter that was spoilt by hand."""
    with trace.record() as made:
        make_step(change=grown(2, float("nan")))(*batch())
    first = made.first_nonfinite()
    assert first is not None
    assert first.cause == "parameter 2.weight holds 256 NaN of 256 elements"


def test_zeros_that_were_there_are_no_underflow() -> None:
    """Oracle: by hand: of four products, one is 0 by its factor and one by its rounding."""
    x = mp.tensor([0.0, 1.0, 1e-4, 2.0], dtype=mp.float16)
    for shadow in (False, True):
        with trace.record(shadow=shadow) as made:
            x * x
        (side,) = made.events[0].outputs
        assert (side.stats.zeros, side.flushed) == (2, 1)


def test_underflow_is_counted_where_it_happens() -> None:
    """Oracle: NumPy's float32 product of the recorded inputs against the float16 results."""
    step = make_step(scale=2.0**-16)
    with trace.record(values="all") as made:
        step(*batch())
    (event,) = made.select(op="linear", module="2", phase="backward")
    grad = made.values(event.inputs[0].links[0])["out0"].astype(np.float32)
    weight = made.values(2)["out0"].astype(np.float32)
    exact, got = grad @ weight, made.values(event)["out0"]
    assert event.outputs[0].flushed == np.count_nonzero((got == 0) & (exact != 0)) > 0
    worst = next(iter(made.underflow("place")))
    assert worst["flushed"] == max(e.flushed for e in made.events)
    assert made.events[worst["worst event"]].flushed == worst["flushed"]
    assert next(iter(made.underflow("stage")))["stage"] == "backward"
