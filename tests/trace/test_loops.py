"""Recordings of training loops of one's own: bare optimizers and scalers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import minimp as mp
from minimp import trace
from tests.trace.cases import batch, make_model, make_step


def run_loop(*, scale: float | None, lr: float = 0.1, steps: int = 1, factor: float = 1.0) -> Any:
    """A loop as one writes it, with a scaler if there is a scale; returns the model and the optimizer."""
    model = make_model()
    optimizer = mp.optim.SGD(model.parameters(), lr=lr)
    scaler = mp.GradScaler(init_scale=scale or 1.0, enabled=scale is not None)
    x, labels = batch()
    for _ in range(steps):
        with mp.autocast("float16"):
            loss = mp.functional.cross_entropy(model(mp.tensor(x)), mp.tensor(labels)) * factor
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
    return model, optimizer


def test_an_overflow_by_the_scale_of_a_bare_scaler_is_known_as_one() -> None:
    """Oracle: the same loop at a scale of 1, which has no infinity."""
    with trace.record() as made:
        run_loop(scale=2.0**24)
    first = made.first_nonfinite()
    assert first is not None
    assert (first.event.phase, first.by_scaling, first.finite_at_one) == ("backward", True, True)
    assert first.event.facts["loss_scale"] == 2.0**24
    assert first.event in made.finite_at_one()
    (found,) = made.select(phase="stage", op="check_finite")
    assert found.facts["skipped"] is True
    assert "0.weight" in found.facts["nonfinite"]
    (moved,) = made.select(phase="stage", op="update_scale")
    assert (moved.facts["before"], moved.facts["loss_scale"]) == (2.0**24, 2.0**23)
    with trace.record() as plain:
        run_loop(scale=1.0)
    assert plain.first_nonfinite() is None
    assert not any("loss_scale" in e.facts for e in plain.select(phase="backward"))


def test_gradients_are_the_same_at_a_scale_of_1_whoever_scaled_them() -> None:
    """Oracle: the histogram of the same gradients in a loop without a scaler; 2^8 loses nothing here."""
    found = []
    for scale in (None, 256.0):
        with trace.record() as made:
            run_loop(scale=scale, factor=64.0)
        found.append(made.gradients_at_scales())
    assert found[0].total.binades == found[1].total.binades
    assert found[1].used == (256.0,)
    assert found[0].used == ()


def test_updates_that_a_bare_optimizer_swallows_are_counted() -> None:
    """Oracle: NumPy on the weights before and after; a scaler that is there changes nothing."""
    for scale in (None, 1024.0):
        before = {name: np.array(p.array) for name, p in make_model().named_parameters()}
        with trace.record() as made:
            model, optimizer = run_loop(scale=scale, lr=1e-8)
        rows = {row["parameter"]: row for row in made.swallowed()}
        assert set(rows) == set(before)
        for name, p in model.named_parameters():
            moved = np.count_nonzero(before[name] != p.array)
            assert rows[name]["swallowed"] == rows[name]["non-zero"] - moved
        assert rows["2.weight"]["share"] > 0.2
        assert optimizer.measure_updates is False
        assert optimizer.last_update is None


def test_a_step_that_fails_leaves_the_optimizer_as_it_was() -> None:
    """Oracle: the settings of the optimizer before, and the events."""
    model = make_model()
    optimizer = mp.optim.SGD(model.parameters(), lr=0.1)
    bad = {p: np.zeros(3, np.float32) for p in model.parameters()}
    with trace.record() as made:
        with pytest.raises(mp.errors.ShapeError):
            optimizer.step(gradients=bad)
        optimizer.step()  # nothing has a gradient
    assert optimizer.measure_updates is False
    assert [event.op for event in made.events] == ["update"]
    assert not made.swallowed()


def test_a_train_step_is_written_down_once() -> None:
    """Oracle: the names of the stages: an optimizer inside of one adds no event of its own."""
    with trace.record() as made:
        make_step()(*batch())
    names = [event.op for event in made.select(phase="stage")]
    assert names == list(mp.step.STAGES)
    assert made.select(phase="stage", op="update")[0].facts["updates"]
