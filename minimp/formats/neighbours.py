"""The values of a format in a row: which come next, how many lie between, all of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from minimp.errors import FormatError
from minimp.formats.codes import decode, encode
from minimp.formats.operations import as_values, broadcast
from minimp.formats.rounding import Float64s
from minimp.formats.table import Format, get

__all__ = ["next_down", "next_up", "place_of", "ulp_distance", "value_at", "values"]

Places = npt.NDArray[np.int64]


def values(fmt: Any, *, specials: bool = False) -> Float64s:
    """Return every finite value of a format of at most 16 bits, ascending, as float64; 0 once, as +0.

    Args:
        fmt: anything that ``get`` knows.
        specials: whether -inf and inf, and at the end one NaN, are added as far as the format has them.

    Raises:
        FormatError: unknown format, or one of more than 16 bits.
    """
    fmt = get(fmt)
    if fmt.bits > _MOST_BITS:
        raise FormatError(
            f"{fmt.name} has 2^{fmt.bits} codes, too many to list",
            op="values",
            formats=(fmt.name,),
            help=f"values lists formats of at most {_MOST_BITS} bits; next_up walks through any format",
        )
    everything = decode(np.arange(1 << fmt.bits), fmt)
    finite = np.unique(everything[np.isfinite(everything)]) + 0.0
    if not specials:
        return finite
    ends = [np.inf] if fmt.has_inf else []
    negative = [-np.inf] if fmt.has_inf and fmt.signed else []
    return np.concatenate([negative, finite, ends, [np.nan] if fmt.has_nan else []])


_MOST_BITS = 16


def next_up(x: npt.ArrayLike, fmt: Any) -> Float64s:
    """Return the least value of ``fmt`` greater than x (IEEE 754-2019, 5.3.1: nextUp), elementwise.

    Args:
        x: values of ``fmt``, of any shape.
        fmt: anything that ``get`` knows.

    Returns:
        float64 of x's shape. Above the largest value is inf where the format has one; otherwise, as above
        inf, there is nothing greater and x itself is returned. The neighbours of the smallest positive value
        and of the negative one are zeros with their sign. NaN stays NaN.

    Raises:
        FormatError: unknown format, or x is no value of it.
    """
    return _step(x, get(fmt), 1, "next_up")


def next_down(x: npt.ArrayLike, fmt: Any) -> Float64s:
    """Return the greatest value of ``fmt`` less than x (nextDown): -next_up(-x) where there is a sign."""
    return _step(x, get(fmt), -1, "next_down")


@np.errstate(over="ignore")  # places count modulo 2^64; single ones would warn of it
def ulp_distance(a: npt.ArrayLike, b: npt.ArrayLike, fmt: Any) -> npt.NDArray[np.float64]:
    """Return how many steps from value to value lead from a to b: the distance in ULPs, elementwise.

    Each step is one next_up; -0 and +0 are the same place, so the smallest negative and the smallest positive
    value are 2 apart, and max and inf 1. (This is the distance between bit patterns; where a and b lie in one
    binade it is |a - b| / ulp.)

    Args:
        a, b: values of ``fmt``, of shapes that broadcast.
        fmt: anything that ``get`` knows.

    Returns:
        float64: whole numbers, exact below 2^53; 0 where both are NaN, NaN where one is.

    Raises:
        FormatError: unknown format, or a number is no value of it. ShapeError: the shapes do not broadcast.
    """
    fmt = get(fmt)
    first, second = broadcast("ulp_distance", [as_values(each, fmt, "ulp_distance") for each in (a, b)])
    start, stop = place_of(first, fmt), place_of(second, fmt)
    low, high = np.minimum(start, stop), np.maximum(start, stop)
    apart = (high.astype(np.uint64) - low.astype(np.uint64)).astype(np.float64)  # modulo 2^64, so never wrong
    nans = np.isnan(first).astype(int) + np.isnan(second)
    return np.where(nans == 0, apart, np.where(nans == 2, 0.0, np.nan))


def place_of(x: Float64s, fmt: Format) -> Places:
    """Return the place of values of ``fmt`` in their row: 0 for zero, magnitudes count away from it.

    (In a format without zero the smallest value has place 0. NaN has place 0 too.)
    """
    if fmt.is_integer:
        return np.asarray(np.nan_to_num(x), dtype=np.int64)
    magnitude = np.where(np.isnan(x), fmt.smallest_normal, np.abs(x))
    code = (encode(magnitude, fmt) >> fmt.code_dtype.type(fmt.padding)).astype(np.int64)
    place = np.where(code == 0, 0, code - _gap(fmt))
    return np.where(np.isnan(x), 0, np.where(np.signbit(x), -place, place))


def value_at(place: Places, fmt: Format) -> Float64s:
    """Return the value of a place: the inverse of ``place_of``; a place beyond the last is the last."""
    if fmt.is_integer:
        return np.clip(place, int(fmt.lowest), int(fmt.max)).astype(np.float64)
    last = fmt.max_code + fmt.has_inf - _gap(fmt)
    place = np.clip(place, -last if fmt.signed else 0, last)
    codes = np.where(place == 0, 0, np.abs(place) + _gap(fmt)).astype(fmt.code_dtype)
    magnitude = decode(codes << fmt.code_dtype.type(fmt.padding), fmt)
    return np.copysign(magnitude, np.where(place < 0, -1.0, 1.0))


def _gap(fmt: Format) -> int:
    """How many codes between zero and the smallest value are none of their own: all subnormals' or 0."""
    return 0 if fmt.is_gradual or not fmt.has_zero else (1 << fmt.mantissa_bits) - 1


def _step(x: npt.ArrayLike, fmt: Format, direction: int, op: str) -> Float64s:
    given = as_values(x, fmt, op)
    place = place_of(given, fmt)
    moved = value_at(place + direction, fmt)
    if fmt.has_negative_zero:  # from the smallest negative value up: -0
        moved = np.where((moved == 0) & (place < 0), -0.0, moved)
    return np.where(np.isnan(given), given, moved)
