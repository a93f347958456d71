"""What `minimp check` prints, and its JSON."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from minimp.cli.check_ops import OPS_LEGEND, op_lines, ops_table
from minimp.frameworks.documented import DIFFERENCES, Difference
from minimp.frameworks.results import Comparison, Row, Section, Verdict
from minimp.frameworks.suites import SUITES

__all__ = ["as_json", "caution", "conclusion", "figure_text", "known_in", "setting", "show", "show_suites"]

FEW = 16
"""A section of at most so many rows is shown row by row."""
MOST_SHOWN = 40
"""So many disagreements are shown, and how many more there are."""
STYLES = {
    Verdict.AGREES: "green", Verdict.DOCUMENTED: "yellow", Verdict.DIFFERS: "bold red",
    Verdict.NOT_COMPARED: "dim",
}  # fmt: skip


def show_suites(out: Console) -> None:
    """List what can be compared, and what is installed."""
    for suite in SUITES.values():
        missing = sorted({need for part in suite.parts for need in part.needs if find_spec(need) is None})
        state = f"{', '.join(missing)} missing: {suite.install}" if missing else "installed"
        out.print(Text.assemble((f"{suite.name:8}", "bold"), state))
        for part in suite.parts:
            out.print(f"  {part.name:10} {part.about}", markup=False)


def show(
    out: Console, found: Comparison, *, find: str | None = None, everything: bool = False,
    reasons: bool = False, brief: bool = False,
) -> None:  # fmt: skip
    """Print a comparison: op by op, section by section, what differs and why, and what came out.

    Args:
        out: the screen.
        found: the comparison.
        find: show each op, and each row whose subject or case contains this, and no other.
        everything: show each row.
        reasons: say of each documented difference why it is there and where it was seen.
        brief: leave out the table of ops, and sections row by row.
    """
    out.print(Text(_wrapped(setting(found), out.width)))
    if found.unseen:
        out.print(Text(_wrapped(caution(found), out.width), style="yellow"))
    if not brief:
        if find is not None and not any(_chosen(section, find, everything) for section in found):
            out.print(Text(_wrapped(f"Nothing that was compared contains {find!r}.", out.width)))
        _show_ops(out, found, find)
        for section in found:
            rows = _chosen(section, find, everything)
            if rows:
                _show_section(out, section, rows, found.framework)
    _show_known(out, found, reasons)
    _show_wrong(out, found)
    out.print()
    out.print(_sections(found))
    out.print()
    out.print(Text(_wrapped(conclusion(found), out.width), style="bold" if found else "bold red"))


def setting(found: Comparison) -> str:
    """Say what ran, and where."""
    versions = ", ".join(f"{name} {number}" for name, number in found.versions.items())
    return f"{versions}; {found.machine}; {found.seconds:.0f} s."


def caution(found: Comparison) -> str:
    """Say which versions ran that nobody has seen the documented differences in; "" if there are none."""
    if not found.unseen:
        return ""
    seen = " and ".join(f"{name} {found.seen_with[name]}" for name in found.unseen)
    ran = " and ".join(f"{name} {number}" for name, number in found.unseen.items())
    return (
        f"The documented differences were seen in {seen}, and this is {ran}: what differs here may be a "
        "change between the two."
    )


def conclusion(found: Comparison) -> str:
    """Say in words what came out."""
    counts = found.counts
    agree, known = counts[Verdict.AGREES], counts[Verdict.DOCUMENTED]
    if found:
        also = f", {known:,} differ for a documented reason" if known else ""
        return f"minimp and {found.framework} agree: {agree:,} of {agree + known:,} rows are equal{also}."
    wrong = counts[Verdict.DIFFERS]
    if wrong:
        return (
            f"minimp and {found.framework} DISAGREE: {_rows(wrong)} differ{'s' if wrong == 1 else ''}, "
            "and no documented difference says why."
        )
    return f"Nothing was compared with {found.framework}, so nothing is proved."


def known_in(found: Comparison) -> list[tuple[Difference, int]]:
    """Return the documented differences that were met, with the number of rows of each."""
    met = Counter(row.known for section in found for row in section.of(Verdict.DOCUMENTED))
    return [(each, met[each.name]) for each in DIFFERENCES if met[each.name]]


def figure_text(value: Any) -> str:
    """Return a figure in few characters."""
    if isinstance(value, bool):
        return "yes" if value else "NO"
    return f"{value:,.4g}" if isinstance(value, float) else "" if value is None else str(value)


def as_json(found: Comparison, seed: int) -> dict[str, Any]:
    """Return what `--json` writes."""
    return {
        "framework": found.framework,
        "agrees": bool(found),
        "seed": seed,
        "versions": dict(found.versions),
        "documented_in_versions": dict(found.seen_with),
        "machine": found.machine,
        "seconds": found.seconds,
        "sections": {section.name: _section_json(section) for section in found},
        "documented": {
            each.name: {"rows": count, "reason": each.reason, "source": each.source}
            for each, count in known_in(found)
        },
    }


def _section_json(section: Section) -> dict[str, Any]:
    return {
        "title": section.title,
        "claim": section.claim,
        "agrees": bool(section),
        "counts": {verdict.value: section.counts[verdict] for verdict in Verdict},
        "totals": dict(section.totals),
        "seconds": section.seconds,
        "rows": [
            {
                "subject": row.subject, "case": row.case, "minimp": row.ours, "framework": row.theirs,
                "verdict": row.verdict.value, "note": row.note, "known": row.known or None,
                "figures": dict(row.figures),
            }
            for row in section.rows
        ],
    }  # fmt: skip


# ---- inside -----------------------------------------------------------------------------------------------


def _chosen(section: Section, find: str | None, everything: bool) -> tuple[Row, ...]:
    """Return the rows to show one by one: those asked for, or all of a short section."""
    if find is not None:
        words = find.lower()
        return tuple(row for row in section.rows if words in f"{row.subject} {row.case}".lower())
    return section.rows if everything or len(section.rows) <= FEW else ()


def _sections(found: Comparison) -> Table:
    grid = _grid("section", "agree", "documented", "differ", "not compared", "time", "what was compared")
    for section in found:
        counts = section.counts
        grid.add_row(
            Text(section.name, style="bold"),
            *(Text(f"{counts[verdict]:,}", style=STYLES[verdict] if counts[verdict] else "dim")
              for verdict in (Verdict.AGREES, Verdict.DOCUMENTED, Verdict.DIFFERS, Verdict.NOT_COMPARED)),
            f"{section.seconds:.1f} s", Text(section.title),
        )  # fmt: skip
    return grid


def _grid(*heads: str) -> Table:
    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for i, head in enumerate(heads):
        last = i == len(heads) - 1
        grid.add_column(head, justify="left" if i == 0 or last else "right", overflow="fold")
    return grid


def _show_section(out: Console, section: Section, rows: Sequence[Row], framework: str) -> None:
    out.print()
    out.print(Text.assemble((section.name, "bold"), f": {section.title}"))
    out.print(Text(_wrapped(section.claim, out.width), style="dim"))
    for name, value in section.totals.items():
        out.print(Text(f"{name}: {value}"))
    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for head in ("what", "case", "minimp", framework):
        grid.add_column(head, overflow="fold")
    for head in section.columns.values():
        grid.add_column(head, justify="right", overflow="fold")
    grid.add_column("verdict", no_wrap=True)
    for row in rows:
        word = Text(row.verdict.value, style=STYLES[row.verdict])
        figures = (figure_text(row.figures.get(name)) for name in section.columns)
        grid.add_row(*map(Text, (row.subject, row.case, row.ours, row.theirs)), *map(Text, figures), word)
    out.print(grid)


def _show_ops(out: Console, found: Comparison, find: str | None) -> None:
    lines = [line for line in op_lines(found) if find is None or find.lower() in line.op.lower()]
    if lines:
        out.print()
        out.print(ops_table(lines, out))
        out.print(Text(_wrapped(OPS_LEGEND, out.width), style="dim"))


def _show_known(out: Console, found: Comparison, reasons: bool) -> None:
    met = known_in(found)
    if not met:
        return
    out.print()
    title = f"Documented differences ({len(met)})" + ("" if reasons else "; --reasons says why of each")
    out.print(Text(title, style="bold"))
    if reasons:
        for each, count in met:
            text = f"{each.name} ({each.section}, {_rows(count)}): {each.reason} [{each.source}]"
            out.print(Text(_wrapped(text, out.width, "  ")))
        return
    for section in found:
        names = [f"{each.name} ({count:,})" for each, count in met if each.section == section.name]
        if names:
            out.print(Text(_wrapped(f"{section.name}: {', '.join(names)}", out.width, "  ")))


def _show_wrong(out: Console, found: Comparison) -> None:
    wrong = [(section, row) for section in found for row in section.of(Verdict.DIFFERS)]
    if wrong:
        out.print()
        out.print(Text(f"Disagreements ({len(wrong):,})", style="bold red"))
    for section, row in wrong[:MOST_SHOWN]:
        case = f" ({row.case})" if row.case else ""
        note = f" {row.note}" if row.note else ""
        text = (
            f"{section.name}: {row.subject}{case}: minimp {row.ours}, {found.framework} {row.theirs}.{note}"
        )
        out.print(Text(_wrapped(text, out.width, "  ")))
    if len(wrong) > MOST_SHOWN:
        out.print(f"  and {len(wrong) - MOST_SHOWN:,} more; --json has all")


def _rows(count: int) -> str:
    return f"{count:,} row" + ("" if count == 1 else "s")


def _wrapped(text: str, width: int, indent: str = "") -> str:
    return textwrap.fill(
        text, max(width, 20), initial_indent=indent, subsequent_indent=indent * 2, break_on_hyphens=False
    )
