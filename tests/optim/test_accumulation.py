"""Gradient accumulation: n parts of a batch, then one step; oracle: the step on the whole batch."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

import minimp as mp
from minimp import nn, optim
from minimp.scaler import gradients as scaler_gradients
from tests.arrays import host
from tests.optim.helpers import SEED, values
from tests.tolerances import assert_close

ROWS = 48
DATA = np.random.default_rng(SEED)
X, Y = DATA.standard_normal((ROWS, 20)).astype(np.float32), DATA.integers(0, 5, ROWS)


def network() -> nn.Module:
    """Return a classifier, the same one each time."""
    mp.manual_seed(SEED)
    return nn.Sequential(nn.Linear(20, 32), nn.Tanh(), nn.Linear(32, 5))


def accumulate(model: nn.Module, parts: int, low: str | None, scaler: mp.GradScaler) -> None:
    """Run backward on each part of the batch, its mean loss divided by the number of parts."""
    for x, y in zip(np.split(X, parts), np.split(Y, parts), strict=True):
        with mp.autocast(low or "float16", enabled=low is not None):
            loss = mp.functional.cross_entropy(model(mp.tensor(x)), y)
        scaler.scale(loss / parts).backward()


CASES: tuple[tuple[str | None, str], ...] = (
    (None, "parity_gradient_fp32"),
    ("float16", "parity_gradient_fp16"),
    ("bfloat16", "parity_gradient_bf16"),
)


@pytest.mark.parametrize("parts", [2, 3, 8, 48])
@pytest.mark.parametrize(("low", "row"), CASES, ids=[str(low) for low, _ in CASES])
@pytest.mark.parametrize("scaled", [False, True])
def test_the_gradients_of_the_parts_add_up_to_those_of_the_batch(
    parts: int, low: str | None, row: str, scaled: bool
) -> None:
    """Oracle: one backward on the whole batch, in one format; sums in another order, 16-bit roundings.

    The `.grad` of a float32 parameter adds up in float32, so parts cost no accuracy of their own.
    """
    found = []
    for n in (1, parts):
        model, scaler = network(), mp.GradScaler(init_scale=2.0**10, enabled=scaled)
        optimizer = optim.SGD(model.parameters(), lr=0.1)
        accumulate(model, n, low, scaler)
        scaler.unscale_(optimizer)
        found.append([values(param.grad) for param in model.parameters()])
    for whole, added in zip(*found, strict=True):
        assert_close(added, whole, row)


@pytest.mark.parametrize("parts", [4, 16])
def test_steps_on_parts_are_steps_on_batches(parts: int) -> None:
    """Oracle: ten steps of AdamW on whole batches in float32."""
    ends = []
    for n in (1, parts):
        model, scaler = network(), mp.GradScaler(enabled=False)
        optimizer = optim.AdamW(model.parameters(), lr=0.01)
        for _ in range(10):
            optimizer.zero_grad()
            accumulate(model, n, None, scaler)
            optim.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
        ends.append([values(param) for param in model.parameters()])
    for whole, added in zip(*ends, strict=True):
        assert_close(added, whole, "parity_trajectory_weights")


def test_the_sum_is_unscaled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: a count of calls, and the weights of the run that unscales by hand."""
    calls = []
    honest = scaler_gradients.unscale_gradients

    def counted(named: Any, scale: float) -> Any:
        calls.append(scale)
        return honest(named, scale)

    monkeypatch.setattr("minimp.scaler.grad_scaler.unscale_gradients", counted)
    model = network()
    twin = copy.deepcopy(model)
    optimizer, scaler = optim.SGD(model.parameters(), lr=0.5), mp.GradScaler(init_scale=256.0)
    accumulate(model, 4, "float16", scaler)
    by_hand = {
        own: host(param.grad) / np.float32(256)
        for own, param in zip(twin.parameters(), model.parameters(), strict=True)
    }
    scaler.unscale_(optimizer)
    optim.clip_grad_norm_(model.parameters(), 1e6)
    scaler.step(optimizer)
    scaler.update()
    assert calls == [256.0]
    optim.SGD(twin.parameters(), lr=0.5).step(gradients=by_hand)
    for param, own in zip(model.parameters(), twin.parameters(), strict=True):
        assert param.array.tobytes() == own.array.tobytes()


def test_one_bad_part_skips_the_whole_step() -> None:
    """Oracle: nothing moves, and the scale backs off once, though three of four parts were finite."""
    model, scaler = network(), mp.GradScaler(init_scale=256.0)
    optimizer = optim.Adam(model.parameters(), lr=0.5)
    before = [param.array for param in model.parameters()]
    accumulate(model, 4, None, scaler)
    bad = mp.functional.cross_entropy(model(mp.tensor(X)), Y) * np.inf
    scaler.scale(bad).backward()
    scaler.step(optimizer)
    scaler.update()
    assert [param.array for param in model.parameters()] == before
    assert optimizer.state == {}
    assert scaler.get_scale() == 128.0


def test_a_training_step_with_micro_batches_divides_as_parts_do() -> None:
    """Oracle: TrainStep(micro_batches=n) on one part has the weights of n times that part, accumulated."""
    part_x, part_y = X[:12], Y[:12]
    model, twin = network(), network()
    step = mp.TrainStep(
        model, mp.functional.cross_entropy, optim.SGD(model.parameters(), lr=0.5), "fp32", micro_batches=4
    )
    step(part_x, part_y)
    optimizer = optim.SGD(twin.parameters(), lr=0.5)
    for _ in range(4):
        (mp.functional.cross_entropy(twin(mp.tensor(part_x)), part_y) / 4).backward()
    optimizer.step()
    for param, own in zip(model.parameters(), twin.parameters(), strict=True):
        assert_close(values(param), values(own), "parity_trajectory_weights")
