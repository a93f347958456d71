"""Modules that work on codes: QTensor in, QTensor out, and nothing but integers between."""

from minimp.quant.modules.base import QuantizedModule
from minimp.quant.modules.layers import (
    QuantizedConv1d,
    QuantizedConv2d,
    QuantizedConvTranspose1d,
    QuantizedConvTranspose2d,
    QuantizedLinear,
    weight_of,
)
from minimp.quant.modules.moving import (
    QuantizedConstantPad,
    QuantizedFlatten,
    QuantizedMove,
    QuantizedZeroPad,
)
from minimp.quant.modules.pointwise import (
    QuantizedAdd,
    QuantizedCat,
    QuantizedMul,
    QuantizedReLU,
    QuantizedSub,
)
from minimp.quant.modules.pools import (
    QuantizedAdaptiveAvgPool1d,
    QuantizedAdaptiveAvgPool2d,
    QuantizedAdaptiveMaxPool1d,
    QuantizedAdaptiveMaxPool2d,
    QuantizedAvgPool1d,
    QuantizedAvgPool2d,
    QuantizedMaxPool1d,
    QuantizedMaxPool2d,
)
from minimp.quant.modules.stubs import (
    Add,
    Cat,
    DeQuantize,
    DeQuantStub,
    FloatIsland,
    Mul,
    Quantize,
    QuantStub,
    Sub,
)
from minimp.quant.modules.tables import QuantizedSoftmax, QuantizedTable

__all__ = [
    "Add", "Cat", "DeQuantStub", "DeQuantize", "FloatIsland", "Mul", "QuantStub", "Quantize",
    "QuantizedAdaptiveAvgPool1d", "QuantizedAdaptiveAvgPool2d", "QuantizedAdaptiveMaxPool1d",
    "QuantizedAdaptiveMaxPool2d", "QuantizedAdd", "QuantizedAvgPool1d", "QuantizedAvgPool2d", "QuantizedCat",
    "QuantizedConstantPad", "QuantizedConv1d", "QuantizedConv2d", "QuantizedConvTranspose1d",
    "QuantizedConvTranspose2d", "QuantizedFlatten", "QuantizedLinear", "QuantizedMaxPool1d",
    "QuantizedMaxPool2d", "QuantizedModule", "QuantizedMove", "QuantizedMul", "QuantizedReLU",
    "QuantizedSoftmax", "QuantizedSub", "QuantizedTable", "QuantizedZeroPad", "Sub", "weight_of",
]  # fmt: skip
