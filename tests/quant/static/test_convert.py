"""A calibrated model on codes: what stands where, that no float is between, and what cannot be."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest

from minimp import functional, nn
from minimp.backend import default_backend
from minimp.errors import SettingError
from minimp.modes import listen
from minimp.nn.module import Module
from minimp.quant import QTensor
from minimp.quant.fusion import LinearReLU
from minimp.quant.modules import (
    Add,
    Cat,
    DeQuantize,
    DeQuantStub,
    FloatIsland,
    Quantize,
    QuantizedAdd,
    QuantizedConv2d,
    QuantizedLinear,
    QuantizedModule,
    QuantizedReLU,
    QuantStub,
)
from minimp.quant.observers import MinMaxObserver, Observer, PerChannelMinMaxObserver
from minimp.quant.static import StaticModel, calibrate, convert
from minimp.tensors import Tensor, tensor
from tests.quant.static.samples import MODES, Array, batches, residual

INTEGER = ("integer_matmul", "integer_conv2d", "integer_add", "integer_max_pool2d", "integer_avg_pool2d")


def converted(mode: str = "float", **rest: Any) -> tuple[Module, Module, Array]:
    """Return the residual model in floats and on codes, and its inputs."""
    model, x = residual()
    return model, convert(model, calibrate(model, batches(x)), mode=mode, **rest), x


def prepared(model: Module, x: Array) -> tuple[Module, Any]:
    """Return a model in evaluation mode, and its calibration on one batch."""
    return model.eval(), calibrate(model.eval(), [x])


def run(model: Any, *x: Array) -> Array:
    """Return what a model makes of arrays, as an array."""
    return np.asarray(model(*map(tensor, x)).detach().array)


# ---- what comes out ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_a_model_on_codes_does_what_it_did(mode: str) -> None:
    """Oracle: the float model; 8 bits leave 25 dB at least of its results."""
    model, quantized, x = converted(mode)
    y, q = run(model, x), run(quantized, x)
    assert 10 * np.log10((y**2).sum() / ((y - q) ** 2).sum()) > 25
    assert (y != q).mean() > 0.9  # it is another model
    modes = [each.mode for each in quantized.modules() if hasattr(each, "mode")]
    assert modes == [mode] * 7


def test_the_model_stays_as_it_is() -> None:
    """Oracle: results, paths and modes before and after; two conversions share nothing that changes."""
    model, x = residual()
    model.train()
    before = run(model.eval(), x), [(path, id(each)) for path, each in model.named_modules()]
    model.train()
    calibration = calibrate(model, batches(x))
    one, two = (convert(model, calibration, keep_float=["last"]) for _ in range(2))
    assert all(each.training for each in model.modules())
    assert not any(each.training for each in one.modules())
    np.testing.assert_array_equal(run(model.eval(), x), before[0])
    assert [(path, id(each)) for path, each in model.named_modules()] == before[1]
    np.testing.assert_array_equal(run(one, x), run(two, x))
    shared = {id(each) for each in one.modules()} & {id(each) for each in [*two.modules(), *model.modules()]}
    assert not shared


def test_what_stands_where() -> None:
    """Oracle: the table by hand; scales chain from module to module."""
    _, quantized, _ = converted()
    assert isinstance(quantized, StaticModel)
    inner = quantized.model
    kinds = {path: type(each).__name__ for path, each in inner.named_modules() if path}
    assert kinds == {
        "first": "Sequential", "first.0": "QuantizedConv2d", "first.1": "Identity", "first.2": "Identity",
        "second": "QuantizedConv2d", "add": "QuantizedAdd", "pool": "QuantizedMaxPool2d", "drop": "Identity",
        "means": "QuantizedAvgPool2d", "mean": "QuantizedAdaptiveAvgPool2d", "flatten": "QuantizedFlatten",
        "act": "Identity", "hidden": "QuantizedLinear", "last": "QuantizedLinear",
    }  # fmt: skip
    first, second, add = inner.first[0], inner.second, inner.add
    assert [each.relu for each in (first, second, add, inner.hidden, inner.last)] == [1, 0, 1, 1, 0]
    assert first.kept("input_") == quantized.quantize[0].kept("")
    assert second.kept("input_") == first.kept("")
    assert (add.kept("a_"), add.kept("b_")) == (first.kept(""), second.kept(""))
    assert inner.hidden.kept("input_") == add.kept("")
    assert inner.last.kept("input_") == inner.hidden.kept("")
    assert second.padding == (1, 1)  # "same"
    assert (second.groups, second.path) == (3, "second")


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any, Any]]:
    """Note what the integer kernels and the requantiser take and give."""
    seen: list[tuple[str, Any, Any]] = []
    backend = default_backend()

    def watch(name: str) -> None:
        kernel = getattr(backend, name)

        def noted(*args: Any, **rest: Any) -> Any:
            made = kernel(*args, **rest)
            count = 2 if name in INTEGER[:3] else 1
            seen.append((name, [each.dtype for each in args[:count]], made.dtype))
            return made

        monkeypatch.setattr(backend, name, noted, raising=False)

    for name in (*INTEGER, "requantize"):
        watch(name)
    return seen


@pytest.mark.parametrize("mode", MODES)
def test_no_float_between_integers(mode: str, kernels: list[tuple[str, Any, Any]]) -> None:
    """Oracle: what every module and kernel takes and gives, and that the engine's float ops do not run.

    Between Quantize and DeQuantize there are int8 and uint8 codes, and int32 sums inside of layers.
    """
    _, quantized, x = converted(mode)
    kernels.clear()
    flow: list[tuple[str, Any]] = []
    events: list[Any] = []
    for path, each in quantized.model.named_modules():
        each.register_forward_hook(lambda _, args, out, path=path: flow.append((path, [*args, out])))
    with listen(events.append):
        quantized(tensor(x))
    assert events == []
    assert {path for path, _ in flow} == {path for path, _ in quantized.model.named_modules()}
    codes = [each for _, values in flow for each in values]
    assert all(type(each) is QTensor and each.codes.dtype in (np.int8, np.uint8) for each in codes)
    narrow = (np.dtype(np.int8), np.dtype(np.uint8))
    assert {name for name, _, _ in kernels} == {*INTEGER, "requantize"}
    for name, taken, given in kernels:
        sums = name in INTEGER[:2]
        assert all(each in narrow for each in taken) if name != "requantize" else taken == [np.int32]
        assert given == np.int32 if sums else given in narrow


def test_marks_say_where_codes_are() -> None:
    """Oracle: by hand: floats before QuantStub and behind DeQuantStub, as in torch."""
    rng = np.random.default_rng(0)
    model = nn.Sequential(
        nn.Linear(4, 6), nn.Tanh(), QuantStub(), LinearReLU(nn.Linear(6, 5), nn.ReLU()), nn.Linear(5, 3),
        DeQuantStub(), nn.Softmax(-1),
    )  # fmt: skip
    x = rng.normal(size=(20, 4)).astype(np.float32)
    model, calibration = prepared(model, x)
    assert calibration.inputs == []
    made = convert(model, calibration)
    kinds = [type(each) for each in made]
    assert kinds == [nn.Linear, nn.Tanh, Quantize, QuantizedLinear, QuantizedLinear, DeQuantize, nn.Softmax]
    assert made[3].relu
    assert abs(run(made, x) - run(model, x)).max() < 0.02


def test_a_layer_in_floats_between_codes() -> None:
    """Oracle: the layers on what is read back, quantised again; floats between them."""
    rng = np.random.default_rng(1)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5), nn.Linear(5, 3))
    x = rng.normal(size=(20, 4)).astype(np.float32)
    model, calibration = prepared(model, x)
    made = convert(model, calibration, keep_float=["1", "2"])
    assert [type(each).__name__ for each in made.model] == [
        "QuantizedLinear", "FloatIsland", "FloatIsland", "QuantizedLinear",
    ]  # fmt: skip
    before = made.model[0](made.quantize[0](x))
    behind = made.model[1:3](before)
    its = QTensor.of(model[1:3](tensor(before.dequantize())), calibration.affine("2"))
    np.testing.assert_array_equal(behind.codes, its.codes)
    assert isinstance(made.model[1], FloatIsland)


def test_a_model_that_is_one_layer() -> None:
    """Oracle: the layer alone."""
    x = np.random.default_rng(2).normal(size=(9, 4)).astype(np.float32)
    model, calibration = prepared(nn.Linear(4, 3), x)
    made = convert(model, calibration)
    assert isinstance(made.model, QuantizedLinear)
    assert abs(run(made, x) - run(model, x)).max() < 0.05


class Two(Module):
    """Two inputs, two results, one of them in a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.add = nn.Linear(3, 2), nn.Linear(4, 2), Add()

    def forward(self, x: Tensor, y: Tensor) -> Any:
        """Return (sum, {"a": a})."""
        a = self.a(x)
        return self.add(a, self.b(y)), {"a": a}


