"""The sweep: its figures against those of converted models, planted faults, refusals."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
import pytest

from minimp import nn
from minimp.data import ArrayDataset, DataLoader
from minimp.errors import DataError, MinimpError, SettingError
from minimp.nn.module import Module
from minimp.quant.fusion import equalize, rescale_channels
from minimp.quant.layer_reports import sqnr
from minimp.quant.modules import Add, DeQuantStub, QuantStub
from minimp.quant.observers import MinMaxObserver, PerChannelMinMaxObserver
from minimp.quant.sensitivity import sweep
from minimp.quant.sensitivity.measuring import batches_of
from minimp.quant.sensitivity.spots import Bench
from minimp.quant.static import calibrate, convert, walked
from minimp.tensors import tensor
from tests.quant.sensitivity.samples import held_out, learnt, train_batches
from tests.quant.static.samples import MODES, Array, batches, residual

INT8: dict[str, Any] = {"quant_min": -128, "quant_max": 127, "symmetric": True}
per_tensor = partial(MinMaxObserver, **INT8)


def run(model: Any, x: Array) -> Array:
    """Return what a model makes of an array."""
    return np.asarray(model(tensor(x)).detach().array)


def labelled(model: Module, x: Array) -> DataLoader:
    """Return a loader of inputs and the classes that the model gives them, so that it is right throughout."""
    return DataLoader(ArrayDataset(x, run(model, x).argmax(1).astype(np.int64)), len(x))


def chain(seed: int = 0, width: int = 16) -> tuple[Any, Array]:
    """Return a row of layers, "0" to "6" with ReLUs at odd places, and inputs."""
    rng = np.random.default_rng(seed)
    model = nn.Sequential(
        nn.Linear(8, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(),
        nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 4),
    )  # fmt: skip
    for param in model.parameters():
        depth = param.shape[-1] if param.ndim == 2 else 100
        param.array = (rng.normal(size=param.shape) * (2 / depth) ** 0.5).astype(np.float32)
    return model.eval(), rng.normal(size=(200, 8)).astype(np.float32)


# ---- its figures ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("keep", [(), ("second",)])
def test_all_on_codes_is_the_converted_model(mode: str, keep: tuple[str, ...]) -> None:
    """Oracle: convert, to the bit; before the end, each part alone is near it."""
    model, x = residual()
    calibration = calibrate(model, batches(x))
    bench = Bench(model, walked(model, calibration, mode=mode, keep_float=keep))
    bench.set_forms(dict.fromkeys(bench.sites, "int8"))
    wanted = run(convert(model, calibration, mode=mode, keep_float=keep), x)
    np.testing.assert_array_equal(run(bench, x), wanted)
    assert list(bench.sites) == ["input 0", "first.0", "second", "add", "means", "mean", "hidden", "last"]


@pytest.mark.parametrize("mode", MODES)
def test_imitated_codes_are_those_of_integers(mode: str) -> None:
    """Oracle: the integer layers on the same codes: one code apart at most, and that at ties alone."""
    model, x = residual()
    bench = Bench(model, walked(model, calibrate(model, batches(x)), mode=mode))
    before: dict[str, str] = {}
    for path, site in bench.sites.items():
        seen = []
        for form in ("int8", "both"):
            bench.set_forms(before | {path: form})
            run(bench, x)
            seen.append(np.rint(np.asarray(site.spot.seen.array) / site.output.scale))
        far = np.abs(seen[0] - seen[1])
        assert far.max() <= 1, path
        # A mean of codes has ties, which integers round otherwise; gemmlowp's multiplier rounds twice.
        most = 0.2 if path.startswith("mean") else {"float": 0.002, "fixed-point": 0.01}[mode]
        assert np.mean(far > 0) <= most, path
        before[path] = "int8"


class Signals(Module):
    """Layers of signals and tables, and a sum of two of them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.bend = nn.Conv1d(3, 4, 3, padding=1), nn.SiLU()
        self.wide, self.narrow = nn.ConvTranspose1d(4, 6, 2, 2, groups=2), nn.AvgPool1d(2)
        self.side, self.add = nn.Conv1d(4, 6, 1), Add()

    def forward(self, x: Any) -> Any:
        """(N, 3, L) -> (N, 6, L)."""
        h = self.bend(self.first(x))
        return self.add(self.narrow(self.wide(h)), self.side(h))


