"""What training rounds and what integers compute: the same codes, but for ties of float32 sums.

The counts are stated here. A code is one of a place that rounds (an input, a layer, a sum, a mean, ...); the
prepared model gives numbers, which are divided by their scale. Where one code differs, those behind it may.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

from minimp import nn
from minimp.nn.module import Module
from minimp.quant.fusion import ConvReLU2d, LinearReLU
from minimp.quant.modules import QuantizedModule
from minimp.quant.qat import disable_observer, freeze_bn_stats
from minimp.quant.static import convert
from minimp.rng import manual_seed
from minimp.tensors import tensor
from tests.quant.qat.samples import LAYERS, Array, batch, codes_of_floats, differences, trained
from tests.quant.static.samples import Residual

WIDTHS = [(8, 8), (3, 3), *(pytest.param(each, marks=pytest.mark.slow) for each in ((4, 4), (2, 8), (2, 2)))]
ONE_IN = {8: 1000, 4: 500, 3: 200, 2: 100}
"""By bits, of so many codes one may differ: float32 sums and whole sums fall on either side of a tie.

Of few codes ties are many, as ranges come from sums of codes: 7 s = N s_x s_w for some whole number N.
"""
FIXED_POINT_ONE_IN = 5
"""Fixed-point multipliers round twice: of a multiplier near 2^-n, one code in 2^(n+1) (n is 3 and less for
codes of 3 bits)."""


def agrees(prepared: Any, converted: Any, x: Array, one_in: int = ONE_IN[8]) -> None:
    """Hold codes to differ by one at most, and one of so many at most."""
    differ, of, far = differences(prepared, converted, x)
    assert far <= 1
    assert differ * one_in <= of


@pytest.mark.parametrize("granularity", ["per-channel", pytest.param("per-tensor", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", LAYERS)
def test_each_layer_to_the_last_code(name: str, granularity: str) -> None:
    """Oracle: the prepared model's numbers, divided by their scales; 8 bits and 3."""
    make, shape = LAYERS[name]
    manual_seed(0)
    model = make()
    for bits in (8, 3):
        x = batch(shape)
        prepared = trained(model, x, steps=2, weight_bits=bits, activation_bits=bits, granularity=granularity)
        agrees(prepared, convert(prepared), batch(shape, seed=1), ONE_IN[bits])
    assert [type(each) for each in model.modules()] == [type(each) for each in make().modules()]


def residual() -> tuple[Module, Array]:
    """Return a model with all kinds of places, in training mode, and a batch."""
    manual_seed(1)
    model = Residual()
    for param in model.parameters():
        param.array = (np.random.default_rng(param.size).normal(size=param.shape) * 0.4).astype(np.float32)
    return model, np.random.default_rng(2).normal(size=(40, 2, 8, 8)).astype(np.float32)


@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize("frozen", [False, True])
def test_a_whole_network(bits: tuple[int, int], frozen: bool) -> None:
    """Oracle: the prepared model; in both modes, whether or not ranges and statistics are frozen."""
    model, x = residual()
    prepared = trained(model, x[:20], weight_bits=bits[0], activation_bits=bits[1])
    if frozen:
        disable_observer(prepared)
        freeze_bn_stats(prepared)
        prepared.train()(tensor(3 * x[20:]))  # moves nothing
    agrees(prepared, convert(prepared), x[20:], ONE_IN[min(bits)])
    differ, of, _ = differences(prepared, convert(prepared, mode="fixed-point"), x[20:])
    assert differ * FIXED_POINT_ONE_IN <= of


def test_the_scales_are_those_of_training() -> None:
    """Oracle: the buffers of each FakeQuantize; codes of 3 bits lie in bytes, and within 3 bits."""
    model, x = residual()
    prepared = trained(model, x, weight_bits=3, activation_bits=3)
    made = convert(prepared)
    for path in ("first.0", "second", "hidden", "last"):
        twin, layer = (each.get_submodule(path) for each in (prepared.model, made.model))
        assert layer.kept("weight_") == twin.weight_fake_quant.affine()
        assert layer.kept("") == twin.activation_post_process.affine()
        assert layer.weight.dtype == np.int8
        assert -4 <= layer.weight.array.min() < layer.weight.array.max() <= 3
        assert (layer.kept("").quant_min, layer.kept("").quant_max) == (0, 7)
    assert made.quantize[0].kept("") == prepared.inputs[0].affine()
    assert made.model.add.kept("") == prepared.model.add.activation_post_process.affine()
    assert max(each.max() for each in codes_of_floats(prepared, x).values()) <= 7
    assert sum(isinstance(each, QuantizedModule) for each in made.model.modules()) == 9


