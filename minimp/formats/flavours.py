"""Flavours: what a format does with its last codes, as data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

__all__ = ["FLAVOURS", "Flavour"]


@dataclass(frozen=True)
class Flavour:
    """How a family of formats spends its last codes.

    Attributes:
        name: the family's name, the suffix of the format names where there is one.
        has_inf: whether there are infinities.
        nan: where the NaN is: ``"top"`` (above the infinity), ``"ones"`` (all bits but the sign set),
            ``"sign"`` (the code of -0), or None.
        has_negative_zero: whether -0 differs from +0.
        reserved_codes: how many of the highest magnitude codes are not finite numbers.
        note: one line for people.
        has_zero: whether zero is a value.
    """

    name: str
    has_inf: bool
    nan: str | None
    has_negative_zero: bool
    reserved_codes: Callable[[int], int]
    note: str
    has_zero: bool = True


def _whole_binade(mantissa_bits: int) -> int:
    return 1 << mantissa_bits


def _one(_: int) -> int:
    return 1


def _none(_: int) -> int:
    return 0


FLAVOURS: Mapping[str, Flavour] = MappingProxyType(
    {
        each.name: each
        for each in (
            Flavour("ieee", True, "top", True, _whole_binade, "the top exponent holds infinities and NaNs"),
            Flavour("fn", False, "ones", True, _one, "finite; the code of all ones is NaN"),
            Flavour("fnuz", False, "sign", False, _none, "finite, unsigned zero; the code of -0 is NaN"),
            Flavour("finite", False, None, True, _none, "every code is a finite number"),
            Flavour("inf", True, None, True, _one, "no NaN; the code of all ones is an infinity"),
            Flavour("p3109", True, "sign", False, _one, "the code of all ones is inf, that of -0 is NaN"),
            Flavour(
                "scale", False, "ones", False, _one, "powers of two, without sign or zero", has_zero=False
            ),
            Flavour("integer", False, None, False, _none, "evenly spaced; two's complement if signed"),
        )
    }
)
