"""Eight-bit integers and narrower: numbers, ranges, and models that compute with them.

- ``affine``, ``rules``, ``qtensor``: what codes mean, and how scales are chosen. ``observers/``: ranges.
- ``fusion/``: batch norms folded, scales moved between layers.
- ``static``, ``calibration``, ``modules/``: integers from the first layer to the last.
- ``dynamic/``, ``narrow_weights``: weights in a few bits, activations as they come.
"""

from minimp.quant.affine import Affine, choose, dequantize, fake_quantize, quantize
from minimp.quant.dynamic import quantize_dynamic
from minimp.quant.fusion import equalize, fuse, fuse_modules, rescale_channels
from minimp.quant.modules import Add, Cat, DeQuantStub, QuantStub
from minimp.quant.narrow_weights import weight_only
from minimp.quant.observers import (
    EntropyObserver,
    HistogramObserver,
    MinMaxObserver,
    MovingAverageMinMaxObserver,
    MovingAveragePerChannelMinMaxObserver,
    Observer,
    PercentileObserver,
    PerChannelMinMaxObserver,
)
from minimp.quant.qtensor import QTensor
from minimp.quant.rules import RULES, Rule
from minimp.quant.static import Calibration, calibrate, convert

__all__ = [
    "RULES", "Add", "Affine", "Calibration", "Cat", "DeQuantStub", "EntropyObserver", "HistogramObserver",
    "MinMaxObserver", "MovingAverageMinMaxObserver", "MovingAveragePerChannelMinMaxObserver", "Observer",
    "PerChannelMinMaxObserver", "PercentileObserver", "QTensor", "QuantStub", "Rule", "calibrate", "choose",
    "convert", "dequantize", "equalize", "fake_quantize", "fuse", "fuse_modules", "quantize",
    "quantize_dynamic", "rescale_channels", "weight_only",
]  # fmt: skip
