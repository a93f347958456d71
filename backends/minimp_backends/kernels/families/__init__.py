"""The kernels' declarations, one file a family, each with a tuple KERNELS."""

from minimp_backends.kernels.families import (
    activations,
    attention,
    casts,
    checking,
    embedding,
    losses,
    rows,
    statistics,
    sums,
    unscaling,
    updates,
)

FAMILIES = (
    activations, attention, checking, casts, embedding, losses, rows, statistics, sums, unscaling, updates
)  # fmt: skip

__all__ = ["FAMILIES"]
