"""How near codes come: networks, scales that are powers of two, ties, and that faults are seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minimp import nn
from minimp.data import DataLoader, digits
from minimp.nn.module import Module
from minimp.quant import Affine, QTensor
from minimp.quant.fusion import fuse
from minimp.quant.modules import DeQuantize, Quantize, QuantizedAdd, QuantizedConv2d, QuantizedLinear
from minimp.quant.onnx_export import Agreement, export_onnx, verify
from minimp.quant.onnx_export.exporting import FORMS
from minimp.quant.onnx_export.ties import BOUNDS
from minimp.quant.onnx_export.tracing import record
from minimp.quant.static import calibrate, convert
from minimp.tensors import Tensor, tensor
from tests.quant.onnx_export.samples import Array, digits_network, prepared, quantized
from tests.quant.static.samples import MODES, batches, residual

onnx = pytest.importorskip("onnx")


def compared(folder: Path, model: Module, x: Array, form: str, **rest: Any) -> Agreement:
    """Write a model and compare it."""
    export_onnx(model, folder / "m.onnx", x[:2], form=form, **rest)
    return verify(folder / "m.onnx", model, x)


@pytest.mark.parametrize(
    "opset", [each for each in (13, 17, 19, 21, 23, 25) if each <= onnx.defs.onnx_opset_version()]
)
@pytest.mark.parametrize("form", FORMS)
def test_a_network_of_all_kinds(tmp_path: Path, form: str, opset: int) -> None:
    """Oracle: the model's codes, each layer, in each opset; a residual network, observed by histograms."""
    model, x = residual()
    made = convert(model, calibrate(model, batches(x)))
    found = compared(tmp_path, made, x[:8], form, opset=opset)
    assert found.ok
    assert found.same
    assert onnx.load(tmp_path / "m.onnx").opset_import[0].version == opset


@st.composite
def networks(draw: st.DrawFn) -> tuple[Module, tuple[int, ...]]:
    """Draw a small network of random geometry, and the shape of an image."""
    channels, height, width = draw(st.integers(1, 3)), draw(st.integers(5, 8)), draw(st.integers(5, 8))
    layers: list[Module] = []
    shape, count = (channels, height, width), channels
    for _ in range(draw(st.integers(1, 3))):
        wider = count * draw(st.integers(1, 3))
        groups = draw(st.sampled_from([1, count]))
        kernel, padding = draw(st.integers(1, 3)), draw(st.integers(0, 1))
        layers.append(nn.Conv2d(count, wider, kernel, draw(st.integers(1, 2)), padding, groups=groups))
        layers += [nn.ReLU()] if draw(st.booleans()) else []
        count = wider
    layers.append(draw(st.sampled_from([nn.MaxPool2d(1), nn.AvgPool2d(1), nn.Tanh(), nn.Sigmoid()])))
    layers += [nn.AdaptiveAvgPool2d(draw(st.integers(1, 3))), nn.Flatten()]
    model = nn.Sequential(*layers).eval()
    features = model(tensor(np.zeros((1, *shape), np.float32))).shape[1]
    return nn.Sequential(*layers, nn.Linear(features, 4)).eval(), shape


@settings(max_examples=6, deadline=None)
@given(st.data(), st.integers(0, 2**31), st.sampled_from(["uint8", "int8", "int4"]), st.sampled_from(MODES))
def test_random_networks(
    tmp_path_factory: pytest.TempPathFactory, data: Any, seed: int, codes: str, mode: str
) -> None:
    """Oracle: the model's codes: in integer form all; in QDQ form each layer alone but for ties, by 1."""
    rng = np.random.default_rng(seed)
    model, shape = data.draw(networks())
    for param in model.parameters():
        param.array = (rng.normal(size=param.shape) * np.exp(rng.normal())).astype(np.float32)
    x = (rng.normal(size=(6, *shape)) * np.exp(rng.normal())).astype(np.float32)
    made = quantized(fuse(model, tensor(x))[0], x, codes, mode)
    folder = tmp_path_factory.mktemp("net")
    assert compared(folder, made, x, "qdq").ok
    assert compared(folder, made, x, "integer").same


def power(rng: np.random.Generator, *shape: int) -> Array:
    """Return powers of two."""
    return (2.0 ** rng.integers(-6, -1, shape)).astype(np.float32)


