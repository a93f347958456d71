"""The rounding modes, as rules on where a number stands between its two neighbours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from minimp.errors import SettingError, unknown_name

__all__ = ["ROUNDINGS", "Rounding", "Situation", "mode_named"]


@dataclass(frozen=True)
class Situation:
    """Where a number stands before it is rounded: |x| = (low + part) · 2^q, low whole, 0 <= part < 1.

    The fields are arrays, or single exact numbers (then with NumPy booleans): the rules below serve both.

    Attributes:
        part: the residue, in ulps.
        odd: whether low is odd.
        negative: whether x has a minus sign.
        dice: a :class:`minimp.formats.dice.Dice`; only the stochastic mode looks at it.
        max_is_odd: whether the code of the format's largest value is odd.
    """

    part: Any
    odd: Any
    negative: Any
    dice: Any
    max_is_odd: bool


@dataclass(frozen=True)
class Rounding:
    """One rounding mode.

    Attributes:
        name: the mode's name.
        goes_up: whether low + 1 is taken in the place of low.
        keeps_max: whether a finite value beyond ``max`` becomes ``max``, or else overflows (IEEE 754, 7.4).
        note: one line for people.
    """

    name: str
    goes_up: Callable[[Situation], Any]
    keeps_max: Callable[[Situation], Any]
    note: str


def _never(_: Situation) -> bool:
    return False


_MODES = (
    Rounding(
        "nearest_even",
        goes_up=lambda at: (at.part > 0.5) | ((at.part == 0.5) & at.odd),
        keeps_max=_never,
        note="to the nearest; a tie to the even significand",
    ),
    Rounding(
        "nearest_away",
        goes_up=lambda at: at.part >= 0.5,
        keeps_max=_never,
        note="to the nearest; a tie away from zero",
    ),
    Rounding("toward_zero", goes_up=_never, keeps_max=lambda _: True, note="cut off"),
    Rounding(
        "up",
        goes_up=lambda at: (at.part > 0) & ~at.negative,
        keeps_max=lambda at: at.negative,
        note="toward +inf",
    ),
    Rounding(
        "down",
        goes_up=lambda at: (at.part > 0) & at.negative,
        keeps_max=lambda at: ~at.negative,
        note="toward -inf",
    ),
    Rounding(
        "to_odd",
        goes_up=lambda at: (at.part > 0) & ~at.odd,
        # The neighbours are max and the first code beyond it (inf or NaN); the odd one of them is taken.
        keeps_max=lambda at: at.max_is_odd,
        note="to the odd neighbour if inexact, so that rounding again two bits shorter is as good as once",
    ),
    Rounding(
        "stochastic",
        goes_up=lambda at: at.dice.lifts(at.part),
        keeps_max=_never,
        note="up with probability part, so right on average",
    ),
)
ROUNDINGS: Mapping[str, Rounding] = MappingProxyType({each.name: each for each in _MODES})


def mode_named(rounding: str) -> Rounding:
    """Find a rounding mode; SettingError, with the nearest name, if there is none."""
    if str(rounding) not in ROUNDINGS:
        raise SettingError(unknown_name("rounding", rounding, ROUNDINGS), op="round")
    return ROUNDINGS[rounding]
