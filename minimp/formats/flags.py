"""What happened to the numbers on the way: counts in the sense of IEEE 754's status flags."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from minimp.errors import SettingError

__all__ = ["Flags", "check_flags"]


@dataclass
class Flags:
    """Counts of exceptional roundings; each call that is given them adds its own, as status flags stay up.

    >>> flags = Flags()
    >>> minimp.formats.round([0.1, 1e-9, 1e9], "float16", flags=flags)
    >>> flags.inexact, flags.underflow, flags.overflow
    (3, 1, 1)

    Attributes:
        size: elements that were rounded.
        inexact: finite elements whose value changed.
        overflow: finite elements that, rounded to the format's precision, lie beyond its range (other than
            the invalid ones).
        saturated: elements beyond the range, infinities too, that became a finite end of it.
        tiny_before: elements with 0 < |x| < ``smallest_normal``: tininess detected before rounding.
        tiny_after: elements that are below ``smallest_normal`` once rounded to the format's precision as if
            the exponent had no end, and not 0: tininess detected after rounding.
        underflow: inexact elements that are tiny after rounding, the default underflow of IEEE 754.
        flushed: elements other than 0 that became 0.
        invalid: elements that became NaN and were none: negative numbers, 0 or an infinity where the format
            has no place for them.

    Source: IEEE 754-2019, 7.4 to 7.6. Tininess may be detected before or after rounding (7.5): x86 does the
    latter, Arm the former; they differ for numbers just below ``smallest_normal`` only.
    """

    size: int = 0
    inexact: int = 0
    overflow: int = 0
    saturated: int = 0
    tiny_before: int = 0
    tiny_after: int = 0
    underflow: int = 0
    flushed: int = 0
    invalid: int = 0

    def add(self, size: int, **masks: npt.NDArray[np.bool_]) -> None:
        """Count the elements of each mask, named as the fields are."""
        self.size += size
        for name, mask in masks.items():
            setattr(self, name, getattr(self, name) + int(np.count_nonzero(mask)))

    def __iadd__(self, other: Any) -> Self:
        if not isinstance(other, Flags):
            return NotImplemented
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))
        return self

    def __str__(self) -> str:
        """One line for people: what there is any of."""
        named = [(each.name.replace("_", " "), getattr(self, each.name)) for each in fields(self)[1:]]
        found = ", ".join(f"{count} {name}" for name, count in named if count)
        return f"{self.size} rounded: {found or 'all exact'}"


def check_flags(flags: Any) -> None:
    """Refuse what cannot count; None is fine."""
    if flags is not None and not isinstance(flags, Flags):
        raise SettingError(
            f"expected flags to be a Flags, which counts, got {flags!r}",
            op="round",
            help="make one with flags = minimp.formats.Flags(), pass it on, and read it afterwards",
        )
