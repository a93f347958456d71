"""The file: what is in it, how large it is, and what cannot be written or compared."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minimp import functional, nn
from minimp.errors import DataError, MinimpError, SettingError
from minimp.modes import no_grad
from minimp.nn.module import Module
from minimp.optim import SGD
from minimp.quant import quantize_dynamic
from minimp.quant.fusion import LinearReLU
from minimp.quant.modules import Add, DeQuantStub, QuantStub, Sub
from minimp.quant.observers import MinMaxObserver
from minimp.quant.onnx_export import export_onnx, exporting, verify
from minimp.quant.onnx_export.exporting import FORMS
from minimp.quant.qat import prepare_qat
from minimp.quant.static import calibrate, convert
from minimp.tensors import Tensor, tensor
from tests.quant.onnx_export.samples import Array, prepared, quantized
from tests.quant.static.samples import batches, residual
from tests.tolerances import assert_close

onnx = pytest.importorskip("onnx")


def random(*shape: int, seed: int = 0) -> Array:
    """Return normal float32 numbers."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def arrays_of(path: Path) -> dict[str, Array]:
    """Return the constants of a file."""
    return {each.name: onnx.numpy_helper.to_array(each) for each in onnx.load(path).graph.initializer}


def test_constants_are_those_of_the_model(tmp_path: Path) -> None:
    """Oracle: the model's state_dict, under its names: codes, biases in int32, scales and zero points."""
    model, x = residual()
    made = convert(model, calibrate(model, batches(x)))
    export_onnx(made, tmp_path / "m.onnx", x[:2])
    there, state = arrays_of(tmp_path / "m.onnx"), made.state_dict()
    shared = there.keys() & state.keys()
    for name in shared:
        np.testing.assert_array_equal(there[name], np.asarray(state[name]).astype(there[name].dtype))
    weights = {name for name in state if name.endswith((".weight", ".bias"))}
    assert weights <= shared
    assert {there[name].dtype for name in weights} == {np.dtype(np.int8), np.dtype(np.int32)}
    scale = state["model.second.input_scale"].array * state["model.second.weight_scale"].array
    np.testing.assert_array_equal(there["model.second.bias_scale"], scale)


@pytest.mark.parametrize("form", FORMS)
def test_no_weights_in_floats(tmp_path: Path, form: str) -> None:
    """Oracle: every float constant is a scale or multiplier; the file is 0.26 of float32 and 4 kB at most."""
    x = random(20, 3, 8, 8)
    layers = [nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.Flatten(), nn.Linear(1024, 128)]
    model = nn.Sequential(*layers)
    made = quantized(model.eval(), x)
    report = export_onnx(made, tmp_path / "m.onnx", x[:1], form=form)
    floats = {name: each for name, each in arrays_of(tmp_path / "m.onnx").items() if each.dtype.kind == "f"}
    assert all(name == "one" or name.endswith(("scale", "multiplier")) for name in floats)
    before = sum(param.nbytes for param in model.parameters())
    assert report.bytes == (tmp_path / "m.onnx").stat().st_size
    assert report.bytes_float32 == before
    assert report.bytes <= 0.26 * before + 4096
    assert report.bytes <= 0.3 * before
    assert report.bytes_in_floats == 0


def test_a_valid_graph_with_any_batch(tmp_path: Path) -> None:
    """Oracle: onnx's checker and strict inference of shapes, against those of a run; and other batches."""
    model, x = residual()
    made = convert(model, calibrate(model, batches(x)))
    report = export_onnx(made, tmp_path / "m.onnx", x[:2])
    proto = onnx.load(tmp_path / "m.onnx")
    onnx.checker.check_model(proto, full_check=True)
    inferred = onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True, data_prop=True)
    shapes = {
        each.name: [place.dim_param or place.dim_value for place in each.type.tensor_type.shape.dim]
        for each in [*inferred.graph.value_info, *inferred.graph.output]
    }
    lengths = {"model.first.0": [6, 8, 8], "model.means": [6, 3, 3], "model.flatten": [12]}
    for name, rest in lengths.items():
        assert shapes[f"{name}/codes"] == ["batch", *rest]
    codes = [name for name in shapes if name.endswith("/codes")]
    assert len(codes) == 10
    assert all(shapes[name][0] == "batch" for name in [*codes, "output"])
    assert (report.inputs, report.outputs) == ({"input": ("batch", 2, 8, 8)}, {"output": ("batch", 3)})
    for count in (1, 5):
        assert verify(proto, made, x[:count]).same
    assert (proto.producer_name, proto.producer_version) == ("minimp", "0.1.0")
    assert {each.key: each.value for each in proto.metadata_props} == {
        "minimp.form": "qdq", "minimp.rules": "torch",
    }  # fmt: skip


