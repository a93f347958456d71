"""Eight-bit integers and narrower: what the codes mean, and how their scales are found."""

from minimp.quant.affine import Affine, choose, dequantize, fake_quantize, quantize
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

__all__ = [
    "RULES", "Affine", "EntropyObserver", "HistogramObserver", "MinMaxObserver", "MovingAverageMinMaxObserver",
    "MovingAveragePerChannelMinMaxObserver", "Observer", "PerChannelMinMaxObserver", "PercentileObserver",
    "QTensor", "Rule", "choose", "dequantize", "fake_quantize", "quantize",
]  # fmt: skip
