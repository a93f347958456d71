"""The ResNet on codes; oracle: its code, block by block, and the float model."""

from __future__ import annotations

import numpy as np
import pytest

from minimp.models import resnet
from minimp.nn import Module
from minimp.quant.fusion import fuse
from minimp.quant.layer_reports import sqnr
from minimp.quant.modules import QuantizedAdaptiveAvgPool2d, QuantizedAdd, QuantizedConv2d, QuantizedLinear
from minimp.quant.static import calibrate, convert
from minimp.rng import manual_seed
from minimp.tensors import tensor
from tests.quant.static.samples import MODES


@pytest.mark.parametrize("mode", MODES)
def test_a_residual_network_on_codes(mode: str) -> None:
    """Oracle: 9 convolutions, 3 sums with a ReLU, a mean and a head; the float model's results."""
    manual_seed(0)
    model: Module = resnet((2, 8, 8), 5, width=4).eval()
    x = np.random.default_rng(0).normal(size=(32, 2, 8, 8)).astype(np.float32)
    fused, _ = fuse(model, x[:4])
    made = convert(fused, calibrate(fused, [x]), mode=mode)
    kinds = [type(each) for each in made.modules()]
    counts = {QuantizedConv2d: 9, QuantizedAdd: 3, QuantizedAdaptiveAvgPool2d: 1, QuantizedLinear: 1}
    assert {kind: kinds.count(kind) for kind in counts} == counts
    assert all(each.relu for each in made.modules() if isinstance(each, QuantizedAdd))
    assert {each.mode for each in made.modules() if "mode" in vars(each)} == {mode}
    wanted, found = (np.asarray(each(tensor(x)).detach()) for each in (model, made))
    assert sqnr([(wanted, found)]) > 25
