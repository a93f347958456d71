"""The kernels' declarations, one file a family, each with a tuple KERNELS."""

from minimp_backends.kernels.families import checking

FAMILIES = (checking,)

__all__ = ["FAMILIES"]
