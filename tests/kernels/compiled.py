"""What NVRTC makes of a kernel source, kept in the store."""

from __future__ import annotations

import functools
from typing import Literal

from minimp_backends.kernels import nvrtc
from minimp_backends.kernels.sources import Source
from tests.kernels.ptx.parsing import Entry, parse
from tests.kernels.store import kept

__all__ = ["CHIPS", "PLAIN_CHIP", "entries", "image", "ptx"]

CHIPS = (75, 80, 86, 89, 90, 100, 120)
"""Turing, Ampere (A100, and the small ones), Ada, Hopper, Blackwell (B200, and the small ones)."""
PLAIN_CHIP = 100
"""What the plain suite compiles for: NVRTC 12.9 is five times as fast for it as for earlier chips.

The slow suite compiles for every chip.
"""


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


@functools.lru_cache(maxsize=8)  # each test asks for one kernel of a text that may be 400 KB
def _parsed(text: str) -> dict[str, Entry]:
    return parse(text)


def entries(source: Source, chip: int) -> dict[str, Entry]:
    """Return the entries of a source's PTX for a chip, by name; they may not be changed."""
    return _parsed(ptx(source, chip))
