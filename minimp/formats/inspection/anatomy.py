"""One number under the glass: its fields, its error, its neighbours; and the ulp of many."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from minimp.errors import DataError
from minimp.formats.codes import decode, encode
from minimp.formats.dice import Counter, Source
from minimp.formats.exact import floor_log2, round_fraction
from minimp.formats.inspection.display import inspection_html
from minimp.formats.inspection.wording import as_float, lost_text, number, power_of_two, share
from minimp.formats.neighbours import place_of, value_at
from minimp.formats.rounding import (
    Float64s,
    dice_for,
    max_is_odd,
    quantum_exponent,
    round_to,
    widen,
    widen64,
)
from minimp.formats.roundings import Situation, mode_named
from minimp.formats.table import Format, get

__all__ = ["Inspection", "examine", "inspect", "inspect_code", "one_source", "ulp"]


def ulp(x: npt.ArrayLike, fmt: Any) -> Float64s:
    """The distance between neighbouring values of ``fmt`` at x: 2^(max(floor(log2 |x|), emin) - m).

    x need not be a value of ``fmt``. At a power of two this is the distance upward; at 0 the smallest
    positive value; beyond ``fmt.max`` the distance just below it; NaN for infinities and NaN. (Muller et al.,
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
        sign, exponent, mantissa: the raw fields of the code, as integers; 0 where there is no such field.
        bits: the code as text of ``format.bits`` binary digits.
        kind: ``zero``, ``subnormal``, ``normal``, ``inf`` or ``nan``.
        value: the value in the format.
        error: value - given, an exact fraction; inf or NaN where that is none.
        ulp: the ulp of the format at the value; NaN for inf and NaN.
        neighbours: the next values below and above; None where there is none.
        exact: the number before it was rounded, exactly; a float where it is inf or NaN.
        rounding: how it was rounded.
        flags: what happened, of ``inexact``, ``overflow``, ``underflow``, ``invalid`` and ``subnormal``. The
            first four are IEEE 754-2019's (7.2 to 7.6): overflow and underflow look at the number rounded to
            the format's precision as if the exponent had no end; underflow asks for inexact too; invalid is a
            number that became NaN because the format has no place for it. The last says the result is
            subnormal.
        chance: under ``stochastic`` rounding of a number between two values the probability of the upper one.
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
    exact: Fraction | float
    rounding: str
    flags: tuple[str, ...]

    @property
    def parts(self) -> tuple[str, str, str]:
        """The bits of sign, exponent and mantissa; empty where the format has no such field."""
        sign, exponent = int(self.format.signed), int(self.format.signed) + self.format.exponent_bits
        return self.bits[:sign], self.bits[sign:exponent], self.bits[exponent:]

    @property
    def fields(self) -> str:
        """The bits with a space between sign, exponent and mantissa."""
        return " ".join(part for part in self.parts if part)

    @property
    def code(self) -> str:
        """The bits in hexadecimal, ``0x2e66``."""
        return f"0x{int(self.bits, 2):0{-(-self.format.bits // 4)}x}"

    @property
    def ulps(self) -> float:
        """The error in ulps of the format; inf where that is beyond float64, NaN where there is no ulp."""
        if not isinstance(self.error, Fraction):
            return float(self.error)
        return math.nan if math.isnan(self.ulp) else as_float(self.error / Fraction(self.ulp))

    @property
    def between(self) -> tuple[float | None, float | None]:
        """The values on either side of the given number, or it twice; None where there is none.

        Beyond the largest finite value its other side is inf, where the format has one.
        """
        fmt = self.format
        if self.exact > fmt.max and self.exact != self.value:
            return fmt.max, math.inf if fmt.has_inf else None
        if self.exact < fmt.lowest and self.exact != self.value:
            return (-math.inf if fmt.has_inf and fmt.signed else None), fmt.lowest
        if math.isnan(self.value):
            return None, None
        below, above = self.neighbours
        return (
            self.value if self.exact >= self.value else below,
            self.value if self.exact <= self.value else above,
        )

    @property
    def position(self) -> Fraction | None:
        """How far the number lies from the value below to the value above, in [0, 1); 0 if it is a value.

        None where it does not lie between two finite values.
        """
        below, above = (math.nan if each is None else each for each in self.between)
        if not isinstance(self.exact, Fraction) or not math.isfinite(below) or not math.isfinite(above):
            return None
        gap = Fraction(above) - Fraction(below)
        return (self.exact - Fraction(below)) / gap if gap else Fraction(0)

    @property
    def chance(self) -> Fraction | None:
        """Under ``stochastic`` the probability of the upper value, which is ``position``; else None."""
        return self.position if self.rounding == "stochastic" else None

    @property
    def formula(self) -> str:
        """Sign, significand and scale, as in ``+1.5 x 2^-4``; a subnormal's significand is below 1.

        Empty where there is none: zero, inf, NaN, integers.
        """
        fmt = self.format
        if self.kind not in ("normal", "subnormal") or fmt.is_integer:
            return ""
        scale = max(self.exponent - fmt.bias, fmt.emin)
        significand = Fraction(abs(self.value)) / Fraction(2) ** scale
        return f"{'-' if self.sign else '+'}{float(significand)!r} x 2^{scale}"

    def _repr_html_(self) -> str:
        return inspection_html(self)

    def __str__(self) -> str:
        """Several aligned lines for people."""
        below, above = (number(each) for each in self.neighbours)
        error = "none" if self.error == 0 else lost_text(self.error, self.ulp)
        flags = [each for each in self.flags if each != self.kind]
        rows = (
            ("bits", self.fields),
            ("code", self.code),
            ("kind", f"{self.kind}{': ' if self.formula else ''}{self.formula}"),
            ("value", number(self.value)),
            ("error", f"{error}{'; ' if flags else ''}{', '.join(flags)}"),
            ("ulp", "none" if math.isnan(self.ulp) else f"{number(self.ulp)} ({power_of_two(self.ulp)})"),
            ("neighbours", f"{below}  {above}"),
            ("lies", self.where),
        )
        kept = (f"  {name:<12}{text}" for name, text in rows if text)
        return "\n".join((f"{self.given} in {self.format.name}", *kept))

    @property
    def where(self) -> str:
        """In words, where the number lies between two values; empty if it is one or lies beyond them."""
        if not self.position:
            return ""
        below, above = map(number, self.between)
        said = f"{share(self.position)} of the way from {below} to {above}"
        return f"{said}; as likely rounded up" if self.chance is not None else said


def inspect(
    value: Any,
    fmt: Any,
    rounding: str = "nearest_even",
    overflow: str | None = None,
    rng: Source = None,
) -> Inspection:
    """Round one number to ``fmt`` and take the result apart.

    Args:
        value: a float, an integer, a Fraction or Decimal, a NumPy scalar, or text: ``"0.1"``, ``"1/3"``,
            ``"inf"``. Text and fractions are taken exactly and rounded once, never through a float.
        fmt, rounding, overflow, rng: as in ``minimp.formats.round``.

    Raises:
        DataError: value is no number.
        FormatError: unknown format; or NaN, and ``fmt`` has none.
        SettingError: unknown rounding or overflow, or ``stochastic`` without a random source.
    """
    fmt = get(fmt)
    exact = _exact(value)
    rng = one_source(rng)
    if isinstance(exact, Fraction) and exact:
        rounded = round_fraction(exact, fmt, rounding, overflow, rng)
    else:
        plain = math.copysign(0.0, -1.0 if _has_minus(value) else 1.0) if exact == 0 else float(exact)
        rounded = float(round_to(plain, fmt, rounding, overflow, rng))
    return examine(value, exact, rounded, fmt, rounding, rng)


def inspect_code(code: int, fmt: Any) -> Inspection:
    """Read one code of ``fmt``; of a NaN or zero that has many codes, the one that was given.

    Raises:
        DataError: it is no code of ``fmt``.
        FormatError: unknown format.
    """
    fmt = get(fmt)
    value = float(decode(np.asarray(code << fmt.padding), fmt))
    exact = Fraction(value) if math.isfinite(value) else value
    return replace(examine(code, exact, value, fmt, "nearest_even", None, code), error=Fraction(0))


def examine(
    given: Any,
    exact: Fraction | float,
    value: float,
    fmt: Format,
    rounding: str,
    rng: Source,
    code: int | None = None,
) -> Inspection:
    """Take a value of ``fmt`` apart, to which an exact number has been rounded."""
    if code is None:
        code = int(encode(value, fmt)) >> fmt.padding
    exponent, mantissa = divmod(code & ((1 << fmt.magnitude_bits) - 1), 1 << fmt.mantissa_bits)
    kind = _kind(value, fmt)
    return Inspection(
        given=given,
        format=fmt,
        sign=code >> fmt.magnitude_bits,
        exponent=exponent,
        mantissa=mantissa,
        bits=f"{code:0{fmt.bits}b}",
        kind=kind,
        value=value,
        error=_error(value, exact),
        ulp=float(ulp(value, fmt)),
        neighbours=(_neighbour(value, fmt, -1), _neighbour(value, fmt, +1)),
        exact=exact,
        rounding=rounding,
        flags=_flags(exact, value, fmt, rounding, rng) + ("subnormal",) * (kind == "subnormal"),
    )


def one_source(rng: Source) -> Source:
    """A source that gives the same bits as often as it is asked: a Generator is drawn from here, once."""
    return (
        Counter(int(rng.integers(1 << 64, dtype=np.uint64))) if isinstance(rng, np.random.Generator) else rng
    )


_LONGEST_EXPONENT = 5000  # decimal; far outside of float64, and still quick as an exact fraction


def _exact(value: Any) -> Fraction | float:
    """The number as a fraction; as a float where it is inf or NaN."""
    if isinstance(value, np.generic):
        value = float(widen(value)) if value.dtype.kind not in "iu" else int(value)
    text = "" if isinstance(value, int | Fraction) else str(value).strip().lower().replace("_", "")
    try:
        if re.fullmatch(r"[+-]?(inf|infinity|nan)", text):
            return float(text)
        exponent = re.search(r"e([+-]?\d+)$", text)
        if exponent and abs(int(exponent[1])) > _LONGEST_EXPONENT:
            raise _no_number(value, f"an exponent beyond {_LONGEST_EXPONENT}")
        return Fraction(text) if isinstance(value, str) else Fraction(value)
    except (ValueError, TypeError, ZeroDivisionError, OverflowError) as fault:
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


def _flags(exact: Fraction | float, value: float, fmt: Format, rounding: str, rng: Source) -> tuple[str, ...]:
    """IEEE 754's flags for one finite number; none for others."""
    if not isinstance(exact, Fraction) or exact == value:
        return ()
    limit = Fraction(abs(fmt.lowest) if exact < 0 else fmt.max)
    elsewhere = exact < 0 and not fmt.signed and value != fmt.lowest  # NaN, or the magnitude
    below = exact < 0 and not fmt.signed and not fmt.has_zero  # less than the least value, however small
    over = not elsewhere and (below or _rounded(exact, fmt, rounding, rng, fmt.emin) > limit)
    tiny = not fmt.is_integer and 0 < abs(exact) < fmt.smallest_normal
    if tiny:
        tiny = _rounded(exact, fmt, rounding, rng, None) < fmt.smallest_normal
    told = {"inexact": True, "overflow": over, "underflow": tiny, "invalid": math.isnan(value) and not over}
    return tuple(name for name, up in told.items() if up)


def _rounded(exact: Fraction, fmt: Format, rounding: str, rng: Source, emin: int | None) -> Fraction:
    """|exact| rounded to the format's precision, with no upper end, and no lower one if emin is None."""
    if not exact:
        return Fraction(0)
    exponent = floor_log2(abs(exact))
    q = Fraction(2) ** ((exponent if emin is None else max(exponent, emin)) - fmt.mantissa_bits)
    low = abs(exact) // q
    dice = dice_for(rounding, (), rng, None)
    at = Situation(abs(exact) / q - low, np.bool_(low % 2), np.bool_(exact < 0), dice, max_is_odd(fmt))
    return (low + bool(mode_named(rounding).goes_up(at))) * q


def _neighbour(value: float, fmt: Format, direction: int) -> float | None:
    """The next value in one direction; None beyond the last one, and for NaN."""
    moved = float(value_at(place_of(np.asarray(value), fmt) + direction, fmt))
    return None if math.isnan(value) or moved == value else moved
