"""`minimp inspect VALUE --scale S`: what a number is as an integer code, by each rule of quantisation."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from minimp.errors import SettingError, unknown_name
from minimp.formats.inspection.wording import number
from minimp.quant.affine import Affine, dequantize, quantize
from minimp.quant.rules import RULES

__all__ = ["INTEGERS", "RULE_NAMES", "as_json", "rows", "show"]

INTEGERS = {
    **{f"int{bits}": (-(1 << bits - 1), (1 << bits - 1) - 1) for bits in (8, 4, 3, 2)},
    **{f"uint{bits}": (0, (1 << bits) - 1) for bits in (8, 4, 3, 2)},
}
"""Name -> the first and the last code."""
RULE_NAMES = tuple(RULES)


def rows(args: argparse.Namespace, given: float) -> Iterator[dict[str, Any]]:
    """Yield what each format and rule make of a float32 number.

    Raises:
        SettingError: an unknown format or rule; a scale or zero point that cannot be used.
    """
    names = [name for part in args.format or ("int8",) for name in part.split(",")]
    for name in dict.fromkeys(names):
        if name not in INTEGERS:
            raise SettingError(unknown_name("integer format", name, INTEGERS), help="beside --scale")
        for rule in [args.rule] if args.rule else RULE_NAMES:
            scale, zero = np.asarray(args.scale), np.asarray(args.zero_point or 0)
            yield _row(name, Affine(scale, zero, *INTEGERS[name], rule=rule), given)


def _row(name: str, affine: Affine, given: float) -> dict[str, Any]:
    """One format by one rule."""
    code = int(quantize(np.float32(given), affine))
    value, below, above = (
        float(dequantize(np.array(each), affine)) if affine.quant_min <= each <= affine.quant_max else None
        for each in (code, code - 1, code + 1)
    )
    steps = given / float(affine.scale) + int(affine.zero_point)
    return {
        "format": name,
        "rule": affine.rule,
        "steps": steps,
        "code": code,
        "bits": f"{code & (1 << affine.bits) - 1:0{affine.bits}b}",
        "value": value,
        "error": None if value is None else value - given,
        "below": below,
        "above": above,
        "clamped": not affine.quant_min - 0.5 <= steps <= affine.quant_max + 0.5,
    }


def as_json(args: argparse.Namespace, given: float) -> dict[str, Any]:
    """Return what `--json` prints."""
    asked = {"given": args.value, "scale": args.scale, "zero_point": args.zero_point or 0}
    return {**asked, "codes": list(rows(args, given))}


def show(out: Console, args: argparse.Namespace, given: float) -> None:
    """Print a table, a row for each format and rule."""
    found = list(rows(args, given))
    zero = args.zero_point or 0
    out.print(f"{args.value}  scale {args.scale:g}, zero point {zero}: value = scale (code - zero point)\n")
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for head in ("format", "rule", "in steps", "code", "bits", "value", "error", "below", "above"):
        table.add_column(head, overflow="fold", justify="right" if head == "code" else "left")
    for row in found:
        said = "clamped" if row["clamped"] else f"{row['error']:+.3g}" if row["error"] else "none"
        around = (_short(row[name]) for name in ("value", "below", "above"))
        value, below, above = around
        table.add_row(
            row["format"], row["rule"], f"{row['steps']:.7g}", str(row["code"]), row["bits"], value, said,
            below, above,
        )  # fmt: skip
    out.print(table)


def _short(value: float | None) -> str:
    return number(value) if value is None else f"{value:.7g}"
