"""Eight-bit integers and narrower: numbers, ranges, and models that compute with them.

- ``affine``, ``rules``, ``qtensor``: what codes mean, and how scales are chosen. ``observers/``: ranges.
- ``fusion/``: batch norms folded, scales moved between layers.
- ``static``, ``calibration``, ``modules/``: integers from the first layer to the last.
- ``dynamic/``, ``narrow_weights``: weights in a few bits, activations as they come.
- ``qat/``: training with the roundings of the integer model. Its layers have the names of those in nn, and
  stay there: ``mp.quant.qat.Linear``.
- ``sensitivity/``: which layer hurts, and what to do about it.
- ``saving/``, ``onnx_export/``: models on codes as files, our own and other engines'.
"""

from minimp.quant import qat
from minimp.quant.affine import Affine, choose, dequantize, fake_quantize, quantize
from minimp.quant.dynamic import quantize_dynamic
from minimp.quant.fusion import equalize, fuse, fuse_modules, rescale_channels
from minimp.quant.modules import Add, Cat, DeQuantStub, Mul, QuantStub, Sub
from minimp.quant.narrow_weights import weight_only
from minimp.quant.observers import (
    EntropyObserver,
    GivenObserver,
    HistogramObserver,
    MinMaxObserver,
    MovingAverageMinMaxObserver,
    MovingAveragePerChannelMinMaxObserver,
    Observer,
    PercentileObserver,
    PerChannelMinMaxObserver,
)
from minimp.quant.onnx_export import export_onnx, verify
from minimp.quant.qat import (
    FakeQuantize,
    FixedQParamsFakeQuantize,
    PreparedModel,
    QATSchedule,
    disable_fake_quant,
    disable_observer,
    enable_fake_quant,
    enable_observer,
    freeze_bn_stats,
    prepare_qat,
    update_bn_stats,
)
from minimp.quant.qtensor import QTensor
from minimp.quant.rules import RULES, Rule
from minimp.quant.saving import load, save
from minimp.quant.sensitivity import assign, correct_bias, saturate, sweep
from minimp.quant.static import Calibration, calibrate, convert

__all__ = [
    "RULES", "Add", "Affine", "Calibration", "Cat", "DeQuantStub", "EntropyObserver", "FakeQuantize",
    "FixedQParamsFakeQuantize", "GivenObserver", "HistogramObserver", "MinMaxObserver",
    "MovingAverageMinMaxObserver", "MovingAveragePerChannelMinMaxObserver", "Mul", "Observer",
    "PerChannelMinMaxObserver", "PercentileObserver", "PreparedModel", "QATSchedule", "QTensor", "QuantStub",
    "Rule", "Sub", "assign", "calibrate", "choose", "convert", "correct_bias", "dequantize",
    "disable_fake_quant", "disable_observer", "enable_fake_quant", "enable_observer", "equalize",
    "export_onnx", "fake_quantize", "freeze_bn_stats", "fuse", "fuse_modules", "load", "prepare_qat", "qat",
    "quantize", "quantize_dynamic", "rescale_channels", "saturate", "save", "sweep", "update_bn_stats",
    "verify", "weight_only",
]  # fmt: skip
