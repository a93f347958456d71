"""What a format did to a value, as one of a few words, each with a colour and a meaning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["KINDS", "Kind", "classify", "kind_named"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Kind:
    """One thing that can be said of a value.

    Attributes:
        word: what it is called.
        colour: red, green, blue; "" for what needs none.
        meaning: one line for people.
    """

    word: str
    colour: str
    meaning: str


KINDS = (  # of several that are true, the first is said
    Kind("nan", "147,51,234", "not a number"),
    Kind("overflowed to inf", "220,38,38", "finite before the cast, beyond the largest number of the format"),
    Kind("inf", "220,38,38", "infinite"),
    Kind("flushed to 0", "234,88,12", "not 0 before the cast, too small for the format"),
    Kind("zero", "127,127,127", "0"),
    Kind("subnormal", "217,160,6", "below the smallest normal number: fewer digits"),
    Kind("near the largest", "190,80,10", "less than a factor of 2 from the largest number of the format"),
    Kind("rounded", "37,99,235", "not the number before the cast, but the nearest that the format has"),
    Kind("exact", "22,163,74", "the same number as before the cast"),
    Kind("normal", "", "a number of the format's full precision"),
)


def kind_named(word: str) -> Kind:
    """Return the kind of this word."""
    return next(each for each in KINDS if each.word == word)


def classify(values: Floats, fmt: Any, before: Floats | None = None) -> npt.NDArray[np.int8]:
    """Return the place in KINDS of each value.

    Args:
        values: values of `fmt`, in float64.
        fmt: their format; None for integers, which are all normal.
        before: the numbers from which they were cast, where that is known.
    """
    if fmt is None:
        return np.full(values.shape, len(KINDS) - 1, np.int8)
    size = np.abs(values)
    largest = fmt.max if fmt.is_integer else 2.0**fmt.emax
    never = np.zeros(values.shape, bool)
    tests = {
        "nan": np.isnan(values),
        "overflowed to inf": never if before is None else np.isinf(values) & np.isfinite(before),
        "inf": np.isinf(values),
        "flushed to 0": never if before is None else (values == 0) & (before != 0),
        "zero": values == 0,
        "subnormal": never if fmt.is_integer else size < fmt.smallest_normal,
        "near the largest": size >= largest,
        "rounded": never if before is None else values != before,
        "exact": never if before is None else ~never,
        "normal": ~never,
    }
    return np.select([tests[each.word] for each in KINDS], list(range(len(KINDS)))).astype(np.int8)
