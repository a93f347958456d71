"""Rounding to a number format, written to be read.

A format's values near x are the whole multiples of one power of two, the ulp 2^q with

    q = max(floor(log2 |x|), emin) - m

so rounding is: divide by 2^q (exact), round to a whole number, multiply by 2^q (exact). How the whole number
is chosen is one row of ``ROUNDINGS``. Overflow is judged after that: the number has been rounded to the
format's precision as if the exponent had no end, and is then compared with the largest value (IEEE 754-2019,
7.4; OCP OFP8 1.0). Everything happens in float64, where every step is exact; a float64 input is rounded once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from minimp.errors import DataError, FormatError, SettingError, unknown_name
from minimp.formats.dice import Dice, Source, roll
from minimp.formats.flags import Flags, check_flags
from minimp.formats.overflows import Overflow, overflow_named
from minimp.formats.roundings import Situation, mode_named
from minimp.formats.table import FORMATS, Format, get

__all__ = [
    "SUBNORMALS",
    "Float64s",
    "Floats",
    "as_array",
    "beyond",
    "dice_for",
    "flushes",
    "homeless",
    "max_is_odd",
    "quantum_exponent",
    "representable",
    "round_to",
    "widen",
    "widen64",
]

Floats = npt.NDArray[np.floating[Any]]
Float64s = npt.NDArray[np.float64]
SUBNORMALS = ("keep", "flush")


@np.errstate(over="ignore")  # a float64 near its end may round up to inf: past every format's end too
def round_to(
    x: npt.ArrayLike,
    fmt: Any,
    rounding: str = "nearest_even",
    overflow: str | None = None,
    rng: Source = None,
    *,
    subnormals: str = "keep",
    bits: npt.ArrayLike | None = None,
    flags: Flags | None = None,
) -> Floats:
    """Round every element of x to a value of ``fmt``, in steps that can be read.

    The steps, all exact in float64: |x| = (low + part) 2^q with low whole; one is added to low where the
    mode says so; the result is compared with the largest value; then come the special cases. It defines
    what ``minimp.formats.round`` returns, which has the same arguments, results and errors and explains them.
    """
    fmt, mode = get(fmt), mode_named(rounding)
    rule, flush = overflow_named(overflow, fmt), flushes(subnormals)
    check_flags(flags)
    x = widen(x)
    dice = dice_for(rounding, x.shape, rng, bits)
    wide = widen64(x)
    if not rule.takes_nan:
        _refuse_nan(wide, fmt)
    finite = np.isfinite(wide)
    negative = np.zeros(wide.shape, bool) if rule.drops_sign and not fmt.signed else np.signbit(wide)
    magnitude = np.where(finite, np.abs(wide), 0.0)

    def to_grid(q: npt.NDArray[np.int32]) -> tuple[Float64s, Situation]:
        scaled = _in_ulps(magnitude, q)
        low = np.floor(scaled)
        at = Situation(scaled - low, low % 2 == 1, negative, dice, max_is_odd(fmt))
        return np.ldexp(low + mode.goes_up(at), q), at

    rounded, at = to_grid(quantum_exponent(magnitude, fmt))
    limit = np.where(negative, abs(fmt.lowest), fmt.max)
    kept = mode.keeps_max(at) | rule.saturates(fmt)
    past = (rounded > limit) | (negative & (wide != 0) & homeless(rounded, fmt))
    result = np.where(past, np.where(kept, limit, beyond(fmt, limit, negative)), rounded)
    result = np.where(np.isinf(wide), limit if rule.saturates(fmt) else beyond(fmt, limit, negative), result)
    if not fmt.has_zero:
        result = _without_zero(result, wide, fmt, rule)
    if flush:
        result = np.where(np.abs(result) < fmt.smallest_normal, 0.0, result)
    result = _signed(result, wide, negative, fmt)
    if flags is not None:
        tiny_after = (magnitude > 0) & (to_grid(_unbounded(magnitude, fmt))[0] < fmt.smallest_normal)
        _count(flags, wide, result, past, tiny_after & (not fmt.is_integer), fmt)
    return result.astype(np.float64 if _outgrows(x.dtype, fmt, rule) else x.dtype)


def _in_ulps(magnitude: Float64s, q: npt.NDArray[np.int32]) -> Float64s:
    """|x| / 2^q: exact, but where q > 0 could make it too small for float64; there it stays above 0."""
    return np.maximum(
        np.ldexp(magnitude, -q), np.where(magnitude > 0, np.finfo(np.float64).smallest_subnormal, 0)
    )


def _outgrows(dtype: np.dtype[Any], fmt: Format, rule: Overflow) -> bool:
    """Whether rounding numbers of this dtype to ``fmt`` can give what the dtype does not hold."""
    if dtype == np.float64 or fmt.within_float32:
        return False
    lowest, highest = fmt.emin - fmt.mantissa_bits, fmt.emax
    stays = fmt.mantissa_bits >= 23 and lowest <= -149 and highest >= 127  # every float32 is a value of fmt
    return not stays or rule.saturates(fmt)


def _without_zero(result: Float64s, wide: Float64s, fmt: Format, rule: Overflow) -> Float64s:
    """Where there is no zero: what would be one becomes the smallest value, and 0 itself that or NaN."""
    smallest, magnitude = fmt.smallest_normal, np.abs(wide)
    result = np.where(result < smallest, smallest, result)
    if rule.lifts_lowest:
        result = np.where((result == smallest) & (magnitude > smallest), 2 * smallest, result)
    return np.where(wide == 0, smallest if rule.keeps_zero else np.nan, result)


def _signed(result: Float64s, wide: Float64s, negative: npt.NDArray[np.bool_], fmt: Format) -> Float64s:
    """Give the magnitudes their signs, and NaN back."""
    if not fmt.signed:
        signed = result
    elif fmt.has_negative_zero:
        signed = np.copysign(result, np.where(negative, -1.0, 1.0))
    else:
        signed = np.where(negative & (result != 0), -result, result)
    return np.where(np.isnan(wide), wide if fmt.has_nan else np.copysign(0.0, -wide), signed)


def _count(
    flags: Flags,
    wide: Float64s,
    result: Float64s,
    past: npt.NDArray[np.bool_],
    tiny_after: npt.NDArray[np.bool_],
    fmt: Format,
) -> None:
    finite, became_nan = np.isfinite(wide), np.isnan(result) & ~np.isnan(wide)
    inexact = finite & (result != wide)
    overflow = finite & past & ~(became_nan & (wide < 0) & (not fmt.signed))
    below = (np.abs(wide) < fmt.smallest_normal) & (wide != 0) & (not fmt.is_integer)
    flags.add(
        wide.size,
        inexact=inexact,
        overflow=overflow,
        saturated=(past | np.isinf(wide)) & np.isfinite(result),
        tiny_before=below,
        tiny_after=tiny_after,
        underflow=tiny_after & inexact,
        flushed=(result == 0) & (wide != 0) & ~np.isnan(wide),
        invalid=became_nan & ~overflow,
    )


def _unbounded(magnitude: Float64s, fmt: Format) -> npt.NDArray[np.int32]:
    """quantum_exponent as if the exponent had no lower end."""
    _, exponent = np.frexp(magnitude)
    return np.asarray(exponent - fmt.precision, dtype=np.int32)


def quantum_exponent(x: npt.ArrayLike, fmt: Format) -> npt.NDArray[np.int32]:
    """q such that 2^q is the ulp of ``fmt`` at x: q = max(floor(log2 |x|), emin) - m; emin - m at 0.

    Where there are no subnormals, the values below 2^emin are 0 and 2^emin only: q = emin.

    x: finite float64, any shape.
    """
    _, exponent = np.frexp(x)  # |x| = fraction · 2^exponent, 1/2 <= fraction < 1
    exponent = np.where(np.asarray(x) == 0, fmt.emin - 1, exponent - 1)
    q = np.maximum(exponent, fmt.emin) - fmt.mantissa_bits
    if not fmt.is_gradual:
        q = np.where(exponent < fmt.emin, fmt.emin, q)
    return np.asarray(q, dtype=np.int32)


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
def as_array(x: Any) -> npt.NDArray[Any]:
    """x as an array, whatever its dtype.

    Raises:
        DataError: a masked array, rows of different lengths, or what NumPy cannot read.
    """
    if isinstance(x, np.ma.MaskedArray):
        raise DataError(
            "expected plain numbers, got a masked array, whose mask would be lost",
            op="formats",
            shapes=(x.shape,),
            help="x.filled(value) replaces what is masked, x.compressed() leaves it out",
        )
    try:
        return np.asarray(x)
    except (ValueError, TypeError) as fault:
        raise DataError(
            f"expected an array of numbers, got a {type(x).__name__} that NumPy refuses: {fault}",
            op="formats",
            help="rows must be of one length, and arrays of other libraries be brought to the host first",
        ) from fault


def widen(x: npt.ArrayLike) -> Floats:
    """Real numbers as float32 or float64, without changing one of them.

    Raises:
        DataError: complex, object, text or long double data; integers beyond what float64 can hold; what
            ``as_array`` refuses.
    """
    x = as_array(x)
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


def flushes(subnormals: str) -> bool:
    """Read the setting; SettingError if it is neither word."""
    if subnormals not in SUBNORMALS:
        raise SettingError(unknown_name("subnormals", subnormals, SUBNORMALS), op="round")
    return subnormals == "flush"


def dice_for(rounding: str, shape: tuple[int, ...], rng: Source, bits: Any) -> Dice | None:
    """The dice of the stochastic mode; None for the others, which take no random source."""
    if rounding == "stochastic":
        if rng is None and bits is None:
            raise SettingError(
                "stochastic rounding needs a random source",
                op="round",
                help="pass rng=seed, rng=Counter(seed), rng=numpy.random.default_rng(seed), or bits=...",
            )
        return roll(shape, rng, bits)
    if bits is not None:
        raise SettingError(
            f"random bits cannot act on rounding={rounding!r}", op="round", help='use rounding="stochastic"'
        )
    return None


def max_is_odd(fmt: Format) -> bool:
    """Whether the largest value's significand is odd; one of a single bit always is."""
    return fmt.max_code % 2 == 1 or fmt.precision == 1


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


def homeless(magnitude: Any, fmt: Format) -> Any:
    """Whether the negative of a rounded magnitude is no value for want of a sign (an unsigned 0 is -0)."""
    return ((magnitude != 0) | (not fmt.has_zero)) & (not fmt.signed)


def beyond(fmt: Format, limit: Any, negative: Any) -> Any:
    """What lies beyond the largest value when nothing clamps: inf, or NaN, or the largest value itself."""
    last = np.nan if fmt.has_nan else limit
    if not fmt.has_inf:
        return last
    return np.inf if fmt.signed else np.where(negative, last, np.inf)
