"""The kernels' declarations, one file a family, each with a tuple KERNELS."""

from minimp_backends.kernels.families import casts, checking, embedding, unscaling, updates

FAMILIES = (checking, casts, embedding, unscaling, updates)

__all__ = ["FAMILIES"]
