"""What NVRTC makes of a kernel source, kept in the store."""

from __future__ import annotations

from typing import Literal

from minimp_backends.kernels import nvrtc
from minimp_backends.kernels.sources import Source
from tests.kernels.store import kept

__all__ = ["CHIPS", "PLAIN_CHIP", "image", "ptx"]

CHIPS = (75, 80, 86, 89, 90, 100, 120)
"""Turing, Ampere (A100, and the small ones), Ada, Hopper, Blackwell (B200, and the small ones)."""
PLAIN_CHIP = 90
"""What the plain suite compiles for; the slow one compiles for every chip."""


def image(source: Source, chip: int, kind: Literal["ptx", "cubin"]) -> bytes:
    """Return the PTX or cubin of a source for a chip; a warning is an error."""
    compiler = nvrtc.compiler()
    key = compiler.key(source, chip, kind)
    return kept(
        f"{key}.{kind}",
        lambda path: (
            path.write_bytes(compiler.compile(source, chip, kind, warnings_are_errors=True)) and None
        ),
    ).read_bytes()


def ptx(source: Source, chip: int) -> str:
    """Return the PTX text of a source for a chip."""
    return image(source, chip, "ptx").decode()
