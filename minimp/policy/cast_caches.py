"""What an autocast region does with the casts of its weights: the choices, as data."""

from __future__ import annotations

from dataclasses import dataclass
from textwrap import wrap

from minimp.named import Named

__all__ = ["CastCache", "CastCaches", "caches"]

WIDTH = 100


@dataclass(frozen=True, slots=True)
class CastCache:
    """A rule for the casts of float32 leaves that require a gradient to a region's format.

    Attributes:
        name: the choice, as `mp.autocast(cache=...)` takes it.
        source: whose rule it is, and of which version.
        meaning: what it does, and what that does to gradients.
        held: a cast is kept, and handed to every later use as the same node.
        per_format: a tensor has one cast for each format, else one at most: a cast to a second format takes
            its place.
        recorded: a cast that is kept is recorded also where it is made under no_grad.
        checked: a cast is handed out only in the format asked for, and only while its tensor has the array
            that was cast. (False is PyTorch's way, and has no name here: `faithful=True`.)
    """

    name: str
    source: str
    meaning: str
    held: bool = True
    per_format: bool = False
    recorded: bool = True
    checked: bool = True


class CastCaches(Named[CastCache]):
    """The choices by name."""

    def __init__(self, *rows: CastCache) -> None:
        super().__init__("cast cache", *rows)

    def __str__(self) -> str:
        """Show the choices within 100 columns."""
        lines = []
        for row in self.values():
            lines += [f"{row.name} ({row.source})"]
            lines += wrap(row.meaning, WIDTH, initial_indent="  ", subsequent_indent="  ")
        return "\n".join(lines)


caches = CastCaches(
    CastCache(
        "torch", "PyTorch 2.13.0",
        "One cast of each weight at a time, one node for all its uses, so that their gradients add up in the "
        "low format: 256 + 1 -> 256 in bfloat16. It is recorded even if no_grad is in force where it is made "
        "first. A use in another low format takes its place.",
    ),
    CastCache(
        "none", "PyTorch's cache_enabled=False",
        "Every use casts anew, and gradients add up in float32: 256 + 1 -> 257.",
        held=False,
    ),
    CastCache(
        "torch-before-2.13", "PyTorch up to 2.12; changed by pytorch#165068",
        "As torch, but a cast first made under no_grad is kept as it is, without a gradient: a later use in "
        "the region trains on, and its weight gets no gradient from it (pytorch#65766, #105211, #112583, "
        "#142234, #158232).",
        recorded=False,
    ),
    CastCache(
        "per-dtype", "minimp",
        "As torch, with a cast for each format: regions in two low formats, one inside the other, keep both "
        "of a weight's casts.",
        per_format=True,
    ),
)  # fmt: skip
"""The choices by name."""
