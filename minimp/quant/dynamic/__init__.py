"""Dynamic quantisation: int8 weights made once, uint8 activations in each call, exact int32 sums between.

- ``products``: the one product that all layers share. ``layers``, ``recurrent``: the layers. ``converting``:
  the layers of a whole model.
"""

from minimp.quant.dynamic.converting import quantize_dynamic
from minimp.quant.dynamic.layers import (
    DynamicQuantizedEmbedding,
    DynamicQuantizedLinear,
    DynamicQuantizedMultiheadAttention,
)
from minimp.quant.dynamic.products import Arithmetic, dynamic_linear
from minimp.quant.dynamic.recurrent import DynamicQuantizedGRU, DynamicQuantizedLSTM, DynamicQuantizedRNN

__all__ = [
    "Arithmetic", "DynamicQuantizedEmbedding", "DynamicQuantizedGRU", "DynamicQuantizedLSTM",
    "DynamicQuantizedLinear", "DynamicQuantizedMultiheadAttention", "DynamicQuantizedRNN", "dynamic_linear",
    "quantize_dynamic",
]  # fmt: skip
