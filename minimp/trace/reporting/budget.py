"""The error budget: what each op or module made of the error, and what it was handed."""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite, log10
from typing import Any

from minimp.errors import SettingError
from minimp.pages.charts import power_text
from minimp.trace.questions.tables import Table
from minimp.trace.reporting.texts import printable, relative

__all__ = ["error_budget"]

PARTS = ("made rel", "inh. rel", "total rel")
WIDEST, WHOLE = 12, 1.0
"""The axis spans so many powers of ten at most, and ends at the power where all digits are wrong."""


def error_budget(ask: Callable[[str], Table], *, rows: int) -> list[dict[str, Any]]:
    """Return the budgets by op and by module for the template; none where the trace has no shadow.

    Args:
        ask: `Trace.errors`.
        rows: so many at most of each, the largest errors first.
    """
    try:
        return [_budget(ask(by), by, rows) for by in ("op", "module")]
    except SettingError:
        return []


def _budget(found: Table, by: str, most: int) -> dict[str, Any]:
    values = [row[part] for row in found for part in PARTS if row[part] > 0 and isfinite(row[part])]
    low, high = (log10(min(values)) // 1, log10(max(values)) // 1 + 1) if values else (0.0, 1.0)
    beyond = high > WHOLE  # relative to results near 0: they would press all others to the left
    high = min(high, WHOLE)
    low = min(max(low, high - WIDEST), high - 1)

    def place(value: float) -> str | None:
        if not value > 0 or not isfinite(value):
            return None
        return f"{100 * min(max((log10(value) - low) / (high - low), 0.0), 1.0):.1f}"

    rows = []
    for row in list(found)[:most]:
        made, came, total = (row[part] for part in PARTS)
        name = row["op"] if by == "op" else f"{row['module']} {row['phase']}"
        told = {"made": relative(made), "came": relative(came), "total": relative(total)}
        places = {"made_at": place(made), "came_at": place(came)}
        rows.append({"name": printable(name), "ulp": f"{row['made ulp']:.3g}", **told, **places})
    return {
        "by": by,
        "rows": rows,
        "more": max(len(found) - most, 0),
        "low": f"10{power_text(int(low))}",
        "high": f"10{power_text(int(high))}{' and more' if beyond else ''}",
    }
