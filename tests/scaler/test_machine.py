"""The state machine of the loss scale: laws, and the arithmetic of its ends."""

from __future__ import annotations

import math
from itertools import accumulate, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimp.errors import SettingError
from minimp.scaler import ScaleRule, ScaleState, next_state
from tests.scaler import traces

verdicts = st.lists(st.booleans(), max_size=60)
exponents = st.integers(-149, 127)
rules = st.builds(
    ScaleRule,
    init_scale=st.integers(-20, 40).map(lambda e: 2.0**e),
    growth_factor=st.sampled_from([1.0, 2.0, 4.0]),
    backoff_factor=st.sampled_from([0.25, 0.5, 1.0]),
    growth_interval=st.integers(0, 5),
    min_scale=st.sampled_from([None, 2.0**-20, 2.0**-30]),
    max_scale=st.sampled_from([None, 2.0**40, 2.0**60]),
    hysteresis=st.integers(1, 4),
    refill_on_backoff=st.booleans(),
    stays_finite=st.booleans(),
    grows_late=st.booleans(),
    until_first_bad=st.sampled_from([None, 2.0]),
    precision=st.sampled_from(["float32", "float64"]),
)


def run(rule: ScaleRule, bad: list[bool], start: ScaleState | None = None) -> list[ScaleState]:
    """Return the states of a run, the first one included."""
    first = ScaleState(rule.init_scale) if start is None else start
    return list(accumulate(bad, lambda state, is_bad: next_state(rule, state, is_bad), initial=first))


@given(rules, verdicts)
def test_a_power_of_two_stays_one(rule: ScaleRule, bad: list[bool]) -> None:
    """Oracle: the law, with such factors too; frexp gives a mantissa of one half, or S is 0 or inf."""
    for state in run(rule, bad):
        assert math.frexp(state.scale)[0] in (0.0, 0.5) or math.isinf(state.scale)


@given(rules, verdicts)
def test_bad_steps_never_raise_the_scale_and_good_ones_never_lower_it(
    rule: ScaleRule, bad: list[bool]
) -> None:
    """Oracle: the law."""
    for (before, after), is_bad in zip(pairwise(run(rule, bad)), bad, strict=True):
        assert after.scale <= before.scale if is_bad else after.scale >= before.scale
        assert (rule.min_scale or 0.0) <= after.scale <= (rule.max_scale or math.inf)


@given(rules, verdicts)
def test_the_counters_count(rule: ScaleRule, bad: list[bool]) -> None:
    """Oracle: the lengths of the runs of equal verdicts, counted from the verdicts alone."""
    for i, state in enumerate(run(rule, bad)):
        seen = bad[:i]
        assert state.skips == next((n for n, each in enumerate(reversed(seen)) if not each), len(seen))
        assert state.met_bad == any(seen)
        good = next((n for n, each in enumerate(reversed(seen)) if each), len(seen))
        assert state.growth_tracker <= good


@given(rules, verdicts, st.integers(0, 60))
def test_a_state_is_all_there_is_to_know(rule: ScaleRule, bad: list[bool], cut: int) -> None:
    """Oracle: the same run in one piece."""
    first = run(rule, bad[:cut])
    assert first + run(rule, bad[cut:], first[-1])[1:] == run(rule, bad)


@given(exponents, st.integers(0, 300))
def test_backing_off_is_exact_down_to_the_smallest_subnormal_then_zero(exponent: int, steps: int) -> None:
    """Oracle: 2^e halved n times is 2^(e-n); below 2^-149 float32 has only 0 (ties to even)."""
    scale = run(ScaleRule(init_scale=2.0**exponent), [True] * steps)[-1].scale
    assert scale == (2.0 ** (exponent - steps) if exponent - steps >= -149 else 0.0)