def test_several_inputs_and_results() -> None:
    """Oracle: the float model, to two steps of the codes."""
    rng = np.random.default_rng(3)
    x, y = (rng.normal(size=(30, n)).astype(np.float32) for n in (3, 4))
    model = Two().eval()
    calibration = calibrate(model, [(x, y)], inputs_of=lambda batch: batch)
    made = convert(model, calibration)
    want, got = (each(tensor(x), tensor(y)) for each in (model, made))
    for a, b, path in ((want[0], got[0], "add"), (want[1]["a"], got[1]["a"], "a")):
        assert abs(a.detach().array - b.array).max() < 2 * float(calibration.affine(path).scale)


class Joined(Module):
    """Three layers side by side, joined."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.cat = nn.Linear(3, 2), nn.Linear(3, 4), nn.Linear(3, 1), Cat(1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3) -> (N, 7)."""
        y: Tensor = self.cat(self.a(x), self.b(x), self.c(x))
        return y


def test_joined() -> None:
    """Oracle: the float model, to two steps of the codes."""
    x = np.random.default_rng(8).normal(size=(30, 3)).astype(np.float32)
    model, calibration = prepared(Joined(), x)
    made = convert(model, calibration)
    assert made.model.cat.count == 3
    assert abs(run(made, x) - run(model, x)).max() < 2 * float(calibration.affine("cat").scale)


