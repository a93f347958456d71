"""A policy: the cast class of every op, as a table that can be read, searched, edited and compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from textwrap import wrap
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from minimp.errors import SettingError, unknown_name
from minimp.named import Named
from minimp.policy.classes import CastClass

if TYPE_CHECKING:
    from minimp.door import Op

__all__ = ["Policies", "Policy", "PolicyDiff"]

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
UNTOUCHABLE = "cast"
"""The op that casts: a rule that made autocast cast its inputs would never end."""


@dataclass(frozen=True)
class Policy:
    """Which cast class each op has.

    >>> mine = mp.policies["torch-cuda"].with_(softmax="lower")
    >>> print(mine.diff(mp.policies["torch-cuda"]))
    torch-cuda (softmax: lower) against torch-cuda: 1 op differs
      lower_precision_fp against fp32_set_opt_dtype: softmax

    Attributes:
        name: the policy's name.
        rules: op name -> class. An op that is not in it follows its own declaration.
        source: whose rules these are, and of which version.
        note: what else there is to know: changes between versions, defaults.
    """

    name: str
    rules: Mapping[str, CastClass] = field(default_factory=dict, hash=False)
    source: str = ""
    note: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "rules", MappingProxyType(dict(self.rules)))

    def rule(self, op: Op) -> CastClass:
        """Return the cast class of `op` under this policy."""
        return self.rules.get(op.name, op.cast)

    def __getitem__(self, op: str) -> CastClass:
        """Return the cast class of the op of that name.

        Raises:
            SettingError: the policy has no such op (the nearest is offered).
        """
        self._check(op)
        return self.rules[op]

    def with_(
        self, rules: Mapping[Any, CastClass | str] | None = None, /, **named: CastClass | str
    ) -> Policy:
        """Return a copy in which some ops have another class.

        Args:
            rules: op name, or the op itself (for one of your own) -> class.
            named: op name = class: a :class:`CastClass`, its value, or a word: "lower", "fp32", "set_fp32",
                "promote", "keep", "banned".

        Raises:
            SettingError: no such op or class (the nearest is offered), or the op `cast`.
        """
        edits: dict[str, CastClass] = {}
        for op, kind in {**(rules or {}), **named}.items():
            if isinstance(op, str):
                self._check(op)
            name = op if isinstance(op, str) else op.name
            if name == UNTOUCHABLE:
                raise SettingError("a policy cannot rule the op 'cast': it does what it is told")
            edits[name] = _class_of(kind)
        said = ", ".join(f"{name}: {kind.name.lower()}" for name, kind in edits.items())
        name = f"{self.name} ({said})" if edits else self.name
        return Policy(name, {**self.rules, **edits}, self.source, self.note)

    def search(self, text: str) -> dict[str, CastClass]:
        """Return the ops whose name contains `text`, with their classes."""
        return {op: kind for op, kind in self.rules.items() if text.lower() in op.lower()}

    def diff(self, other: Policy) -> PolicyDiff:
        """Return where this policy and another one differ."""
        ops = sorted({*self.rules, *other.rules})
        pairs = ((op, self.rules.get(op), other.rules.get(op)) for op in ops)
        return PolicyDiff(self.name, other.name, tuple(row for row in pairs if row[1] is not row[2]))

    def __str__(self) -> str:
        """Show the table, grouped by class, within 100 columns."""
        lines = [f"{self.name}: {self.source}" if self.source else self.name, *wrap(self.note, WIDTH)]
        for kind, meaning in MEANING.items():
            ops = [op for op, rule in self.rules.items() if rule is kind]
            if ops:
                lines += [f"{kind.value}: {meaning} ({_counted(ops)})", *_wrapped(ops)]
        return "\n".join(lines)

    def _check(self, op: str) -> None:
        if op not in self.rules:
            raise SettingError(
                unknown_name("op", op, sorted(self.rules)),
                op=f"policy {self.name}", help="for an op of your own, write policy.with_({the_op: ...})",
            )  # fmt: skip


@dataclass(frozen=True)
class PolicyDiff:
    """Where two policies differ: true if they do, and its string is a report.

    Attributes:
        left, right: their names.
        rows: (op, class on the left, class on the right); None: the op follows its own declaration.
    """

    left: str
    right: str
    rows: tuple[tuple[str, CastClass | None, CastClass | None], ...]

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
            lines += (
                [one_line] if len(one_line) <= WIDTH else [f"  {title} ({_counted(ops)}):", *_wrapped(ops, 4)]
            )
        return "\n".join(lines)


class Policies(Named[Policy]):
    """The named policies."""

    def __init__(self, *rows: Policy) -> None:
        super().__init__("policy", *rows)

    def __str__(self) -> str:
        """Show the names and where the rules come from."""
        return "\n".join(f"{row.name}: {row.source}" for row in self.values())


def _class_of(kind: CastClass | str) -> CastClass:
    if isinstance(kind, CastClass):
        return kind
    if kind not in WORDS:
        raise SettingError(unknown_name("cast class", kind, WORDS))
    return WORDS[kind]


def _word(kind: CastClass | None) -> str:
    return "as declared" if kind is None else kind.value


def _counted(ops: Sequence[object]) -> str:
    return f"{len(ops)} op" if len(ops) == 1 else f"{len(ops)} ops"


def _wrapped(ops: list[str], indent: int = 2) -> list[str]:
    pad = " " * indent
    return wrap(" ".join(ops), WIDTH, initial_indent=pad, subsequent_indent=pad, break_on_hyphens=False)
