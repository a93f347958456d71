"""Rounding to a number format, written to be read.

A format's values near x are the whole multiples of one power of two, the ulp 2^q with

    q = max(floor(log2 |x|), emin) - m

so rounding is: divide by 2^q (exact), round to a whole number, multiply by 2^q (exact). How the whole number
is chosen is one row of ``ROUNDINGS``. Overflow is judged after that: the number has been rounded to the
format's precision as if the exponent had no end, and is then compared with the largest value (IEEE 754-2019,
7.4; OCP OFP8 1.0). Everything happens in float64, where every step is exact; a float64 input is rounded once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from minimp.errors import DataError, FormatError, SettingError, unknown_name
from minimp.formats.table import FORMATS, Format, get

__all__ = [
    "OVERFLOWS",
    "ROUNDINGS",
    "Rounding",
    "Situation",
    "quantum_exponent",
    "representable",
    "round_to",
    "widen",
    "widen64",
]

Floats = npt.NDArray[np.floating[Any]]
Float64s = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Situation:
    """Where a number stands before it is rounded: |x| = (low + part) · 2^q, low whole, 0 <= part < 1.

    The fields are arrays, or single exact numbers (then with NumPy booleans): the rules below serve both.

    Attributes:
        part: the residue, in ulps.
        odd: whether low is odd.
        negative: whether x has a minus sign.
        dice: uniform in [0, 1); only the stochastic mode looks at it.
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
        goes_up=lambda at: at.dice < at.part,
        keeps_max=_never,
        note="up with probability part, so right on average",
    ),
)
ROUNDINGS: Mapping[str, Rounding] = MappingProxyType({each.name: each for each in _MODES})

OVERFLOWS: Mapping[str, str] = MappingProxyType(
    {
        "ieee": "to inf; to NaN where the format has no inf; to the largest value where it has neither",
        "saturate": "to the largest value, infinities too",
    }
)


@np.errstate(over="ignore")  # a float64 near its end may round up to inf: past every format's end too
def round_to(
    x: npt.ArrayLike,
    fmt: Any,
    rounding: str = "nearest_even",
    overflow: str | None = None,
    rng: np.random.Generator | int | None = None,
) -> Floats:
    """Round every element of x to a value of ``fmt``; exported as ``minimp.formats.round``.

    Args:
        x: real numbers of any shape. float32 and float64 keep their precision; narrower types are widened to
            float32, integers that float32 cannot hold exactly to float64.
        fmt: anything that ``get`` knows.
        rounding: a key of ``ROUNDINGS``.
        overflow: a key of ``OVERFLOWS``; None means ``"ieee"``.

            - ``ieee``: a value whose rounding exceeds ``fmt.max`` becomes inf under the nearest modes and
              ``stochastic``; ``toward_zero`` gives the largest value, and so do ``up`` and ``down`` on the
              side that they turn away from. A format without inf has NaN in its place (OFP8's non-saturating
              mode); one without NaN too (float6, float4, int8) clamps, the only rule OCP MX 1.0 has for them.
            - ``saturate``: the largest value of that sign, for infinities too (OFP8's saturating mode).

            NaN stays NaN under both. OFP8 specifies ``nearest_even`` only; what the other modes do in formats
            without inf is IEEE's rule with NaN in the place of inf.
        rng: random numbers for ``stochastic``: a Generator, a seed, or None for fresh entropy. The chance of
            going up is the exact residue, to within 2^-53.

    Returns:
        An array of x's shape holding values of ``fmt``. Zeros keep their sign where the format has -0.

    Raises:
        FormatError: unknown format; or NaN in x, and ``fmt`` has no NaN.
        SettingError: unknown rounding or overflow.
        DataError: x is not real numbers, or holds integers that float64 cannot hold.
    """
    fmt, mode, saturate = get(fmt), mode_named(rounding), saturates(overflow)
    x = widen(x)
    wide = widen64(x)
    _refuse_nan(wide, fmt)
    finite, negative = np.isfinite(wide), np.signbit(wide)
    magnitude = np.where(finite, np.abs(wide), 0.0)

    q = quantum_exponent(magnitude, fmt)
    scaled = np.ldexp(magnitude, -q)  # |x| in ulps; a power of two, so exact
    low = np.floor(scaled)
    dice = np.random.default_rng(rng).random(x.shape) if rounding == "stochastic" else None
    at = Situation(scaled - low, low % 2 == 1, negative, dice, fmt.max_code % 2 == 1)
    rounded = np.ldexp(low + mode.goes_up(at), q)

    limit = np.where(negative, -fmt.lowest, fmt.max)
    kept = mode.keeps_max(at) | saturate
    rounded = np.where(rounded > limit, np.where(kept, limit, beyond(fmt, limit)), rounded)
    rounded = np.where(np.isinf(wide), limit if saturate else beyond(fmt, limit), rounded)
    if fmt.has_negative_zero:
        signed = np.copysign(rounded, wide)
    else:
        signed = np.where(negative & (rounded != 0), -rounded, rounded)
    return np.where(np.isnan(wide), wide, signed).astype(x.dtype)


