"""Eight-bit integers and narrower: what the codes mean, and how their scales are found."""

from minimp.quant.affine import Affine, choose, dequantize, fake_quantize, quantize
from minimp.quant.qtensor import QTensor
from minimp.quant.rules import RULES, Rule

__all__ = ["RULES", "Affine", "QTensor", "Rule", "choose", "dequantize", "fake_quantize", "quantize"]
