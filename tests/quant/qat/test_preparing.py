"""Where a prepared model rounds, what is trained, and what cannot be prepared."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minimp import functional, nn
from minimp.errors import DataError, MinimpError, SettingError
from minimp.nn.module import Module
from minimp.quant.dynamic import quantize_dynamic
from minimp.quant.modules import Add, DeQuantStub, QuantStub
from minimp.quant.modules.conversions import CONVERSIONS
from minimp.quant.qat import FakeQuantize, RoundedAgain, prepare_qat
from minimp.quant.qat.preparing import AVERAGING
from minimp.quant.static import calibrate, convert
from minimp.tensors import Tensor, tensor
from tests.quant.qat.samples import LAYERS, Array, batch, differences, trained
from tests.quant.static.samples import Residual

ROW = (4, 4)


def activations(prepared: Any) -> list[str]:
    """Return the paths of what rounds activations."""
    return [
        path for path, each in prepared.named_modules()
        if isinstance(each, FakeQuantize) and not path.endswith("weight_fake_quant")
    ]  # fmt: skip


def test_what_stands_where() -> None:
    """Oracle: the table by hand: one place for each rounding of the integer model, and no other."""
    model, x = Residual(), batch((4, 2, 8, 8))
    prepared = prepare_qat(model, tensor(x))
    kinds = {path: type(each).__name__ for path, each in prepared.model.named_modules() if "." not in path}
    del kinds[""]
    assert kinds == {
        "first": "Sequential", "second": "Conv2d", "add": "RoundedOutput", "pool": "MaxPool2d",
        "drop": "Dropout", "means": "RoundedAgain", "mean": "RoundedAgain", "flatten": "Flatten",
        "act": "Identity", "hidden": "LinearReLU", "last": "Linear",
    }  # fmt: skip
    assert [type(each).__name__ for each in prepared.model.first] == ["ConvBnReLU2d", "Identity", "Identity"]
    assert activations(prepared) == [
        "inputs.0", "model.first.0.activation_post_process", "model.second.activation_post_process",
        "model.add.activation_post_process", "model.hidden.activation_post_process",
        "model.last.activation_post_process",
    ]  # fmt: skip
    source = prepared.model.add.activation_post_process
    assert all(each.source == (source,) for each in prepared.model.modules() if type(each) is RoundedAgain)
    assert all(each.training for each in prepared.modules())
    assert len(prepared.report) == 8
    assert max(map(len, str(prepared.report).splitlines())) <= 100
    assert "4 weights and 6 activations; 2 rounded again" in str(prepared.report)
    assert "first.0 + .1 + .2                          ConvBnReLU2d     int8, 6 scales" in str(
        prepared.report
    )


@pytest.mark.parametrize("name", LAYERS)
def test_each_rounding_of_the_integers_has_one_place(name: str) -> None:
    """Oracle: the converted model: modules with numbers of their own, and those that take means."""
    make, shape = LAYERS[name]
    prepared = trained(make(), batch(shape), steps=1)
    made = convert(prepared)
    own = [each for each in made.modules() if "scale" in each._buffers]
    again = [each for each in made.modules() if "AvgPool" in type(each).__name__]
    assert len(activations(prepared)) == len(own)
    assert sum(type(each) is RoundedAgain for each in prepared.modules()) == len(again)


def test_all_that_keeps_its_scale_is_known_to_round_or_not() -> None:
    """Oracle: by hand: means round; what moves, picks or passes does not. A new row must be put here too."""
    keeps = {kind.__name__ for kind, row in CONVERSIONS.items() if row.keeps}
    means = {each.__name__ for each in AVERAGING}
    assert means <= keeps
    assert keeps - means == {
        "AdaptiveMaxPool1d", "AdaptiveMaxPool2d", "AlphaDropout", "ChannelShuffle", "CircularPad1d",
        "CircularPad2d", "DeQuantStub", "Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "Flatten",
        "Identity", "MaxPool1d", "MaxPool2d", "PixelShuffle", "PixelUnshuffle", "ReLU", "ReflectionPad1d",
        "ReflectionPad2d", "ReplicationPad1d", "ReplicationPad2d", "Unflatten", "Upsample",
        "UpsamplingNearest2d", "ZeroPad1d", "ZeroPad2d",
    }  # fmt: skip


def test_a_copy_is_trained() -> None:
    """Oracle: arrays before and after: the model stays, all of the copy's parameters move."""
    model, x = Residual(), batch((8, 2, 8, 8))
    before = {path: each.array.copy() for path, each in model.named_parameters()}
    start = {path: each.array for path, each in prepare_qat(model, tensor(x)).named_parameters()}
    prepared = trained(model, x, steps=3)
    for path, each in model.named_parameters():
        np.testing.assert_array_equal(each.array, before[path])
    assert len(start) == len(before)
    assert all((each.array != start[path]).any() for path, each in prepared.named_parameters())


