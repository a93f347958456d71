"""Two traces side by side: recipes with and without a loss scale."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import minimp as mp
from minimp import trace
from tests.trace.cases import batch, grown, make_step
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


def test_an_ulp_is_that_of_the_element_or_of_the_largest() -> None:
    """Oracle: by hand: 2^-10 of 1 and of 2^10, in float32, whose steps at them are 2^-23 and 2^-13."""

    def run(x: float) -> None:
        mp.tensor([x, 1024.0]) * 1.0

    one, two = recorded(lambda: run(1.0), "all"), recorded(lambda: run(1.0 + 2.0**-10), "all")
    found = {at: one.diff(two, at=at).first for at in ("element", "largest")}
    assert found["element"].ulps == 2.0**13
    assert found["largest"].ulps == 2.0**3
    assert "largest element" in str(one.diff(two, at="largest"))
    with pytest.raises(mp.errors.SettingError, match="largest"):
        one.diff(two, at="larges")


def test_what_was_not_recorded_is_not_called_the_same() -> None:
    """Oracle: by hand: 2 and 3, of which neither values nor statistics were taken."""
    made = []
    for x in (2.0, 3.0):
        with trace.record(statistics=False) as each:
            mp.tensor([x]) * 1.0
        made.append(each)
    found = made[0].diff(made[1])
    assert found.first is None
    assert not found.same
    assert [pair.by for pair in found.unknown] == ["nothing"]
    assert "1 more were not compared" in str(found)


def test_the_parameter_that_differs_is_named() -> None:
    """Oracle: the parameter that was changed by hand, of all that a stage shows."""
    traces = []
    for factor in (1.0, 1.5):
        step = make_step(change=grown(4, factor))
        with trace.record(values="all", stages="cast_weights") as made:
            step(*batch())
        traces.append(made)
    (stage,) = [p for p in traces[0].diff(traces[1]).pairs if p.ours.title == "stage cast_weights"]
    assert stage.name == "4.weight"