def test_the_same_bytes(tmp_path: Path) -> None:
    """Oracle: two files, of two conversions."""
    for name in "ab":
        model, x = residual()
        made = convert(model, calibrate(model, batches(x)))
        export_onnx(made, tmp_path / name, x[: 2 + (name == "b")])
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_what_is_reported(tmp_path: Path) -> None:
    """Oracle: by hand: a row a layer, in 100 columns; and of the comparison."""
    model, x = prepared("add and relu", rule="torch")
    report = export_onnx(model, tmp_path / "m.onnx", x)
    assert [each.kind for each in report.layers] == [
        "Quantize", "QuantizedLinear", "QuantizedLinear", "QuantizedAdd", "DeQuantize",
    ]  # fmt: skip
    assert report.layers[3].ops == ("DequantizeLinear", "DequantizeLinear", "Add", "Relu", "QuantizeLinear")
    found = verify(tmp_path / "m.onnx", model, x)
    for text in (str(report), str(found)):
        assert all(len(line) <= 100 for line in text.splitlines())
        assert "model.join" in text
    assert "ONNX rounds ties as rule onnx does" in str(report)
    assert str(found).endswith(f"all {found.count:,} codes are the same")


# ---- models with floats in them, several inputs, modules that run twice ------------------------------------


def test_codes_between_marks(tmp_path: Path) -> None:
    """Oracle: the model's codes given its own floats, and its results to float32's error."""
    layers = [nn.Linear(4, 6), nn.Tanh(), QuantStub(), LinearReLU(nn.Linear(6, 5), nn.ReLU())]
    model = nn.Sequential(*layers, nn.Linear(5, 3), DeQuantStub(), nn.Softmax(-1)).eval()
    x = random(20, 4)
    made = convert(model, calibrate(model, [x]))
    report = export_onnx(made, tmp_path / "m.onnx", x[:2])
    found = verify(tmp_path / "m.onnx", made, x)
    assert found.ok
    assert [each.codes for each in found] == [False, False, True, True, True, False, False]
    assert found.layers[-1].largest < 1e-2
    assert found.layers[0].largest < 1e-5
    assert report.bytes_in_floats == 4 * (4 * 6 + 6)
    assert "120 bytes of weights stay in float32" in str(report)


def test_an_island_in_floats(tmp_path: Path) -> None:
    """Oracle: the model's codes: before the island and behind it; in float16 it is refused."""
    layers = [nn.Conv2d(2, 3, 3, padding="same"), nn.Tanh(), nn.Conv2d(3, 2, 2, (2, 1)), nn.Flatten()]
    model, x = nn.Sequential(*layers).eval(), random(8, 2, 5, 4)
    made: Any = convert(model, calibrate(model, [x]), keep_float=["1", "2"])
    export_onnx(made, tmp_path / "m.onnx", x[:2])
    found = verify(tmp_path / "m.onnx", made, x)
    assert found.ok
    assert {each.name for each in found} >= {"model.1.inner", "model.2.inner", "model.3"}
    assert [each.name for each in found if not each.codes][-3:] == [
        "model.1.inner",
        "model.2.inner",
        "model.3",
    ]
    made.model[1].compute = "float16"
    with pytest.raises(SettingError, match=r"'model.1' computes in float16"):
        export_onnx(made, tmp_path / "m.onnx", x[:2])


def test_floats_between_islands(tmp_path: Path) -> None:
    """Oracle: the float model, which all layers in floats are: pools, and axes joined, too."""
    layers = [
        nn.Conv2d(2, 3, 3), nn.MaxPool2d(2, 1, 1, ceil_mode=True), nn.AvgPool2d(2, 2, 1, ceil_mode=True),
        nn.Flatten(2), nn.Conv1d(3, 4, 2), nn.AvgPool1d(2), nn.MaxPool1d(2, 1), nn.Dropout(), nn.Flatten(),
        nn.Linear(16, 3),
    ]  # fmt: skip
    model, x = nn.Sequential(*layers).eval(), random(8, 2, 7, 5)
    made = convert(model, calibrate(model, [x]), keep_float=["0", "4", "9"])
    export_onnx(made, tmp_path / "m.onnx", x[:2])
    found = verify(tmp_path / "m.onnx", made, x)
    assert not any(each.codes for each in found)
    assert max(each.largest for each in found) < 1e-5
    assert len(found) == 9


