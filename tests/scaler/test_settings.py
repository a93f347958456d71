"""Settings of a scaler, saving and loading; oracle: PyTorch 2.13.0 as measured, where a test names it."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest

import minimp as mp
from minimp.errors import ScalerError, SettingError
from minimp.scaler import GradScaler
from tests.scaler.plain import (
    begun,
    grad_of,
    with_grads,
)

INF, NAN = math.inf, math.nan


@pytest.mark.parametrize("value", [4.0, np.float64(4.0), np.float32(4.0), mp.tensor(4.0), mp.tensor(4)])
def test_the_scale_can_be_set(value: Any) -> None:
    """Oracle: PyTorch 2.13.0: no check is needed, the tracker stays, and the iteration begins anew."""
    scaler, optimizer = begun(), with_grads((8.0,))
    scaler.step(optimizer)
    scaler.update()
    scaler.unscale_(optimizer)
    scaler.update(value)
    assert (scaler.get_scale(), scaler.state.growth_tracker) == (4.0, 1)
    scaler.unscale_(optimizer)
    assert grad_of(optimizer).tolist() == [8.0 / 8 / 8 / 4]


@pytest.mark.parametrize("value", [4, True, "4", [4.0], mp.tensor([4.0]), mp.tensor(4.0, requires_grad=True)])
def test_a_scale_of_another_kind_is_refused(value: Any) -> None:
    """Oracle: PyTorch 2.13.0 refuses these too."""
    scaler = begun()
    with pytest.raises(
        SettingError, match="new_scale: expected a float, or a tensor without axes and without"
    ):
        scaler.update(value)
    assert scaler.get_scale() == 8.0


@pytest.mark.parametrize("value", [1e39, NAN])
def test_a_scale_that_is_none_is_refused(value: float) -> None:
    """Oracle: 1e39 is no float32 (PyTorch 2.13.0 refuses it too); NaN could never recover. inf is taken."""
    scaler = begun()
    with pytest.raises(SettingError, match="new_scale"):
        scaler.update(value)
    scaler.update(INF)
    assert scaler.get_scale() == INF


def test_getters_and_setters() -> None:
    """Oracle: PyTorch 2.13.0's names; the settings act on the next update."""
    scaler = begun()
    assert (scaler.get_growth_factor(), scaler.get_backoff_factor(), scaler.get_growth_interval()) == (
        2.0,
        0.5,
        2000,
    )
    scaler.set_growth_factor(4.0)
    scaler.set_backoff_factor(0.25)
    scaler.set_growth_interval(1)
    scaler.advance(False)
    assert scaler.get_scale() == 32.0
    scaler.advance(True)
    assert scaler.get_scale() == 8.0
    assert scaler.is_enabled()
    with pytest.raises(SettingError, match="growth_factor: expected at least 1"):
        scaler.set_growth_factor(0.5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"growth_factor": 1.0},
            r"GradScaler: growth_factor: expected a number above 1, got 1\.0\n.*'static'",
        ),
        ({"init_scale": "cuda"}, r"init_scale: expected a number, got 'cuda'\n.*the device, is not taken"),
        ({"backoff_factor": 1.0}, r"backoff_factor: expected a number below 1, got 1\.0"),
        ({"min_scale": 2.0**20}, "init_scale: expected a scale from 1048576.0 to inf, got 65536.0"),
        ({"hysteresis": 0}, "hysteresis: expected at least 1"),
        ({"growth_interval": "2000"}, "growth_interval: expected a whole number, got '2000'"),
        ({"max_consecutive_skips": 1.5}, "max_consecutive_skips: expected a whole number, got 1.5"),
        ({"max_consecutive_skips": -1}, "max_consecutive_skips: expected at least 0, got -1"),
        (
            {"max_scale": 2.0**20, "growth_interval": 0},
            r"max_scale: 1048576\.0 cannot act on a scale that never",
        ),
    ],
)
def test_settings_that_cannot_act_are_refused(settings: dict[str, Any], message: str) -> None:
    """Oracle: PyTorch 2.13.0's two checks, and the ranges of the settings that it lacks."""
    with pytest.raises(SettingError, match=message):
        GradScaler(**settings)


@pytest.mark.parametrize(
    ("settings", "verdicts", "scales"),
    [
        ({"min_scale": 2.0}, [True] * 4, [4.0, 2.0, 2.0, 2.0]),
        ({"max_scale": 16.0, "growth_interval": 1}, [False] * 3, [16.0, 16.0, 16.0]),
        ({"max_scale": 12.0, "growth_interval": 1}, [False, True], [12.0, 6.0]),
        ({"min_scale": 3.0}, [True, True, False], [4.0, 3.0, 3.0]),
        ({"hysteresis": 3}, [True, True, False, True, True, True, True], [8.0] * 5 + [4.0, 2.0]),
        ({"hysteresis": 2, "min_scale": 4.0}, [True] * 4, [8.0, 4.0, 4.0, 4.0]),
    ],
)
def test_each_option_acts_also_after_it_was_saved_and_loaded(
    settings: dict[str, Any], verdicts: list[bool], scales: list[float]
) -> None:
    """Oracle: by hand; the loaded scaler began without the option, and is saved and loaded at each step."""
    scaler, loaded = GradScaler(init_scale=8.0, **settings), GradScaler()
    for verdict, scale in zip(verdicts, scales, strict=True):
        loaded.load_state_dict(scaler.state_dict())
        for each in (scaler, loaded):
            each.advance(verdict)
            assert each.get_scale() == scale


