"""Linear layers and convolutions on codes, beside QNNPACK and beside whole numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from minimp.errors import FormatError, SettingError, ShapeError
from minimp.quant import RULES, Affine, QTensor
from minimp.quant.modules import QuantizedConv2d, QuantizedLinear, weight_of
from minimp.quant.observers import MinMaxObserver, Observer, PerChannelMinMaxObserver
from minimp_backends.integers import integer_conv2d_reference, integer_matmul_reference
from minimp_backends.requantizing import requantize_reference
from tests.quant.static.samples import INT8, MODES, UINT8, Array, affine_of, floats, moved, shifted

BITS = {"quant_min": -128, "quant_max": 127}


def observer(channels: bool, symmetric: bool = True) -> Observer:
    """Return an observer for weights."""
    kind = PerChannelMinMaxObserver if channels else MinMaxObserver
    return kind(**BITS, symmetric=symmetric)


@pytest.fixture
def qnnpack(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return torch with the engine that is exact on every CPU."""
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.backends.quantized, "engine", "qnnpack")
    return torch


def in_torch(torch: Any, q: QTensor) -> Any:
    """Return the same codes and scales as a quantised tensor of torch."""
    codes, affine = torch.from_numpy(q.codes.copy()), q.affine
    if affine.per_channel:
        how = torch.tensor(affine.scale.astype(np.float64)), torch.tensor(affine.zero_point.astype(np.int64))
        return torch._make_per_channel_quantized_tensor(codes, *how, 0)
    return torch._make_per_tensor_quantized_tensor(codes, float(affine.scale), int(affine.zero_point))