def test_a_module_that_runs_twice() -> None:
    """Oracle: a ReLU may, on any codes; a layer may not, where two scales come in."""
    rng = np.random.default_rng(4)
    act, layer = nn.ReLU(), nn.Linear(4, 4)
    x = rng.normal(size=(20, 4)).astype(np.float32)
    model, calibration = prepared(nn.Sequential(nn.Linear(4, 4), act, nn.Linear(4, 4), act), x)
    made = convert(model, calibration)
    assert made.model[1] is made.model[3]
    assert isinstance(made.model[1], QuantizedReLU)
    model, calibration = prepared(nn.Sequential(layer, layer), x)
    with pytest.raises(SettingError, match="'0' runs twice, on codes of"):
        convert(model, calibration)


def test_scales_in_a_state_dict() -> None:
    """Oracle: a model of other scales that takes over the state computes the same codes."""
    _, quantized, x = converted()
    model, other_x = residual()
    other = convert(model, calibrate(model, batches(3 * other_x)))
    assert abs(run(other, x) - run(quantized, x)).max() > 0
    other.load_state_dict(quantized.state_dict())
    np.testing.assert_array_equal(run(other, x), run(quantized, x))


def test_other_observers() -> None:
    """Oracle: by hand: weights of one scale in -127..127 under TFLite's rule, activations in int8."""

    def tflite() -> Observer:
        return MinMaxObserver(quant_min=-127, quant_max=127, symmetric=True, rule="tflite")

    def activation() -> Observer:
        return MinMaxObserver(quant_min=-128, quant_max=127, rule="tflite")

    model, x = residual()
    calibration = calibrate(model, batches(x), activation=activation)
    made = convert(model, calibration, weight=tflite, mode="fixed-point")
    layer = made.model.second
    assert layer.weight_scale.shape == ()
    assert layer.weight.array.min() >= -127
    assert layer.kept("").storage is np.int8
    y, q = run(model, x), run(made, x)
    assert 10 * np.log10((y**2).sum() / ((y - q) ** 2).sum()) > 20


# ---- what cannot be ----------------------------------------------------------------------------------------


