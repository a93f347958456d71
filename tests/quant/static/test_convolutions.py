"""Convolutions of signals and transposed ones on codes, beside QNNPACK and beside whole numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimp import nn
from minimp.errors import SettingError, ShapeError
from minimp.nn.module import Module
from minimp.quant import QTensor
from minimp.quant.fusion import ConvReLU1d, fuse
from minimp.quant.modules import (
    QuantizedConv1d,
    QuantizedConv2d,
    QuantizedConvTranspose1d,
    QuantizedConvTranspose2d,
    weight_of,
)
from minimp.quant.modules.layers import turned
from minimp.quant.static import calibrate, convert
from minimp.tensors import tensor
from minimp_backends.integer_signals import integer_conv1d_reference, integer_conv_transpose_reference
from minimp_backends.requantizing import requantize_reference
from tests.quant.static.samples import INT8, MODES, UINT8, Array, affine_of, floats
from tests.quant.static.test_layers import in_torch, observer


@pytest.fixture
def qnnpack(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return torch with the engine that is exact on every CPU."""
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.backends.quantized, "engine", "qnnpack")
    return torch


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("channels", [False, True])
@pytest.mark.parametrize("case", [(3, 8, 5, 1, 2, 1, 1), (4, 6, 3, 2, 1, 2, 2), (6, 6, 4, 3, 0, 1, 6)])
def test_a_convolution_of_signals_is_qnnpacks(qnnpack: Any, relu: bool, channels: bool, case: Any) -> None:
    """Oracle: torch 2.13.0, engine qnnpack, quantized::conv1d and conv1d_relu; every code."""
    taken, given_out, kernel, stride, padding, dilation, groups = case
    rng = np.random.default_rng([relu, channels, taken])
    x = floats(rng, (4, taken, 30), 0.3) + np.float32(0.4)
    w, b = floats(rng, (given_out, taken // groups, kernel)), 3 * floats(rng, (given_out,))
    into = affine_of(x)
    weight, q = weight_of(w, b, into.scale, observer(channels)), QTensor.of(x, into)
    geometry = (stride,), (padding,), (dilation,), groups
    real = qnnpack.nn.functional.conv1d(*map(qnnpack.from_numpy, (x, w, b)), *geometry).numpy()
    out = affine_of(0.7 * real)
    mine = QuantizedConv1d(weight, b, into, out, *geometry, relu=relu)(q)
    prepack = qnnpack.ops.quantized.conv1d_prepack
    packed = prepack(in_torch(qnnpack, weight), qnnpack.from_numpy(b), *geometry)
    op = getattr(qnnpack.ops.quantized, "conv1d_relu" if relu else "conv1d")
    its = op(in_torch(qnnpack, q), packed, float(out.scale), int(out.zero_point)).int_repr().numpy()
    np.testing.assert_array_equal(mine.codes, its)
    assert len(np.unique(its)) > 20


TRANSPOSED = [  # C, O, kernel, stride, padding, output_padding, groups, dilation
    (4, 6, (3, 2), (2, 1), (1, 0), (1, 0), 1, (1, 1)),
    (4, 6, (2, 2), (2, 2), (0, 0), (0, 0), 2, (1, 1)),
    (3, 5, (3, 3), (1, 2), (2, 1), (0, 1), 1, (2, 1)),
]


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("axes", [1, 2])
@pytest.mark.parametrize("case", TRANSPOSED)
def test_a_transposed_convolution_is_qnnpacks(qnnpack: Any, axes: int, case: Any) -> None:
    """Oracle: torch 2.13.0, engine qnnpack, transposed convolutions; one scale for the weight."""
    taken, given_out, *sizes = case
    kernel, stride, padding, extra, groups, dilation = (
        each[-axes:] if isinstance(each, tuple) else each for each in sizes
    )
    rng = np.random.default_rng([axes, taken])
    x = floats(rng, (4, taken, *(7, 9)[-axes:]), 0.3) + np.float32(0.4)
    w, b = floats(rng, (taken, given_out // groups, *kernel), 0.2), 3 * floats(rng, (given_out,))
    into = affine_of(x)
    weight, q = weight_of(turned(w, groups), b, into.scale, observer(False)), QTensor.of(x, into)
    geometry = stride, padding, extra, groups, dilation
    name = f"conv_transpose{axes}d"
    real = getattr(qnnpack.nn.functional, name)(*map(qnnpack.from_numpy, (x, w, b)), *geometry).numpy()
    out = affine_of(0.7 * real)
    kind = QuantizedConvTranspose1d if axes == 1 else QuantizedConvTranspose2d
    mine = kind(weight, b, into, out, *geometry)(q)
    theirs = QTensor(np.ascontiguousarray(turned(weight.codes, groups)), weight.affine)
    prepack = getattr(qnnpack.ops.quantized, f"{name}_prepack")
    packed = prepack(
        in_torch(qnnpack, theirs), qnnpack.from_numpy(b), stride, padding, extra, dilation, groups
    )
    its = getattr(qnnpack.ops.quantized, name)(
        in_torch(qnnpack, q), packed, float(out.scale), int(out.zero_point)
    )
    np.testing.assert_array_equal(mine.codes, its.int_repr().numpy())
    assert len(np.unique(mine.codes)) > 20


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("symmetric", [False, True])
def test_layers_by_whole_numbers(mode: str, symmetric: bool) -> None:
    """Oracle: the definitions in int64, a scale for each output channel, and requantising's reference."""
    rng = np.random.default_rng(3)
    x, b = floats(rng, (5, 4, 9), 0.3), floats(rng, (6,))
    into, out = affine_of(x), affine_of(floats(rng, (50,)), INT8)
    q, s_x, x_zero = QTensor.of(x, into), into.scale, int(into.zero_point)

    def codes_of(sums: Array, weight: QTensor) -> Array:
        s_w = weight.affine.scale
        steps = np.rint(b * (np.float32(1) / (s_x * s_w))).astype(np.int64)
        factors = s_w * s_x * (np.float32(1) / out.scale)
        if mode == "fixed-point":
            factors = s_w.astype(np.float64) * s_x / out.scale
        acc = (sums + steps[:, None]).astype(np.int32)
        return requantize_reference(acc, factors, int(out.zero_point), *INT8, mode, axis=1)

    weight = weight_of(floats(rng, (6, 2, 3)), b, s_x, observer(True, symmetric))
    sums = integer_conv1d_reference(q.codes, weight.codes, 2, 1, 1, 2, x_zero, weight.affine.zero_point)
    layer: Any = QuantizedConv1d(weight, b, into, out, 2, 1, 1, 2, mode=mode)
    np.testing.assert_array_equal(layer(q).codes, codes_of(sums, weight))

    real = floats(rng, (4, 3, 3)) * np.float32([[[1], [7], [0.2]]])  # (C, O/G, K), outputs of unlike sizes
    weight = weight_of(turned(real, 2), b, s_x, observer(True, symmetric))
    assert weight.affine.scale.shape == (6,)
    sums = integer_conv_transpose_reference(
        q.codes, turned(weight.codes, 2), (2,), (1,), (1,), 2, (1,), x_zero, weight.affine.zero_point
    )
    layer = QuantizedConvTranspose1d(weight, b, into, out, 2, 1, 1, 2, mode=mode)
    np.testing.assert_array_equal(layer(q).codes, codes_of(sums, weight))


@given(st.integers(0, 2**32 - 1), st.sampled_from(MODES), st.booleans())
def test_signals_are_images_of_height_one(seed: int, mode: str, relu: bool) -> None:
    """Law: conv1d is conv2d with a kernel of height 1, transposed or not; (C, L) is a batch of one."""
    rng = np.random.default_rng(seed)
    x, b = floats(rng, (2, 4, 9)), floats(rng, (6,))
    into, out = affine_of(x), affine_of(4 * x)
    q = QTensor.of(x, into)
    image = QTensor(q.codes[:, :, None], into)
    weight = weight_of(floats(rng, (6, 2, 3)), b, into.scale, observer(True))
    flat = QTensor(weight.codes[:, :, None], weight.affine)
    how = {"relu": relu, "mode": mode}
    pairs: list[tuple[Any, Any]] = [
        (
            QuantizedConv1d(weight, b, into, out, 2, 1, 2, 2, **how),
            QuantizedConv2d(flat, b, into, out, (1, 2), (0, 1), (1, 2), 2, **how),
        ),
        (
            QuantizedConvTranspose1d(weight, b, into, out, 3, 1, 2, 2, 2, **how),
            QuantizedConvTranspose2d(flat, b, into, out, (1, 3), (0, 1), (0, 2), 2, (1, 2), **how),
        ),
    ]
    for signal, of_images in pairs:
        made = signal(q)
        np.testing.assert_array_equal(made.codes, of_images(image).codes[:, :, 0])
        np.testing.assert_array_equal(signal(QTensor(q.codes[0], into)).codes, made.codes[0])
        np.testing.assert_array_equal(of_images(QTensor(image.codes[0], into)).codes[:, 0], made.codes[0])


@given(st.integers(0, 2**32 - 1), st.integers(1, 3))
def test_a_weight_turned_and_back(seed: int, groups: int) -> None:
    """Law: turning twice gives what there was; filter o of a group is what its outputs are made of."""
    w = np.random.default_rng(seed).integers(-9, 9, (2 * groups, 3, 4))
    by_output = turned(w, groups)
    assert by_output.shape == (3 * groups, 2, 4)
    np.testing.assert_array_equal(turned(by_output, groups), w)
    for group, o, c in np.ndindex(groups, 3, 2):
        np.testing.assert_array_equal(by_output[3 * group + o, c], w[2 * group + c, o])


def decibels(model: Module, made: Module, x: Array) -> float:
    """Return how far a model on codes is from that in floats."""
    y, q = (np.asarray(each(tensor(x)).detach().array, np.float64) for each in (model, made))
    return float(10 * np.log10((y**2).sum() / ((y - q) ** 2).sum()))


@pytest.mark.parametrize("mode", MODES)
def test_in_a_model(mode: str) -> None:
    """Oracle: the float model, 25 dB at least; by hand what stands where, scales on axis 0 of each weight."""
    rng = np.random.default_rng(2)
    model = nn.Sequential(
        nn.Conv1d(3, 6, 5, padding="same"), nn.BatchNorm1d(6), nn.ReLU(),
        nn.ConvTranspose1d(6, 4, 4, 2, 1, groups=2), nn.BatchNorm1d(4), nn.Unflatten(2, (5, 8)),
        nn.ConvTranspose2d(4, 6, (2, 3), 2, bias=False), nn.Conv2d(6, 2, 3), nn.ReLU(),
    )  # fmt: skip
    x = rng.normal(size=(30, 3, 20)).astype(np.float32)
    for _ in range(3):
        model(tensor(x))
    fused, _ = fuse(model.eval(), tensor(x[:4]))
    assert isinstance(fused[0], ConvReLU1d)
    made: Any = convert(fused, calibrate(fused, [x]), mode=mode)
    kinds = [type(each).__name__ for each in made.model]
    assert kinds == [
        "QuantizedConv1d", "Identity", "Identity", "QuantizedConvTranspose1d", "Identity", "QuantizedMove",
        "QuantizedConvTranspose2d", "QuantizedConv2d", "Identity",
    ]  # fmt: skip
    layers = [made.model[i] for i in (0, 3, 6, 7)]
    assert [each.weight.shape for each in layers] == [(6, 3, 5), (4, 3, 4), (6, 4, 2, 3), (2, 6, 3, 3)]
    assert [each.weight_scale.shape for each in layers] == [(6,), (4,), (6,), (2,)]
    assert made.model[0].relu
    assert "output_padding=(0,), dilation=(1,), groups=2" in repr(made.model[3])
    assert decibels(fused, made, x) > 25


def test_signals_without_an_integer_form() -> None:
    """Oracle: the message: a border that is not 0, and an uneven one; a signal of too many axes."""
    x = np.random.default_rng(6).normal(size=(4, 1, 12)).astype(np.float32)
    for layer, says in (
        (
            nn.Conv1d(1, 2, 3, padding=1, padding_mode="circular"),
            "'0': .*a Conv1d with padding_mode='circular'",
        ),
        (nn.Conv1d(1, 2, 2, padding="same"), "'0': .*a Conv1d with uneven padding"),
    ):
        model = nn.Sequential(layer).eval()
        with pytest.raises(SettingError, match=says):
            convert(model, calibrate(model, [x]))
    model = nn.Sequential(nn.Conv1d(1, 2, 3)).eval()
    made: Any = convert(model, calibrate(model, [x]))
    with pytest.raises(ShapeError, match=r"expected signals \(N, C, L\)"):
        made(tensor(x[None]))


def test_a_sum_of_uint8_and_int8_alike() -> None:
    """Oracle: the same numbers in uint8 codes, 128 higher: every code of a transposed convolution."""
    rng = np.random.default_rng(4)
    x, w = floats(rng, (3, 4, 6)), floats(rng, (4, 5, 3))
    into, out = affine_of(x, UINT8), affine_of(8 * x, UINT8)
    weight, q = weight_of(turned(w, 1), None, into.scale, observer(True)), QTensor.of(x, into)
    low = type(into)(into.scale, into.zero_point - 128, *INT8)
    made = QuantizedConvTranspose1d(weight, None, into, out, 2)(q)
    shifted = QTensor((q.codes.astype(np.int16) - 128).astype(np.int8), low)
    np.testing.assert_array_equal(
        QuantizedConvTranspose1d(weight, None, low, out, 2)(shifted).codes, made.codes
    )