@pytest.mark.parametrize(
    "layer",
    [
        nn.Softplus(), nn.Softplus(2.5, 16), nn.Softplus(-0.5), nn.Softmax(1), nn.LogSoftmax(-1),
        nn.Sigmoid(), nn.Tanh(), nn.ReLU(), nn.Conv2d(3, 4, (2, 3), padding="same", dilation=(2, 1)),
        nn.Conv2d(3, 6, 3, 2, 1, groups=3, bias=False), nn.Linear(7, 2),
    ],
    ids=str,
)  # fmt: skip
def test_results_of_floats(tmp_path: Path, layer: Module) -> None:
    """Oracle: the module itself on numbers of any size, to float32's error, by a run of the graph alone."""
    x = random(5, 3, 6, 7) * np.float32(8)
    model = nn.Sequential(QuantStub(), nn.Conv2d(3, 3, 1), DeQuantStub(), layer).eval()
    made = quantized(model, x)
    export_onnx(made, tmp_path / "m.onnx", x)
    runner = onnx.reference.ReferenceEvaluator(onnx.load(tmp_path / "m.onnx"))
    with no_grad():
        assert_close(runner.run(None, {"input": x})[0], made(tensor(x)).array, "parity_op_fp32")
    assert verify(tmp_path / "m.onnx", made, x).ok


def test_faults_of_floats_are_seen(tmp_path: Path) -> None:
    """Oracle: a bias of the float layer that is changed by 1: all its results in one column are off."""
    x = random(9, 4)
    model = nn.Sequential(QuantStub(), nn.Linear(4, 4), DeQuantStub(), nn.Linear(4, 3)).eval()
    made = quantized(model, x)
    export_onnx(made, tmp_path / "m.onnx", x)
    changed = onnx.load(tmp_path / "m.onnx")
    (bias,) = (each for each in changed.graph.initializer if each.name == "3.bias")
    bias.CopyFrom(
        onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + np.float32([0, 1, 0]), "3.bias")
    )
    found = verify(changed, made, x)
    assert (found.ok, found.unexplained, found.layers[-1].unexplained) == (False, 9, 9)
    assert "9 of " in found.verdict()


@pytest.mark.parametrize("form", FORMS)
def test_a_model_that_was_trained_with_roundings(tmp_path: Path, form: str) -> None:
    """Oracle: the model's codes, after quantisation-aware training of four steps."""
    layers = [nn.Conv2d(2, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)]
    x, y = random(16, 2, 6, 6), np.arange(16) % 3
    prepared = prepare_qat(nn.Sequential(*layers), tensor(x)).train()
    optimizer = SGD(prepared.parameters(), lr=0.05)
    for _ in range(4):
        optimizer.zero_grad()
        functional.cross_entropy(prepared(tensor(x)), tensor(y)).backward()
        optimizer.step()
    made = convert(prepared)
    export_onnx(made, tmp_path / "m.onnx", x[:2], form=form)
    found = verify(tmp_path / "m.onnx", made, x)
    assert found.ok
    assert found.same or form == "qdq"


class Two(Module):
    """Two inputs, two results, an activation that runs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.add, self.act = nn.Linear(3, 2), nn.Linear(4, 2), Add(), nn.ReLU()

    def forward(self, x: Tensor, y: Tensor) -> Any:
        """Return (sum, {"a": a})."""
        a = self.act(self.a(x))
        return self.add(a, self.act(self.b(y))), {"a": a}


@pytest.mark.parametrize("form", FORMS)
def test_several_inputs_and_results(tmp_path: Path, form: str) -> None:
    """Oracle: the model's codes, and its results under their names."""
    x, y = random(30, 3), random(30, 4, seed=1)
    model = Two().eval()
    made = convert(model, calibrate(model, [(x, y)], inputs_of=lambda batch: batch))
    report = export_onnx(made, tmp_path / "m.onnx", (x[:2], y[:2]), form=form)
    found = verify(tmp_path / "m.onnx", made, (x, y))
    assert found.same
    assert {"model.act", "model.act:2"} <= {each.name for each in found}
    assert list(report.inputs) == ["input.0", "input.1"]
    assert list(report.outputs) == ["output.0", "output.1.a"]
    runner = onnx.reference.ReferenceEvaluator(onnx.load(tmp_path / "m.onnx"))
    got = runner.run(["output.1.a"], {"input.0": x, "input.1": y})[0]
    np.testing.assert_array_equal(got, made(tensor(x), tensor(y))[1]["a"].array)