def quantum_exponent(x: npt.ArrayLike, fmt: Format) -> npt.NDArray[np.int32]:
    """q such that 2^q is the ulp of ``fmt`` at x: q = max(floor(log2 |x|), emin) - m; emin - m at 0.

    x: finite float64, any shape.
    """
    _, exponent = np.frexp(x)  # |x| = fraction · 2^exponent, 1/2 <= fraction < 1
    exponent = np.where(np.asarray(x) == 0, fmt.emin, exponent - 1)
    return np.asarray(np.maximum(exponent, fmt.emin) - fmt.mantissa_bits, dtype=np.int32)


def representable(x: npt.ArrayLike, fmt: Any) -> npt.NDArray[np.bool_]:
    """Tell, element by element, whether x is a value of ``fmt``. (-0 counts as 0 where there is no -0.)"""
    fmt, wide = get(fmt), widen64(x)
    finite = np.isfinite(wide)
    numbers = np.where(finite, wide, 0.0)
    exact = round_to(numbers, fmt, "toward_zero") == numbers
    special = np.where(np.isnan(wide), fmt.has_nan, fmt.has_inf)
    return np.asarray(np.where(finite, exact, special), dtype=np.bool_)


@np.errstate(invalid="ignore")  # a signalling NaN becomes quiet
def widen64(x: npt.ArrayLike) -> Float64s:
    """Real numbers as float64, without changing one of them. Errors are those of ``widen``."""
    return widen(x).astype(np.float64)


@np.errstate(invalid="ignore")
def widen(x: npt.ArrayLike) -> Floats:
    """Real numbers as float32 or float64, without changing one of them.

    Raises:
        DataError: complex, object, text or long double data; integers beyond what float64 can hold.
    """
    x = np.asarray(x)
    x = x.astype(x.dtype.newbyteorder("="), copy=False)
    if x.dtype in (np.float32, np.float64):
        return x
    narrow = any(x.dtype == each.dtype for each in FORMATS.values())
    if narrow or x.dtype == np.bool_ or x.dtype in _SHORT_INTEGERS:
        return x.astype(np.float32)
    if x.dtype.kind not in "iu":
        raise DataError(
            f"expected real numbers of at most 64 bits, got {x.dtype}",
            op="formats",
            shapes=(x.shape,),
            help="convert to float64 first; that conversion may itself round",
        )
    wide = x.astype(np.float64)
    large = np.abs(wide) >= 2.0**53  # rare; compared as Python integers, where nothing wraps
    inexact = [whole for whole, each in zip(x[large], wide[large], strict=True) if int(whole) != int(each)]
    if inexact:
        raise DataError(
            f"{len(inexact)} of {x.size} integers, {inexact[0]} the first, need more than float64's 53 bits",
            op="formats",
            shapes=(x.shape,),
            help="convert to float64 first, and accept that rounding",
        )
    return wide


_SHORT_INTEGERS = tuple(np.dtype(each) for each in (np.int8, np.uint8, np.int16, np.uint16))


def mode_named(rounding: str) -> Rounding:
    if rounding not in ROUNDINGS:
        raise SettingError(unknown_name("rounding", rounding, ROUNDINGS), op="round")
    return ROUNDINGS[rounding]


def saturates(overflow: str | None) -> bool:
    if overflow is not None and overflow not in OVERFLOWS:
        raise SettingError(unknown_name("overflow", overflow, OVERFLOWS), op="round")
    return overflow == "saturate"


def _refuse_nan(wide: Float64s, fmt: Format) -> None:
    nans = 0 if fmt.has_nan else int(np.isnan(wide).sum())
    if nans:
        raise FormatError(
            f"{fmt.name} has no NaN, and {nans} of {wide.size} values are NaN",
            op="round",
            shapes=(wide.shape,),
            formats=(fmt.name,),
            help="find where the NaN came from, or choose a format with NaN",
        )


def beyond(fmt: Format, limit: Float64s) -> Any:
    """What lies beyond the largest value when nothing clamps: inf, or NaN, or the largest value itself."""
    return np.inf if fmt.has_inf else np.nan if fmt.has_nan else limit