LINEAR = [(n, k, o) for n in (1, 5) for k in (1, 7, 64, 300) for o in (1, 8, 33)]


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("channels", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_linear_is_qnnpacks(qnnpack: Any, relu: bool, channels: bool, bias: bool) -> None:
    """Oracle: torch 2.13.0, engine qnnpack, quantized::linear and linear_relu; every code."""
    rng = np.random.default_rng([relu, channels, bias])
    seen: set[int] = set()
    for n, k, o in LINEAR:
        x, w, b = floats(rng, (n, k), 0.3), floats(rng, (o, k)), 3 * floats(rng, (o,)) if bias else None
        y = x @ w.T + (0 if b is None else b)
        into, out = affine_of(x), affine_of(0.7 * y)  # some are clamped
        weight = weight_of(w, b, into.scale, observer(channels))
        q = QTensor.of(x, into)
        mine = QuantizedLinear(weight, b, into, out, relu=relu)(q)
        packed = qnnpack.ops.quantized.linear_prepack(
            in_torch(qnnpack, weight), None if b is None else qnnpack.from_numpy(b)
        )
        op = getattr(qnnpack.ops.quantized, "linear_relu" if relu else "linear")
        its = op(in_torch(qnnpack, q), packed, float(out.scale), int(out.zero_point))
        np.testing.assert_array_equal(mine.codes, its.int_repr().numpy())
        assert mine.affine == out
        seen |= set(mine.codes.ravel().tolist())
    assert len(seen) > 100


def many(mode: str) -> tuple[QTensor, QTensor, Array, QuantizedLinear]:
    """Return input, weight, bias and layer of two million outputs, whose sums are all over int32."""
    rng = np.random.default_rng(7)
    into, out = Affine(0.0231, 37, *UINT8), Affine(0.0713, 120, *UINT8)
    q = QTensor(np.arange(256, dtype=np.uint8)[:, None], into)
    scales = np.exp(rng.uniform(-12, -8, 8000)).astype(np.float32)
    axis = Affine(scales, np.zeros(8000, np.int32), *INT8, axis=0)
    weight = QTensor(rng.integers(-128, 128, (8000, 1)).astype(np.int8), axis)
    bias = rng.normal(size=8000).astype(np.float32) * 4
    return q, weight, bias, QuantizedLinear(weight, bias, into, out, mode=mode)


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
def test_the_multiplier_is_qnnpacks(qnnpack: Any) -> None:
    """Oracle: torch 2.13.0, engine qnnpack; s_x s_w / s in place of s_x s_w (1 / s) moves some codes."""
    q, weight, bias, layer = many("float")
    packed = qnnpack.ops.quantized.linear_prepack(in_torch(qnnpack, weight), qnnpack.from_numpy(bias))
    its = qnnpack.ops.quantized.linear(in_torch(qnnpack, q), packed, float(layer.kept("").scale), 120)
    np.testing.assert_array_equal(layer(q).codes, its.int_repr().numpy())


def test_the_multiplier_in_fixed_point() -> None:
    """Oracle: the reference of requantising, by M in float64: in float32 it would move some codes."""
    q, weight, _, layer = many("fixed-point")
    s_x, s = (layer.kept(name).scale.astype(np.float64) for name in ("input_", ""))
    steps = layer.bias.array.astype(np.int64)
    acc = ((q.codes.astype(np.int64) - 37) * weight.codes[:, 0] + steps).astype(np.int32)
    factors = weight.affine.scale.astype(np.float64) * s_x / s
    its = requantize_reference(acc, factors, 120, *UINT8, "fixed-point")
    np.testing.assert_array_equal(layer(q).codes, its)
    rounded = requantize_reference(acc, factors.astype(np.float32), 120, *UINT8, "fixed-point")
    assert (rounded != its).any()


CONVOLUTIONS = [  # C, O, size, kernel, stride, padding, dilation, groups
    (3, 8, (9, 7), (3, 3), (1, 1), (1, 1), (1, 1), 1),
    (4, 6, (8, 8), (3, 2), (2, 1), (1, 0), (1, 2), 2),
    (6, 6, (7, 9), (3, 3), (1, 2), (2, 1), (2, 2), 6),
    (5, 4, (6, 6), (1, 1), (1, 1), (0, 0), (1, 1), 1),
    (16, 12, (5, 5), (5, 5), (3, 3), (2, 2), (1, 1), 4),
]


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("channels", [False, True])
@pytest.mark.parametrize("case", CONVOLUTIONS, ids=lambda case: f"{case[0]}to{case[1]}in{case[-1]}")
def test_a_convolution_is_qnnpacks(qnnpack: Any, relu: bool, channels: bool, case: Any) -> None:
    """Oracle: torch 2.13.0, engine qnnpack, quantized::conv2d and conv2d_relu; every code, borders too."""
    taken, given_out, size, kernel, stride, padding, dilation, groups = case
    rng = np.random.default_rng([relu, channels, taken])
    x = floats(rng, (4, taken, *size), 0.3) + np.float32(0.4)
    w, b = floats(rng, (given_out, taken // groups, *kernel)), 3 * floats(rng, (given_out,))
    into = affine_of(x)
    assert into.zero_point > 0  # or padding with 0 would be right by chance
    weight = weight_of(w, b, into.scale, observer(channels))
    q = QTensor.of(x, into)
    geometry = stride, padding, dilation, groups
    real = qnnpack.nn.functional.conv2d(*map(qnnpack.from_numpy, (x, w, b)), *geometry).numpy()
    out = affine_of(0.7 * real)
    mine = QuantizedConv2d(weight, b, into, out, *geometry, relu=relu)(q)
    packed = qnnpack.ops.quantized.conv2d_prepack(in_torch(qnnpack, weight), qnnpack.from_numpy(b), *geometry)
    op = getattr(qnnpack.ops.quantized, "conv2d_relu" if relu else "conv2d")
    its = op(in_torch(qnnpack, q), packed, float(out.scale), int(out.zero_point)).int_repr().numpy()
    np.testing.assert_array_equal(mine.codes, its)
    assert len(np.unique(its)) > 30


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("symmetric", [False, True])
def test_layers_by_whole_numbers(mode: str, symmetric: bool) -> None:
    """Oracle: int64 sums, bias rint(b (1 / (s_x s_w))), and the reference of requantising in each mode."""
    rng = np.random.default_rng(3)
    x, w, b = floats(rng, (5, 4, 6, 6), 0.3), floats(rng, (8, 2, 3, 3)), floats(rng, (8,))
    into, out = affine_of(x), affine_of(floats(rng, (50,)), INT8)
    weight, q = weight_of(w, b, into.scale, observer(True, symmetric)), QTensor.of(x, into)
    s_x, s_w, zeros = into.scale, weight.affine.scale, weight.affine.zero_point
    assert zeros.any() != symmetric
    steps = np.rint(b * (np.float32(1) / (s_x * s_w))).astype(np.int64)
    factors = s_w * s_x * (np.float32(1) / out.scale)
    if mode == "fixed-point":
        factors = s_w.astype(np.float64) * s_x / out.scale
    rest = int(out.zero_point), *INT8, mode

    sums = integer_conv2d_reference(q.codes, weight.codes, 1, 1, 1, 2, int(into.zero_point), zeros)
    acc = (sums + steps[:, None, None]).astype(np.int32)
    layer = QuantizedConv2d(weight, b, into, out, padding=1, groups=2, mode=mode)
    np.testing.assert_array_equal(layer(q).codes, requantize_reference(acc, factors, *rest, axis=1))

    flat = QTensor(q.codes.reshape(5, -1)[:, :18], into)
    matrix = QTensor(weight.codes.reshape(8, -1), weight.affine)
    acc = (integer_matmul_reference(flat.codes, matrix.codes.T, int(into.zero_point), zeros) + steps).astype(
        "i4"
    )
    got = QuantizedLinear(matrix, b, into, out, mode=mode)(flat)
    np.testing.assert_array_equal(got.codes, requantize_reference(acc, factors, *rest))
    assert got.codes.dtype == np.int8


@pytest.mark.parametrize("mode", MODES)
def test_int8_activations_are_uint8_ones_moved_by_128(mode: str) -> None:
    """Oracle: the same numbers in uint8 codes, 128 higher; every code."""
    rng = np.random.default_rng(4)
    x, w, b = floats(rng, (3, 4, 6, 6)), floats(rng, (5, 4, 3, 3)), floats(rng, (5,))
    into, out = affine_of(x), affine_of(8 * x)
    weight, q = weight_of(w, b, into.scale, observer(True)), QTensor.of(x, into)
    for relu in (False, True):
        plain = QuantizedConv2d(weight, b, into, out, padding=1, relu=relu, mode=mode)
        turned = QuantizedConv2d(weight, b, shifted(into), shifted(out), padding=1, relu=relu, mode=mode)
        np.testing.assert_array_equal(turned(moved(q)).codes, moved(plain(q)).codes)


def test_leading_axes_of_linear() -> None:
    """Oracle: the rows one by one."""
    rng = np.random.default_rng(5)
    x, w = floats(rng, (2, 3, 4)), floats(rng, (5, 4))
    into, out = affine_of(x), affine_of(x @ w.T)
    layer = QuantizedLinear(weight_of(w, None, into.scale, observer(True)), None, into, out)
    q = QTensor.of(x, into)
    rows = [[layer(QTensor(row, into)).codes for row in block] for block in q.codes]
    np.testing.assert_array_equal(layer(q).codes, rows)
    with pytest.raises(ShapeError):
        layer(QTensor(q.codes.reshape(2, 2, 6), into))


@given(st.floats(-1e6, 1e6, width=32), st.floats(2.0**-20, 1.0, width=32), st.booleans())
@example(100.0, 2.0**-20, True)
def test_a_bias_always_fits(b: float, x_scale: float, channels: bool) -> None:
    """Law: |b| <= 2^30 s_x s_w whatever the bias; the weight's scale is raised only where it must be."""
    w = np.float32([[0, 0], [1, -2]])
    bias, into = np.float32([b, b / 64]), Affine(x_scale, 0, *UINT8)
    usual = observer(channels)
    usual.observe(w)
    weight = weight_of(w, bias, into.scale, observer(channels))
    room = 2.0**30 * np.float64(into.scale)
    fits = np.abs(bias).astype(np.float64) <= room * usual.affine().scale.astype(np.float64)
    fits = fits if channels else fits.all()
    np.testing.assert_array_equal(weight.affine.scale == usual.affine().scale, fits)
    layer = QuantizedLinear(weight, bias, into, Affine(1.0, 0, *UINT8))
    read = layer.bias.array * np.float64(x_scale) * weight.affine.scale.astype(np.float64)
    step = np.float64(x_scale) * weight.affine.scale
    assert (abs(read - bias) <= 0.5 * step + 2.0**-22 * np.abs(bias)).all()


def test_a_channel_that_has_a_bias_alone() -> None:
    """Oracle: by hand: weights of 0 and a bias of 1 give 1; QNNPACK cuts off at 2^31 2^-23 s_x = 0.00256."""
    into = Affine(1e-5, 0, *UINT8)
    weight = weight_of(np.zeros((1, 2), "f4"), np.ones(1, "f4"), into.scale, observer(True))
    made = QuantizedLinear(weight, np.ones(1, "f4"), into, Affine(0.01, 0, *UINT8))(
        QTensor(np.uint8([[3, 9]]), into)
    )
    assert made.codes.tolist() == [[100]]


def test_what_a_layer_holds() -> None:
    """Oracle: by hand: codes and bias in integers, two scales and zero points a layer, and one a channel."""
    into, out = Affine(0.1, 3, *UINT8), Affine(0.2, 4, *UINT8)
    weight = weight_of(np.ones((4, 9), "f4"), np.ones(4, "f4"), into.scale, observer(True))
    layer = QuantizedLinear(weight, np.ones(4, "f4"), into, out)
    held = {name: (str(t.array.dtype), t.shape) for name, t in layer.state_dict().items()}
    assert held == {
        "weight": ("int8", (4, 9)), "bias": ("int32", (4,)),
        "weight_scale": ("float32", (4,)), "weight_zero_point": ("int32", (4,)),
        "input_scale": ("float32", ()), "input_zero_point": ("int32", ()),
        "scale": ("float32", ()), "zero_point": ("int32", ()),
    }  # fmt: skip
    other = QuantizedLinear(QTensor(np.zeros((4, 9), np.int8), weight.affine), np.zeros(4, "f4"), into, out)
    x = QTensor(np.full((1, 9), 20, np.uint8), into)
    assert other(x).codes.tolist() == [[4] * 4]
    other.load_state_dict(layer.state_dict())
    np.testing.assert_array_equal(other(x).codes, layer(x).codes)
    assert layer(x).codes[0, 0] == 4 + round(
        (17 * 0.1 * 9 * 127 / 127.5 + 1) / 0.2
    )  # 1 is cut off at code 127


ONE = Affine(0.1, 3, *UINT8)
CHANNELS = Affine(np.full(2, 0.1), np.zeros(2, np.int32), *INT8, axis=0)
LAST = Affine(np.full(2, 0.1), np.zeros(2, np.int32), *INT8, axis=1)
WEIGHT = QTensor(np.zeros((2, 3), np.int8), CHANNELS)


def zeros(affine: Affine) -> QTensor:
    """Return three zeros in codes."""
    return QTensor.of(np.zeros((1, 3), "f4"), affine)


def linear(weight: QTensor = WEIGHT, bias: Array | None = None, into: Affine = ONE, **rest: Any) -> Any:
    """Return a layer of two features."""
    return QuantizedLinear(weight, bias, into, rest.pop("out", ONE), **rest)


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda: linear(mode="rounded"), SettingError, "unknown mode 'rounded'"),
        (lambda: linear(into=CHANNELS), SettingError, "the input must have one scale"),
        (lambda: linear(out=CHANNELS), SettingError, "the output must have one scale"),
        (lambda: linear(bias=np.ones(3, "f4")), ShapeError, "a bias of 2"),
        (lambda: linear(bias=np.float32([0, np.nan])), SettingError, "channel 1 is nan steps"),
        (lambda: linear(bias=np.float32([0, 2e8])), SettingError, "channel 1 is"),
        (
            lambda: linear(QTensor(np.zeros((3, 2), np.int8), LAST)),
            SettingError, "on axis 0, got 1",
        ),
        (lambda: linear()(np.zeros((1, 3), "f4")), FormatError, "takes codes, got a ndarray of float32"),
        (lambda: linear()(zeros(Affine(0.2, 3, *UINT8))), SettingError, "made for codes"),
        (lambda: linear().half()(zeros(ONE)), SettingError, "scales are float16"),
    ],
)  # fmt: skip
def test_what_a_layer_refuses(make: Any, error: type[Exception], says: str) -> None:
    """Oracle: the message, one for each fault."""
    with pytest.raises(error, match=says):
        make()


def test_a_sum_beyond_int32_is_refused() -> None:
    """Oracle: 2^17 products of 255 and -128 less 127 leave int32; nothing wraps round."""
    deep = 1 << 17
    weight = QTensor(np.full((1, deep), -128, np.int8), Affine(np.ones(1), np.int32([0]), *INT8, axis=0))
    into = Affine(1.0, 0, *UINT8)
    layer = QuantizedLinear(weight, np.float32([-(2.0**30)]), into, Affine(1e4, 255, *UINT8))
    assert layer(QTensor(np.full((1, deep), 60, np.uint8), into)).codes.tolist() == [[0]]
    with pytest.raises(SettingError, match="leaves int32"):
        layer(QTensor(np.full((1, deep), 120, np.uint8), into))


def test_the_rule_of_the_codes_is_kept() -> None:
    """Oracle: each rule's name, through a layer and back."""
    for rule in (each.name for each in RULES.values()):
        out = Affine(0.1, 3, *UINT8, rule=rule)
        assert linear(out=out)(zeros(ONE)).affine.rule == rule