def test_all_kinds_of_layers_are_looked_at() -> None:
    """Oracle: convert, by SQNR; a transposed weight read back lies within half a step of what it was."""
    rng = np.random.default_rng(2)
    model, x = Signals().eval(), rng.normal(size=(20, 3, 8)).astype(np.float32)
    for param in model.parameters():
        param.array = rng.normal(size=param.shape).astype(np.float32)
    calibration = calibrate(model, [x])
    report = sweep(model, calibration, [x])
    wanted = sqnr([(run(model, x), run(convert(model, calibration), x))])
    assert report.whole.sqnr_db == pytest.approx(wanted)
    assert [row.path for row in report if row.weights] == ["first", "wide", "side"]
    assert [row.path for row in report if row.without is None] == ["input 0", "narrow"]
    bench = Bench(model, walked(model, calibration))
    read: Any = bench.sites["wide"].spot.forms["weights"]
    steps = np.abs(model.wide.weight.array).max() / 127.5
    assert np.abs(read.weight.array - model.wide.weight.array).max() <= steps / 2 * 1.01


def test_figures_are_those_of_models_built_by_hand() -> None:
    """Oracle: convert with and without each layer; a weight read back by hand; the row before."""
    model, x = residual()
    calibration = calibrate(model, batches(x))
    report = sweep(model, calibration, labelled(model, x))
    y = run(model, x)

    def of(quantized: Module) -> float:
        return sqnr([(y, run(quantized, x))])

    assert report.whole.sqnr_db == pytest.approx(of(convert(model, calibration)))
    for path in ("first.0", "second", "add", "hidden", "last"):
        without = report[path].without
        assert without is not None
        assert without.sqnr_db == pytest.approx(of(convert(model, calibration, keep_float=[path])))
    assert report["mean"].without is report["input 0"].without is report["add"].weights is None
    built: Any = convert(model, calibration)
    weight = built.model.last.kept("weight_")
    steps = built.model.last.weight.array * weight.scale[:, None]
    bias = built.model.last.bias.array * weight.scale * built.model.last.kept("input_").scale
    model.last.weight.array, model.last.bias.array = steps.astype(np.float32), bias.astype(np.float32)
    assert report["last"].weights is not None
    assert report["last"].weights.sqnr_db == pytest.approx(of(model))
    assert report["input 0"].inherited_db == math.inf
    last = report["last"]
    assert last.own_db == report.whole.sqnr_db  # its result is the model's
    assert last.inherited_db > last.own_db
    assert last.made_db == last.both.sqnr_db


def test_accuracy_counts_the_rows_that_stay_right() -> None:
    """Oracle: the converted model's share of the float model's classes, by hand."""
    model, x = residual()
    calibration = calibrate(model, batches(x), activation=partial(MinMaxObserver, quant_max=15))
    report = sweep(model, calibration, labelled(model, x))
    agree = 100 * np.mean(run(convert(model, calibration), x).argmax(1) == run(model, x).argmax(1))
    assert report.float_metric == 100
    assert 0 < agree < 100
    assert report.whole.metric == pytest.approx(agree)
    assert report.metric_name == "accuracy"


def test_sweeping_changes_nothing_and_repeats_itself() -> None:
    """Oracle: the model's bits and modes before and after; a second sweep; the count of forwards."""
    model, x = residual()
    calibration = calibrate(model, batches(x))
    model.train()
    bits = [param.array.tobytes() for param in model.parameters()]
    seen: list[Any] = []
    data = labelled(model.eval(), x)
    model.train()
    first = sweep(model, calibration, data, by_damage=True, progress=seen.append)
    assert all(each.training for each in model.modules())
    assert [param.array.tobytes() for param in model.parameters()] == bits
    assert sweep(model, calibration, iter(list(data)), by_damage=True).rows == first.rows
    assert [each.done for each in seen] == list(range(1, seen[0].of + 1))
    assert "the weights of 'first.0' alone" in {each.what for each in seen}
    alone = [first[path].both.sqnr_db for path in first.by_damage]
    assert alone == sorted(alone)
    assert len(alone) == len(first)


