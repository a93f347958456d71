"""Two traces side by side: recipes with and without a loss scale."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import minimp as mp
from minimp import trace
from tests.trace.cases import batch, make_step
from tests.trace.test_loops import run_loop


def recorded(run: Any, values: str) -> trace.Trace:
    """A recording of a call."""
    with trace.record(values=values) as made:
        run()
    return made


@pytest.mark.parametrize("values", ["all", "none"])
def test_a_scale_alone_is_no_difference(values: str) -> None:
    """Oracle: scaling by 2^k is exact short of overflow and underflow: bfloat16 has room for 2^10."""

    def run(scale: float) -> None:
        scaler = mp.GradScaler(init_scale=scale)
        w = mp.tensor(np.linspace(-1, 1, 64, dtype=np.float32), dtype=mp.bfloat16, requires_grad=True)
        scaler.scale((w * w * 3.0).float().sum()).backward()

    one, two = (recorded(lambda s=scale: run(s), values) for scale in (1.0, 1024.0))
    found = one.diff(two)
    backward = [pair for pair in found.pairs if pair.ours.phase == "backward"]
    assert len(backward) > 3
    assert max(pair.ulps for pair in backward) == 0
    assert all(pair.ulps == 0 for pair in two.diff(one).pairs if pair.ours.phase == "backward")


def test_steps_of_two_scales_agree_where_neither_loses_anything() -> None:
    """Oracle: both scales are in the range that `gradients_at_scales` says to lose nothing."""
    one, two = (recorded(lambda s=s: make_step(scale=s)(*batch()), "all") for s in (256.0, 1024.0))
    low, high = one.gradients_at_scales().powers(normal=True) or (99, 99)
    pairs = [p for p in one.diff(two).pairs if p.ours.phase == "backward" or p.ours.op == "unscale"]
    assert len(pairs) > 10
    far = [pair for pair in pairs if pair.ulps > 0]
    assert low <= 8
    assert high >= 10
    assert not far


def test_what_a_small_scale_loses_is_a_difference() -> None:
    """Oracle: by hand: float16 gradients of 2^-30 are 0 at a scale of 1, and 2^-10 at 2^20."""

    def run(scale: float) -> None:
        scaler = mp.GradScaler(init_scale=scale)
        w = mp.tensor([1.0], dtype=mp.float16, requires_grad=True)
        scaler.scale((w.float() * 2.0**-30).sum()).backward()

    found = recorded(lambda: run(1.0), "all").diff(recorded(lambda: run(2.0**20), "all"))
    assert found.first is not None
    assert found.first.ours.title == "cast backward"
    (cast,) = [pair for pair in found.pairs if pair.ours.title == "cast backward"]
    assert cast.ulps == 2.0**-10 / 2.0**-20  # a float16 of 2^-10 has steps of 2^-20


def test_bare_loops_are_compared_at_one_scale_too() -> None:
    """Oracle: the ratio of the scales: without it gradients would be apart by thousands of steps."""
    one, two = (recorded(lambda s=s: run_loop(scale=s), "all") for s in (256.0, 1024.0))
    pairs = [p for p in one.diff(two).pairs if p.ours.title == "linear backward"]
    assert len(pairs) == 3
    assert max(pair.ulps for pair in pairs) <= 64
