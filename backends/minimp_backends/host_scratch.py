"""The work space that kernels and formats keep on the host for their next call, in this thread."""

from __future__ import annotations

from minimp.formats.accumulation import workspace
from minimp.formats.fast import lanes
from minimp_backends import block_rounding

__all__ = ["kept_bytes"]


def kept_bytes() -> int:
    """Return its bytes: of casts in blocks, of sums by name, and of casts between formats."""
    return block_rounding.kept_bytes() + workspace.kept_bytes() + lanes.kept_bytes()