def test_a_sweep_between_stubs_and_a_layer_as_the_model() -> None:
    """Oracle: convert, by SQNR; only what codes reach is swept."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(50, 8)).astype(np.float32)
    model = nn.Sequential(
        nn.Linear(8, 8), QuantStub(), nn.Linear(8, 6), DeQuantStub(), nn.Linear(6, 3)
    ).eval()
    calibration = calibrate(model, [x])
    report = sweep(model, calibration, [x])
    assert [row.path for row in report] == ["1", "2"]
    assert report.metric_name == ""
    for each in (model, nn.Linear(8, 4).eval()):
        seen = calibrate(each, [x])
        wanted = sqnr([(run(each, x), run(convert(each, seen), x))])
        assert sweep(each, seen, [x]).whole.sqnr_db == pytest.approx(wanted)


# ---- who is to blame --------------------------------------------------------------------------------------


def test_a_layer_whose_channels_were_rescaled_is_named() -> None:
    """Oracle: the layer that was rescaled, in a net that one scale a weight served well; both cures cure."""
    model, x = chain()
    whole = sweep(model, calibrate(model, [x]), [x], weight=per_tensor).whole.sqnr_db
    factors = np.where(np.arange(16) == 5, 64.0, 1.0)
    uneven, _ = rescale_channels(model, tensor(x[:4]), factors={"2": factors})
    calibration = calibrate(uneven, [x], activation=MinMaxObserver)
    report = sweep(uneven, calibration, [x], weight=per_tensor)
    found = report.blame(0.02)
    assert report.whole.sqnr_db < whole - 10
    assert {"2", "4"} >= {each.path.split(".")[0] for each in found if each.cause != "sensitive"}
    (named,) = [each for each in found if (each.path, each.part) == ("2", "weights")]
    assert named.cause == "channel ranges"
    ratio = report["2"].weight_facts
    assert ratio is not None
    assert ratio.channel_ratio >= 64
    assert f"differ by {ratio.channel_ratio:.3g}x" in named.words
    assert "equalize" in named.step
    cured = sweep(uneven, calibration, [x])["2"].weights
    assert cured is not None
    assert named.sqnr_db + 15 < cured.sqnr_db


@pytest.mark.slow
def test_what_unequal_channels_do_to_digits_is_named_and_cured() -> None:
    """Oracle: a network that has learnt the digits, its channels rescaled by 2^-3 to 2^3, which changes no
    result in floats: one scale a weight loses it and is named; equalize gives it back."""
    _, model = learnt()
    x = held_out().dataset[:4][0]
    rescaled, _ = rescale_channels(model, tensor(x), factors=3)
    calibration = calibrate(rescaled, train_batches())
    report = sweep(rescaled, calibration, held_out(), weight=per_tensor)
    print(report)
    worst = report.blame()[0]
    assert (worst.part, worst.cause) == ("weights", "channel ranges")
    equal, _ = equalize(rescaled, tensor(x))
    cured = sweep(equal, calibrate(equal, train_batches()), held_out(), weight=per_tensor)
    print(cured)
    assert cured.whole.sqnr_db > report.whole.sqnr_db + 10
    assert cured.whole.metric >= cured.float_metric - 0.5
    assert report.whole.metric <= cured.whole.metric - 5


def test_uneven_channels_of_results_are_named() -> None:
    """Oracle: half the channels of a layer were made 1/64 of what they were, the next makes up for it."""
    model, x = chain()
    factors = np.where(np.arange(16) % 2, 1 / 64, 1.0)
    uneven, _ = rescale_channels(model, tensor(x[:4]), factors={"2": factors})
    (worst,) = sweep(uneven, calibrate(uneven, [x]), [x]).blame(1)
    assert (worst.path, worst.part, worst.cause) in {
        ("2", "activations", "uneven channels"), ("4", "weights", "input ranges"),
    }  # fmt: skip
    found = {
        (each.path, each.part): each.cause for each in sweep(uneven, calibrate(uneven, [x]), [x]).blame(0)
    }
    assert found["2", "activations"] == "uneven channels"
    assert found["4", "weights"] == "input ranges"


def test_a_result_with_an_outlier_is_named() -> None:
    """Oracle: the layer one of whose channels was given a constant 2000; the others are not blamed."""
    model, x = chain()
    model[2].bias.array = np.where(np.arange(16) == 5, np.float32(2000), model[2].bias.array)
    model[4].weight.array = np.where(np.arange(16) == 5, np.float32(0), model[4].weight.array)
    report = sweep(model, calibrate(model, [x], activation=MinMaxObserver), [x])
    (worst,) = report.blame()
    assert (worst.path, worst.part, worst.cause) == ("2", "activations", "outlier channel")
    assert "channel 5 reaches 2" in worst.words
    assert worst.share > 0.9


def test_rare_outliers_and_data_beyond_the_calibration_are_named() -> None:
    """Oracle: an input with one large value in calibration; and data ten times those calibrated on."""
    model, x = chain()
    spiked = x.copy()
    spiked[0, :] = 1000
    found = sweep(model, calibrate(model, [spiked], activation=MinMaxObserver), [x]).blame(0.01)
    assert "input 0" in {each.path for each in found}
    assert {(each.part, each.cause) for each in found} == {("activations", "outliers")}
    (worst,) = sweep(model, calibrate(model, [x]), [x * 10]).blame(1)
    assert worst.cause == "clipped"


def test_a_layer_of_three_bits_is_named() -> None:
    """Oracle: the one layer whose weights got 3 bits, then the one whose result did."""
    model, x = chain()
    made = []

    def weight() -> Any:
        made.append(0)
        bits = {"quant_min": -4, "quant_max": 3} if len(made) == 2 else {"quant_min": -128, "quant_max": 127}
        return PerChannelMinMaxObserver(symmetric=True, **bits)

    (worst,) = sweep(model, calibrate(model, [x]), [x], weight=weight).blame()
    assert (worst.path, worst.part, worst.cause) == ("2", "weights", "few codes")
    assert "8 codes (3 bits)" in worst.words
    calibration = calibrate(model, [x])
    coarse = MinMaxObserver(quant_max=7)
    coarse.observe(run(model[:5], x))
    calibration.outputs["4"] = coarse
    (worst,) = sweep(model, calibration, [x]).blame()
    assert (worst.path, worst.part, worst.cause) == ("4", "activations", "few codes")


def test_a_bias_that_sets_the_scale_is_named() -> None:
    """Oracle: a layer with a bias of 2^30 steps and more, which weight_of makes room for."""
    model, x = chain()
    model[4].bias.array = np.where(np.arange(16) == 3, np.float32(-3e9), model[4].bias.array)
    facts = sweep(model, calibrate(model, [x]), [x])["4"].weight_facts
    assert facts is not None
    assert facts.bias_channel == 3


def test_a_model_that_codes_hold_exactly_has_no_culprit() -> None:
    """Oracle: nothing is lost of whole numbers under a scale of 1."""
    model = nn.Sequential(nn.Linear(2, 2, bias=False)).eval()
    model[0].weight.array = np.float32([[127.5, 0], [0, 127.5]]) / np.float32(127.5)
    x = np.float32([[0, 255], [255, 0], [3, 17]])
    observer = partial(PerChannelMinMaxObserver, quant_min=-127, quant_max=127, symmetric=True)
    report = sweep(model, calibrate(model, [x], activation=MinMaxObserver), [x], weight=observer)
    assert report.whole.sqnr_db > 100
    assert report.blame(0)[0].sqnr_db > 100 if report.blame() else "nothing is lost anywhere" in str(report)


def test_the_table_fits() -> None:
    """Oracle: 100 columns of ASCII; each place, its figures, and what they mean; figures of merit by name."""
    model, x = residual()
    calibration = calibrate(model, batches(x))
    for metric in (None, lambda y, t: -float(np.mean(y))):
        text = str(sweep(model, calibration, labelled(model, x), metric=metric, by_damage=True))
        assert all(len(line) <= 100 for line in text.splitlines())
        assert text.isascii()
        assert all(word in text for word in ("first.0", "20 dB", "what costs most", "without", "made"))
    assert "accuracy" not in str(sweep(model, calibration, [x]))


# ---- refusals ---------------------------------------------------------------------------------------------


class Two(Module):
    """A model of two results."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 2)

    def forward(self, x: Any) -> Any:
        """Return both."""
        y = self.layer(x)
        return y, y