def test_one_array_for_two_inputs(tmp_path: Path) -> None:
    """Oracle: the model's codes on two arrays: each input of the graph goes where the model's own goes."""
    x, y = random(9, 4), random(9, 4, seed=1)

    class Less(Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.less = nn.Linear(4, 3), nn.Linear(4, 3), Sub()

        def forward(self, x: Tensor, y: Tensor) -> Any:
            return self.less(self.a(x), self.b(y))

    model, given = Less().eval(), tensor(x)
    pairs = [(given, given), (given, tensor(10 * y))]  # the first is what shows what goes into what
    made: Any = convert(
        model, calibrate(model, pairs, activation=MinMaxObserver, inputs_of=lambda each: each)
    )
    ratio = float(made.quantize[1].scale.array) / float(made.quantize[0].scale.array)
    assert ratio > 5
    assert made.model.a.kept("input_") == made.quantize[0].kept("")
    assert made.model.b.kept("input_") == made.quantize[1].kept("")
    export_onnx(made, tmp_path / "m.onnx", (given, given))
    assert verify(tmp_path / "m.onnx", made, (x, y)).ok


def test_lengths_that_follow_the_batch(tmp_path: Path) -> None:
    """Oracle: by hand: rows joined with samples are no batch, and no length of their own either."""
    x = random(5, 2, 4)
    linear = nn.Sequential(nn.Linear(4, 3), nn.Flatten(0, 1)).eval()
    for example in (x[:1], x[:3]):
        report = export_onnx(quantized(linear, x), tmp_path / "m.onnx", example)
        assert (report.inputs, report.outputs) == ({"input": ("batch", 2, 4)}, {"output": ("output_0", 3)})
    assert verify(tmp_path / "m.onnx", quantized(linear, x), x).same
    with pytest.raises(
        SettingError, match=r"the model takes 4 in the first axis, and not 5(?s:.*)a batch axis"
    ) as fault:
        export_onnx(quantized(nn.Linear(4, 3).eval(), x), tmp_path / "n.onnx", x[0, 0])
    quoted = fault.value.__cause__
    assert isinstance(quoted, MinimpError)
    assert quoted.op
    assert f"{quoted.op}: " not in str(fault.value)
    assert str(fault.value).count("help: ") == 1
    assert not (tmp_path / "n.onnx").exists()


# ---- what cannot be ----------------------------------------------------------------------------------------


class Functions(Module):
    """A float op in the code of forward, before codes."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.quant, self.last, self.end = (
            nn.Linear(4, 4),
            QuantStub(),
            nn.Linear(4, 2),
            DeQuantStub(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, 4) -> (N, 2)."""
        y: Tensor = self.end(self.last(self.quant(functional.relu(self.first(x)))))
        return y


def test_modules_and_ops_without_a_form(tmp_path: Path) -> None:
    """Oracle: one error that names the module or op; no file."""
    x = random(9, 4)
    path = tmp_path / "m.onnx"
    marked = [QuantStub(), nn.Linear(4, 2), DeQuantStub()]
    normed = nn.Sequential(nn.LayerNorm(4), *marked).eval()
    cases: list[tuple[Module, str]] = [
        (convert(normed, calibrate(normed, [x])), r"takes what comes from '0' \(LayerNorm\)"),
        (quantize_dynamic(nn.Sequential(nn.Linear(4, 3)))[0].eval(), r"comes from '0' \(Dynamic"),
    ]
    written = Functions().eval()
    cases.append((convert(written, calibrate(written, [x])), "'quant' .* an op in the code of a forward"))
    curved = nn.Sequential(*marked, nn.Softplus(1.0, 3.0)).eval()
    cases.append(
        (convert(curved, calibrate(curved, [x])), r"'3' is x itself from 3\.0 on, and Softplus nowhere")
    )
    for model, said in cases:
        with pytest.raises(SettingError, match=said):
            export_onnx(model, path, x)
        assert not path.exists()


def test_settings(tmp_path: Path) -> None:
    """Oracle: one error each, and what was in the file before stays."""
    model, x = prepared("conv2d")
    path = tmp_path / "m.onnx"
    path.write_text("before")
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"form": "qoperator"}, "unknown form 'qoperator'"),
        ({"opset": 12}, "opset must be a whole number from 13 to 2., got 12"),
        ({"opset": "19"}, "opset must be"),
        ({"opset": 19.0}, "opset must be"),
        ({"opset": True}, "opset must"),
    ]
    for given, said in wrong:
        with pytest.raises(SettingError, match=said):
            export_onnx(model, path, x, **given)
    with pytest.raises(SettingError, match="without a batch"):
        export_onnx(model, path, x[0])
    with pytest.raises(SettingError, match="is in training mode"):
        export_onnx(model.train(), path, x)
    with pytest.raises(SettingError, match="input is float64"):
        export_onnx(model.eval(), path, x.astype(np.float64))
    with pytest.raises(SettingError, match=r"of shape \(0, 3, 6, 7\)(?s:.*)a row or more"):
        export_onnx(model, path, x[:0])
    with pytest.raises(SettingError, match="expected a module, got int"):
        export_onnx(3, path, x)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="its folder does not exist"):
        export_onnx(model, tmp_path / "none" / "m.onnx", x)
    assert path.read_text() == "before"


