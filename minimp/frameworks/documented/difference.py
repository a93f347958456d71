"""What a known difference is: where it shows, and why."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

__all__ = ["Difference"]


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
