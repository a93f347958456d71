"""`minimp inspect`: the bits, error and neighbours of one number, in several formats side by side."""

from __future__ import annotations

import argparse
import decimal
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from minimp import formats
from minimp.cli.base import console, examples, json_text
from minimp.errors import DataError, SettingError
from minimp.formats import FORMATS, OVERFLOWS, ROUNDINGS, Format, Inspection

__all__ = ["add_parser", "as_json", "from_bits", "read_number", "run"]

DEFAULT = ("float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2")
ROUNDING, OVERFLOW = "nearest_even", "ieee"
STYLES = {"sign": "red", "exponent": "green", "mantissa": "blue"}
KINDS = {"subnormal": "yellow", "inf": "bold red", "nan": "bold red"}
MOST_CHARACTERS = 24
"""Of a number on the screen: as many as float64 needs at its longest, -1.7976931348623157e+308."""


def add_parser(subparsers: Any) -> None:
    """Add the command and its options."""
    parser = subparsers.add_parser(
        "inspect",
        help="show the bits, error and neighbours of one number in several formats",
        description="Round one number to several formats, and show for each its sign, exponent and mantissa "
        "bits, its value there, the error and its neighbours. The number is taken exactly and rounded once.",
        epilog=examples(
            "minimp inspect 0.1",
            "minimp inspect -1e-7 --format fp16 --format bf16,e4m3fn --rounding toward_zero",
            "minimp inspect 1/3 --json",
            "minimp inspect --bits 0x3c00",
        ),
    )
    add = parser.add_argument
    add("value", metavar="VALUE", nargs="?", help="0.1, -1e-7, 1/3, 0x1.8p-3, inf, -inf or nan")
    add("--bits", metavar="CODE", help="read a bit pattern instead: 0x3c00, or 0b0_01111_0000000000")
    names = f"formats: {', '.join(FORMATS)}; short names such as fp16, bf16, e4m3fn will do"
    default = f"default: {', '.join(DEFAULT)}; with --bits, all that have as many bits"
    add("--format", metavar="A,B", action="append", help=f"{names} ({default})")
    add("--rounding", metavar="NAME", help=f"one of {', '.join(ROUNDINGS)} (default: nearest_even)")
    add("--overflow", metavar="NAME", help=f"one of {', '.join(OVERFLOWS)} (default: ieee)")
    add("--json", action="store_true", help="print JSON")
    add("--quiet", action="store_true", help="print the values only, a line for each format")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command; return the exit code."""
    seen = _inspections(args)
    out = console()
    if args.json:
        out.print(json_text(as_json(args, seen)), end="", soft_wrap=True, markup=False)
    elif args.quiet:
        out.print("\n".join(_number(each.value) for each in seen))
    else:
        _show(out, args, seen)
    return 0


def _inspections(args: argparse.Namespace) -> list[Inspection]:
    """Return what the options ask for, one inspection a format."""
    chosen = [formats.get(name) for part in args.format or () for name in part.split(",")]
    chosen = list(dict.fromkeys(chosen))
    if args.json and args.quiet:
        raise SettingError("--quiet cannot act beside --json", help="leave one of them out")
    if args.bits is None:
        if args.value is None:
            raise SettingError("expected a VALUE, or --bits CODE", help="minimp inspect --help")
        number = read_number(args.value)
        given = (args.rounding or ROUNDING, args.overflow or OVERFLOW)
        return [formats.inspect(number, each, *given) for each in chosen or map(formats.get, DEFAULT)]
    for name in ("value", "rounding", "overflow"):
        if getattr(args, name) is not None:
            said = "a VALUE" if name == "value" else f"--{name}"
            raise SettingError(f"{said} cannot act beside --bits: a bit pattern is read as it is")
    return from_bits(args.bits, chosen)


# ---- the way in -------------------------------------------------------------------------------------------

_HEXADECIMAL = re.compile(r"([+-]?)0x([0-9a-f]*)\.?([0-9a-f]*)(?:p([+-]?[0-9]{1,5}))?")
_PATTERN = re.compile(r"0x([0-9a-f]+)|0b([01]+)")


def read_number(text: str) -> str | float | Fraction:
    """Return a number as `minimp.formats.inspect` takes it, exactly; hexadecimal floats are read here.

    >>> read_number("0x1.8p-3")
    Fraction(3, 16)

    Raises:
        DataError: a hexadecimal number that could be meant as a bit pattern.
    """
    plain = text.strip().lower().replace("_", "")
    found = _HEXADECIMAL.fullmatch(plain)
    if not found or not (found[2] or found[3]):
        return text
    if found[4] is None and "." not in plain:
        advice = f"--bits {plain} for the bit pattern, or {plain}p0 for the number {int(plain, 16)}"
        raise DataError(f"{text} may be a bit pattern or a number", help=advice)
    scale = Fraction(2) ** (int(found[4] or 0) - 4 * len(found[3]))
    magnitude = int(found[2] + found[3], 16) * scale
    if magnitude == 0:
        return -0.0 if found[1] == "-" else 0.0
    return -magnitude if found[1] == "-" else magnitude


def from_bits(text: str, chosen: Sequence[Format] = ()) -> list[Inspection]:
    """Read one bit pattern in several formats.

    Args:
        text: hexadecimal, ``0x3c00``, or binary, ``0b0_01111_0000000000``.
        chosen: the formats; by default all that have as many bits as are written.

    Raises:
        DataError: it is no bit pattern, or needs more bits than a format has.
    """
    found = _PATTERN.fullmatch(text.strip().lower().replace("_", "").replace(" ", ""))
    if not found:
        raise DataError(
            f"expected a bit pattern, got {text!r}", help="write it as 0x3c00 or 0b0_01111_0000000000"
        )
    width = 4 * len(found[1]) if found[1] else len(found[2])
    code = int(found[0], 0)
    chosen = chosen or [each for each in FORMATS.values() if each.bits == width]
    if not chosen:
        raise DataError(f"no format has {width} bits", help="write all digits, or name a --format")
    for each in chosen:
        if code >> each.bits:
            said = f"{text} needs {code.bit_length()} bits, and {each.name} has {each.bits}"
            raise DataError(said, help="name a wider --format")
    return [_decoded(text, code, each) for each in chosen]


def _decoded(text: str, code: int, fmt: Format) -> Inspection:
    value = float(formats.decode(np.asarray(code << fmt.padding), fmt))
    exponent, mantissa = divmod(code & ((1 << (fmt.bits - 1)) - 1), 1 << fmt.mantissa_bits)
    return replace(  # of a NaN too, which has many codes, the one that was given
        formats.inspect(value, fmt),
        given=text,
        sign=code >> (fmt.bits - 1),
        exponent=exponent,
        mantissa=mantissa,
        bits=f"{code:0{fmt.bits}b}",
        error=Fraction(0),
    )


# ---- the way out ------------------------------------------------------------------------------------------


def as_json(args: argparse.Namespace, seen: Sequence[Inspection]) -> dict[str, Any]:
    """Return what `--json` prints; an error beyond float64 is an infinity there."""
    number = {
        "given": args.value,
        "rounding": args.rounding or ROUNDING,
        "overflow": args.overflow or OVERFLOW,
    }
    return {
        **({"given": args.bits} if args.bits else number),
        "formats": [
            {
                "format": each.format.name,
                "code": _code(each),
                **dict(zip(("sign", "exponent", "mantissa"), _fields(each), strict=True)),
                "kind": each.kind,
                "value": each.value,
                "error": _float(each.error),
                "error_ulps": _float(_ulps(each)),
                "ulp": each.ulp,
                "below": each.neighbours[0],
                "above": each.neighbours[1],
            }
            for each in seen
        ],
    }


def _show(out: Console, args: argparse.Namespace, seen: Sequence[Inspection]) -> None:
    """Print three tables, each within 100 columns for formats of up to 64 bits."""
    rounding = args.rounding or ROUNDING
    how = "bit pattern" if args.bits else f"{rounding}: {ROUNDINGS[rounding].note}"
    how += f"; overflow {args.overflow}: {OVERFLOWS[args.overflow]}" if args.overflow else ""
    out.print(Text.assemble((args.bits or args.value, "bold"), f"  {how}"))
    bits, values, around = (
        _table("format", *heads)
        for heads in (
            (*STYLES, "kind"),
            ("value", "significand x 2^exponent", "error", "in ulps"),
            ("code", "ulp", "neighbour below", "neighbour above"),
        )
    )
    for each in seen:
        name = each.format.name
        fields = (Text(text, style) for text, style in zip(_fields(each), STYLES.values(), strict=True))
        bits.add_row(name, *fields, Text(each.kind, KINDS.get(each.kind, "")))
        values.add_row(name, _number(each.value), _formula(each), _short(each.error), _short(_ulps(each)))
        around.add_row(name, _code(each), _power(each.ulp), *map(_number, each.neighbours))
    for table in (bits, values, around):
        out.print()
        out.print(table)


def _table(*heads: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for head in heads:
        table.add_column(Text(head, STYLES.get(head, "")), overflow="fold")
    return table


def _fields(seen: Inspection) -> tuple[str, str, str]:
    """Return the bits of sign, exponent and mantissa."""
    cut = 1 + seen.format.exponent_bits
    return seen.bits[:1], seen.bits[1:cut], seen.bits[cut:]


def _code(seen: Inspection) -> str:
    return f"0x{int(seen.bits, 2):0{-(-seen.format.bits // 4)}x}"


def _number(value: float | None) -> str:
    """Return a float exactly, in decimal, where that is short; else the digits that tell it from others."""
    if value is None:
        return "none"
    exact = f"{Decimal(value):g}" if math.isfinite(value) else ""
    return exact if 0 < len(exact) <= MOST_CHARACTERS else repr(value)


def _formula(seen: Inspection) -> str:
    """Return sign, significand and scale, as in +1.5 x 2^-4; of a subnormal the significand is below 1."""
    fmt = seen.format
    if seen.kind not in {"normal", "subnormal"} or fmt.is_integer:
        return "-"
    exponent = max(seen.exponent, 1) - fmt.bias
    significand = math.ldexp(1.0, fmt.mantissa_bits) * (seen.exponent > 0) + seen.mantissa
    return f"{'-' if seen.sign else '+'}{significand / 2.0**fmt.mantissa_bits!r} x 2^{exponent}"


def _ulps(seen: Inspection) -> Fraction | float:
    return seen.error / Fraction(seen.ulp) if isinstance(seen.error, Fraction) and seen.error else seen.error


def _short(error: Fraction | float) -> str:
    """Return an error in three digits, however small or large it is."""
    if not isinstance(error, Fraction):
        return "-" if math.isnan(error) else f"{error:+g}"
    if not error:
        return "none"
    wide = decimal.Context(prec=20, Emax=decimal.MAX_EMAX, Emin=decimal.MIN_EMIN)
    return f"{wide.divide(Decimal(error.numerator), Decimal(error.denominator)):+.3g}"


def _float(number: Fraction | float) -> float:
    try:
        return float(number)
    except OverflowError:
        return math.inf if number > 0 else -math.inf


def _power(ulp: float) -> str:
    return "none" if math.isnan(ulp) else f"2^{math.frexp(ulp)[1] - 1}"