def by_powers_of_two(seed: int) -> tuple[Module, Array]:
    """Return a network whose scales are powers of two, and inputs that are ties for its first codes."""
    rng = np.random.default_rng(seed)
    points = [
        Affine(scale, np.int32(zero), 0, 255, rule="onnx")
        for scale, zero in zip((power(rng), np.float32(0.5)), rng.integers(0, 255, 2), strict=True)
    ]
    weight = QTensor(
        rng.integers(-128, 128, (6, 3, 3, 3)).astype(np.int8),
        Affine(power(rng, 6), np.zeros(6, np.int32), axis=0),
    )
    deep = QTensor(rng.integers(-128, 128, (6, 1, 3, 3)).astype(np.int8), Affine(power(rng), np.int32(0)))
    bias = rng.normal(size=6).astype(np.float32)
    model = nn.Sequential(
        Quantize(points[0]),
        QuantizedConv2d(weight, bias, points[0], points[1], 1, 1, relu=True),
        QuantizedConv2d(deep, None, points[1], Affine(np.float32(0.5), np.int32(3)), groups=6),
        DeQuantize(),
    )
    steps = rng.integers(-200, 400, (5, 3, 6, 6)) - points[0].zero_point
    return model.eval(), (steps * points[0].scale / 2).astype(np.float32)


@pytest.mark.parametrize("seed", range(3))
def test_powers_of_two(tmp_path: Path, seed: int) -> None:
    """Oracle: the model's codes, all of them, though ties are many: products and quotients are exact."""
    model, x = by_powers_of_two(seed)
    found = compared(tmp_path, model, x, "qdq")
    assert found.same
    assert found.ok
    assert sum(each.near for each in found) > 20  # ties, and not one goes another way


def test_other_scales_differ_at_ties(tmp_path: Path) -> None:
    """Oracle: a sum that is a tie exactly: float32 may put it to either side, and the bound tells which."""
    rng = np.random.default_rng(5)
    scale = np.float32(0.1)
    a = Affine(scale, np.int32(7), 0, 255, rule="onnx")
    half = Affine(np.float32(2) * scale, np.int32(4), 0, 255)
    weight = QTensor(rng.integers(-9, 9, (64, 40)).astype(np.int8), Affine(np.float32(1), np.int32(0)))
    model = nn.Sequential(Quantize(a), QuantizedLinear(weight, None, a, half), DeQuantize()).eval()
    x = (rng.integers(-7, 90, (40, 40)) * scale).astype(np.float32)
    found = compared(tmp_path, model, x, "qdq")
    (layer,) = (each for each in found if each.kind == "QuantizedLinear")
    assert found.ok
    assert 0 < layer.alone <= layer.near
    assert layer.largest == 1
    assert compared(tmp_path, model, x, "integer").same


class Sum(Module):
    """Codes of two scales, added."""

    def __init__(self, a: Affine, b: Affine, output: Affine) -> None:
        super().__init__()
        self.a, self.b, self.add, self.end = (
            Quantize(a),
            Quantize(b),
            QuantizedAdd(a, b, output),
            DeQuantize(),
        )

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the sum."""
        floats: Tensor = self.end(self.add(self.a(x), self.b(y)))
        return floats


def test_sums_of_all_pairs_of_codes(tmp_path: Path) -> None:
    """Oracle: the model's codes of all 65,536 pairs, 20 times; those that differ lie within E of a tie."""
    rng, differing = np.random.default_rng(0), 0
    for _ in range(20):
        scales = np.exp(rng.normal(size=3) * 0.3).astype(np.float32)
        a, b, output = (Affine(s, np.int32(z), 0, 255) for s, z in zip(scales, (100, 31, 128), strict=True))
        model = Sum(a, b, output).eval()
        x, y = ((np.arange(256) - each.zero_point) * each.scale for each in (a, b))
        pair = x.astype(np.float32).reshape(-1, 1), y.astype(np.float32).reshape(1, -1)
        export_onnx(model, tmp_path / "m.onnx", pair)
        found = verify(tmp_path / "m.onnx", model, pair)
        assert found.ok
        assert found.layers[2].count == 65536
        differing += found.layers[2].alone
    assert differing > 0


