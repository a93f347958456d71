"""The page that `minimp check --html` writes."""

from __future__ import annotations

from typing import Any

from minimp.cli.check_view import caution, conclusion, figure_text, known_in, setting
from minimp.frameworks.results import Comparison, Section, Verdict
from minimp.pages import render

__all__ = ["page"]

COLOURS = {
    Verdict.AGREES: "good", Verdict.DOCUMENTED: "known", Verdict.DIFFERS: "bad", Verdict.NOT_COMPARED: "soft",
}  # fmt: skip


def page(found: Comparison) -> str:
    """Return the page: the table of sections, the documented differences, every row.

    Raises:
        SettingError: Jinja2 is not installed.
    """
    return render(
        "check",
        title=f"minimp beside {found.framework} {found.versions.get(found.framework, '')}".rstrip(),
        framework=found.framework,
        holds=bool(found),
        verdict=conclusion(found),
        setting=setting(found),
        caution=caution(found),
        words=[verdict.value for verdict in Verdict],
        known=[
            {"name": each.name, "count": count, "reason": each.reason, "source": each.source}
            for each, count in known_in(found)
        ],
        sections=[_section(section) for section in found],
    )


def _section(section: Section) -> dict[str, Any]:
    counts = section.counts
    return {
        "name": section.name,
        "title": section.title,
        "claim": section.claim,
        "totals": list(section.totals.items()),
        "seconds": f"{section.seconds:.1f}",
        "counts": [f"{len(section.rows):,}", *(f"{counts[verdict]:,}" for verdict in Verdict)],
        "heads": list(section.columns.values()),
        "rows": [
            {
                "subject": row.subject, "case": row.case, "ours": row.ours, "theirs": row.theirs,
                "verdict": row.verdict.value, "colour": COLOURS[row.verdict], "note": row.note,
                "known": row.known,
                "figures": [figure_text(row.figures.get(name)) for name in section.columns],
            }
            for row in section.rows
        ],
    }  # fmt: skip
