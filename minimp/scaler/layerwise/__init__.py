"""Adaptive layer-wise loss scaling: each layer scales its gradient by a power of two of its own."""

from minimp.scaler.layerwise.report import LayerRow, LayerwiseReport
from minimp.scaler.layerwise.scaler import LayerwiseScaler

__all__ = ["LayerRow", "LayerwiseReport", "LayerwiseScaler"]
