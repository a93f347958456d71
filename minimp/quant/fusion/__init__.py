"""Fewer, better behaved layers for the same function: fusing, and moving scale between layers.

Batch normalisation in evaluation is a factor and a term for each channel, which the layer before it can take
over (:func:`fuse`, :func:`fuse_modules`). Between two layers scale can be moved, so that the channels of each
weight have ranges alike (:func:`equalize`), or unlike, to see what that costs (:func:`rescale_channels`).
"""

from minimp.quant.fusion.equalization import equalize, rescale_channels
from minimp.quant.fusion.folding import fold_batch_norm
from minimp.quant.fusion.fusing import fuse, fuse_modules
from minimp.quant.fusion.intrinsic import (
    BNReLU1d,
    BNReLU2d,
    BNReLU3d,
    ConvReLU1d,
    ConvReLU2d,
    LinearReLU,
)
from minimp.quant.fusion.patterns import PATTERNS, Pattern
from minimp.quant.fusion.reports import FusionReport, FusionRow, ScalingReport, ScalingRow

__all__ = [
    "PATTERNS", "BNReLU1d", "BNReLU2d", "BNReLU3d", "ConvReLU1d", "ConvReLU2d", "FusionReport", "FusionRow",
    "LinearReLU", "Pattern", "ScalingReport", "ScalingRow", "equalize", "fold_batch_norm", "fuse",
    "fuse_modules", "rescale_channels",
]  # fmt: skip
