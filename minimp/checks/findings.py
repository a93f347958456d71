"""What a check found: a frozen record that is true when nothing is wrong and can be read aloud."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from minimp.displays.steps import findings_html

__all__ = ["Finding", "Findings", "compare", "merge"]

WIDTH = 100
MOST_SHOWN = 20
Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        what: the rule that is broken.
        expected: what the rule asks for.
        got: what was met.
        where: the op, parameter or element.
    """

    what: str
    expected: str
    got: str
    where: str = ""

    def __str__(self) -> str:
        head = f"{self.where}: {self.what}" if self.where else self.what
        text = f"{head}; expected {self.expected}, got {self.got}"
        return _wrapped(text, WIDTH - 4)


@dataclass(frozen=True, slots=True)
class Findings:
    """The outcome of a check: true if nothing is wrong.

    Attributes:
        claim: what was checked, in words.
        wrong: what is wrong, one record each.
        notes: what is right and still worth saying (a loss that overflowed, elements without a claim).
        checked: how many values were compared.
    """

    claim: str
    wrong: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()
    checked: int = 0

    def __bool__(self) -> bool:
        return not self.wrong

    def __len__(self) -> int:
        return len(self.wrong)

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.wrong)

    def _repr_html_(self) -> str:
        return findings_html(self)

    def __str__(self) -> str:
        lines = [_wrapped(f"{'ok' if self else 'WRONG'}: {self.claim} ({self.checked:,} values)")]
        lines += ["  - " + textwrap.indent(str(each), "    ")[4:] for each in self.wrong[:MOST_SHOWN]]
        if len(self.wrong) > MOST_SHOWN:
            lines.append(f"  - and {len(self.wrong) - MOST_SHOWN} more")
        return "\n".join([*lines, *(_wrapped(f"  note: {note}") for note in self.notes)])


def _wrapped(text: str, width: int = WIDTH) -> str:
    return textwrap.fill(text, width, subsequent_indent="    ", break_on_hyphens=False)


def merge(claim: str, parts: Iterable[Findings]) -> Findings:
    """Return all that several checks found as one record."""
    held = list(parts)
    return Findings(
        claim,
        tuple(wrong for part in held for wrong in part.wrong),
        tuple(dict.fromkeys(note for part in held for note in part.notes)),
        sum(part.checked for part in held),
    )


def compare(
    what: str, where: str, got: Array, wanted: Array, wrong: Array, *, detail: Array | None = None
) -> tuple[Finding, ...]:
    """Return one finding for all elements where `wrong` is true, told by the worst of them; none if none.

    Args:
        what: the rule.
        where: the op or parameter.
        got: the array under test.
        wanted: the expected values, float64.
        wrong: which elements break the rule.
        detail: the allowed distance of each element; the worst element is the one furthest beyond it.
    """
    if not wrong.any():
        return ()
    with np.errstate(all="ignore"):
        distance = np.abs(got.astype(np.float64) - wanted) / (1.0 if detail is None else detail)
    distance = np.where(wrong, np.where(np.isnan(distance), np.inf, distance), -1.0)
    at = tuple(int(i) for i in np.unravel_index(int(np.argmax(distance)), distance.shape))
    allowed = "" if detail is None else f" within {detail[at]:.3g}"
    count = f" ({int(wrong.sum()):,} of {wrong.size:,} elements)" if wrong.size > 1 else ""
    place = f"{where}[{', '.join(map(str, at))}]" if at else where
    return (Finding(what + count, f"{float(wanted[at])!r}{allowed}", f"{float(got[at])!r}", place),)
