"""The registry as the tests walk it: by kernel, and by source with its kernels."""

from __future__ import annotations

from collections import defaultdict

from minimp_backends.kernels.declaring import Kernel
from minimp_backends.kernels.registry import KERNELS

__all__ = ["NAMES", "SOURCES", "kernels_of"]

NAMES = sorted(KERNELS)
_BY_SOURCE: dict[str, list[Kernel]] = defaultdict(list)
for _kernel in KERNELS.values():
    _BY_SOURCE[_kernel.source].append(_kernel)
SOURCES = sorted(_BY_SOURCE)


def kernels_of(source: str) -> tuple[Kernel, ...]:
    """Return the kernels that a .cu file defines."""
    return tuple(_BY_SOURCE[source])
