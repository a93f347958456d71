"""The reproductions by name."""

from __future__ import annotations

from minimp.named import Named
from minimp.reproductions.bfloat16 import BF16_TRAINING, BF16_UPDATES
from minimp.reproductions.chunked_sums import CHUNKED_SUMS
from minimp.reproductions.flush_to_zero import FLUSH_TO_ZERO
from minimp.reproductions.fp8 import FP8_SCALING
from minimp.reproductions.int8 import INT8_RANGES
from minimp.reproductions.loss_scaling import LOSS_SCALING
from minimp.reproductions.master_weights import MASTER_WEIGHTS
from minimp.reproductions.mx_formats import MX_FORMATS
from minimp.reproductions.promotion import PROMOTION

__all__ = ["REPRODUCTIONS"]

REPRODUCTIONS = Named(
    "reproduction",
    MASTER_WEIGHTS, LOSS_SCALING, FLUSH_TO_ZERO, CHUNKED_SUMS, BF16_TRAINING, BF16_UPDATES, FP8_SCALING,
    MX_FORMATS, PROMOTION, INT8_RANGES,
)  # fmt: skip
"""In the order of `minimp reproduce all`."""
