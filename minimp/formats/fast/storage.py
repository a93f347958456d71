"""Codes of a block: float numbers to a format's bits, and back.

* **Table** (``plans`` says why it is right): 16 bits of a float32, the last one sticky, index 65,536 answers
  of the readable form, so any rounding, overflow rule and flavour costs the same.
* **Pack.** A value of the format times 2^(-126 - emin) is a float32 whose exponent field is the format's
  (subnormals become float32's subnormals), so its upper bits are the code.
* **Unpack.** The same backwards, or, for 8 bits, a table of all values.
"""

from __future__ import annotations

import sys
from functools import cache
from typing import Any

import numpy as np

from minimp.formats import codes as readable
from minimp.formats.fast.grid import top_of
from minimp.formats.fast.lanes import SINGLE, Array, Kernel, lane
from minimp.formats.fast.plans import RefusedError
from minimp.formats.overflows import overflow_named
from minimp.formats.rounding import round_to
from minimp.formats.table import FORMATS, Format

__all__ = [
    "INDEX",
    "WORTH_A_TABLE",
    "WORTH_A_TABLE_BITS",
    "cast",
    "casts",
    "code_table",
    "encoder",
    "lookup",
    "pack",
    "packs",
    "rounded_table",
    "sticky_lookup",
    "takes_nan",
    "unpack",
    "unpacks",
    "value_table",
]

_WORD, _REAL, INDEX = SINGLE.word, SINGLE.real, np.dtype(np.intp)
_LOW, _HALF = SINGLE.constant(0xFFFF), SINGLE.constant(16)
_INFINITY = int(SINGLE.exponent)
WORTH_A_TABLE, WORTH_A_TABLE_BITS = 1 << 14, 16
"""Elements from which on a table of 65,536 answers is made, and the longest code that has one."""


@cache
def code_table(fmt: Format, rounding: str, overflow: str | None, subnormals: str) -> Array:
    """The codes of all float32 numbers whose last 16 bits are 0. Where NaN is refused, 0 is in its place."""
    table = readable.encode(_upper_halves(fmt, overflow), fmt, rounding, overflow, subnormals=subnormals)
    table.setflags(write=False)
    return table


@cache
def value_table(fmt: Format, dtype: np.dtype[Any]) -> Array:
    """The values of all codes, as float32 or float64."""
    codes = np.arange(1 << fmt.bits, dtype=np.uint32)
    table = readable.decode(codes, fmt).astype(dtype)
    table.setflags(write=False)
    return table


@cache
def rounded_table(fmt: Format, rounding: str, overflow: str | None, subnormals: str) -> Array:
    """The rounded values of all float32 numbers whose last 16 bits are 0; NaN as in ``code_table``."""
    table = round_to(_upper_halves(fmt, overflow), fmt, rounding, overflow, subnormals=subnormals)
    table.setflags(write=False)
    return table


def _upper_halves(fmt: Format, overflow: str | None) -> Array:
    numbers = (np.arange(1 << 16, dtype=_WORD) << _HALF).view(_REAL)
    if not takes_nan(fmt, overflow):
        numbers[np.isnan(numbers)] = 0
    return numbers


def takes_nan(fmt: Format, overflow: str | None) -> bool:
    """Whether NaN is rounded to something."""
    return fmt.has_nan or overflow_named(overflow, fmt).takes_nan


def sticky_lookup(table: Array, *, refuse_nan: bool) -> Kernel:
    """Return the kernel that looks float32 numbers up by their upper 16 bits and a sticky bit."""

    def kernel(_: int, given: Array, result: Array) -> None:
        bits = given.view(_WORD)
        if refuse_nan and top_of(SINGLE, given) > _INFINITY:
            raise RefusedError
        upper = np.bitwise_and(bits, _LOW, out=lane("total", _WORD, given.size))
        np.add(upper, _LOW, out=upper)
        np.bitwise_or(upper, bits, out=upper)
        np.right_shift(upper, _HALF, out=upper)
        _take(table, upper, result)

    return kernel


def lookup(table: Array) -> Kernel:
    """Return the kernel that looks codes up; one past the table is refused."""

    def kernel(_: int, given: Array, result: Array) -> None:
        if table.size <= np.iinfo(given.dtype).max and int(np.maximum.reduce(given)) >= table.size:
            raise RefusedError
        _take(table, given, result)

    return kernel


def _take(table: Array, index: Array, result: Array) -> None:
    wide = lane("index", INDEX, index.size)
    np.copyto(wide, index, casting="unsafe")
    np.take(table, wide, out=result, mode="wrap")  # in range; the quickest mode that writes to `out`


def casts(fmt: Format) -> bool:
    """Whether the library that brings the dtype has a vectorised cast: ml_dtypes' to bfloat16."""
    return fmt is FORMATS["bfloat16"]


def cast(fmt: Format) -> Kernel:
    """Return the kernel that leaves float32 to that cast: to nearest, overflow as IEEE 754."""

    def kernel(_: int, given: Array, result: Array) -> None:
        np.copyto(result.view(fmt.dtype), given, casting="unsafe")

    return kernel


def packs(fmt: Format) -> bool:
    """Whether ``pack`` serves: scaled by a power of two, all values are float32 with the code's fields."""
    whole = fmt.signed and fmt.is_gradual and not fmt.is_integer and fmt.code_dtype.itemsize <= 4
    within = fmt.within_float32 and fmt.emin > -SINGLE.bias
    return whole and within and (fmt.emin == 1 - SINGLE.bias or not _flushes_subnormals())


