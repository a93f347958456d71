"""Pools of signals, and codes that change places; oracle: the float module on the numbers read back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimp import nn
from minimp.errors import FormatError, MinimpError, SettingError, ShapeError
from minimp.nn.module import Module
from minimp.quant import Affine, QTensor
from minimp.quant.modules import (
    QuantizedAdaptiveAvgPool1d,
    QuantizedAdaptiveAvgPool2d,
    QuantizedAdaptiveMaxPool1d,
    QuantizedAvgPool1d,
    QuantizedAvgPool2d,
    QuantizedConstantPad,
    QuantizedMaxPool1d,
    QuantizedMaxPool2d,
    QuantizedModule,
    QuantizedMove,
    QuantizedZeroPad,
)
from minimp.quant.modules.conversions import CONVERSIONS, MOVES, Place
from minimp.quant.observers import MinMaxObserver
from minimp.quant.static import calibrate, convert
from minimp.tensors import tensor
from tests.quant.static.samples import INT8, MODES, UINT8, Array
from tests.quant.static.test_pointwise import some

HALVES = Affine(0.5, 7, *UINT8)
CHANNELS = Affine(np.ones(2), np.zeros(2, np.int32), *INT8, axis=1)

MOVING: list[tuple[Module, tuple[int, ...]]] = [
    (nn.Flatten(), (2, 3, 4)),
    (nn.Unflatten(1, (2, -1)), (2, 6, 3)),
    (nn.PixelShuffle(2), (2, 8, 3, 5)),
    (nn.PixelUnshuffle(2), (2, 3, 4, 6)),
    (nn.ChannelShuffle(3), (2, 6, 5)),
    (nn.Upsample(scale_factor=2), (2, 3, 5)),
    (nn.Upsample(size=(7, 5)), (1, 2, 3, 4)),
    (nn.Upsample(size=(7, 5), mode="nearest-exact"), (1, 2, 3, 4)),
    (nn.UpsamplingNearest2d(scale_factor=1.7), (1, 2, 6, 5)),
    (nn.ReflectionPad1d((2, 1)), (2, 3, 5)),
    (nn.ReflectionPad2d((1, 2, 0, 3)), (3, 5, 4)),
    (nn.ReplicationPad1d((2, 7)), (2, 3, 5)),
    (nn.ReplicationPad2d(2), (2, 3, 5, 4)),
    (nn.CircularPad1d((2, 1)), (2, 3, 5)),
    (nn.CircularPad2d((1, 2, 0, 3)), (2, 3, 5, 4)),
    (nn.ZeroPad1d((3, -2)), (2, 3, 5)),
    (nn.ZeroPad2d((1, 0, -1, 2)), (2, 3, 5, 4)),
    (nn.MaxPool1d(3, 2, 1), (2, 3, 9)),
    (nn.MaxPool1d(2, ceil_mode=True, dilation=2), (3, 8)),
    (nn.MaxPool2d(2), (3, 6, 5)),
    (nn.AdaptiveMaxPool1d(4), (2, 3, 9)),
    (nn.AdaptiveMaxPool1d(None), (3, 9)),
    (nn.AdaptiveMaxPool2d((3, None)), (2, 3, 7, 4)),
    (nn.AdaptiveMaxPool2d(2), (3, 7, 4)),
    (nn.AlphaDropout(0.3), (4, 5)),
]
"""Modules that move codes or choose among them, and the shape of an input."""


def built(module: Module, into: Affine = HALVES, out: Affine | None = None, mode: str = "float") -> Module:
    """Return a module on codes by its row."""
    return CONVERSIONS[type(module)].build(module, Place((into,), out or into, MinMaxObserver, mode))


def read(module: Module, q: QTensor) -> Array:
    """Return what a float module makes of the numbers."""
    return np.asarray(module.eval()(tensor(q.dequantize())).array)


@pytest.mark.parametrize(("module", "shape"), MOVING, ids=lambda case: type(case).__name__)
@pytest.mark.parametrize("codes", [UINT8, INT8])
def test_moving_commutes_with_reading(module: Module, shape: tuple[int, ...], codes: tuple[int, int]) -> None:
    """Oracle: the float module on the numbers read back, every one exactly; scale and zero point stay."""
    q = some(shape, Affine(0.5, 7, *codes))
    made = built(module)(q)
    assert made.affine == q.affine
    assert made.codes.dtype == q.codes.dtype
    np.testing.assert_array_equal(made.dequantize(), read(module, q))
    assert CONVERSIONS[type(module)].keeps


def test_every_module_that_moves_is_here() -> None:
    """Oracle: the rows of conversions."""
    assert set(MOVES) <= {type(module) for module, _ in MOVING}


@given(st.integers(0, 2**32 - 1), st.floats(2.0**-10, 2.0**10, width=32), st.integers(0, 255))
def test_maxima_commute_with_reading(seed: int, scale: float, zero: int) -> None:
    """Law: the largest code stands for the largest number, whatever scale and zero point."""
    q = some((2, 3, 11), Affine(scale, zero, *UINT8), seed)
    for module in (nn.MaxPool1d(3, 2, 1), nn.AdaptiveMaxPool1d(4)):
        np.testing.assert_array_equal(built(module)(q).dequantize(), read(module, q))


# ---- means of signals --------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(1, 3), st.booleans(), st.booleans())
def test_means_of_signals(mode: str, seed: int, kernel: int, stride: int, ceil: bool, counted: bool) -> None:
    """Law: those of images of height 1; half a code from the float module's."""
    q = some((2, 3, 9), Affine(0.5, 7, *INT8), seed)
    how = (stride, kernel // 2, ceil, counted)
    made = QuantizedAvgPool1d(kernel, *how, mode=mode)(q)
    image = QTensor(q.codes[:, :, None], q.affine)
    flat = QuantizedAvgPool2d((1, kernel), (1, stride), (0, kernel // 2), ceil, counted, mode=mode)(image)
    np.testing.assert_array_equal(made.codes, flat.codes[:, :, 0])
    wanted = read(nn.AvgPool1d(kernel, *how), q)
    assert np.abs(made.dequantize() - wanted).max() <= 0.25 + 2.0**-18


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [1, 3, (4,), None, 9])
def test_adaptive_means_of_signals(mode: str, size: Any) -> None:
    """Law: those of images of height 1; half a code from the float module's; (C, L) is a batch of one."""
    q = some((2, 3, 9))
    pool = QuantizedAdaptiveAvgPool1d(size, mode=mode)
    made = pool(q)
    length = size[0] if isinstance(size, tuple) else size
    flat = QuantizedAdaptiveAvgPool2d((1, length), mode=mode)(QTensor(q.codes[:, :, None], q.affine))
    np.testing.assert_array_equal(made.codes, flat.codes[:, :, 0])
    assert np.abs(made.dequantize() - read(nn.AdaptiveAvgPool1d(size), q)).max() <= 0.25 + 2.0**-18
    np.testing.assert_array_equal(pool(QTensor(q.codes[0], q.affine)).codes, made.codes[0])


# ---- a border of one value ---------------------------------------------------------------------------------


@given(
    st.integers(0, 2**32 - 1), st.floats(-9, 9), st.integers(0, 2), st.integers(-1, 2),
    st.floats(2.0**-7, 0.25, width=32), st.integers(0, 255),
)  # fmt: skip
def test_a_border_of_a_value(seed: int, value: float, left: int, right: int, scale: float, zero: int) -> None:
    """Oracle: the float module's numbers, each half a step away where the output's range holds it."""
    module, out = nn.ConstantPad1d((left, right), value), Affine(scale, zero, *UINT8)
    q = some((2, 3, 5), Affine(0.07, 100, *UINT8), seed)
    made = built(module, q.affine, out)(q)
    assert made.affine == out
    wanted = np.clip(read(module, q), out.low, out.high)
    assert np.abs(made.dequantize() - wanted).max() <= float(out.scale) * (0.5 + 2.0**-16)
    same = built(module, q.affine)(q)
    kept = 5 + min(right, 0)
    np.testing.assert_array_equal(same.codes[..., left : left + kept], q.codes[..., :kept])


def test_a_border_holds_its_code() -> None:
    """Oracle: by hand: a value beyond the input's range, in codes that hold it, also by a state dict."""
    q = some((1, 1, 4), Affine(0.01, 128, *UINT8))
    pad = QuantizedConstantPad(q.affine, Affine(0.1, 0, *UINT8), (2, 0), 20.0)
    assert pad(q).codes[0, 0, :2].tolist() == [200, 200]
    other = QuantizedConstantPad(q.affine, Affine(0.3, 5, *UINT8), (2, 0), 20.0)
    other.load_state_dict(pad.state_dict())
    np.testing.assert_array_equal(other(q).codes, pad(q).codes)


@pytest.mark.parametrize("mode", MODES)
def test_in_a_model(mode: str) -> None:
    """Oracle: the float model, two steps of the last codes away."""
    rng = np.random.default_rng(3)
    model = nn.Sequential(
        nn.Conv2d(2, 8, 3), nn.ConstantPad2d(1, -3.0), nn.MaxPool2d(2), nn.PixelShuffle(2),
        nn.Upsample(scale_factor=2), nn.ZeroPad2d(1), nn.AdaptiveMaxPool2d(5), nn.Flatten(2),
        nn.AvgPool1d(2), nn.MaxPool1d(2),
    ).eval()  # fmt: skip
    x = rng.normal(size=(20, 2, 10, 10)).astype(np.float32)
    seen = calibrate(model, [x], activation=lambda: MinMaxObserver(quant_min=-128, quant_max=127))
    made: Any = convert(model, seen, mode=mode)
    y, q = (np.asarray(each(tensor(x)).detach().array) for each in (model, made))
    assert float(seen.affine("1").low) <= -3
    assert np.abs(y - q).max() < 2 * float(seen.affine("1").scale)
    assert not any(type(each) is nn.MaxPool2d for each in made.modules())


# ---- what cannot be ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "module",
    [
        QuantizedMove(nn.PixelShuffle(1)), QuantizedZeroPad((1, 1)), QuantizedMaxPool1d(1),
        QuantizedAvgPool1d(1), QuantizedAdaptiveMaxPool1d(1), QuantizedAdaptiveAvgPool1d(1),
        QuantizedMaxPool2d(1),
    ],
    ids=lambda module: type(module).__name__,
)  # fmt: skip
def test_what_all_refuse(module: QuantizedModule) -> None:
    """Oracle: the message: floats, codes with channels."""
    with pytest.raises(FormatError, match="takes codes, got a"):
        module(np.zeros((1, 2, 2), "f4"))
    with pytest.raises(SettingError, match="takes codes of one scale"):
        module(some((1, 2, 2), CHANNELS))


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (
            lambda: QuantizedMaxPool1d(2)(some((2, 2, 2, 2))),
            ShapeError,
            r"takes \(N, C, L\) or \(C, L\), got",
        ),
        (
            lambda: QuantizedAvgPool2d(2)(some((2, 2))),
            ShapeError,
            r"takes \(N, C, H, W\) or \(C, H, W\), got",
        ),
        (lambda: QuantizedMaxPool1d(9)(some((2, 2, 4))), ShapeError, "have no place in images"),
        (lambda: QuantizedMove(nn.PixelShuffle(2))(some((2, 3, 4, 4))), ShapeError, "C a multiple of 4"),
        (
            lambda: built(nn.MaxPool1d(2, return_indices=True)),
            SettingError,
            "a MaxPool1d with return_indices",
        ),
        (
            lambda: built(nn.AdaptiveMaxPool2d(2, True)),
            SettingError,
            "a AdaptiveMaxPool2d with return_indices",
        ),
        (lambda: built(nn.Upsample(size=3, mode="linear")), SettingError, "an Upsample with mode='linear'"),
    ],
)
def test_refusals(call: Any, error: type[MinimpError], says: str) -> None:
    """Oracle: the message, one for each fault."""
    with pytest.raises(error, match=says):
        call()
