"""Modules on codes at their edges: scales far apart, images without rows, sizes and values that are none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from minimp import nn
from minimp.errors import DataError, MinimpError, SettingError, ShapeError
from minimp.quant import Affine, QTensor
from minimp.quant.modules import (
    QuantizedAdaptiveAvgPool2d,
    QuantizedAdaptiveMaxPool1d,
    QuantizedAdaptiveMaxPool2d,
    QuantizedAdd,
    QuantizedCat,
    QuantizedConstantPad,
    QuantizedConvTranspose2d,
    QuantizedFlatten,
    QuantizedLinear,
    QuantizedMul,
    weight_of,
)
from minimp.quant.observers import HistogramObserver, MinMaxObserver
from minimp.quant.sensitivity.measuring import Batch, decibels, scored
from minimp.quant.static import calibrate, convert
from minimp.tensors import tensor
from minimp_backends.integer_layers import integer_add, integer_avg_pool2d
from tests.quant.static.samples import MODES


def numbers(scale: float = 0.5, zero: int = 3) -> Affine:
    """Return the numbers of uint8 codes."""
    return Affine(np.float32(scale), zero, 0, 255)


def codes(*shape: int, scale: float = 0.5, value: int = 7) -> QTensor:
    """Return one code many times."""
    return QTensor(np.full(shape, value, np.uint8), numbers(scale))


def weights(scale: float, *shape: int) -> QTensor:
    """Return weights of code 100."""
    return QTensor(np.full(shape, 100, np.int8), Affine(np.float32(scale), 0, -128, 127))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("scales", [(1e-30, 1e-30, 2e-58), (1e30, 1e10, 3e38), (2.0**-120, 2e-6, 2e-38)])
def test_products_of_scales_beyond_float32(mode: str, scales: tuple[float, float, float]) -> None:
    """Oracle: the quotient in float64: s_x s_w has no float32 number, or one of few digits."""
    x, w, s = (np.float64(np.float32(max(each, 2.0**-126))) for each in scales)
    made = QuantizedLinear(weights(float(w), 1, 4), None, numbers(float(x)), numbers(float(s)), mode=mode)
    np.testing.assert_allclose(made.multiplier(), x * w / s, rtol=2.0**-23)


def too_far() -> list[tuple[str, Callable[[], Any]]]:
    """Return what cannot be made: (class, call)."""
    far, near = numbers(1e20), numbers(1e-20)
    return [
        ("QuantizedLinear", lambda: QuantizedLinear(weights(1.0, 2, 3), None, far, near)),
        ("QuantizedLinear", lambda: QuantizedLinear(weights(1e30, 2, 3), None, far, numbers(1.0))),
        ("QuantizedAdd", lambda: QuantizedAdd(near, far, near)),
        ("QuantizedMul", lambda: QuantizedMul(far, far, far)),
        ("QuantizedCat", lambda: QuantizedCat([near, far], near)),
    ]


@pytest.mark.parametrize(("name", "make"), too_far())
def test_scales_too_far_apart_are_refused_at_once(name: str, make: Callable[[], Any]) -> None:
    """Oracle: the error: its op, and the words; nothing is warned of."""
    with pytest.raises(SettingError, match="2\\^31 are too many") as caught:
        make()
    assert caught.value.op == name


def test_the_kernel_says_which_scales() -> None:
    """Oracle: the words: they are finite and positive, and too far apart."""
    one = np.ones(1, np.uint8)
    with pytest.raises(SettingError, match="below 2\\^31 times that of the result"):
        integer_add(one, one, (1e20, 1.0, 1e-20), (0, 0, 0), 0, 255)


def test_what_cannot_be_joined_is_not_called_a_shape() -> None:
    """Oracle: shapes that differ, and an axis that is not there, are the only errors of shapes."""
    cat = QuantizedCat([numbers(), numbers()], numbers(), 0)
    with pytest.raises(ShapeError, match="cannot join"):
        cat(codes(2, 3), codes(2, 4))
    with pytest.raises(ShapeError, match="along axis 5"):
        QuantizedCat([numbers()], numbers(), 5)(codes(2))


@pytest.mark.parametrize("size", [0, -1, (2, 2, 2), 1.5, (0, None)])
def test_sizes_of_adaptive_pools(size: Any) -> None:
    """Oracle: what the float module refuses: 0 is no length to keep."""
    for kind in (QuantizedAdaptiveAvgPool2d, QuantizedAdaptiveMaxPool2d):
        with pytest.raises(SettingError, match="output_size"):
            kind(size)
    with pytest.raises(MinimpError):
        nn.AdaptiveAvgPool2d(size)(tensor(np.zeros((1, 2, 4, 4), np.float32)))


def test_images_without_rows() -> None:
    """Oracle: an error of shapes; a batch of nothing gives nothing."""
    for kind in (QuantizedAdaptiveAvgPool2d, QuantizedAdaptiveMaxPool2d):
        with pytest.raises(ShapeError, match=r"no windows in images of \(0, 4\)"):
            kind(2)(codes(1, 2, 0, 4))
        assert kind(2)(codes(0, 2, 4, 4)).shape == (0, 2, 2, 2)
    assert QuantizedAdaptiveMaxPool1d(None)(codes(1, 2, 5)).shape == (1, 2, 5)


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_the_mean_of_a_window_whose_sum_leaves_int32(mode: str) -> None:
    """Oracle: by hand: 9 million codes of 255."""
    x = np.full((1, 1, 3000, 3000), 255, np.uint8)
    assert integer_avg_pool2d(x, 3000, zero_point=1, mode=mode).item() == 255


def test_one_number_is_flattened() -> None:
    """Oracle: the float module: () -> (1,)."""
    for ends in ((0, -1), (0, 0), (-1, -1)):
        assert (
            QuantizedFlatten(*ends)(codes()).shape == nn.Flatten(*ends)(tensor(np.float32(1))).shape == (1,)
        )
    with pytest.raises(ShapeError, match="cannot join axes 1"):
        QuantizedFlatten()(codes())


def test_a_border_has_a_number() -> None:
    """Oracle: NaN is refused; infinity is the last code."""
    with pytest.raises(SettingError, match="NaN has no code"):
        QuantizedConstantPad(numbers(), numbers(), (1, 1), float("nan"))
    made = QuantizedConstantPad(numbers(), numbers(), (1, 1), float("inf"))(codes(1, 2))
    assert made.codes.tolist() == [[255, 7, 7, 255]]


def test_an_accumulation_that_cannot_act() -> None:
    """Oracle: the error; in int32 it runs."""
    layer = QuantizedConvTranspose2d(weights(0.1, 2, 3, 2, 2), None, numbers(), numbers(10.0))
    assert layer(codes(1, 3, 2, 2)).shape == (1, 2, 3, 3)
    layer.accumulate = "int16-saturating"
    with pytest.raises(SettingError, match="adds up in int32 alone"):
        layer(codes(1, 3, 2, 2))


def test_a_bias_beyond_all_scales() -> None:
    """Oracle: the error in words: no float32 scale makes room for it."""
    with pytest.raises(SettingError, match="and finite, got inf"):
        weight_of(np.ones((2, 3), np.float32), np.float32([3e38, 1]), np.float32(1e-30), MinMaxObserver())


# ---- calibration and measuring -----------------------------------------------------------------------------


def test_a_range_wider_than_float32() -> None:
    """Oracle: the error; the observer stays as it was, histogram and all."""
    observer = HistogramObserver()
    observer.observe(np.float32([1, 2]))
    before = repr(observer.state_dict())
    with pytest.raises(DataError, match="further apart than float32 reaches"):
        observer.observe(np.float32([-3e38, 3e38]))
    assert repr(observer.state_dict()) == before


def test_batches_with_other_inputs() -> None:
    """Oracle: the error names the batch."""

    class Several(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 2)

        def forward(self, *inputs: Any) -> Any:
            return self.layer(inputs[0])

    x = np.ones((3, 2), np.float32)
    with pytest.raises(DataError, match="batch 2 has 2 inputs of floats, the first had 1"):
        calibrate(Several().eval(), [(x,), (x, x)], inputs_of=lambda batch: batch)


def test_errors_name_their_op_once() -> None:
    """Oracle: the first words."""
    model = nn.Sequential(nn.Conv2d(1, 2, 2, padding="same"), nn.Conv2d(2, 2, 1)).eval()
    x = np.random.default_rng(0).normal(size=(3, 1, 4, 4)).astype(np.float32)
    with pytest.raises(SettingError, match=r"^convert: '0': a Conv2d with uneven padding"):
        convert(model, calibrate(model, [x]))
    x[0, 0, 0, 0] = np.nan
    with pytest.raises(DataError, match=r"^calibrate: input 0 of batch 1: 1 of 48 values are NaN"):
        calibrate(model, [x])


def test_noise_that_is_no_number() -> None:
    """Oracle: by hand: infinities of float16 are the worst that can be."""
    assert [decibels(1.0, each) for each in (np.inf, np.nan, 0.0)] == [-np.inf, -np.inf, np.inf]
    batches = [Batch((), None)]
    worst = [np.float32([[np.inf, np.nan]])]
    assert scored(lambda y, _: float(y.mean()), worst, batches, "test") == -np.inf
    with pytest.raises(DataError, match="gives NaN"):
        scored(lambda y, _: np.nan, [np.ones((1, 2), np.float32)], batches, "test")
