"""`minimp inspect`: one number in several formats (bits, error, neighbours), or arithmetic in formats."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

from minimp import formats
from minimp.cli.base import console, examples, json_text
from minimp.cli.inspect_expression import calculation_json, show_calculation
from minimp.cli.inspect_number import as_json, show_numbers
from minimp.errors import DataError, SettingError
from minimp.formats import FORMATS, OVERFLOWS, ROUNDINGS, Format, Inspection
from minimp.formats.inspection.anatomy import inspect_code
from minimp.formats.inspection.calculation import Calculation
from minimp.formats.inspection.expressions import evaluate
from minimp.formats.inspection.grammar import read_hexadecimal
from minimp.formats.inspection.wording import number

__all__ = ["add_parser", "from_bits", "read_number", "run"]

DEFAULT = ("float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2")
ROUNDING, OVERFLOW = "nearest_even", "ieee"
NEGATIVE = re.compile(r"-(\.?\d|inf|nan|\(|\w+\()", re.IGNORECASE)
"""How a negative number or expression begins, which is no option: -0.1, -inf, -(, -fp16(."""


def add_parser(subparsers: Any) -> None:
    """Add the command and its options."""
    parser = subparsers.add_parser(
        "inspect",
        help="show the bits, error and neighbours of a number, or take a calculation apart",
        description="Round one number to several formats, and show for each its sign, exponent and mantissa "
        "bits, its value there, the error and its neighbours; the number is taken exactly and rounded once. "
        "Or calculate an expression with formats in it, and show for each operation its operands, the exact "
        "result, the rounded one, what was lost and why. Expressions have + - * /, ( ), sqrt(a), abs(a), "
        "fma(a, b, c) and casts by the name of any format; a plain number beside a value of a format takes "
        "that format.",
        epilog=examples(
            "minimp inspect 0.1",
            "minimp inspect -1e-7 --format fp16 --format bf16,e4m3fn --rounding toward_zero",
            "minimp inspect 1/3 --json",
            "minimp inspect 0.1 --rounding stochastic --seed 7",
            "minimp inspect --bits 0x3c00",
            'minimp inspect "fp16(0.1) + fp16(0.2)"',
            'minimp inspect "fp16(2048) + 1" --rounding up',
            'minimp inspect "e4m3fn(fp32(0.1)) * 300" --overflow saturate',
            "minimp inspect 0.27 --scale 0.02 --zero-point 3 --format int8,uint4",
        ),
    )
    parser._negative_number_matcher = NEGATIVE
    add = parser.add_argument
    value = "0.1, -1e-7, 1/3, 0x1.8p-3, inf, -inf or nan; or an expression such as 'fp16(2048) + 1'"
    add("value", metavar="VALUE", nargs="?", help=value)
    add("--bits", metavar="CODE", help="read a bit pattern instead: 0x3c00, or 0b0_01111_0000000000")
    names = f"formats: {', '.join(FORMATS)}; short names such as fp16, bf16, e4m3fn will do"
    default = f"default: {', '.join(DEFAULT)}; with --bits, all that have as many bits"
    add("--format", metavar="A,B", action="append", help=f"{names} ({default})")
    add("--rounding", metavar="NAME", help=f"one of {', '.join(ROUNDINGS)} (default: nearest_even)")
    add("--overflow", metavar="NAME", help=f"one of {', '.join(OVERFLOWS)} (default: ieee)")
    add("--seed", metavar="N", type=int, help="the random numbers of --rounding stochastic")
    codes = "quantise to integer codes of this scale; --format is then int8, uint8, int4, uint4, int3, ..."
    add("--scale", metavar="S", type=float, help=codes)
    add("--zero-point", metavar="Z", type=int, help="the code of 0, beside --scale (default: 0)")
    add("--rule", metavar="NAME", help="torch, torch-dynamic, onnx or tflite, beside --scale (default: all)")
    add("--json", action="store_true", help="print JSON")
    add("--quiet", action="store_true", help="print the values only, a line for each format")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command; return the exit code."""
    _check(args)
    if args.scale is not None:
        return _run_codes(args)
    chosen = [formats.get(name) for part in args.format or () for name in part.split(",")]
    seen = _seen(args, list(dict.fromkeys(chosen)))
    out = console()
    if args.json:
        shown = calculation_json(seen, args.seed) if isinstance(seen, Calculation) else as_json(args, seen)
        out.print(json_text(shown), end="", soft_wrap=True, markup=False)
    elif args.quiet:
        values = [seen.value] if isinstance(seen, Calculation) else [each.value for each in seen]
        out.print("\n".join(map(number, values)))
    elif isinstance(seen, Calculation):
        show_calculation(out, seen)
    else:
        show_numbers(out, args, seen)
    return 0


def _run_codes(args: argparse.Namespace) -> int:
    """Show integer codes; return the exit code."""
    from minimp.cli import inspect_code  # what it needs is loaded by no other inspection

    out, given = console(), formats.inspect(read_number(args.value), formats.float32).value
    if args.json:
        text = json_text(inspect_code.as_json(args, given))
        out.print(text, end="", soft_wrap=True, markup=False)
    elif args.quiet:
        out.print("\n".join(number(row["value"]) for row in inspect_code.rows(args, given)))
    else:
        inspect_code.show(out, args, given)
    return 0


def _seen(args: argparse.Namespace, chosen: list[Format]) -> Calculation | list[Inspection]:
    """Return what is asked for: a calculation, or one inspection a format."""
    if args.bits is not None:
        return from_bits(args.bits, chosen)
    how = (args.rounding or ROUNDING, args.overflow or OVERFLOW, args.seed)
    if is_expression(args.value):
        return evaluate(args.value, *how)
    given = read_number(args.value)
    return [formats.inspect(given, each, *how) for each in chosen or map(formats.get, DEFAULT)]


def _check(args: argparse.Namespace) -> None:
    """Refuse options that cannot act."""
    if args.json and args.quiet:
        raise SettingError("--quiet cannot act beside --json", help="leave one of them out")
    if args.bits is None and args.value is None:
        raise SettingError("expected a VALUE, or --bits CODE", help="minimp inspect --help")
    for name in ("value", "rounding", "overflow", "seed"):
        if args.bits is not None and getattr(args, name) is not None:
            said = "a VALUE" if name == "value" else f"--{name}"
            raise SettingError(f"{said} cannot act beside --bits: a bit pattern is read as it is")
    if args.bits is None and args.format and is_expression(args.value):
        raise SettingError(
            f"--format cannot act beside the expression {args.value!r}, which names its formats itself",
            help=f"for example {args.format[0].partition(',')[0]}(0.1) + 0.2",
        )
    _check_codes(args)
    stochastic = args.rounding == "stochastic"
    if stochastic and args.seed is None:
        raise SettingError("--rounding stochastic needs random numbers", help="add --seed 7, or another seed")
    if args.seed is not None and not stochastic:
        raise SettingError("--seed cannot act without --rounding stochastic", help="leave it out")


def _check_codes(args: argparse.Namespace) -> None:
    """Refuse what cannot act with integer codes, and what cannot without."""
    if args.scale is None:
        for name, value in (("--zero-point", args.zero_point), ("--rule", args.rule)):
            if value is not None:
                raise SettingError(f"{name} cannot act without --scale", help="add --scale 0.02, for example")
        return
    if args.bits is not None or is_expression(args.value):
        raise SettingError("--scale quantises one number: no expression, no bit pattern")
    for name in ("rounding", "overflow", "seed"):
        if getattr(args, name) is not None:
            raise SettingError(f"--{name} cannot act beside --scale: the rule says how codes are rounded")


# ---- the way in -------------------------------------------------------------------------------------------

_ONE_WORD = re.compile(r"[+-]?\s*[\w.]*(?:(?<=[eEpP])[+-]\d+)?(?:/[\w.]*)?")
_PATTERN = re.compile(r"0x([0-9a-f]+)|0b([01]+)")


def is_expression(text: str) -> bool:
    """Tell whether a VALUE is more than one number: anything but a single word, or two with a / between.

    >>> is_expression("1/3"), is_expression("-1e-7"), is_expression("fp16(0.1)")
    (False, False, True)
    """
    return _ONE_WORD.fullmatch(text.strip()) is None


def read_number(text: str) -> str | float | Fraction:
    """Return a number as `minimp.formats.inspect` takes it, exactly; hexadecimal floats are read here.

    >>> read_number("0x1.8p-3")
    Fraction(3, 16)

    Raises:
        DataError: a hexadecimal number that could be meant as a bit pattern.
    """
    plain = text.strip().lower().replace("_", "")
    found = read_hexadecimal(plain)
    if found is None and re.fullmatch(r"[+-]?0x[0-9a-f]+", plain):
        advice = f"--bits {plain} for the bit pattern, or {plain}p0 for the number {int(plain, 16)}"
        raise DataError(f"{text} may be a bit pattern or a number", help=advice)
    return text if found is None else found


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
    return [replace(inspect_code(code, each), given=text) for each in chosen]
