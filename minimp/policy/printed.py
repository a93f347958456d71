"""Policies in print: tables, differences, and the words for classes. Within 100 columns, without colour."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from minimp.errors import SettingError, unknown_name
from minimp.policy.classes import CastClass

if TYPE_CHECKING:
    from minimp.policy.table import Policy

__all__ = ["MEANING", "PolicyDiff", "as_text", "class_named", "difference"]

WIDTH = 100
MEANING = {
    CastClass.LOWER: "inputs to the region's format",
    CastClass.FP32: "inputs to float32",
    CastClass.SET_FP32: "inputs to float32, unless dtype= is given",
    CastClass.PROMOTE: "inputs to float32 if any is float32, else as they are",
    CastClass.BANNED: "refused inside a region",
    CastClass.KEEP: "inputs as they are",
}
WORDS = {kind.name.lower(): kind for kind in CastClass} | {kind.value: kind for kind in CastClass}


def class_named(kind: CastClass | str) -> CastClass:
    """Return the class that a word names.

    Raises:
        SettingError: there is no such class (the nearest is offered).
    """
    if isinstance(kind, CastClass):
        return kind
    if kind not in WORDS:
        raise SettingError(unknown_name("cast class", kind, WORDS))
    return WORDS[kind]


def as_text(policy: Policy) -> str:
    """Return the table of a policy, grouped by class: the ops it names, those left to its default, and those
    that minimp lacks."""
    title = f"{policy.name}: {policy.source}" if policy.source else policy.name
    lines = [*wrap(title, WIDTH), *wrap(policy.note, WIDTH)]
    if policy.settings:
        said = "; ".join(f"{key} {_plain(value)}" for key, value in policy.settings.items())
        lines += wrap(f"goes with: {said}", WIDTH, subsequent_indent="  ")
    for kind, meaning in MEANING.items():
        ops = [op for op, rule in policy.rules.items() if rule is kind]
        if ops:
            lines += [f"{kind.value}: {meaning} ({_counted(ops)})"]
            lines += _grouped(policy, ops)
    for low, rules in policy.by_format.items():
        lines += [f"in {low} otherwise:"]
        for kind in MEANING:
            lines += _wrapped([op for op in sorted(rules) if rules[op] is kind], f"{kind.value}: ")
    for op, remark in policy.remarks.items():
        lines += wrap(f"* {op}: {remark}", WIDTH, subsequent_indent="  ", break_on_hyphens=False)
    return "\n".join(lines)


def _grouped(policy: Policy, ops: Sequence[str]) -> list[str]:
    named = [op for op in ops if op not in policy.lacking and op not in policy.filled]
    rest = [op for op in ops if op in policy.filled]
    return [
        *_wrapped(named),
        *_wrapped(rest, "by default: "),
        *_wrapped([op for op in ops if op in policy.lacking], "not ops of minimp: "),
    ]


@dataclass(frozen=True)
class PolicyDiff:
    """Where two policies differ: true if they do, and its string is a report.

    Attributes:
        left, right: their names.
        rows: (op, class on the left, class on the right); None: the op follows its own declaration. A rule of
            one low format alone stands under "op (format)".
        settings: (name, left, right) of what goes with the rules and differs.
    """

    left: str
    right: str
    rows: tuple[tuple[str, CastClass | None, CastClass | None], ...]
    settings: tuple[tuple[str, Any, Any], ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[tuple[str, CastClass | None, CastClass | None]]:
        return iter(self.rows)

    def __str__(self) -> str:
        """Show the ops, grouped by their two classes, within 100 columns."""
        count = f"{_counted(self.rows)} differ" + ("s" if len(self) == 1 else "")
        lines = wrap(f"{self.left} against {self.right}: {count}", WIDTH)
        groups: dict[str, list[str]] = {}
        for op, left, right in self.rows:
            groups.setdefault(f"{_word(left)} against {_word(right)}", []).append(op)
        for title, ops in sorted(groups.items()):
            one_line = f"  {title}: {' '.join(ops)}"
            short = len(one_line) <= WIDTH
            lines += [one_line] if short else [f"  {title} ({_counted(ops)}):", *_wrapped(ops, indent=4)]
        for key, one, other in self.settings:
            lines += wrap(f"  {key}: {_plain(one)} against {_plain(other)}", WIDTH, subsequent_indent="    ")
        return "\n".join(lines)


def difference(left: Policy, right: Policy) -> PolicyDiff:
    """Compare two policies: op by op, format by format where one rules them apart, and the settings."""
    rows: list[tuple[str, CastClass | None, CastClass | None]] = []
    lows = sorted({*left.by_format, *right.by_format})
    nobodys = left.lacking | right.lacking  # without an op of minimp, no rule means unlisted
    for op in sorted({*left.rules, *right.rules}):
        absent = CastClass.KEEP if op in nobodys else None
        both = left.rules.get(op, absent), right.rules.get(op, absent)
        rows.append((op, *both))
        for low in lows:
            pair = left.in_format(low).rules.get(op, absent), right.in_format(low).rules.get(op, absent)
            if pair != both:
                rows.append((f"{op} ({low})", *pair))
    keys = sorted({*left.settings, *right.settings})
    pairs = ((key, left.settings.get(key), right.settings.get(key)) for key in keys)
    return PolicyDiff(
        left.name, right.name,
        tuple(row for row in rows if row[1] is not row[2]),
        tuple(row for row in pairs if row[1] != row[2]),
    )  # fmt: skip


def _plain(value: Any) -> str:
    return "not said" if value is None else str(value)


def _word(kind: CastClass | None) -> str:
    return "as declared" if kind is None else kind.value


def _counted(ops: Sequence[object]) -> str:
    return f"{len(ops)} op" if len(ops) == 1 else f"{len(ops)} ops"


def _wrapped(ops: Sequence[str], title: str = "", indent: int = 2) -> list[str]:
    if not ops:
        return []
    pad = " " * indent
    return wrap(title + " ".join(ops), WIDTH, initial_indent=pad, subsequent_indent=pad + "  " * bool(title),
                break_on_hyphens=False)  # fmt: skip