def test_widths() -> None:
    """Oracle: by hand: -2^(b-1)..2^(b-1) - 1 for weights, 0..2^b - 1 for activations."""
    x = batch((4, 6))
    for bits in range(2, 9):
        prepared = prepare_qat(nn.Linear(6, 5), tensor(x), weight_bits=bits, activation_bits=10 - bits)
        prepared(tensor(x))
        weight, output = (getattr(prepared.model, f"{n}") for n in ("weight_fake_quant",
                                                                    "activation_post_process"))  # fmt: skip
        half, last = 2 ** (bits - 1), 2 ** (10 - bits) - 1
        assert (weight.affine().quant_min, weight.affine().quant_max) == (-half, half - 1)
        assert (output.affine().quant_min, output.affine().quant_max) == (0, last)
        assert (weight.affine().bits, output.affine().bits) == (bits, 10 - bits)
        largest = np.abs(prepared.model.weight.array).max(axis=1)
        np.testing.assert_array_equal(weight.scale.array, largest / np.float32((2**bits - 1) / 2))
        prepared.model.weight.array = prepared.model.weight.array / 2
        prepared(tensor(x))  # the range of a weight is that which it has now
        np.testing.assert_array_equal(weight.scale.array, largest / 2 / np.float32((2**bits - 1) / 2))
    whole = prepare_qat(nn.Linear(6, 5), tensor(x), granularity="per-tensor").model.weight_fake_quant
    assert (whole.scale.shape, whole.ch_axis) == ((), None)


def test_marks() -> None:
    """Oracle: by hand: between QuantStub and DeQuantStub numbers are rounded, elsewhere they are not."""
    model = nn.Sequential(
        nn.Linear(6, 6), nn.Tanh(), QuantStub(), nn.Linear(6, 5), nn.ReLU(), DeQuantStub(), nn.Softmax(-1)
    )
    x = batch((16, 6))
    prepared = trained(model, x)
    kinds = [type(each).__name__ for each in prepared.model]
    assert kinds == [
        "Linear", "Tanh", "RoundedOutput", "LinearReLU", "Identity", "DeQuantStub", "Softmax",
    ]  # fmt: skip
    assert type(prepared.model[0]) is nn.Linear
    assert len(prepared.inputs) == 0
    made = convert(prepared)
    far = np.abs(made(tensor(x)).detach().array - prepared.eval()(tensor(x)).detach().array)
    assert far.max() < 1e-6