@given(st.integers(1, 7), st.integers(0, 40))
def test_the_scale_doubles_once_an_interval(interval: int, steps: int) -> None:
    """Oracle: n good steps hold n // interval whole intervals."""
    last = run(ScaleRule(init_scale=1.0, growth_interval=interval), [False] * steps)[-1]
    assert (last.scale, last.growth_tracker) == (2.0 ** (steps // interval), steps % interval)


@pytest.mark.parametrize("interval", [0, -3])
def test_an_interval_below_one_never_grows(interval: int) -> None:
    """Oracle: PyTorch 2.13.0, whose tracker never equals such an interval."""
    last = run(ScaleRule(growth_interval=interval), [False] * 50)[-1]
    assert (last.scale, last.growth_tracker) == (2.0**16, 50)


@given(
    st.floats(2.0**-60, 2.0**60, width=32),
    st.floats(1.0, 2.0),
    st.floats(0.01, 1.0),
    verdicts,
    st.integers(1, 3),
)
def test_the_arithmetic_is_a_float64_product_rounded_to_float32(
    init: float, growth: float, backoff: float, bad: list[bool], interval: int
) -> None:
    """Oracle: the same products by np.float64 and one conversion, as PyTorch's kernel does them."""
    rule = ScaleRule(init, growth, backoff, interval)
    states = run(rule, bad)
    for (before, after), is_bad in zip(pairwise(states), bad, strict=True):
        moved = is_bad or before.growth_tracker + 1 == interval
        factor = (backoff if is_bad else growth) if moved else 1.0
        assert after.scale == float(np.float32(np.float64(before.scale) * np.float64(factor)))


@pytest.mark.parametrize(
    ("rule", "scale", "after"),
    [
        (ScaleRule(growth_interval=1), 2.0**127, 2.0**127),
        (ScaleRule(growth_interval=1, stays_finite=False), 2.0**127, math.inf),
        (ScaleRule(growth_interval=1, max_scale=2.0**24), 2.0**24, 2.0**24),
        (ScaleRule(growth_interval=1), math.inf, math.inf),
        (ScaleRule(growth_interval=1), 0.0, 0.0),
    ],
)
def test_growth_at_the_end_of_the_range(rule: ScaleRule, scale: float, after: float) -> None:
    """Oracle: the extremes measured on PyTorch 2.13.0 and Keras 3; the tracker is 0 either way."""
    assert next_state(rule, ScaleState(scale), False) == ScaleState(after, 0)


@given(verdicts, st.integers(1, 4), st.integers(1, 4))
def test_hysteresis_rides_out_fewer_bad_steps(bad: list[bool], hysteresis: int, interval: int) -> None:
    """Oracle: NVIDIA apex's kernel update_scale_hysteresis, written out in traces.py."""
    rule = ScaleRule(growth_interval=interval, hysteresis=hysteresis)
    expected = traces.hysteresis_kernel(bad, interval=interval, hysteresis=hysteresis)
    assert [state.scale for state in run(rule, bad)[1:]] == list(expected)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"init_scale": "high"}, "init_scale: expected a number, got 'high'"),
        ({"init_scale": math.nan}, "init_scale: expected a number, got nan"),
        ({"init_scale": 10**400}, "init_scale: expected a number"),
        ({"init_scale": 1e39}, "init_scale: 1e\\+39 is infinite in float32"),
        ({"init_scale": True}, "init_scale: expected a number, got True"),
        ({"init_scale": 0.5, "min_scale": 1.0}, "init_scale: expected a scale from 1.0 to inf, got 0.5"),
        ({"max_scale": 1024.0}, "init_scale: expected a scale from -inf to 1024.0, got 65536.0"),
        ({"min_scale": 4.0, "max_scale": 2.0}, "expected min_scale <= max_scale, got 4.0 and 2.0"),
        ({"min_scale": 0.0}, "min_scale: expected above 0, got 0.0"),
        ({"growth_factor": 0.5}, "growth_factor: expected at least 1, got 0.5"),
        ({"backoff_factor": 1.5}, "backoff_factor: expected at most 1, got 1.5"),
        ({"until_first_bad": 0.5}, "until_first_bad: expected at least 1, got 0.5"),
        ({"growth_interval": 2.5}, "growth_interval: expected a whole number, got 2.5"),
        ({"growth_interval": 0, "smooth": True}, "growth_interval: expected at least 1 to grow smoothly"),
        ({"hysteresis": 0}, "hysteresis: expected at least 1, got 0"),
        ({"smooth": True, "grows_late": True}, "grows_late cannot act where S grows smoothly"),
        ({"precision": "float23"}, "unknown precision 'float23'; did you mean 'float32'"),
    ],
)
def test_settings_that_cannot_act_are_refused(settings: dict[str, object], message: str) -> None:
    """Oracle: the ranges in the docstring of ScaleRule."""
    with pytest.raises(SettingError, match=message):
        ScaleRule(**settings)  # type: ignore[arg-type]  # the fault under test


@pytest.mark.parametrize("init", [0.0, -1.0, math.inf, 3])
def test_odd_initial_scales_are_taken(init: float) -> None:
    """Oracle: PyTorch 2.13.0, which accepts them all."""
    assert ScaleRule(init_scale=init, backoff_factor=-0.5).init_scale == init