def test_long_sums(tmp_path: Path) -> None:
    """Oracle: the model's codes: sums of 1,024 products that cancel, a few of which differ near a tie."""
    rng = np.random.default_rng(0)
    a, out = Affine(np.float32(0.1), np.int32(128), 0, 255), Affine(np.float32(41.7), np.int32(0))
    weight = QTensor(
        rng.integers(-127, 128, (128, 1024)).astype(np.int8), Affine(np.float32(0.1), np.int32(0))
    )
    model = nn.Sequential(Quantize(a), QuantizedLinear(weight, None, a, out), DeQuantize()).eval()
    x = ((rng.integers(0, 256, (400, 1024)) - 128) * np.float32(0.1)).astype(np.float32)
    found = compared(tmp_path, model, x, "qdq")
    assert found.ok
    assert 0 < found.layers[1].alone <= found.layers[1].near < found.layers[1].count / 5
    assert compared(tmp_path, model, x[:9], "integer").same


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("per_channel", [False, True])
def test_weights_with_zero_points(tmp_path: Path, per_channel: bool, mode: str) -> None:
    """Oracle: the model's codes, for uint8 and int8 weights whose zero points are not 0."""
    rng = np.random.default_rng(2)
    a = Affine(np.float32(0.02), np.int32(99), 0, 255, rule="onnx")
    for low, high in ((0, 255), (-128, 127)):
        shape = (6,) if per_channel else ()
        scale = np.exp(rng.normal(size=shape) - 4).astype(np.float32)
        zero = rng.integers(low, high, shape).astype(np.int32)
        numbers = Affine(scale, zero, low, high, 0 if per_channel else None)
        codes = [rng.integers(low, high, size).astype(numbers.storage) for size in ((6, 3, 2, 2), (6, 4))]
        bias = rng.normal(size=6).astype(np.float32)
        layers = [
            QuantizedConv2d(QTensor(codes[0], numbers), bias, a, a, mode=mode),
            QuantizedLinear(QTensor(codes[1], numbers), bias, a, a, mode=mode),
        ]
        for layer, shape in zip(layers, ((5, 3, 4, 4), (5, 4)), strict=True):
            model = nn.Sequential(Quantize(a), layer, DeQuantize()).eval()
            x = rng.normal(size=shape).astype(np.float32)
            assert compared(tmp_path, model, x, "qdq").ok
            assert compared(tmp_path, model, x, "integer").same


@pytest.mark.parametrize("rule", ["torch", "onnx", "tflite"])
def test_rules_of_the_first_codes(tmp_path: Path, rule: str) -> None:
    """Oracle: the rules at ties, by hand: torch's even codes, ONNX's even multiples, TFLite's away from 0."""
    scale, zero = np.float32(0.25), 5
    affine = Affine(scale, np.int32(zero), 0, 255, rule=rule)
    model = nn.Sequential(Quantize(affine), DeQuantize()).eval()
    x = ((np.arange(-4, 20) + 0.5) * scale).astype(np.float32).reshape(2, 12)
    for form in FORMS:
        found = compared(tmp_path, model, x, form)
        assert found.ok
        steps = x.reshape(-1) / scale
        there = np.rint(steps)
        here = {"torch": np.rint(steps + zero) - zero, "onnx": there,
                "tflite": np.trunc(steps + np.copysign(0.5, steps))}[rule]  # fmt: skip
        assert found.layers[0].alone == np.count_nonzero(here != there)
        assert (found.layers[0].alone == 0) == (rule == "onnx")
    report = export_onnx(model, tmp_path / "m.onnx", x)
    bad = onnx.load(tmp_path / "m.onnx")
    (point,) = (each for each in bad.graph.initializer if each.name == "0.zero_point")
    point.CopyFrom(onnx.numpy_helper.from_array(np.array(zero + 2, np.uint8), point.name))
    assert verify(bad, model, x).layers[0].unexplained >= 8  # by two: no tie explains that
    assert (len(report.notes) == 1) == (rule != "onnx")


def test_numbers_between_ties_are_the_same_under_each_rule(tmp_path: Path) -> None:
    """Oracle: the model's codes, for 20,000 numbers under torch's rule; and for those beside ties."""
    affine = Affine(np.float32(0.0137), np.int32(101), 0, 255)
    model = nn.Sequential(Quantize(affine), DeQuantize()).eval()
    x = np.random.default_rng(0).normal(size=(100, 200)).astype(np.float32)
    found = compared(tmp_path, model, x, "qdq")
    assert found.ok
    assert found.alone <= found.layers[0].near <= 5
    ties = ((np.arange(-100, 150) + 0.5) * affine.scale).astype(np.float32)
    beside = np.stack([ties, np.nextafter(ties, np.float32(-9)), np.nextafter(ties, np.float32(9))])
    found = compared(tmp_path, model, beside, "qdq")
    assert found.ok
    assert 0 < found.alone <= found.layers[0].near


