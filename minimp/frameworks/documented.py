"""The differences between minimp and the frameworks that are known, each with its reason.

A row of a comparison that differs is looked up here. What is not listed is a disagreement, and `minimp check`
ends with exit code 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

__all__ = ["DIFFERENCES", "Difference", "known_difference"]


@dataclass(frozen=True, slots=True)
class Difference:
    """One known difference.

    Attributes:
        name: how it is called: ``"cumsum-in-16-bits"``.
        framework: the framework: ``"torch"``.
        section: the section in which it shows: ``"values"``.
        subjects: which subjects, as patterns of names: ``("cumsum", "cumprod")``.
        cases: which cases of them, as a pattern: ``"*float16*"``.
        reason: what the framework does, what minimp does, and why, in a sentence or two.
        source: where it was seen: framework and version, file, or issue thread.
    """

    name: str
    framework: str
    section: str
    subjects: tuple[str, ...]
    cases: str
    reason: str
    source: str

    def covers(self, framework: str, section: str, subject: str, case: str) -> bool:
        """Tell whether a row is an instance of this difference."""
        return (
            (self.framework, self.section) == (framework, section)
            and any(fnmatchcase(subject, pattern) for pattern in self.subjects)
            and fnmatchcase(case, self.cases)
        )


DIFFERENCES: tuple[Difference, ...] = ()
"""Every known difference."""


def known_difference(framework: str, section: str, subject: str, case: str) -> Difference | None:
    """Return the first known difference that covers a row, or None."""
    return next((d for d in DIFFERENCES if d.covers(framework, section, subject, case)), None)
