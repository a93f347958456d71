"""What a comparison with a framework found: rows, in sections, and one verdict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

__all__ = ["Comparison", "Row", "Section", "Verdict"]


class Verdict(Enum):
    """What came out of comparing one thing. The value is the word that reports print."""

    AGREES = "agrees"
    """Equal, in the sense that the section claims (bits, formats, or within the bound it states)."""
    DOCUMENTED = "documented"
    """Different, and in the list of known differences, with a reason."""
    DIFFERS = "DIFFERS"
    """Different, and nobody has said why: the comparison fails."""
    NOT_COMPARED = "not compared"
    """The framework refused or lacks it, for a reason that the note gives: it proves nothing."""


@dataclass(frozen=True, slots=True)
class Row:
    """One thing that was compared.

    Attributes:
        subject: the op, the call or the program: ``"softmax"``.
        case: which variant of it: ``"dim, float16, cuda"``.
        ours: what minimp gave, in a few words: ``"float32"``.
        theirs: what the framework gave.
        verdict: what came out.
        note: why, where there is more to say: the reason of a documented difference, or of a refusal.
        known: the name of the documented difference (:mod:`minimp.frameworks.documented`), if it is one.
        figures: numbers by name, for JSON and for the section's own columns: ``{"max_ulp": 1.0}``.
    """

    subject: str
    case: str
    ours: str
    theirs: str
    verdict: Verdict
    note: str = ""
    known: str = ""
    figures: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Section:
    """One kind of comparison.

    Attributes:
        name: a word: ``"formats"``.
        title: what was compared, in a line.
        claim: what agreeing means here, in a sentence or two.
        rows: what was compared.
        columns: names of figures that a report shows as columns, with the words above them.
        totals: figures of the whole section by name, in words: ``{"steps compared": "10,000"}``.
        seconds: how long it took.
    """

    name: str
    title: str
    claim: str
    rows: tuple[Row, ...]
    columns: Mapping[str, str] = field(default_factory=dict)
    totals: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    def __bool__(self) -> bool:
        """Tell whether something was compared, and nothing differs without a reason."""
        met = self.counts
        return met[Verdict.DIFFERS] == 0 and met[Verdict.AGREES] + met[Verdict.DOCUMENTED] > 0

    @property
    def counts(self) -> Counter[Verdict]:
        """How many rows have each verdict."""
        return Counter(row.verdict for row in self.rows)

    def of(self, verdict: Verdict) -> tuple[Row, ...]:
        """Return the rows of one verdict."""
        return tuple(row for row in self.rows if row.verdict is verdict)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Everything that was compared with one framework; true if nothing differs without a reason.

    Attributes:
        framework: its name: ``"torch"``.
        versions: what ran, by name: minimp, the framework, NumPy, Python.
        machine: the processor and the operating system.
        sections: what was compared.
        seconds: how long it all took.
        seen_with: the versions in which the documented differences were seen, by name.
    """

    framework: str
    versions: Mapping[str, str]
    machine: str
    sections: tuple[Section, ...]
    seconds: float = 0.0
    seen_with: Mapping[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.sections) and all(self.sections)

    def __iter__(self) -> Iterator[Section]:
        return iter(self.sections)

    @property
    def unseen(self) -> dict[str, str]:
        """The versions that ran and are not those in which the documented differences were seen."""
        ran = {name: self.versions.get(name, "not installed") for name in self.seen_with}
        return {name: ran[name] for name, seen in self.seen_with.items() if ran[name].split("+")[0] != seen}

    @property
    def counts(self) -> Counter[Verdict]:
        """How many rows have each verdict, in all sections."""
        return sum((section.counts for section in self.sections), Counter[Verdict]())
