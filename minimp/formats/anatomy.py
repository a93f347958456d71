"""One number under the glass: its fields, its error, its neighbours; and the ulp of many."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from minimp.errors import DataError
from minimp.formats.codes import decode, encode
from minimp.formats.exact import round_fraction
from minimp.formats.rounding import Float64s, quantum_exponent, round_to, widen, widen64
from minimp.formats.table import Format, get

__all__ = ["Inspection", "inspect", "ulp"]


def ulp(x: npt.ArrayLike, fmt: Any) -> Float64s:
    """The distance between neighbouring values of ``fmt`` at x: 2^(max(floor(log2 |x|), emin) - m).

    x need not be a value of ``fmt``. At a power of two this is the distance upward; at 0 the smallest
    subnormal; beyond ``fmt.max`` the distance just below it; NaN for infinities and NaN. (Muller et al.,
    Handbook of Floating-Point Arithmetic, 2018, 2.3.2, discusses the other conventions.)
    """
    fmt = get(fmt)
    wide = widen64(x)
    finite = np.isfinite(wide)
    magnitude = np.minimum(np.where(finite, np.abs(wide), 0.0), fmt.max)
    return np.where(finite, np.ldexp(1.0, quantum_exponent(magnitude, fmt)), np.nan)


@dataclass(frozen=True)
class Inspection:
    """What one number becomes in a format.

    Attributes:
        given: the number as it was given.
        format: the format.
        sign, exponent, mantissa: the raw fields of the code, as integers.
        bits: the code as text of ``format.bits`` binary digits.
        kind: ``zero``, ``subnormal``, ``normal``, ``inf`` or ``nan``.
        value: the value in the format.
        error: value - given, an exact fraction; inf or NaN where that is none.
        ulp: the ulp of the format at the value; NaN for inf and NaN.
        neighbours: the next values below and above; None where there is none.
    """

    given: Any
    format: Format
    sign: int
    exponent: int
    mantissa: int
    bits: str
    kind: str
    value: float
    error: Fraction | float
    ulp: float
    neighbours: tuple[float | None, float | None]

    @property
    def fields(self) -> str:
        """The bits with a space between sign, exponent and mantissa."""
        cut = 1 + self.format.exponent_bits
        return " ".join(part for part in (self.bits[:1], self.bits[1:cut], self.bits[cut:]) if part)

    @property
    def ulps(self) -> float:
        """The error in ulps of the format; inf where that is beyond float64, NaN where there is no ulp."""
        if not isinstance(self.error, Fraction):
            return float(self.error)
        return math.nan if math.isnan(self.ulp) else _as_float(self.error / Fraction(self.ulp))

    def __str__(self) -> str:
        """Several aligned lines for people."""
        below, above = ("none" if each is None else _decimal(each) for each in self.neighbours)
        error = "none" if self.error == 0 else f"{_as_float(self.error):.6g} ({self.ulps:.3g} ulp)"
        rows = (
            ("bits", f"{self.fields}  (0x{int(self.bits, 2):0{-(-self.format.bits // 4)}x})"),
            ("kind", f"{self.kind}{_formula(self)}"),
            ("value", _decimal(self.value)),
            ("error", error),
            (
                "ulp",
                "none" if math.isnan(self.ulp) else f"{_decimal(self.ulp)} (2^{math.frexp(self.ulp)[1] - 1})",
            ),
            ("neighbours", f"{below}  {above}"),
        )
        return "\n".join(
            (f"{self.given} in {self.format.name}", *(f"  {name:<12}{text}" for name, text in rows))
        )


def _as_float(x: Fraction | float) -> float:
    """Return the nearest float64, an infinity where there is none."""
    try:
        return float(x)
    except OverflowError:
        return math.inf if x > 0 else -math.inf


def inspect(value: Any, fmt: Any, rounding: str = "nearest_even", overflow: str | None = None) -> Inspection:
    """Round one number to ``fmt`` and take the result apart.

    Args:
        value: a float, an integer, a Fraction or Decimal, a NumPy scalar, or text: ``"0.1"``, ``"1/3"``,
            ``"inf"``. Text and fractions are taken exactly and rounded once, never through a float.
        fmt, rounding, overflow: as in ``minimp.formats.round``.

    Raises:
        DataError: value is no number.
        FormatError: unknown format; or NaN, and ``fmt`` has none.
        SettingError: unknown rounding or overflow.
    """
    fmt = get(fmt)
    exact = _exact(value)
    if isinstance(exact, Fraction):
        rounded = round_fraction(exact, fmt, rounding, overflow)
        if exact == 0 and fmt.has_negative_zero:
            rounded = math.copysign(rounded, -1.0 if _has_minus(value) else 1.0)
    else:
        rounded = float(round_to(exact, fmt, rounding, overflow))
    code = int(encode(rounded, fmt)) >> fmt.padding
    exponent, mantissa = divmod(code & ((1 << (fmt.bits - 1)) - 1), 1 << fmt.mantissa_bits)
    return Inspection(
        given=value,
        format=fmt,
        sign=code >> (fmt.bits - 1),
        exponent=exponent,
        mantissa=mantissa,
        bits=f"{code:0{fmt.bits}b}",
        kind=_kind(rounded, fmt),
        value=rounded,
        error=_error(rounded, exact),
        ulp=float(ulp(rounded, fmt)),
        neighbours=(_neighbour(rounded, fmt, -1), _neighbour(rounded, fmt, +1)),
    )


_LONGEST_EXPONENT = 5000  # decimal; far outside of float64, and still quick as an exact fraction


def _exact(value: Any) -> Fraction | float:
    """The number as a fraction; as a float where it is inf or NaN."""
    if isinstance(value, np.generic):
        value = float(widen(value)) if value.dtype.kind not in "iu" else int(value)
    text = str(value).strip().lower().replace("_", "")
    try:
        if re.fullmatch(r"[+-]?(inf|infinity|nan)", text):
            return float(text)
        exponent = re.search(r"e([+-]?\d+)$", text)
        if exponent and abs(int(exponent[1])) > _LONGEST_EXPONENT:
            raise _no_number(value, f"an exponent beyond {_LONGEST_EXPONENT}")
        return Fraction(text) if isinstance(value, str) else Fraction(value)
    except (ValueError, TypeError, ZeroDivisionError) as fault:
        if isinstance(fault, DataError):
            raise
        raise _no_number(value, "no number") from fault


def _no_number(value: Any, what: str) -> DataError:
    return DataError(
        f"expected a number, got {value!r}: {what}",
        op="inspect",
        help="write it as 0.1, 1e-7, 1/3, inf or nan",
    )


def _has_minus(value: Any) -> bool:
    return str(value).strip().startswith("-")


def _kind(value: float, fmt: Format) -> str:
    if math.isnan(value):
        return "nan"
    if math.isinf(value):
        return "inf"
    if value == 0:
        return "zero"
    return "subnormal" if abs(value) < fmt.smallest_normal else "normal"


def _error(rounded: float, exact: Fraction | float) -> Fraction | float:
    if math.isfinite(rounded) and isinstance(exact, Fraction):
        return Fraction(rounded) - exact
    if rounded == exact:
        return Fraction(0)
    return rounded - exact if isinstance(exact, float) else rounded


def _neighbour(value: float, fmt: Format, direction: int) -> float | None:
    """The next value in one direction: codes of one sign count magnitudes, so step the signed code."""
    if math.isnan(value):
        return None
    if fmt.is_integer:
        return value + direction if fmt.lowest <= value + direction <= fmt.max else None
    magnitude = int(encode(abs(value), fmt)) >> fmt.padding
    place = (-magnitude if value < 0 else magnitude) + direction
    if abs(place) > fmt.max_code + fmt.has_inf:
        return None
    return math.copysign(1.0, place) * float(decode(abs(place) << fmt.padding, fmt))


def _formula(seen: Inspection) -> str:
    """The value as sign · significand · 2^exponent."""
    fmt = seen.format
    if seen.kind not in ("normal", "subnormal") or fmt.is_integer:
        return ""
    scale = max(seen.exponent, 1) - fmt.bias
    return f": {'-' if seen.sign else '+'}{abs(seen.value) / 2.0**scale:.17g} x 2^{scale}"


_DIGITS = 30


def _decimal(value: float) -> str:
    """All digits of a float's exact decimal value where they are few; else enough to tell it apart."""
    if not math.isfinite(value):
        return str(value)
    exact = Decimal(value)
    digits = len(exact.as_tuple().digits)
    return format(exact, "g") if digits <= _DIGITS else f"{value!r}..."
