"""The loss scale kept in arrays; oracle: `next_state`, the rule on numbers, bit for bit."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minimp as mp
from minimp.backend import get_backend
from minimp.errors import SettingError
from minimp.scaler import PRESETS, ScaleRule, ScaleState, next_state
from minimp.scaler.on_device import DeviceScale

RULES = st.builds(
    ScaleRule,
    init_scale=st.sampled_from([2.0**16, 1.0, 3.7, 2.0**-140, 2.0**127, 0.0, float("inf")]),
    growth_factor=st.sampled_from([2.0, 1.7, 1.0, 2.0**40]),
    backoff_factor=st.sampled_from([0.5, 0.3, 1.0, 2.0**-60]),
    growth_interval=st.integers(1, 4),
    hysteresis=st.integers(1, 3),
    refill_on_backoff=st.booleans(),
    stays_finite=st.booleans(),
    until_first_bad=st.sampled_from([None, 1.1, 4.0]),
    precision=st.sampled_from(["float32", "float64"]),
)
VERDICTS = st.lists(st.booleans(), max_size=24)


def follow(rule: ScaleRule, verdicts: list[bool]) -> None:
    """Hold every state of the arrays to that of the numbers."""
    backend = get_backend("numpy")
    state = ScaleState(rule.rounded(rule.init_scale))
    device = DeviceScale(rule, state, backend)
    for bad in verdicts:
        with np.errstate(all="ignore"):
            device.advance(np.asarray(bad))
        state = next_state(rule, state, bad)
        assert device.read() == state


@given(RULES, st.sampled_from(["plain", "smooth", "late"]), VERDICTS)
def test_arrays_move_as_numbers_do(rule: ScaleRule, way: str, verdicts: list[bool]) -> None:
    """Oracle: next_state, for rules of all kinds."""
    follow(_with(rule, smooth=way == "smooth", grows_late=way == "late"), verdicts)


@given(RULES, VERDICTS, st.sampled_from([(None, 2.0**20), (2.0**-3, None), (0.5, 2.0**17)]))
def test_the_ends_of_the_range_hold(
    rule: ScaleRule, verdicts: list[bool], ends: tuple[float | None, float | None]
) -> None:
    """Oracle: next_state, where S has a floor, a ceiling or both."""
    follow(_with(rule, init_scale=1.0, min_scale=ends[0], max_scale=ends[1]), verdicts)


def _with(rule: ScaleRule, **changes: object) -> ScaleRule:
    fields = {name: getattr(rule, name) for name in rule.__dataclass_fields__}
    return ScaleRule(**(fields | changes))  # type: ignore[arg-type]  # checked by the rule


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_preset_moves_on_a_device(name: str) -> None:
    """Oracle: next_state under the rule of each library, past its interval."""
    rule = mp.GradScaler.preset(name).rule
    if rule.growth_interval > 50:
        rule = _with(rule, growth_interval=7)
    if rule.max_consecutive_skips is not None:
        rule = _with(rule, max_consecutive_skips=None)
    follow(rule, [True, True, False] * 3 + [False] * 30 + [True] * 4)


def test_reading_on_the_host_brings_the_state_back() -> None:
    """Oracle: the same verdicts told to a second scaler on the host."""
    one, other = mp.GradScaler(growth_interval=2), mp.GradScaler(growth_interval=2)
    for bad in (False, True, False, False, False):
        one.on_device(get_backend("numpy")).advance(np.asarray(bad))
        other._start()
        other.advance(bad)
        if bad:
            assert one.get_scale() == other.get_scale()
    twin = copy.deepcopy(one)
    assert one.state == other.state == twin.state
    assert one.state_dict() == other.state_dict()


def test_a_count_that_must_raise_is_refused() -> None:
    """Oracle: the rule that a setting which cannot act raises; nothing has moved."""
    scaler = mp.GradScaler(max_consecutive_skips=3)
    with pytest.raises(SettingError, match="control='host'"):
        scaler.on_device(get_backend("numpy"))
    assert scaler.get_scale() == 2.0**16
