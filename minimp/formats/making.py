"""Formats of one's own, made at run time."""

from __future__ import annotations

from typing import Any

import numpy as np

from minimp.errors import FormatError, SettingError
from minimp.formats.table import Format, is_name, own_format

__all__ = ["make"]


def make(
    exponent_bits: int,
    mantissa_bits: int,
    bias: int | None = None,
    *,
    inf: bool | None = None,
    nan: bool | None = None,
    subnormals: bool = True,
    signed: bool = True,
    flavour: str | None = None,
    name: str | None = None,
) -> Format:
    """Make a floating-point format of one's own; the same arguments give the same object.

    >>> make(4, 11).describe().splitlines()[0]
    'e4m11: 16 bits (1 sign + 4 exponent + 11 mantissa), stored as uint16'

    Args:
        exponent_bits, mantissa_bits: stored bits, the hidden bit not counted; at least 1 and 0.
        bias: subtracted from the stored exponent; by default 2^(exponent_bits - 1) - 1 as in IEEE 754, and
            one more in the flavours ``fnuz`` and ``p3109``, whose -0 code is a NaN.
        inf, nan: whether there are infinities, and NaN. Both (the default) is flavour ``ieee``; only NaN
            ``fn``; only infinities ``inf``; neither ``finite``.
        subnormals: whether there are values between 0 and the smallest normal number.
        signed: whether there is a sign bit.
        flavour: a key of ``FLAVOURS``, in place of inf and nan.
        name: how the format calls itself; derived from the other arguments by default.

    Its codes are stored in the smallest of uint8, uint16, uint32 and uint64, which is its ``dtype``.

    Raises:
        FormatError: there is no such format: no exponent bits, more than 64 bits, values that float64 does
            not hold, special values that leave no numbers, counts that are no whole numbers; or the name is
            that of another format.
        SettingError: flavour and inf or nan are both given.
    """
    counts = {
        "exponent_bits": exponent_bits,
        "mantissa_bits": mantissa_bits,
        "bias": 0 if bias is None else bias,
    }
    exponent_bits, mantissa_bits, shift = (_whole(what, value) for what, value in counts.items())
    _check_words({"inf": inf, "nan": nan, "subnormals": subnormals, "signed": signed}, flavour, name)
    for what, count, least in (("exponent", exponent_bits, 1), ("mantissa", mantissa_bits, 0)):
        if count < least:
            raise FormatError(
                f"expected at least {least} {what} bits, got {count}",
                op="make",
                help="a format of evenly spaced values is get('int8')",
            )
    bits = signed + exponent_bits + mantissa_bits
    if bits > _MOST_BITS:
        raise FormatError(
            f"expected at most {_MOST_BITS} bits in all, got {signed:d} + {exponent_bits} + {mantissa_bits}",
            op="make",
            help="every value must be a float64: at most 11 exponent and 52 mantissa bits",
        )
    kind = _flavour_of(inf, nan, flavour)
    centre = (1 << (exponent_bits - 1)) - (kind not in ("fnuz", "p3109"))
    size = next(each for each in (8, 16, 32, 64) if each >= bits)
    bias = centre if bias is None else shift
    own = f"{'' if signed else 'u'}e{exponent_bits}m{mantissa_bits}{'' if kind == 'ieee' else kind}"
    own += "" if bias == centre else f"b{bias}"
    own += "" if subnormals else "ns"
    store = np.dtype(f"u{size // 8}")
    return own_format(name or own, exponent_bits, mantissa_bits, bias, kind, store, subnormals, signed)


_MOST_BITS = 64
_SPECIALS = {(True, True): "ieee", (False, True): "fn", (True, False): "inf", (False, False): "finite"}
"""(inf, nan) -> flavour."""


def _flavour_of(inf: bool | None, nan: bool | None, flavour: str | None) -> str:
    if flavour is None:
        both = (inf is None or inf, nan is None or nan)
        return _SPECIALS[both]
    if inf is not None or nan is not None:
        raise SettingError("expected flavour, or inf and nan, got both", op="make", help="leave one out")
    if flavour in ("integer", "scale"):
        raise FormatError(
            f"flavour {flavour!r} is not one of the formats that can be made",
            op="make",
            help="integers and the scale format are get('int8'), get('uint8') and get('float8_e8m0fnu')",
        )
    return flavour


def _whole(what: str, value: Any) -> int:
    """Read a count as a Python integer."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | np.integer):
        raise FormatError(
            f"expected {what} to be a whole number, got {value!r}",
            op="make",
            help="for example make(4, 3, bias=7): 4 exponent bits, 3 mantissa bits, bias 7",
        )
    return int(value)


def _check_words(switches: dict[str, Any], flavour: Any, name: Any) -> None:
    """Refuse switches that are neither on nor off, and names that cannot be one or are taken."""
    for what, value in switches.items():
        if not isinstance(value, bool) and (value is not None or what in ("subnormals", "signed")):
            raise FormatError(
                f"expected {what} to be True or False, got {value!r}",
                op="make",
                help="leave it out, or say which",
            )
    for what, word in (("flavour", flavour), ("name", name)):
        if word is not None and not isinstance(word, str):
            raise FormatError(f"expected {what} to be text, got {word!r}", op="make", help="leave it out")
    if name is not None and is_name(name):
        raise FormatError(
            f"the name {name!r} is taken: get({name!r}) is another format",
            op="make",
            formats=(name,),
            help="choose another name, or leave it out",
        )