class Mixed(Module):
    """A layer, a float op in the code of forward, and a layer."""

    def __init__(self, op: Any) -> None:
        super().__init__()
        self.one, self.two, self.op = nn.Linear(4, 4), nn.Linear(4, 4), op

    def forward(self, x: Tensor) -> Tensor:
        """(N, 4) -> (N, 4)."""
        y: Tensor = self.two(self.op(self.one(x)))
        return y


class Branch(Module):
    """A layer that runs on no batch of calibration."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.never = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 4) -> (N, 4)."""
        y: Tensor = self.body(x)
        return y


class Middle(Module):
    """Floats come into a sum that takes codes."""

    def __init__(self) -> None:
        super().__init__()
        self.stub, self.end, self.one, self.add = QuantStub(), DeQuantStub(), nn.Linear(4, 4), Add()

    def forward(self, x: Tensor) -> Tensor:
        """(N, 4) -> (N, 4)."""
        y: Tensor = self.end(self.add(self.one(self.stub(x)), x))
        return y


def row(*modules: Module) -> Module:
    """Return modules in a row."""
    return nn.Sequential(*modules)


LINEAR = (4, 4)
FAULTS: list[tuple[Any, str]] = [
    (lambda: Mixed(functional.relu), "the op relu in the model is an op on floats, and codes come in"),
    (lambda: Mixed(lambda y: y + y), "the op add in the model is an op on floats"),
    (lambda: Mixed(lambda y: y.reshape(-1, 2, 2).reshape(-1, 4)), "the op reshape in the model"),
    (lambda: row(nn.Linear(*LINEAR), nn.GLU(), nn.Linear(2, 4)), "'1' is a GLU, which has no integer"),
    (lambda: row(nn.Linear(*LINEAR), nn.BatchNorm1d(4)), "(?s)'1' is a BatchNorm1d.*fold it into the layer"),
    (lambda: row(nn.Linear(*LINEAR), nn.Sequential(nn.LayerNorm(4))), "'1.0' is a LayerNorm"),
    (Branch, "'never' was never observed"),
    (Middle, "'add' .Add. takes 2 in codes, and gets 1 inputs in codes and 1 in floats"),
    (lambda: row(QuantStub(), nn.Linear(*LINEAR)), "(?s)the model's result would be codes.*DeQuantStub"),
    (lambda: row(QuantStub(), QuantStub(), nn.Linear(*LINEAR), DeQuantStub()), "'1' would quantise what are"),
    (lambda: row(nn.Dropout()), "no module of the model can be converted"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "says"), FAULTS, ids=[says[:24] for _, says in FAULTS])
def test_what_converting_refuses(make: Any, says: str) -> None:
    """Oracle: one error, which names the module and what to do; the model stays in floats."""
    x = np.random.default_rng(5).normal(size=(8, 4)).astype(np.float32)
    model, calibration = prepared(make(), x)
    with pytest.raises(SettingError, match=says) as caught:
        convert(model, calibration)
    assert caught.value.help
    assert not any(isinstance(each, QuantizedModule) for each in model.modules())
    run(model, x)


def test_what_there_is_instead() -> None:
    """Oracle: by hand: the help names the families of the table, in a line or two."""
    x = np.random.default_rng(5).normal(size=(8, 4)).astype(np.float32)
    model, calibration = prepared(row(nn.Linear(*LINEAR), nn.GLU()), x)
    with pytest.raises(SettingError) as caught:
        convert(model, calibration)
    assert caught.value.help is not None
    for word in ("keep_float", "Add", "AvgPool", "Cat", "Conv,", "ConvTranspose", "Linear", "Mul", "Softmax"):
        assert word in caught.value.help
    assert len(caught.value.help) < 450
    alone: Any = nn.GLU().eval()
    with pytest.raises(SettingError, match="the model is a GLU, which has no integer form"):
        convert(alone, calibrate(alone, [x]))


def test_a_convolution_without_an_integer_form() -> None:
    """Oracle: the message: a border that is not 0, and an uneven one; both run in floats if asked to."""
    x = np.random.default_rng(6).normal(size=(4, 1, 6, 6)).astype(np.float32)
    for layer, says in (
        (nn.Conv2d(1, 2, 3, padding=1, padding_mode="reflect"), "'0': .*padding_mode='reflect'"),
        (nn.Conv2d(1, 2, 2, padding="same"), "'0': .*uneven padding"),
        (nn.MaxPool2d(2, return_indices=True), "'0': .*return_indices"),
    ):
        model, calibration = prepared(nn.Sequential(layer), x)
        with pytest.raises(SettingError, match=says):
            convert(model, calibration)
    model, calibration = prepared(nn.Sequential(nn.Conv2d(1, 2, 2, padding="same"), nn.Conv2d(2, 1, 1)), x)
    made = convert(model, calibration, keep_float=["0"])
    assert isinstance(made.model[1], QuantizedConv2d)