class TwoInputs(Module):
    """Two inputs of unlike sizes, and results in a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.add = nn.Linear(3, 2), nn.Linear(4, 2), Add()

    def forward(self, x: Tensor, y: Tensor) -> Any:
        """(N, 3), (N, 4) -> {"sum": (N, 2), "a": (N, 2)}."""
        a = self.a(x)
        return {"sum": self.add(a, self.b(y)), "a": a}


def test_several_inputs_and_results() -> None:
    """Oracle: the prepared model: the integers give its numbers."""
    x, y = tensor(batch((9, 3))), tensor(batch((9, 4), 1) * np.float32(50))
    prepared = prepare_qat(TwoInputs(), (x, y))
    prepared(x, y)
    made = convert(prepared)
    assert float(made.quantize[1].scale.array) > 10 * float(made.quantize[0].scale.array)
    want, got = prepared.eval()(x, y), made(x, y)
    for name in ("sum", "a"):
        np.testing.assert_array_equal(got[name].array, want[name].detach().array)
    with pytest.raises(SettingError, match="prepared with 2 inputs, got 1"):
        prepared(x)


def test_one_example_for_two_inputs() -> None:
    """Oracle: the same model, prepared with two arrays: each input has a place of its own."""

    class Same(Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.add = nn.Linear(3, 2), nn.Linear(3, 2), Add()

        def forward(self, x: Tensor, y: Tensor) -> Any:
            return self.add(self.a(x), self.b(y))

    x, y = tensor(batch((9, 3))), tensor(batch((9, 3), 1) * np.float32(50))
    prepared = prepare_qat(Same(), (x, x))
    assert [each.source[0] for each in (prepared.model.a, prepared.model.b)] == list(prepared.inputs)
    prepared(x, y)
    np.testing.assert_array_equal(convert(prepared)(x, y).array, prepared.eval()(x, y).detach().array)


def test_ties_stay_tied() -> None:
    """Oracle: one parameter under two paths is one in the copy, and in what it becomes."""
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    model[2].weight = model[0].weight
    prepared = trained(model, batch((16, 4)))
    assert prepared.model[2].weight is prepared.model[0].weight
    assert len(list(prepared.parameters())) == 3
    made: Any = prepared.to_float()
    assert made[2].weight is made[0].weight
    assert made[0].weight is not prepared.model[0].weight
    assert all(each.grad is None for each in made.parameters())
    assert all(each.grad is not None for each in prepared.parameters())
    convert(prepared)


def test_a_module_under_two_paths_stays_one() -> None:
    """Oracle: identities, in the copy and in what it becomes; and the codes of the integers."""

    class Both(Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.add = nn.Linear(4, 4), Add()
            self.b = self.a

        def forward(self, x: Tensor) -> Any:
            return self.add(self.a(x), self.b(x))

    x = batch((16, 4))
    prepared = trained(Both(), x)
    made: Any = prepared.to_float()
    assert prepared.model.a is prepared.model.b
    assert made.a is made.b
    assert differences(prepared, convert(prepared), x)[0] == 0


class Elsewhere(Module):
    """A float op in the code of forward."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(*ROW), nn.Linear(*ROW)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 4) -> (N, 4)."""
        y: Tensor = self.two(functional.relu(self.one(x)))
        return y


def row(*modules: Module) -> Module:
    """Return modules in a row."""
    return nn.Sequential(*modules)


def narrow() -> Module:
    """Return a model whose weights are codes."""
    return quantize_dynamic(row(nn.Linear(*ROW)))[0]


def on_codes() -> Module:
    """Return a model on codes."""
    model, x = row(nn.Linear(*ROW)).eval(), batch(ROW)
    return convert(model, calibrate(model, [x]))


FAULTS: list[tuple[Any, dict[str, Any], str]] = [
    (lambda: prepare_qat(nn.Linear(*ROW), tensor(batch(ROW))), {}, "the model is prepared already"),
    (lambda: row(prepare_qat(nn.Linear(*ROW), tensor(batch(ROW))).model), {}, "'0' is a Linear: the model"),
    (on_codes, {}, "the model is on codes already"),
    (narrow, {}, "'0' is a Dynamic.*, its weights are codes already and would be quantised"),
    (lambda: row(nn.Linear(*ROW), nn.LayerNorm(4)), {}, "'1' is a LayerNorm, which has no integer form"),
    (lambda: row(nn.Linear(*ROW), nn.Tanh(), nn.BatchNorm1d(4)), {}, "(?s)'2' is a BatchNorm1d.*fold it"),
    (
        lambda: row(nn.Linear(*ROW), nn.BatchNorm1d(4, track_running_stats=False)), {},
        "(?s)'1' is a BatchNorm1d.*fold it.*here it was not: the batch norm has no running statistics",
    ),
    (Elsewhere, {}, "the op relu in the model is an op on floats"),
    (lambda: nn.Linear(*ROW), {"weight_bits": 1}, "weight_bits to be a whole number of at least 2, got 1"),
    (lambda: nn.Linear(*ROW), {"activation_bits": 9}, "activation_bits must be from 2 to 8, got 9"),
    (lambda: nn.Linear(*ROW), {"weight_bits": 4.0}, "weight_bits to be a whole number"),
    (lambda: nn.Linear(*ROW), {"granularity": "per-row"}, "unknown granularity 'per-row'"),
    (lambda: nn.Linear(*ROW), {"averaging_constant": 0}, "averaging_constant must be above 0"),
    (lambda: row(nn.Linear(*ROW)), {"keep_float": ["1"]}, "unknown path in keep_float '1'"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "rest", "says"), FAULTS, ids=[says[:26] for _, _, says in FAULTS])
