"""The reproductions by name."""

from __future__ import annotations

from minimp.named import Named
from minimp.reproductions.loss_scaling import LOSS_SCALING
from minimp.reproductions.master_weights import MASTER_WEIGHTS

__all__ = ["REPRODUCTIONS"]

REPRODUCTIONS = Named("reproduction", MASTER_WEIGHTS, LOSS_SCALING)
"""In the order of `minimp reproduce all`."""