def test_a_floor_and_a_ceiling_hold_on_loading_too() -> None:
    """Oracle: the contract: a state out of the scaler's own range is refused, and changes nothing."""
    torch_like = GradScaler(init_scale=0.25).state_dict()
    scaler = GradScaler(init_scale=8.0, min_scale=1.0, max_scale=16.0)
    for scale in (0.25, 32.0):
        with pytest.raises(
            SettingError, match=rf"init_scale: expected a scale from 1\.0 to 16\.0, got {scale}"
        ):
            scaler.load_state_dict({**torch_like, "scale": scale})
        with pytest.raises(SettingError, match="new_scale: expected a scale from 1"):
            GradScaler.update(begun(min_scale=1.0, max_scale=16.0), scale)
    assert scaler.get_scale() == 8.0


@pytest.mark.parametrize("make", [np.asarray, mp.tensor])
def test_numbers_without_axes_can_be_loaded(make: Any) -> None:
    """Oracle: the same numbers as Python's; PyTorch 2.13.0 fills its scale from them too."""
    plain = {**GradScaler(init_scale=4.0, growth_interval=7).state_dict(), "_growth_tracker": 3}
    scaler = GradScaler()
    scaler.load_state_dict({name: make(value) for name, value in plain.items()})
    assert scaler.state_dict() == plain
    with pytest.raises(SettingError, match="init_scale: expected a number"):
        scaler.load_state_dict({**plain, "scale": make([4.0])})


def test_the_scale_is_rounded_to_float32_when_it_is_first_used() -> None:
    """Oracle: PyTorch 2.13.0, whose tensor is made by the first scale()."""
    scaler = GradScaler(init_scale=0.1)
    assert scaler.get_scale() == 0.1
    scaler.scale(mp.tensor(1.0))
    assert scaler.get_scale() == float(np.float32(0.1))
    assert scaler.scale_value == scaler.get_scale()


def test_advance_is_updates_transition() -> None:
    """Oracle: update() itself, over one trace of verdicts."""
    by_update, by_advance = begun(growth_interval=2), GradScaler(init_scale=8.0, growth_interval=2)
    for bad in [False, False, True, False, True, True, False, False, False]:
        by_update.step(with_grads((INF if bad else 1.0,)))
        by_update.update()
        by_advance.advance(bad)
        assert by_advance.state == by_update.state


def test_a_state_dict_has_torchs_entries_and_no_others() -> None:
    """Oracle: PyTorch 2.13.0's five keys."""
    scaler = begun()
    scaler.advance(False)
    assert scaler.state_dict() == {
        "scale": 8.0, "growth_factor": 2.0, "backoff_factor": 0.5, "growth_interval": 2000,
        "_growth_tracker": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    "make",
    [
        lambda: GradScaler(growth_interval=3, min_scale=2.0**-4, max_scale=2.0**20, hysteresis=2),
        lambda: GradScaler.preset("paddle", hysteresis=3, growth_interval=2),
        lambda: GradScaler.preset("chainer", growth_interval=5),
        lambda: GradScaler.preset("flax", growth_interval=2),
        lambda: GradScaler.preset("static", init_scale=128.0),
    ],
)
def test_a_loaded_scaler_goes_on_as_the_saved_one(make: Any) -> None:
    """Oracle: the saved scaler itself, over the same verdicts, saved after each of them."""
    verdicts = [False, True, True, False, False, True, True, True, False, False, False, True]
    saved = make()
    for cut, verdict in enumerate(verdicts):
        loaded = GradScaler()
        loaded.load_state_dict(saved.state_dict())
        assert loaded.rule.init_scale == saved.get_scale()
        for later in verdicts[cut:]:
            loaded.advance(later)
        whole = copy.deepcopy(saved)
        for later in verdicts[cut:]:
            whole.advance(later)
        assert loaded.state == whole.state
        saved.advance(verdict)


def test_a_state_dict_that_cannot_be_used_changes_nothing() -> None:
    """Oracle: PyTorch 2.13.0 refuses an empty one and one with a missing key (half loaded by then)."""
    scaler = begun()
    good = scaler.state_dict()
    with pytest.raises(ScalerError, match="the state dict is empty, as that of a disabled scaler is"):
        scaler.load_state_dict({})
    with pytest.raises(SettingError, match="the state dict lacks growth_interval, _growth_tracker"):
        scaler.load_state_dict({"scale": 2.0, "growth_factor": 3.0, "backoff_factor": 0.25})
    for entry, value in [
        ("scale", "high"),
        ("growth_factor", None),
        ("_growth_tracker", 1.5),
        ("scale", 1e39),
    ]:
        with pytest.raises(SettingError, match=entry):
            scaler.load_state_dict({**good, entry: value})
    assert scaler.state_dict() == good
    scaler.load_state_dict({**good, "scale": 2.0, "of a later version": 1})
    assert scaler.get_scale() == 2.0


def test_a_scaler_can_be_copied_between_iterations_only() -> None:
    """Oracle: PyTorch 2.13.0's rule for pickling."""
    scaler, optimizer = begun(), with_grads((8.0,))
    scaler.unscale_(optimizer)
    with pytest.raises(ScalerError, match="copied between iterations only"):
        copy.deepcopy(scaler)
    scaler.update()
    twin = copy.deepcopy(scaler)
    twin.advance(True)
    assert (scaler.get_scale(), twin.get_scale()) == (8.0, 4.0)
    with pytest.raises(ScalerError, match=r"before scale\(\)"):
        copy.deepcopy(scaler).unscale_(optimizer)