def test_what_cannot_be_prepared(make: Any, rest: dict[str, Any], says: str) -> None:
    """Oracle: one error, which says who it is that speaks, the module, and what to do."""
    model = make()
    before = [type(each) for each in model.modules()]
    with pytest.raises(MinimpError, match=says) as caught:
        prepare_qat(model, tensor(batch(ROW)), **rest)
    assert not str(caught.value).startswith("convert")
    assert [type(each) for each in model.modules()] == before


def test_a_mean_of_two_scales() -> None:
    """Oracle: the message: an average pool rounds by the scale of what comes in, and there are two."""

    class Shared(Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.pool = nn.Linear(4, 4), nn.Linear(2, 4), nn.AvgPool1d(2)

        def forward(self, x: Tensor) -> Tensor:
            """(N, C, 4) -> (N, C, 2)."""
            y: Tensor = self.pool(self.two(self.pool(self.one(x))))
            return y

    with pytest.raises(SettingError, match="'pool' runs on codes of the output of 'one' and of the output"):
        prepare_qat(Shared(), tensor(batch((4, 3, 4))))


# ---- what cannot be converted ------------------------------------------------------------------------------


def test_nothing_was_observed() -> None:
    """Oracle: the message names the place; of a model that was never run, and of one run in evaluation."""
    x = tensor(batch(ROW))
    prepared = prepare_qat(row(nn.Linear(*ROW), nn.ReLU()), x)
    with pytest.raises(SettingError, match="input 0 was never observed"):
        convert(prepared)
    with pytest.raises(SettingError, match="input 0 was never observed"):
        prepared.eval()(x)
    prepared.train()(x)
    convert(prepared)


def test_settings_for_a_model_that_has_its_own() -> None:
    """Oracle: the message of each; a calibration is neither taken nor made."""
    x = batch(ROW)
    model = row(nn.Linear(*ROW)).eval()
    prepared, calibration = trained(model, x), calibrate(model, [x])
    given = {"calibration": calibration, "weight": lambda: None, "keep_float": ["0"]}
    for name, value in given.items():
        with pytest.raises(SettingError, match=f"{name} cannot act"):
            convert(prepared, **{name: value})
    with pytest.raises(SettingError, match="a PreparedModel has its scales from training"):
        calibrate(prepared, [x])
    with pytest.raises(SettingError, match="prepared with 1 inputs, got 2"):
        prepared(tensor(x), tensor(x))


def test_numbers_that_are_none() -> None:
    """Oracle: the message names where NaN was met; nothing was taken in there."""
    x: Array = batch(ROW)
    prepared = trained(row(nn.Linear(*ROW), nn.ReLU(), nn.Linear(*ROW)), x)
    scale = prepared.inputs[0].scale.array
    for value, kind in ((np.nan, "NaN"), (np.inf, "infinity")):
        bad = x.copy()
        bad[2, 1] = value
        with pytest.raises(DataError, match=rf"input 0: 1 of 16 values are {kind}, the first at \(2, 1\)"):
            prepared(tensor(bad))
    prepared.model[2].weight.array = prepared.model[2].weight.array * np.float32(np.nan)
    with pytest.raises(DataError, match="the weight of '2': 16 of 16 values are NaN"):
        prepared(tensor(x))
    assert prepared.inputs[0].scale.array is not scale  # the good batch went through