def _flushes_subnormals() -> bool:
    """Whether this thread's processor replaces subnormal numbers by zero."""
    return sys.float_info.min * 0.5 == 0.0


def pack(fmt: Format) -> Kernel:
    """Return the kernel that gives values of the format, as float32, their codes; it uses the values up."""
    dropped = SINGLE.stored - fmt.mantissa_bits
    scale = None if fmt.emin == 1 - SINGLE.bias else np.array(2.0 ** (1 - SINGLE.bias - fmt.emin), _REAL)
    down, sign_down = dropped - fmt.padding, 31 - fmt.magnitude_bits - fmt.padding
    sign = SINGLE.constant(1 << (fmt.magnitude_bits + fmt.padding))
    below = SINGLE.constant(int(sign) - 1)
    strays = 31 - down < 8 * fmt.code_dtype.itemsize  # the sign bit, shifted with the rest

    def kernel(_: int, given: Array, result: Array) -> None:
        bits, special = given.view(_WORD), _special_codes(fmt, given)
        if scale is not None:
            np.multiply(given, scale, out=given)
        codes = np.right_shift(bits, SINGLE.constant(down), out=lane("magic", _WORD, given.size))
        if sign_down != down:
            np.right_shift(bits, SINGLE.constant(sign_down), out=bits)
            np.bitwise_and(bits, sign, out=bits)
            if strays:
                np.bitwise_and(codes, below, out=codes)
            np.bitwise_or(codes, bits, out=codes)
        for where, code in special:
            codes[where] = code
        np.copyto(result, codes, casting="unsafe")

    return kernel


def _special_codes(fmt: Format, values: Array) -> list[tuple[Array, Array]]:
    """Where infinities and NaNs are, and their codes; none in most blocks."""
    if top_of(SINGLE, values) < _INFINITY:
        return []
    found = []
    for where, code in ((np.isinf(values), fmt.inf_code), (np.isnan(values), fmt.nan_code)):
        signs = np.signbit(values[where]).astype(_WORD) << SINGLE.constant(fmt.magnitude_bits)
        found.append((where, (signs | SINGLE.constant(code or 0)) << SINGLE.constant(fmt.padding)))
    return found


def encoder(fmt: Format, rounder: Kernel, dtype: np.dtype[Any]) -> Kernel:
    """Return the kernel that rounds in `dtype` and gives the codes."""
    code = _count if fmt.is_integer else pack(fmt)

    def kernel(place: int, given: Array, result: Array) -> None:
        values = lane("values", dtype, given.size)
        rounder(place, given, values)
        if dtype != _REAL:
            values = lane("single", _REAL, given.size)
            np.copyto(values, lane("values", dtype, given.size), casting="same_kind")  # exact
        code(place, values, result)

    return kernel


def _count(_: int, given: Array, result: Array) -> None:
    """Integers as two's complement."""
    whole = lane("codes", SINGLE.whole, given.size)
    np.copyto(whole, given, casting="unsafe")
    np.copyto(result, whole, casting="unsafe")


def unpacks(fmt: Format) -> bool:
    """Whether ``unpack`` serves: the codes fill 16 or 32 bits, and the top exponent holds no numbers."""
    full = fmt.bits + fmt.padding == 8 * fmt.code_dtype.itemsize and fmt.code_dtype.itemsize in (2, 4)
    return full and fmt.flavour == "ieee" and packs(fmt)


def unpack(fmt: Format) -> Kernel:
    """Return the kernel that gives codes their values, as float32 or float64."""
    up = SINGLE.stored - fmt.mantissa_bits - fmt.padding
    fields = ((1 << (fmt.magnitude_bits + fmt.padding)) - 1) << up
    kept = np.array((int(SINGLE.sign) | fields) - (1 << 32), SINGLE.whole)
    scale = None if fmt.emin == 1 - SINGLE.bias else np.array(2.0 ** (fmt.emin - 1 + SINGLE.bias), _REAL)
    special = (fmt.inf_code or 0) << fmt.padding
    stray = (1 << fmt.padding) - 1

    def kernel(_: int, given: Array, result: Array) -> None:
        n, whole = given.size, given.view(f"i{given.itemsize}")
        half = 1 << (8 * given.itemsize - 1)
        if stray and int(np.bitwise_or.reduce(given)) & stray:
            raise RefusedError
        if max(int(np.maximum.reduce(whole)), int(np.maximum.reduce(given)) - half) >= special:
            _unpack_special(fmt, given, result)
            return
        words = result.view(SINGLE.whole) if result.dtype == _REAL else lane("total", SINGLE.whole, n)
        np.copyto(words, whole)  # with its sign
        if up:
            np.left_shift(words, np.array(up, SINGLE.whole), out=words)
        values = words.view(_REAL)
        if scale is not None:
            np.bitwise_and(words, kept, out=words)
            np.multiply(values, scale, out=values)
        if result.dtype != _REAL:
            np.copyto(result, values)

    return kernel


def _unpack_special(fmt: Format, codes: Array, result: Array) -> None:
    if fmt.bits > WORTH_A_TABLE_BITS or codes.size < WORTH_A_TABLE:
        np.copyto(result, readable.decode(codes, fmt), casting="same_kind")
    else:
        _take(value_table(fmt, result.dtype), codes, result)
