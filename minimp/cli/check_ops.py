"""The table of `minimp check torch` that has a line for each op: its formats, and how near its values are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from minimp.frameworks.results import Comparison, Row, Verdict

__all__ = ["OPS_LEGEND", "op_lines", "ops_table"]

LOW = ("float16", "bfloat16")
DEVICES = ("cpu", "cuda")
SHORT = {"float16": "low", "float32": "fp32", "float64": "fp64"}
OPS_LEGEND = (
    "cpu, cuda: the format of the op's result from float32 inputs under autocast: low is the region's, "
    "- no float, or refused. Then per format, of results and gradients from inputs of that format: how "
    "many are equal to the last bit, the largest distance in ULPs where the op's error bound holds, and "
    "which of the two lie in that bound: both, minimp alone (with a reason in the list below), or NOT "
    "minimp."
)


@dataclass(frozen=True, slots=True)
class OpLine:
    """What is said of one op.

    Attributes:
        op: its name.
        formats: device -> the format of its result from float32 inputs; "" if not compared.
        values: low format -> (percent equal to the bit, largest distance in ULPs, in bound), or None.
        verdict: the worst of its rows.
    """

    op: str
    formats: dict[str, str]
    values: dict[str, tuple[float, int, str] | None]
    verdict: Verdict


def op_lines(found: Comparison) -> list[OpLine]:
    """Return a line for each op that the sections "formats" and "values" have rows of, by name."""
    held: dict[str, list[tuple[str, Row]]] = {}
    for section in found:
        for row in section.rows:
            if section.name in ("formats", "values") and row.verdict is not Verdict.NOT_COMPARED:
                held.setdefault(row.subject, []).append((section.name, row))
    ours = {op for op, rows in held.items() if any(not row.case.startswith("rule") for _, row in rows)}
    return [_line(op, held[op]) for op in sorted(ours)]


def _line(op: str, rows: list[tuple[str, Row]]) -> OpLine:
    order = list(Verdict)
    return OpLine(
        op,
        {device: _format(rows, device) for device in DEVICES},
        {low: _values(row for kind, row in rows if kind == "values" and row.case.startswith(low))
         for low in LOW},
        max((row.verdict for _, row in rows), key=order.index),
    )  # fmt: skip


def _format(rows: Iterable[tuple[str, Row]], device: str) -> str:
    wanted = f"{device}, float16"
    told = (row for kind, row in rows if kind == "formats" and row.case == wanted)
    name = next((str(row.figures["of_float32"]) for row in told if "of_float32" in row.figures), "")
    return SHORT.get(name, "-") if name else ""


def _values(rows: Iterable[Row]) -> tuple[float, int, str] | None:
    held = [row.figures for row in rows if row.figures.get("elements")]
    if not held:
        return None
    percent = 100.0 * sum(each["equal"] for each in held) / sum(each["elements"] for each in held)
    ours = any(each["ours_out"] for each in held)
    theirs = any(each["theirs_out"] or each["otherwise"] for each in held)
    return (
        percent,
        max(each["max_ulp"] for each in held),
        "NOT minimp" if ours else "minimp" if theirs else "both",
    )


def ops_table(lines: Iterable[OpLine], out: Console) -> Table:
    """Return the table; on a screen too narrow for all of it, without the shares of equal bits."""
    wide = out.width >= 96
    grid = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    grid.add_column("op", overflow="fold")
    for device in DEVICES:
        grid.add_column(device)
    for low in ("fp16", "bf16"):
        if wide:
            grid.add_column(f"{low}: equal", justify="right")
        grid.add_column("ULPs" if wide else f"{low}: ULPs", justify="right")
        grid.add_column("in bound", no_wrap=True)
    for line in lines:
        style = "bold red" if line.verdict is Verdict.DIFFERS else ""
        cells = [cell for low in LOW for cell in _cells(line.values[low], wide)]
        grid.add_row(Text(line.op, style=style), *(line.formats[device] for device in DEVICES), *cells)
    return grid


def _cells(value: tuple[float, int, str] | None, wide: bool) -> Iterator[Any]:
    if value is None:
        yield from [""] * (3 if wide else 2)
        return
    percent, ulps, bound = value
    if wide:
        yield f"{_floor(percent)}%"
    yield f"{ulps:,}"
    yield Text(bound, style={"both": "green", "minimp": "yellow"}.get(bound, "bold red"))


def _floor(percent: float) -> str:
    """Return a percentage that says 100 only if all are equal."""
    return "100" if percent == 100.0 else f"{min(percent, 99.9):.1f}"
