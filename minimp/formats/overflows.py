"""What becomes of numbers that a format has no place for: the two rules of the standards, and two libraries'.

beyond ``max``
    ``ieee``: inf; NaN where there is no inf; ``max`` where there is neither. ``saturate``: ``max``.
    ``torch``: as ieee, but ``max`` in float8_e4m3fn. ``ml_dtypes``: as ieee.
an infinity
    the same.
0 in float8_e8m0fnu, which has none
    ``ieee`` and ``ml_dtypes``: NaN. ``saturate`` and ``torch``: 2^-127.
a negative number in float8_e8m0fnu
    ``ieee`` and ``ml_dtypes``: NaN. ``saturate``: 2^-127. ``torch``: its magnitude.
2^-127 < |x| < 1.5 · 2^-127 in float8_e8m0fnu
    2^-127, the nearer neighbour; ``torch`` and ``ml_dtypes``: 2^-126. (Below 2^-126 their casts look at
    float32's subnormal pattern, in which 2^-127 is half a step.)
NaN in float6 and float4, which have none
    refused; ``ml_dtypes``: a zero, of the other sign. torch has no such casts.

Sources: IEEE 754-2019, 7.4; OCP OFP8 1.0, section 5.2 (its non-saturating and saturating modes); OCP MX 1.0,
5.3 (formats without inf and NaN clamp). The libraries' columns are what torch 2.13.0 (CPU) and ml_dtypes
0.6.0 do, found by running them; torch changed float8_e4m3fn from NaN to saturation in 2.12.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from minimp.errors import SettingError, unknown_name
from minimp.formats.table import FORMATS, Format

__all__ = ["OVERFLOWS", "Overflow", "overflow_named"]


@dataclass(frozen=True)
class Overflow:
    """One rule of the table above.

    Attributes:
        name: its name.
        note: one line for people.
        saturates: whether what is beyond ``max`` becomes ``max`` in a format.
        serves: whether the rule says anything of a format.
        keeps_zero: whether 0 becomes the smallest value where there is no zero, or else NaN.
        drops_sign: whether a negative number counts as its magnitude where there is no sign.
        lifts_lowest: whether all above the smallest value goes to the next where there is no zero.
        takes_nan: whether NaN becomes a zero of the other sign where there is no NaN, or else is refused.
    """

    name: str
    note: str
    saturates: Callable[[Format], bool]
    serves: Callable[[Format], bool] = lambda _: True
    keeps_zero: bool = False
    drops_sign: bool = False
    lifts_lowest: bool = False
    takes_nan: bool = False

    def __str__(self) -> str:
        return self.note


_TORCH_EIGHT_BITS = ("e4m3fn", "e4m3fnuz", "e5m2", "e5m2fnuz", "e8m0fnu")
_TORCH = {"float64", "float32", "float16", "bfloat16"} | {f"float8_{each}" for each in _TORCH_EIGHT_BITS}
_ML_DTYPES = {name for name in FORMATS if name not in ("tfloat32", "int8", "uint8")}
_RULES = (
    Overflow(
        "ieee",
        "to inf; to NaN where the format has no inf; to the largest value where it has neither",
        saturates=lambda _: False,
    ),
    Overflow(
        "saturate",
        "to the largest value, infinities too",
        saturates=lambda _: True,
        keeps_zero=True,
    ),
    Overflow(
        "torch",
        "as torch 2.13.0's casts: float8_e4m3fn to its largest value, other formats as ieee",
        saturates=lambda fmt: fmt.name == "float8_e4m3fn",
        serves=lambda fmt: FORMATS.get(fmt.name) is fmt and fmt.name in _TORCH,
        keeps_zero=True,
        drops_sign=True,
        lifts_lowest=True,
    ),
    Overflow(
        "ml_dtypes",
        "as ml_dtypes 0.6.0's casts: as ieee, and NaN becomes a zero in float6 and float4",
        saturates=lambda _: False,
        serves=lambda fmt: FORMATS.get(fmt.name) is fmt and fmt.name in _ML_DTYPES,
        lifts_lowest=True,
        takes_nan=True,
    ),
)
OVERFLOWS: Mapping[str, Overflow] = MappingProxyType({each.name: each for each in _RULES})


def overflow_named(overflow: str | None, fmt: Format) -> Overflow:
    """Find the rule; None means ``ieee``.

    Raises:
        SettingError: there is no such rule, or it says nothing of this format.
    """
    name = "ieee" if overflow is None else overflow
    if str(name) not in OVERFLOWS:
        raise SettingError(unknown_name("overflow", name, OVERFLOWS), op="round")
    if not OVERFLOWS[name].serves(fmt):
        raise SettingError(
            f"overflow={name!r} is what {name} does, and {name} has no rounding cast to {fmt.name}",
            op="round",
            formats=(fmt.name,),
            help="use 'ieee' or 'saturate'",
        )
    return OVERFLOWS[name]
