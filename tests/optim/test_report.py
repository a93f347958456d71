"""Counting updates that were swallowed; oracle: counts by hand and by brute force in NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import minimp as mp
from minimp import optim
from tests.optim.helpers import gradients, parameter, run, values


def measured(
    start: Any, grad: Any, *, dtype: str, steps: int = 1, **options: Any
) -> tuple[Any, optim.Optimizer, optim.UpdateReport]:
    """Run plain gradient descent at rate 1 and return what the last step's report says."""
    param = parameter(start, dtype)
    optimizer = optim.SGD([param], lr=1.0, **options)
    optimizer.measure_updates = True
    for _ in range(steps):
        optimizer.step(gradients={param: np.asarray(grad, np.float32)})
    assert optimizer.last_update is not None
    return param, optimizer, optimizer.last_update


def test_a_report_is_made_only_when_asked() -> None:
    """Oracle: the contract of measure_updates."""
    param = parameter([1.0])
    optimizer = optim.SGD([param], lr=1.0)
    for wanted in (False, True, False):
        optimizer.measure_updates = wanted
        optimizer.step(gradients={param: np.ones(1, np.float32)})
        assert (optimizer.last_update is not None) is wanted


def test_counts_by_hand() -> None:
    """Oracle: at 1 in bfloat16 (ulp 2^-7): zero, kept, swallowed below half an ulp and at a tie, NaN."""
    deltas = [0.0, -0.0, 2.0**-7, -(2.0**-8), 2.0**-9, 2.0**-8, np.nan, 1e-30]
    _, _, report = measured(np.ones(8), [-d for d in deltas], dtype="bfloat16")
    assert (report.size, report.nonzero, report.swallowed) == (8, 6, 3)
    assert report.swallowed_share == 0.5
    _, _, none = measured(np.ones(2), np.zeros(2), dtype="bfloat16")
    assert (none.nonzero, none.swallowed, none.swallowed_share) == (0, 0, 0.0)


def test_a_master_takes_what_the_low_copy_would_swallow() -> None:
    """Oracle: 2^-12 is an ulp of float32 many times over, and far below bfloat16's; 1e-30 is lost in both."""
    grad = [2.0**-12, 1e-30]
    assert measured([1.0, 1.0], grad, dtype="bfloat16")[2].swallowed == 2
    assert measured([1.0, 1.0], grad, dtype="bfloat16", master_weights=True)[2].swallowed == 1
    assert measured([1.0, 1.0], grad, dtype="float32")[2].swallowed == 1


def test_kahan_swallows_what_neither_weight_nor_compensation_took() -> None:
    """Oracle: the compensation takes 2^-12 while the weight stands still; 1e-50 is zero in float32."""
    param, _, report = measured([1.0, 1.0], [2.0**-12, 1e-50], dtype="bfloat16", update="kahan")
    assert values(param).tolist() == [1.0, 1.0]
    assert (report.nonzero, report.swallowed) == (1, 0)
    _, _, second = measured([1.0], [2.0**-30], dtype="bfloat16", update="kahan", steps=1)
    assert second.swallowed == 0
    param = parameter([1.0], "bfloat16")
    optimizer = optim.SGD([param], lr=1.0, update="kahan")
    optimizer.measure_updates = True
    for size in (
        2.0**-12,
        2.0**-30,
    ):  # the second is below half an ulp of the compensation that the first left
        optimizer.step(gradients={param: np.array([size], np.float32)})
    assert optimizer.last_update is not None
    assert optimizer.last_update.swallowed == 1
    optimizer.step(gradients={param: np.array([2.0**-12], np.float32)})
    assert param.item() == 1.0
    assert optimizer.last_update.swallowed == 0  # the compensation has taken it


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("kind", ["SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "Lion", "LAMB"])
def test_counts_are_those_of_brute_force(kind: str, dtype: str) -> None:
    """Oracle: weights compared before and after each step in NumPy; the update is not zero anywhere here."""
    shape, steps = (50, 60), gradients(6, (50, 60))
    param = parameter(np.random.default_rng(3).standard_normal(shape), dtype)
    optimizer = getattr(optim, kind)([param], lr=1e-3)
    optimizer.measure_updates = True
    for grad in steps:
        before = values(param)
        optimizer.step(gradients={param: grad})
        (row,) = optimizer.last_update.rows
        assert row.param is param
        assert row.size == row.nonzero == 3000
        assert row.swallowed == int((values(param) == before).sum())


def test_measuring_changes_no_bit() -> None:
    """Oracle: the same run without measuring."""
    for options in ({"master_weights": True}, {"update": "kahan"}, {"update": "fp32"}):
        plain, _ = run("AdamW", np.ones((30, 80)), gradients(3, (30, 80)), dtype="bfloat16", **options)
        param = parameter(np.ones((30, 80)), "bfloat16")
        optimizer = optim.AdamW([param], **options)
        optimizer.measure_updates = True
        for grad in gradients(3, (30, 80)):
            optimizer.step(gradients={param: grad})
        assert param.array.tobytes() == plain.array.tobytes()
        assert param.format is mp.bfloat16
