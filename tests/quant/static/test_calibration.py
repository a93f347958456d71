"""Calibration over batches: what is observed, when it ends, what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minimp import nn
from minimp.errors import DataError, SettingError
from minimp.nn.module import Module
from minimp.quant.affine import Affine
from minimp.quant.dynamic import quantize_dynamic
from minimp.quant.modules import weight_of
from minimp.quant.narrow_weights import weight_only
from minimp.quant.observers import (
    GivenObserver,
    MinMaxObserver,
    MovingAverageMinMaxObserver,
    PerChannelMinMaxObserver,
)
from minimp.quant.static import Progress, calibrate, channel_weights, convert
from minimp.tensors import Tensor, tensor
from tests.quant.static.samples import Array, Residual, batches, residual


def test_what_is_observed() -> None:
    """Oracle: an observer fed by hand with the input, and with what each layer gives, of every batch."""
    model, x = residual()
    calibration = calibrate(model, batches(x))
    assert list(calibration.outputs) == ["first.0", "second", "add", "hidden", "last"]
    first, last = (type(calibration.inputs[0])() for _ in range(2))
    for batch in x.reshape(4, 10, 2, 8, 8):
        first.observe(batch)
        last.observe(model(tensor(batch)).detach())
    assert calibration.inputs[0].affine() == first.affine()
    assert calibration.affine("last") == last.affine()
    assert (calibration.batches, calibration.settled) == (4, False)


def test_any_batches() -> None:
    """Oracle: one and the same: tuples of a loader, arrays, tensors, dicts with a function."""
    model, x = residual()
    parts = list(x.reshape(4, 10, 2, 8, 8))
    named: Any = [{"image": each} for each in parts]
    made = [
        calibrate(model, batches(x)),
        calibrate(model, iter(parts)),
        calibrate(model, [tensor(each) for each in parts]),
        calibrate(model, named, inputs_of=lambda batch: (batch["image"],)),
    ]
    assert len({str(each) for each in made}) == 1


def test_the_model_runs_in_evaluation_and_stays() -> None:
    """Oracle: modes, statistics, gradients and hooks before and after; a dropout lets everything pass."""
    rng = np.random.default_rng(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.9))
    x = rng.normal(size=(50, 4)).astype(np.float32)
    before = {path: each.array.copy() for path, each in model.state_dict().items()}
    calibration = calibrate(model, [x], activation=MinMaxObserver)
    assert all(each.training for each in model.modules())
    after = model.state_dict()
    assert all(np.array_equal(before[path], after[path].array) for path in before)
    assert not any(vars(each._hooks)["forward"] for each in model.modules() if each._hooks)
    y = model.eval()(tensor(x)).detach().array
    assert [float(each) for each in calibration.outputs["1"].range()] == [y.min(), y.max()]


def test_progress_and_an_early_end() -> None:
    """Oracle: by hand: batches that grow, then stay; the range moves by known shares of its width."""
    model = nn.Sequential(nn.Linear(1, 1, bias=False)).eval()
    model[0].weight.array = np.float32([[1]])
    data = [np.float32([[-scale], [scale]]) for scale in (1, 2, 2.5, 2.5, 2.5, 9)]
    told: list[Progress] = []
    rest = {"activation": MinMaxObserver, "patience": 2, "progress": told.append}
    calibration = calibrate(model, data, **rest)
    assert [(each.batch, each.of, each.settled) for each in told] == [
        (1, 6, False), (2, 6, False), (3, 6, False), (4, 6, False), (5, 6, True),
    ]  # fmt: skip
    assert [each.change for each in told] == [None, 0.5, 0.2, 0.0, 0.0]
    assert (told[1].where, told[0].where) == ("input 0", "")
    assert (calibration.batches, calibration.settled) == (5, True)
    assert float(calibration.outputs["0"].range()[1]) == 2.5
    wide = calibrate(model, data, **{**rest, "tolerance": 0.3})
    assert wide.batches == 4  # 0.2 and 0
    again = calibrate(model, [data[0], data[0], data[1], data[1], data[1], data[0]], **rest)
    assert again.batches == 5  # 0, 0.5, 0 and 0: one after the other
    assert calibrate(model, iter(data), activation=MinMaxObserver).batches == 6
    assert float(calibrate(model, data, activation=MinMaxObserver).affine("0").high) >= 9


def test_a_length_unknown() -> None:
    """Oracle: by hand: a generator has none; without patience no ranges are asked for."""
    told: list[Progress] = []
    calibrate(nn.Linear(1, 1), (np.ones((2, 1), "f4") for _ in range(2)), progress=told.append)
    assert told == [Progress(1, None, None, "", False), Progress(2, None, None, "", False)]


def test_what_it_prints() -> None:
    """Oracle: a row for each observer, with its numbers, in 100 columns."""
    model, x = residual()
    calibration = calibrate(model, batches(x), activation=MovingAverageMinMaxObserver)
    lines = str(calibration).splitlines()
    assert [line.split()[0] for line in lines[1:]] == [
        "input",
        "first.0",
        "second",
        "add",
        "hidden",
        "last",
        "4",
    ]
    assert max(map(len, lines)) <= 100
    affine = calibration.affine("last")
    assert lines[6].split()[3:5] == [f"{float(affine.scale):.4g}", str(int(affine.zero_point))]
    assert lines[-1] == "4 batches"


class Doubling(Module):
    """A layer whose output overflows for large inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(2, 2)
        self.body.weight.array = np.full((2, 2), 3e38, np.float32)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 2) -> (N, 2)."""
        y: Tensor = self.body(x)
        return y


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ([np.zeros((1, 2), "f4"), np.float32([[0, np.nan]])], "(?s)input 0 of batch 2: .*NaN"),
        ([np.float32([[2, -2]])], "output of 'body' in batch 1: .*NaN"),
        ([np.float32([[np.inf, 0]])], "input 0 of batch 1: .*infinity"),
        ([], "the calibration set is empty"),
    ],
)
def test_data_that_cannot_be_used(data: list[Array], says: str) -> None:
    """Oracle: one error, which names the place and the batch; no hook is left behind."""
    model = Doubling()
    with np.errstate(all="ignore"), pytest.raises(DataError, match=says) as caught:
        calibrate(model, data, activation=MinMaxObserver)
    assert caught.value.help
    assert not any(vars(each._hooks)["forward"] for each in model.modules() if each._hooks)


def test_an_iterator_that_has_ended() -> None:
    """Oracle: the message."""
    used = iter([])
    with pytest.raises(DataError, match="gives its batches only once"):
        calibrate(nn.Linear(1, 1), used)


@pytest.mark.parametrize("rest", [{"patience": 0}, {"tolerance": -1.0}, {"tolerance": np.nan}])
def test_settings_that_cannot_be(rest: dict[str, Any]) -> None:
    """Oracle: the message names the setting."""
    with pytest.raises(SettingError, match=next(iter(rest))):
        calibrate(nn.Linear(1, 1), [np.ones((1, 1), "f4")], **rest)


def test_channels_are_for_weights() -> None:
    """Oracle: the message; and that of NaN in a weight."""
    with pytest.raises(SettingError, match="activations must have one scale, and PerChannelMinMaxObserver"):
        calibrate(nn.Linear(2, 2), [np.ones((4, 2), "f4")], activation=PerChannelMinMaxObserver)
    with pytest.raises(DataError, match="NaN"):
        weight_of(np.float32([[1, np.nan]]), None, np.float32(1), channel_weights())


def test_a_batch_norm_is_told_to_be_fused() -> None:
    """Oracle: the message of a model that was not fused."""
    x = np.random.default_rng(0).normal(size=(4, 2, 8, 8)).astype(np.float32)
    model = Residual().eval()
    with pytest.raises(SettingError, match=r"(?s)'first\.1' is a BatchNorm2d.*fuse"):
        convert(model, calibrate(model, [x]))


def test_weights_in_codes_are_not_quantised_again() -> None:
    """Oracle: the message, of calibrating and of converting; each names the layer."""
    x = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
    calibration = calibrate(model, [x])
    for narrow in (quantize_dynamic(model, {"2"})[0], weight_only(model)[0]):
        for again in (lambda m: calibrate(m, [x]), lambda m: convert(m, calibration)):
            with pytest.raises(SettingError, match="weights are codes already and would be quantised twice"):
                again(narrow)
    with pytest.raises(SettingError, match="scales are needed"):
        convert(model)


def test_weights_whose_scales_are_known() -> None:
    """Oracle: by hand: the codes of a weight under the scale that the calibration has for it."""
    x = np.random.default_rng(1).normal(size=(8, 4)).astype(np.float32)
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)).eval()
    calibration = calibrate(model, [x])
    known = Affine(np.float32(0.25), np.int32(0), -8, 7)
    calibration.weights["1"] = GivenObserver(known)
    made = convert(model, calibration)
    want = np.clip(np.rint(model[1].weight.array * 4), -8, 7)
    np.testing.assert_array_equal(made.model[1].weight.array, want)
    assert made.model[0].weight_scale.shape == (4,)
    calibration.outputs["0"] = GivenObserver(Affine(np.float32(0.5), np.int32(3), 0, 15))
    assert " 0.5     3         -" in str(calibration)
    assert convert(model, calibration).model[1].kept("input_").bits == 4
    with pytest.raises(DataError, match="1 of 8 values are NaN"):
        GivenObserver(known).observe(np.array([0, 1, 2, 3, 4, 5, 6, np.nan], np.float32))
