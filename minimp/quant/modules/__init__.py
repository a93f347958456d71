"""Modules that work on codes: QTensor in, QTensor out, and nothing but integers between."""

from minimp.quant.modules.base import QuantizedModule
from minimp.quant.modules.layers import QuantizedConv2d, QuantizedLinear, weight_of
from minimp.quant.modules.pointwise import (
    QuantizedAdaptiveAvgPool2d,
    QuantizedAdd,
    QuantizedAvgPool2d,
    QuantizedCat,
    QuantizedFlatten,
    QuantizedMaxPool2d,
    QuantizedReLU,
)
from minimp.quant.modules.stubs import Add, Cat, DeQuantize, DeQuantStub, FloatIsland, Quantize, QuantStub

__all__ = [
    "Add", "Cat", "DeQuantStub", "DeQuantize", "FloatIsland", "QuantStub", "Quantize",
    "QuantizedAdaptiveAvgPool2d", "QuantizedAdd", "QuantizedAvgPool2d", "QuantizedCat", "QuantizedConv2d",
    "QuantizedFlatten", "QuantizedLinear", "QuantizedMaxPool2d", "QuantizedModule", "QuantizedReLU",
    "weight_of",
]  # fmt: skip
