"""From the arrays that minimp and a framework gave to a row of the comparison."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from minimp.frameworks.judging import judged
from minimp.frameworks.results import Row

__all__ = ["ROUNDINGS", "SECTION", "Arrays", "Excuse", "all_same", "apart", "beside", "nearest", "same"]

SECTION = "integers"
CODES = 256.0
ROUNDINGS = 2.0**-20
"""Some roundings of float32, or of multipliers in fixed point, as parts of the number that becomes a code."""
Array = npt.NDArray[Any]
Arrays = tuple[Array, ...]
"""What one call gave: codes; or scales and zero points; or values and gradients."""


@dataclass(frozen=True, slots=True)
class Excuse:
    """Why the two may differ.

    Attributes:
        right: tells whether ours is what it has to be, reckoned anew in float64. If not, nothing excuses it.
        reasons: by name, a trial of whether that rule alone gives all that the framework gave.
    """

    right: Callable[[], bool]
    reasons: Mapping[str, Callable[[], bool]]


def same(ours: Array, theirs: Array) -> npt.NDArray[np.bool_]:
    """Tell of each element whether it is the same to the last bit; all NaN are one, and zeros of any sign."""
    if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
        raise TypeError(f"{ours.dtype} {ours.shape} beside {theirs.dtype} {theirs.shape}")
    equal = np.asarray(ours == theirs)
    if ours.dtype.kind == "f":
        equal |= np.isnan(ours) & np.isnan(theirs)
    return equal


def all_same(rule: Array, theirs: Array) -> bool:
    """Tell whether a rule gives all that a framework gave."""
    return bool(same(rule, theirs).all())


def apart(ours: Array, theirs: Array) -> float:
    """Return the largest distance of two elements: in codes, or of floats in parts of the larger one."""
    if not ours.size:
        return 0.0
    a, b = (each.astype(np.float64) for each in (ours, theirs))
    with np.errstate(all="ignore"):
        far = np.abs(a - b)
        if ours.dtype.kind == "f":
            far /= np.maximum(np.abs(a), np.abs(b))
    return float(np.where(same(ours, theirs), 0.0, np.where(np.isnan(far), np.inf, far)).max())


def nearest(codes: Array, exact: Array, slack: float = 0.0, more: float = 0.0) -> bool:
    """Tell whether each code is a nearest one of an exact number, on whichever side ties fall.

    Args:
        codes: what came out.
        exact: the numbers before they were rounded, in units of codes, float64.
        slack: the relative error that rounding begins with, of the number or of all 256 codes, since a zero
            point may have been added; 0 excuses ties alone.
        more: an error in units of codes.
    """
    limits = np.iinfo(codes.dtype)
    held = np.clip(exact, limits.min, limits.max)
    return bool((np.abs(held - codes) <= 0.5 + more + slack * np.maximum(np.abs(exact), CODES)).all())


def beside(
    subject: str, case: str, ours: Arrays, theirs: Arrays, excuse: Excuse | None = None, *,
    framework: str = "torch",
) -> Row:  # fmt: skip
    """Return a row: all elements have the same bits, or ours is right and one reason explains the others.

    The name of that reason stands before the case: ``"bias in floats: fbgemm, any scales"``.

    Args:
        subject, case: where the row stands.
        ours, theirs: what both gave, arrays of the same shapes and dtypes.
        excuse: its reasons are tried in order where the two differ.
        framework: whose arrays `theirs` are.
    """
    equal = [same(*pair) for pair in zip(ours, theirs, strict=True)]
    count, other = sum(each.size for each in equal), sum(int((~each).sum()) for each in equal)
    far = max(apart(*pair) for pair in zip(ours, theirs, strict=True))
    figures = {"elements": count, "others": other, "apart": far}
    row = partial(judged, framework, SECTION, subject, figures=figures)
    if not other:
        return row(case, *(f"{count:,} the same",) * 2, agrees=True)
    why = ""
    if excuse is not None and excuse.right():
        why = next((name for name, explains in excuse.reasons.items() if explains()), "")
    where, at = next((i, np.argwhere(~each)[0]) for i, each in enumerate(equal) if not each.all())
    told = [f"{each[where][tuple(at)]!s} at {tuple(map(int, at))}" for each in (ours, theirs)]
    return row(
        f"{why}: {case}" if why else case, told[0], f"{told[1]}; {other:,} of {count:,} differ",
        agrees=False,
    )  # fmt: skip
