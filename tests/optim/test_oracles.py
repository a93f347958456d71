"""Lion and LAMB, which torch lacks; oracle: the papers' algorithms in float64, one number at a time."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

from tests.optim.helpers import SEED, gradients, run, values
from tests.tolerances import assert_close

SHAPE, STEPS = (7, 5), 40
START = np.random.default_rng(SEED + 2).standard_normal(SHAPE).astype(np.float32)

LIONS = [
    {"lr": 0.01, "betas": b, "weight_decay": w, "maximize": x}
    for b, w, x in itertools.product(((0.9, 0.99), (0.4, 0.3)), (0, 0.1), (False, True))
]
LAMBS = [
    {"lr": 0.01, "betas": b, "eps": e, "weight_decay": w, "maximize": x}
    for b, e, w, x in itertools.product(((0.9, 0.999), (0.4, 0.8)), (1e-6, 1e-2), (0, 0.1), (False, True))
]


def lion(options: dict[str, Any]) -> tuple[list[float], list[float]]:
    """Return weights and m after all steps: Chen et al. 2023, algorithm 2, line by line."""
    (beta1, beta2), lr, decay = options["betas"], options["lr"], options["weight_decay"]
    w, m = [float(x) for x in START.ravel()], [0.0] * START.size
    for grad in gradients(STEPS, SHAPE):
        for i, value in enumerate(grad.ravel()):
            g = -float(value) if options["maximize"] else float(value)
            c = beta1 * m[i] + (1 - beta1) * g
            w[i] = w[i] - lr * (math.copysign(1.0, c) * (c != 0) + decay * w[i])
            m[i] = beta2 * m[i] + (1 - beta2) * g
    return w, m


def lamb(options: dict[str, Any]) -> tuple[list[float], list[float], list[float]]:
    """Return weights, m and v after all steps: You et al. 2020, algorithm 2, with phi(z) = z."""
    (beta1, beta2), lr, decay = options["betas"], options["lr"], options["weight_decay"]
    w, m, v = [float(x) for x in START.ravel()], [0.0] * START.size, [0.0] * START.size
    for t, grad in enumerate(gradients(STEPS, SHAPE), start=1):
        update = []
        for i, value in enumerate(grad.ravel()):
            g = -float(value) if options["maximize"] else float(value)
            m[i] = beta1 * m[i] + (1 - beta1) * g
            v[i] = beta2 * v[i] + (1 - beta2) * g * g
            r = (m[i] / (1 - beta1**t)) / (math.sqrt(v[i] / (1 - beta2**t)) + options["eps"])
            update.append(r + decay * w[i])
        ratio = math.hypot(*w) / math.hypot(*update)
        w = [x - lr * ratio * u for x, u in zip(w, update, strict=True)]
    return w, m, v


@pytest.mark.parametrize(("dtype", "row"), [("float32", "parity_optimizer"), ("float64", "fp64_sums")])
@pytest.mark.parametrize("options", LIONS, ids=str)
def test_lion_is_the_papers(options: dict[str, Any], dtype: str, row: str) -> None:
    """Oracle: algorithm 2 in float64; no c here is so near 0 that rounding turns its sign."""
    param, optimizer = run("Lion", START, gradients(STEPS, SHAPE), dtype=dtype, **options)
    w, m = lion(options)
    assert_close(values(param).ravel(), w, row)
    assert set(optimizer.state[param]) == {"exp_avg"}
    assert_close(values(optimizer.state[param]["exp_avg"]).ravel(), m, row)


@pytest.mark.parametrize(("dtype", "row"), [("float32", "parity_optimizer"), ("float64", "fp64_sums")])
@pytest.mark.parametrize("options", LAMBS, ids=str)
def test_lamb_is_the_papers(options: dict[str, Any], dtype: str, row: str) -> None:
    """Oracle: algorithm 2 in float64, the norms over the whole tensor."""
    param, optimizer = run("LAMB", START, gradients(STEPS, SHAPE), dtype=dtype, **options)
    w, m, v = lamb(options)
    assert_close(values(param).ravel(), w, row)
    state = optimizer.state[param]
    assert state["step"] == STEPS
    for name, wanted in (("exp_avg", m), ("exp_avg_sq", v)):
        assert_close(values(state[name]).ravel(), wanted, row)


def test_a_lion_takes_steps_of_one_length() -> None:
    """Oracle: w - lr sign(g), whatever the size of g; a gradient of 0 moves nothing."""
    param, _ = run("Lion", [1.0] * 4, [np.array([1e-30, -1e20, 0.0, 3.0], np.float32)], lr=0.25)
    assert values(param).tolist() == [0.75, 1.25, 1.0, 0.75]


def test_a_tensor_without_length_takes_lambs_direction_as_it_is() -> None:
    """Oracle: a trust ratio of 1 where |w| = 0: w = -lr g / (|g| + eps); and nothing moves where u = 0."""
    param, _ = run("LAMB", [0.0, 0.0], [np.array([2.0, -4.0], np.float32)], lr=0.5, eps=0, weight_decay=0)
    assert_close(values(param), [-0.5, 0.5], "parity_optimizer")
    still, _ = run("LAMB", [3.0, 4.0], [np.zeros(2, np.float32)], lr=0.5, weight_decay=0)
    assert values(still).tolist() == [3.0, 4.0]


def test_lamb_moves_every_tensor_by_the_same_part_of_its_length() -> None:
    """Oracle: |w' - w| = lr |w|, since the direction is divided by its own norm."""
    for size in (1e-3, 1.0, 1e3):
        param, _ = run("LAMB", START * size, gradients(1, SHAPE), lr=0.125, weight_decay=0.3)
        old = (START * np.float32(size)).astype(np.float64)
        moved = np.linalg.norm(values(param) - old) / np.linalg.norm(old)
        assert_close(moved, 0.125, "parity_trajectory_weights")