@pytest.mark.parametrize("form", FORMS)
def test_faults_are_seen(tmp_path: Path, form: str) -> None:
    """Oracle: weights, a bias, zero point or scale changed, or a Relu gone: not explained by ties."""
    model, x = prepared("add and relu", "int8")
    export_onnx(model, tmp_path / "m.onnx", x, form=form)
    good = onnx.load(tmp_path / "m.onnx")
    assert verify(good, model, x).ok
    numbers = {each.name: onnx.numpy_helper.to_array(each) for each in good.graph.initializer}
    changes: list[tuple[str, Any]] = [
        (name, array * np.float32(1.2) if array.dtype.kind == "f" else array + step.astype(array.dtype))
        for name, array in numbers.items()
        if name.startswith("model.")
        for step in [np.array(1000 if name.endswith("bias") else 1)]
    ]
    assert len(changes) > 8
    for name, array in changes:
        bad = onnx.ModelProto()
        bad.CopyFrom(good)
        (place,) = (each for each in bad.graph.initializer if each.name == name)
        place.CopyFrom(onnx.numpy_helper.from_array(array, name))
        assert not verify(bad, model, x).ok, name


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("form", FORMS)
def test_a_relu_above_the_least_code(tmp_path: Path, form: str, mode: str) -> None:
    """Oracle: max(q, z) by hand; without the Relu, codes below the zero point 20 are seen."""
    rng = np.random.default_rng(1)
    affine = Affine(np.float32(0.03), np.int32(20), 0, 255, rule="onnx")
    weight = QTensor(rng.integers(-99, 99, (8, 5)).astype(np.int8), Affine(np.float32(0.01), np.int32(0)))
    layer = QuantizedLinear(weight, None, affine, affine, relu=True, mode=mode)
    model = nn.Sequential(Quantize(affine), layer, DeQuantize()).eval()
    x = rng.normal(size=(9, 5)).astype(np.float32)
    found = compared(tmp_path, model, x, form)
    assert found.ok
    assert found.same or (form, mode) == ("qdq", "fixed-point")
    bad = onnx.load(tmp_path / "m.onnx")
    relus = [each for each in bad.graph.node if each.op_type == "Relu"]
    assert bool(relus) == ((form, mode) != ("integer", "fixed-point"))
    if not relus:  # there it is a Clip from the zero point on
        return
    relus[0].op_type = "Identity"
    wrong = verify(bad, model, x)
    assert not wrong.ok
    assert wrong.differing > 10


def test_the_bound_is_no_excuse() -> None:
    """Oracle: by hand: a layer of whole scales has E below a thousandth of a step, and v its exact value."""
    affine = Affine(np.float32(1), np.int32(0), -128, 127)
    weight = QTensor(np.array([[3, -2]], np.int8), Affine(np.float32(0.5), np.int32(0)))
    model = nn.Sequential(Quantize(affine), QuantizedLinear(weight, np.float32([2]), affine, affine)).eval()
    seen = record(model, [np.float32([[5, 4], [1, 1]])], BOUNDS.__contains__, "test")
    v, reach = BOUNDS[QuantizedLinear](model[1], seen.sites[1])
    np.testing.assert_array_equal(v, [[5.5], [2.5]])
    assert reach.max() < 1e-3
    both = QuantizedAdd(affine, affine, affine).eval()
    assert type(both) in BOUNDS


@pytest.mark.slow
def test_digits(tmp_path: Path) -> None:
    """Oracle: the model's codes on all 397 test images: 1.6 million; layer by layer at most 50 at ties."""
    model = digits_network()
    x, _ = digits("test", shape="image")[:]
    calibration = calibrate(model, DataLoader(digits("train", shape="image"), 64), patience=3)
    for mode in MODES:
        made = convert(model, calibration, mode=mode)
        assert compared(tmp_path, made, x, "integer").same
        found = compared(tmp_path, made, x, "qdq")
        print(f"{mode}\n{found}")
        assert found.ok
        assert found.count > 1.6e6
        assert found.alone <= (50 if mode == "float" else 2000)
