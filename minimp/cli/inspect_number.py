"""What `minimp inspect` shows of one number: tables with a row for each format, and JSON."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from minimp.formats import OVERFLOWS, ROUNDINGS, Inspection
from minimp.formats.inspection.wording import as_float, number, power_of_two, share, signed

__all__ = ["STYLES", "as_json", "entry", "settings", "show_numbers"]

STYLES = {"sign": "red", "exponent": "green", "mantissa": "blue"}
KINDS = {"subnormal": "yellow", "inf": "bold red", "nan": "bold red"}


def as_json(args: argparse.Namespace, seen: Sequence[Inspection]) -> dict[str, Any]:
    """Return what `--json` prints; an error beyond float64 is an infinity there."""
    asked = {
        "given": args.value,
        "rounding": args.rounding or "nearest_even",
        "overflow": args.overflow or "ieee",
        **({} if args.seed is None else {"seed": args.seed}),
    }
    return {**({"given": args.bits} if args.bits else asked), "formats": [entry(each) for each in seen]}


def entry(seen: Inspection) -> dict[str, Any]:
    """Return one format's part of the JSON."""
    return {
        "format": seen.format.name,
        "code": seen.code,
        **dict(zip(STYLES, seen.parts, strict=True)),
        "kind": seen.kind,
        "value": seen.value,
        "error": as_float(seen.error),
        "error_ulps": as_float(_ulps(seen)),
        "ulp": seen.ulp,
        "below": seen.neighbours[0],
        "above": seen.neighbours[1],
        "between": list(seen.between),
        "position": None if seen.position is None else float(seen.position),
        "flags": list(seen.flags),
    }


def settings(rounding: str, overflow: str | None) -> str:
    """Return how numbers are rounded, for people."""
    how = f"{rounding}: {ROUNDINGS[rounding].note}"
    return f"{how}; overflow {overflow}: {OVERFLOWS[overflow]}" if overflow else how


def show_numbers(out: Console, args: argparse.Namespace, seen: Sequence[Inspection]) -> None:
    """Print three tables, and a fourth where a number was rounded; each fits 100 columns."""
    how = "bit pattern" if args.bits else settings(args.rounding or "nearest_even", args.overflow)
    out.print(Text.assemble((args.bits or args.value, "bold"), f"  {how}"))
    stochastic = args.rounding == "stochastic"
    bits, values, around, between = (
        _table("format", *heads)
        for heads in (
            (*STYLES, "kind"),
            ("value", "significand x 2^exponent", "error", "in ulps"),
            ("code", "ulp", "neighbour below", "neighbour above"),
            ("lies between", "and", "chance of up" if stochastic else "way up", "flags"),
        )
    )
    for each in seen:
        name = each.format.name
        fields = (Text(text or "-", style) for text, style in zip(each.parts, STYLES.values(), strict=True))
        error = signed(each.error), signed(_ulps(each))
        bits.add_row(name, *fields, Text(each.kind, KINDS.get(each.kind, "")))
        values.add_row(name, number(each.value), each.formula or "-", *error)
        around.add_row(name, each.code, power_of_two(each.ulp), *map(number, each.neighbours))
        between.add_row(name, *_between(each))
    rounded = any(each.error != 0 for each in seen)
    for table in (bits, values, around, between)[: 4 if rounded else 3]:
        out.print()
        out.print(table)


def _between(seen: Inspection) -> tuple[str, str, str, Text]:
    """Return the two values on either side, how far up the number lies, and what happened."""
    if seen.error == 0:
        return "-", "-", "-", Text("exact")
    said = tuple(each for each in seen.flags if each not in ("inexact", "subnormal")) or seen.flags[:1]
    way = "-" if seen.position is None else share(seen.position)
    below, above = map(number, seen.between)
    return below, above, way, Text(", ".join(said), "" if said == ("inexact",) else "yellow")


def _table(*heads: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for head in heads:
        table.add_column(Text(head, STYLES.get(head, "")), overflow="fold")
    return table


def _ulps(seen: Inspection) -> Fraction | float:
    return seen.error / Fraction(seen.ulp) if isinstance(seen.error, Fraction) and seen.error else seen.error
