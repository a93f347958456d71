"""Every kernel there is, by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from minimp_backends.kernels.declaring import Kernel, Launch, Parameter
from minimp_backends.kernels.families import FAMILIES

__all__ = ["KERNELS", "Kernel", "Launch", "Parameter"]

KERNELS: Mapping[str, Kernel] = MappingProxyType(
    {kernel.name: kernel for family in FAMILIES for kernel in family.KERNELS}
)
"""Name -> kernel, over all families."""