@pytest.mark.parametrize(
    ("change", "fault", "said"),
    [
        ({"data": []}, DataError, "the data are empty"),
        ({"data": [np.zeros((0, 8), np.float32)]}, DataError, "the data are empty"),
        ({"data": [np.full((2, 8), np.nan, np.float32)]}, DataError, "gives in batch 1 are not finite"),
        ({"metric": lambda y, t: math.nan}, DataError, "gives NaN"),
        ({"metric": lambda y, t: "good"}, SettingError, "must give one number, got str"),
        ({"metric": lambda y, t: y}, SettingError, "must give one number, got ndarray"),
        ({"metric": lambda y, t: None}, SettingError, "must give one number, got NoneType"),
        ({"keep_float": ["7"]}, SettingError, r"unknown path in keep_float '7'.*\(known: 0,"),
        ({"keep_float": {"4": "int4"}}, SettingError, "unknown format for '4'"),
        ({"mode": "exact"}, SettingError, "unknown mode"),
    ],
)  # fmt: skip
def test_refusals(change: dict[str, Any], fault: type[MinimpError], said: str) -> None:
    """Oracle: the class of the error and its words; it is the sweep that is named."""
    model, x = chain()
    given: dict[str, Any] = {"data": [x]} | change
    with pytest.raises(fault, match=said) as caught:
        sweep(model, calibrate(model, [x]), **given)
    assert caught.value.op == "sweep"


def test_refusals_of_models() -> None:
    """Oracle: words for another model's calibration, a model on codes, and one of two results."""
    model, x = chain()
    calibration = calibrate(model, [x])
    with pytest.raises(SettingError, match=r"^sweep: this is not the model that was calibrated"):
        sweep(chain(1)[0], calibration, [x])
    with pytest.raises(SettingError, match="the model is on codes already"):
        sweep(convert(model, calibration), calibration, [x])
    two = Two().eval()
    with pytest.raises(SettingError, match="one tensor of floats, got 2"):
        sweep(two, calibrate(two, [x]), [x])
    with pytest.raises(SettingError, match="share must lie between 0 and 1"):
        sweep(model, calibration, [x]).blame(2)
    with pytest.raises(DataError, match="the data are empty"):
        batches_of(iter(()), None, "sweep")