def test_more_than_a_file_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the limit, lowered to a byte less than the constants take; at that it is written."""
    model, x = prepared("conv2d")
    export_onnx(model, tmp_path / "m.onnx", x)
    size = sum(each.nbytes for each in arrays_of(tmp_path / "m.onnx").values())
    for limit in (size, size - 1):
        monkeypatch.setattr(exporting, "MOST_BYTES", limit)
        if limit == size:
            export_onnx(model, tmp_path / "m.onnx", x)
            continue
        with pytest.raises(SettingError, match=rf"take {size:,} bytes, and a file of ONNX holds 2 GiB"):
            export_onnx(model, tmp_path / "m.onnx", x)


class Named(Module):
    """A float layer called output, whose result has the name of its bias."""

    def __init__(self) -> None:
        super().__init__()
        self.begin, self.layer, self.end = QuantStub(), nn.Linear(4, 4), DeQuantStub()
        self.output = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """(N, 4) -> {"bias": (N, 3)}."""
        return {"bias": self.output(self.end(self.layer(self.begin(x))))}


def test_names_that_meet(tmp_path: Path) -> None:
    """Oracle: the message: one name would stand for a constant and for the model's result."""
    x = random(9, 4)
    with pytest.raises(SettingError, match=r"a constant and a result would both be called 'output\.bias'"):
        export_onnx(quantized(Named().eval(), x), tmp_path / "m.onnx", x)


def test_numbers_without_a_code_are_compared_in_silence(tmp_path: Path) -> None:
    """Oracle: the least code, which onnx.reference gives to all that int32 does not hold; and no warning."""
    model, x = prepared("linear")
    export_onnx(model, tmp_path / "m.onnx", x)
    far = x.copy()
    far[0, 0], far[1, 1] = -np.inf, -1e30
    assert verify(tmp_path / "m.onnx", model, far).same
    far[2, 2] = np.inf
    found = verify(tmp_path / "m.onnx", model, far)
    assert (found.ok, found.layers[0].unexplained, found.layers[0].largest) == (False, 1, 255)


def test_what_is_not_compared(tmp_path: Path) -> None:
    """Oracle: one error each."""
    model, x = prepared("linear")
    path = tmp_path / "m.onnx"
    export_onnx(model, path, x)
    with pytest.raises(SettingError, match=r"the graph has no 'model.a/codes'"):
        verify(path, prepared("add")[0], x)
    bare = onnx.load(path)
    del bare.metadata_props[:]
    with pytest.raises(SettingError, match="was not written by minimp"):
        verify(bare, model, x)
    (tmp_path / "text").write_text("no graph")
    with pytest.raises(DataError, match="is no ONNX file"):
        verify(tmp_path / "text", model, x)
    with pytest.raises(DataError, match="there is no such file"):
        verify(tmp_path / "none", model, x)
    for spoil, said in (
        (lambda graph: graph.initializer.pop(0), "onnx cannot run the graph"),
        (lambda graph: graph.node.add(op_type="Nothing", output=["y"]), "onnx cannot run the graph"),
    ):
        damaged = onnx.load(path)
        spoil(damaged.graph)
        with pytest.raises(DataError, match=said):
            verify(damaged, model, x)
    other = onnx.load(path)
    other.graph.input.add().CopyFrom(other.graph.input[0])
    with pytest.raises(SettingError, match="the graph takes 2 inputs, the model 1"):
        verify(other, model, x)
    with pytest.raises(SettingError, match="expected a path or a ModelProto, got a int"):
        verify(3, model, x)


def test_without_onnx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: an error that names the extra."""
    model, x = prepared("linear")
    monkeypatch.setitem(sys.modules, "onnx", None)
    for call in (lambda: export_onnx(model, tmp_path / "m.onnx", x), lambda: verify("m.onnx", model, x)):
        with pytest.raises(SettingError, match=r'pip install "minimp\[onnx\]"'):
            call()
