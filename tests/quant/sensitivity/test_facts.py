"""What is seen of codes, and which cause it is taken for; oracles: numbers laid out by hand."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest

from minimp import nn
from minimp.errors import SettingError
from minimp.quant.observers import MinMaxObserver, PerChannelMinMaxObserver
from minimp.quant.qat import prepare_qat
from minimp.quant.sensitivity import correct_bias, sweep
from minimp.quant.sensitivity.blaming import cause_of
from minimp.quant.static import calibrate

INT8: dict[str, Any] = {"quant_min": -128, "quant_max": 127, "symmetric": True}


def identity(count: int) -> Any:
    """Return a layer that gives on what it takes."""
    layer = nn.Linear(count, count, bias=False)
    layer.weight.array = np.eye(count, dtype=np.float32)
    return nn.Sequential(layer).eval()


def test_how_results_are_spread() -> None:
    """Oracle: three quarters zeros, the rest each code once: 0 to 255, their middle half 127 codes apart;
    the third of four channels reaches 255, the others 1, 4 and 85."""
    x = np.zeros((1024, 4), np.float32)
    x[:256, 2] = np.arange(256)
    x[:2, 0], x[:2, 1], x[:2, 3] = 1, 4, 85
    model = identity(4)
    facts = sweep(model, calibrate(model, [x], activation=MinMaxObserver), [x])["0"].activation_facts
    assert facts.codes == 256
    assert 120 <= facts.middle <= 128
    assert (facts.clipped, facts.reach, facts.peak, facts.channel) == (0, 1, 255, 2)
    assert facts.channel_ratio == pytest.approx(255 / np.median([1, 4, 255, 85]), rel=1e-5)
    assert facts.unevenness == pytest.approx(255 / np.quantile([1, 4, 255, 85], 0.25), rel=1e-5)


def test_what_is_cut_off() -> None:
    """Oracle: calibrated to 10, run on 0..99: 89 of 100 values lie beyond by more than half a step."""
    model = identity(1)
    calibration = calibrate(model, [np.float32([[0], [10]])], activation=MinMaxObserver)
    x = np.arange(100, dtype=np.float32)[:, None]
    facts = sweep(model, calibration, [x])["input 0"].activation_facts
    assert facts.clipped == 0.89
    assert facts.reach == pytest.approx(9.9, rel=1e-5)
    assert cause_of(facts)[0].name == "clipped"


def test_averages_borrow_their_scale() -> None:
    """Oracle: means of 4 x 4 numbers from -1 to 1 reach a fraction of that range, in the codes of these."""
    x = np.random.default_rng(0).uniform(-1, 1, (8, 4, 8, 8)).astype(np.float32)
    model = nn.Sequential(nn.Conv2d(4, 4, 1), nn.AvgPool2d(4)).eval()
    report = sweep(model, calibrate(model, [x]), [x])
    found = {each.path: each for each in report.blame(0)}
    assert found["1"].cause == "borrowed scale"
    facts = report["1"].activation_facts
    assert facts.borrowed
    assert facts.filled < 0.5 < report["0"].activation_facts.filled
    assert f"fills {facts.filled:.0%} of that range" in found["1"].words
    assert not any(report[path].activation_facts.borrowed for path in ("input 0", "0"))


def test_channel_ranges_matter_under_one_scale_alone() -> None:
    """Oracle: rows of 64, 8 and 1 times the same: a ratio of 64; with a scale a row it is no cause."""
    rng = np.random.default_rng(0)
    model = nn.Sequential(nn.Linear(32, 3, bias=False)).eval()
    model[0].weight.array = (rng.normal(size=(1, 32)) * [[64], [8], [1]]).astype(np.float32)
    x = rng.normal(size=(50, 32)).astype(np.float32)
    calibration = calibrate(model, [x])
    named = {}
    for observer in (MinMaxObserver, PerChannelMinMaxObserver):
        facts = sweep(model, calibration, [x], weight=partial(observer, **INT8))["0"].weight_facts
        assert facts is not None
        assert facts.channel_ratio == pytest.approx(64, rel=1e-5)
        named[facts.per_channel] = cause_of(facts)[0].name
        assert facts.unevenness == pytest.approx(64 / 4.5, rel=1e-5)
    assert named == {False: "channel ranges", True: "sensitive"}


def test_a_prepared_model_is_refused() -> None:
    """Oracle: words: it has scales of its own."""
    model, x = nn.Sequential(nn.Linear(4, 4)), np.ones((2, 4), np.float32)
    calibration = calibrate(model.eval(), [x])
    prepared = prepare_qat(model, x)
    for call in (sweep, correct_bias):
        with pytest.raises(SettingError, match="expected a float model and its calibration"):
            call(prepared, calibration, [x])
        with pytest.raises(SettingError, match="expected a float model and its calibration"):
            call(model, None, [x])
