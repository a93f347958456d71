"""From two answers to a row of a comparison."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minimp.frameworks.documented import known_difference
from minimp.frameworks.results import Row, Verdict

__all__ = ["judged"]


def judged(
    framework: str, section: str, subject: str, case: str, ours: str, theirs: str, *,
    agrees: bool | None = None, note: str = "", figures: Mapping[str, Any] | None = None,
) -> Row:  # fmt: skip
    """Return a row: it agrees, or differs and is in the list of known differences, or differs.

    Args:
        framework, section, subject, case: where the row stands.
        ours, theirs: what each gave.
        agrees: whether the two agree; None: if they are equal.
        note: what is to be said of it; a known difference brings its own reason.
        figures: numbers by name.
    """
    known = None
    if agrees is None:
        agrees = ours == theirs
    if not agrees:
        known = known_difference(framework, section, subject, case)
    verdict = Verdict.AGREES if agrees else Verdict.DIFFERS if known is None else Verdict.DOCUMENTED
    return Row(
        subject, case, ours, theirs, verdict, note if known is None else known.reason,
        "" if known is None else known.name, figures or {},
    )  # fmt: skip