def on_the_grid(prepared: Any) -> None:
    """Give all scales powers of two, all weights a few bits, and biases whole steps."""
    for each in prepared.modules():
        if hasattr(each, "fake_quant_enabled"):
            up = np.exp2(np.round(np.log2(each.scale.array))).astype(np.float32)
            each.scale.array = np.asarray(up)
    for each in prepared.modules():
        if getattr(each, "bias", None) is not None and getattr(each, "source", ()):
            step = each.source[0].scale.array * each.weight_fake_quant.scale.array
            each.bias.array = (np.round(each.bias.array / step) * step).astype(np.float32)


@pytest.mark.parametrize("name", [name for name in LAYERS if "Bn" not in name and "max" not in name])
def test_scales_that_are_powers_of_two(name: str) -> None:
    """Oracle: the prepared model: no code differs, ties among them, as all sums are exact in float32.

    Inputs are steps of the grid, halves of steps among them; zero points are even, as the input's rule takes
    ties to even codes, and that of training to even multiples of the scale.
    """
    make, shape = LAYERS[name]
    manual_seed(3)
    x = batch(shape)
    prepared = trained(make(), x, steps=1)
    disable_observer(prepared)
    on_the_grid(prepared)
    inputs = prepared.inputs[0]
    inputs.zero_point.array = inputs.zero_point.array // 2 * 2
    half = float(inputs.scale.array) / 2
    ties = (np.round(batch(shape, seed=4) / half) * half).astype(np.float32)
    assert (ties / (2 * half) % 1 == 0.5).mean() > 0.3
    assert differences(prepared, convert(prepared), ties)[0] == 0


def test_a_model_that_was_fused_before() -> None:
    """Oracle: the same model, not fused: pairs of a layer and a ReLU come to the same codes."""
    manual_seed(4)
    conv, linear = nn.Conv2d(3, 4, 3), nn.Linear(36, 5)
    apart = nn.Sequential(conv, nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), linear, nn.ReLU())
    pairs = nn.Sequential(
        ConvReLU2d(conv, nn.ReLU()), nn.MaxPool2d(2), nn.Flatten(), LinearReLU(linear, nn.ReLU())
    )
    x = batch((8, 3, 8, 8))
    one, two = (convert(trained(copy.deepcopy(each), x)) for each in (apart, pairs))
    np.testing.assert_array_equal(one(tensor(x)).array, two(tensor(x)).array)


def test_what_stays_in_floats() -> None:
    """Oracle: the prepared model; its weight is not rounded, its output is."""
    manual_seed(5)
    model = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 4), nn.Linear(4, 3))
    x = batch((64, 6))
    for kept in (["0"], ["3"], {"4": "float32", "3": "int8"}):
        given = kept if isinstance(kept, dict) else iter(kept)
        prepared = trained(copy.deepcopy(model), x, keep_float=given)
        made = convert(prepared)
        islands = [path for path, each in made.model.named_modules() if type(each).__name__ == "FloatIsland"]
        assert islands == [next(iter(kept))]
        agrees(prepared, made, batch((64, 6), seed=1))


def test_floats_between_what_stays_in_floats() -> None:
    """Oracle: the prepared model: nothing is rounded from the input to the third layer, nor behind the last.

    All in floats is the float model, to the bit.
    """
    manual_seed(5)
    model = nn.Sequential(
        nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 4), nn.ReLU6(), nn.Linear(4, 8),
        nn.Unflatten(1, (2, 4)), nn.AvgPool1d(2), nn.Flatten(), nn.Linear(4, 3),
    )  # fmt: skip
    x = batch((64, 6))
    prepared = trained(copy.deepcopy(model), x, keep_float=["0", "3", "9"])
    shown = {row.paths[0]: row.output for row in prepared.report}
    assert shown == {"0": "floats", "3": "uint8", "4": "uint8", "5": "uint8", "7": "as '5'", "9": "floats"}
    assert "fake quantisation of 1 weights and 3 activations; 1 rounded again" in str(prepared.report)
    agrees(prepared, convert(prepared), batch((64, 6), seed=1))
    every = trained(copy.deepcopy(model), x, keep_float=["0", "3", "4", "5", "9"])
    y = convert(every)(tensor(x))
    np.testing.assert_array_equal(y.array, every.eval()(tensor(x)).array)
    np.testing.assert_array_equal(y.array, every.to_float()(tensor(x)).array)