def test_it_must_be_the_model_that_was_calibrated() -> None:
    """Oracle: the message: weights or modules that changed, codes already, hooks."""
    model, x = residual()
    calibration = calibrate(model, batches(x))
    made = convert(model, calibration)
    for again in (convert, lambda m, c: calibrate(m, batches(x))):
        with pytest.raises(SettingError, match="the model is on codes already"):
            again(made, calibration)
    with pytest.raises(SettingError, match="it has other modules"):
        convert(nn.Linear(2, 2), calibration)
    handle = model.second.register_forward_hook(lambda *_: None)
    with pytest.raises(SettingError, match="'second': it has hooks"):
        convert(model, calibration)
    handle.remove()
    window = model.pool.kernel_size
    model.pool.kernel_size = (3, 3)
    with pytest.raises(SettingError, match="it has other modules or settings"):
        convert(model, calibration)
    model.pool.kernel_size = window
    convert(model, calibration)
    model.second.bias.array = model.second.bias.array + np.float32(1)
    with pytest.raises(SettingError, match=r"'second\.bias' has changed"):
        convert(model, calibration)


@pytest.mark.parametrize(
    ("rest", "says"),
    [
        ({"mode": "exact"}, "unknown mode 'exact'"),
        ({"keep_float": ["lats"]}, "did you mean 'last'"),
        ({"keep_float": ["pool"]}, "'pool' is a MaxPool2d, which has no scale of its own"),
        ({"keep_float": ["first"]}, "'first' holds modules"),
    ],
)
def test_settings_that_cannot_be(rest: dict[str, Any], says: str) -> None:
    """Oracle: the message."""
    with pytest.raises(SettingError, match=says):
        converted(**rest)


def test_integers_as_the_models_input() -> None:
    """Oracle: the message; with stubs behind an embedding it is converted."""
    rng = np.random.default_rng(7)
    codes = rng.integers(0, 5, (10, 3))
    model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 2)).eval()
    with pytest.raises(SettingError, match="input 0 of the model holds int64"):
        convert(model, calibrate(model, [codes]))
    marked = nn.Sequential(nn.Embedding(5, 4), QuantStub(), nn.Linear(4, 2), DeQuantStub()).eval()
    made = convert(marked, calibrate(marked, [codes]))
    assert isinstance(made[2], QuantizedLinear)
    assert abs(run(made, codes) - run(marked, codes)).max() < 0.1


def test_a_sum_made_for_other_scales() -> None:
    """Oracle: the message, naming the module: a QTensor of another scale than the one it was made for."""
    _, quantized, _ = converted()
    add = quantized.model.add
    assert isinstance(add, QuantizedAdd)
    a, b = (QTensor.of(np.zeros(3, "f4"), add.kept(name)) for name in ("a_", "b_"))
    add(a, b)
    with pytest.raises(SettingError, match=r"'add' .QuantizedAdd. was made for codes of"):
        add(b, a)


def test_scales_of_weights_by_a_word() -> None:
    """Oracle: observers made by hand; as many scales as channels, or one; the message for another word."""
    by_hand = {"per-tensor": MinMaxObserver, "per-channel": PerChannelMinMaxObserver}
    for word, kind in by_hand.items():
        _, named, x = converted(weight=word)
        _, made, _ = converted(weight=partial(kind, quant_min=-128, quant_max=127, symmetric=True))
        np.testing.assert_array_equal(run(named, x), run(made, x))
        sizes = {
            each.kept("weight_").per_channel for each in named.modules() if hasattr(each, "weight_scale")
        }
        assert sizes == {word == "per-channel"}
    with pytest.raises(SettingError, match=r"granularity of weights 'per-chanel'.*per-channel"):
        converted(weight="per-chanel")
