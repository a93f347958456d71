"""A policy: the cast class of every op, as a table that can be read, searched, edited, compared and kept."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from minimp import formats
from minimp.errors import SettingError, unknown_name
from minimp.named import Named
from minimp.policy.catalogue import ACTING
from minimp.policy.classes import CastClass
from minimp.policy.explaining import Explanation, explained
from minimp.policy.history import RELEASES, Change, History, release_of, rules_as_of
from minimp.policy.plain import from_plain, to_plain
from minimp.policy.printed import PolicyDiff, as_text, class_named, difference

if TYPE_CHECKING:
    from minimp.door import Op

__all__ = ["Policies", "Policy", "PolicyDiff"]

UNTOUCHABLE = "cast"
"""The op that casts: a rule that made autocast cast its inputs would never end."""
LOW = ("float16", "bfloat16")
AS_IT_WAS = "as it was"
Rules = Mapping[str, CastClass]


@dataclass(frozen=True)
class Policy:
    """Which cast class each op has.

    >>> mine = mp.policies["torch-cuda"].with_(softmax="lower")
    >>> print(mine.diff(mp.policies["torch-cuda"]))
    torch-cuda (softmax: lower) against torch-cuda: 1 op differs
      lower_precision_fp against fp32_set_opt_dtype: softmax

    Attributes:
        name: the policy's name.
        rules: op name -> class (given as one of the words of :meth:`with_`, it becomes the class). An op that
            is not in it, one of your own, follows its own declaration.
        source: whose rules these are, and of which version.
        note: what else there is to know: changes between versions, defaults.
        default: the class of minimp's ops that `rules` does not name; they are added to it, `cast` as one
            that is left alone. None: none are added.
        by_format: low format -> rules that differ in a region of that format.
        lacking: the ops among `rules` that minimp does not have, so that their rule acts nowhere.
        remarks: op -> what the library does otherwise than the class says, or calls it.
        settings: what goes with the rules and no op table can say: formats of parameters and outputs, master
            weights, the loss scale. Plain data for the reader; nothing here acts on it.
        changes: what changed from release to release, see :meth:`history`.
        releases: the releases whose rules were read, see :meth:`at`.
        filled: the ops that were added for the default.

    Raises:
        SettingError: a word that names no class (the nearest is offered), or a format that is no low one.
    """

    name: str
    rules: Rules = field(default_factory=dict, hash=False, repr=False)
    source: str = ""
    note: str = ""
    default: CastClass | None = None
    by_format: Mapping[str, Rules] = field(default_factory=dict, hash=False, repr=False)
    lacking: frozenset[str] = field(default=frozenset(), repr=False)
    remarks: Mapping[str, str] = field(default_factory=dict, hash=False, repr=False)
    settings: Mapping[str, Any] = field(default_factory=dict, hash=False, repr=False)
    changes: tuple[Change, ...] = field(default=(), repr=False)
    releases: tuple[str, ...] = field(default=(), repr=False)
    filled: frozenset[str] = field(default=frozenset(), init=False, repr=False)

    def __post_init__(self) -> None:
        rules = {op: class_named(kind) for op, kind in self.rules.items()}
        if self.default is not None:
            object.__setattr__(self, "default", class_named(self.default))
            missing = [op for op in ACTING if op not in rules and op != UNTOUCHABLE]
            object.__setattr__(self, "filled", frozenset(missing))
            rules = {UNTOUCHABLE: CastClass.KEEP, **rules, **dict.fromkeys(missing, self.default)}
        for low in self.by_format:
            if low not in LOW:
                raise SettingError(unknown_name("low format", low, LOW), op=f"policy {self.name}")
        by_format = {
            low: MappingProxyType({op: class_named(kind) for op, kind in edits.items()})
            for low, edits in self.by_format.items() if edits
        }  # fmt: skip
        rules = dict(sorted(rules.items()))
        views: dict[str, Mapping[str, Any]]
        views = {"rules": rules, "by_format": by_format, "remarks": self.remarks, "settings": self.settings}
        for key, value in views.items():
            object.__setattr__(self, key, MappingProxyType(dict(value)))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle and copy: the read-only views cannot be, what they show can."""
        given = {each.name: getattr(self, each.name) for each in fields(self) if each.init}
        given["rules"] = self.named
        plain = {key: dict(value) if isinstance(value, Mapping) else value for key, value in given.items()}
        plain["by_format"] = {low: dict(edits) for low, edits in self.by_format.items()}
        return (_made, (plain,))

    @property
    def named(self) -> dict[str, CastClass]:
        """The rules that are not there by default."""
        return {op: kind for op, kind in self.rules.items() if op not in self.filled}

    def rule(self, op: Op) -> CastClass:
        """Return the cast class of `op` under this policy."""
        return self.rules.get(op.name, op.cast)

    def in_format(self, low: Any) -> Policy:
        """Return the policy as it stands in a region of a low format: `by_format` merged into the rules."""
        name = formats.get(low).name
        if name not in self.by_format:
            return self
        return replace(self, rules={**self.named, **self.by_format[name]}, by_format={})

    def __getitem__(self, op: str) -> CastClass:
        """Return the cast class of the op of that name.

        Raises:
            SettingError: the policy has no such op (the nearest is offered).
        """
        self._check(op)
        return self.rules[op]

    def __contains__(self, op: object) -> bool:
        return (op if isinstance(op, str) else getattr(op, "name", None)) in self.rules

    def __iter__(self) -> Iterator[str]:
        return iter(self.rules)

    def __len__(self) -> int:
        return len(self.rules)

    def __bool__(self) -> bool:
        """A policy without a rule is one too."""
        return True

    def with_(
        self,
        rules: Mapping[Any, CastClass | str] | None = None,
        /,
        *,
        default: CastClass | str | None = AS_IT_WAS,
        low: Any = None,
        **named: CastClass | str,
    ) -> Policy:
        """Return a copy in which some ops have another class.

        Args:
            rules: op name, or the op itself (for one of your own) -> class.
            default: the class of every op of minimp that no rule names; None: as they declare.
            low: edit in regions of this format alone: float16 or bfloat16.
            named: op name = class: a :class:`CastClass`, its value, or a word: "lower", "fp32", "set_fp32",
                "promote", "keep", "banned".

        Raises:
            SettingError: no such op or class (the nearest is offered), an op that minimp lacks or that is
                named twice, or the op `cast`.
        """
        edits: dict[str, CastClass] = {}
        for op, kind in [*(rules or {}).items(), *named.items()]:
            name = self._editable(op)
            if name in edits and edits[name] is not class_named(kind):
                both = f"{edits[name].value} and {class_named(kind).value}"
                raise SettingError(f"{name} is to be {both} at once", op=f"policy {self.name}")
            edits[name] = class_named(kind)
        said = [f"{name}: {kind.name.lower()}" for name, kind in edits.items()]
        changes: dict[str, Any] = {"changes": (), "releases": ()}
        if low is None:
            changes["rules"] = {**self.named, **edits}
            changes["by_format"] = {
                form: {op: kind for op, kind in old.items() if op not in edits}
                for form, old in self.by_format.items()
            }
        else:
            form = formats.get(low).name
            said = [f"{each} in {form}" for each in said]
            changes["rules"] = self.named
            changes["by_format"] = {**self.by_format, form: {**self.by_format.get(form, {}), **edits}}
        if default != AS_IT_WAS:
            changes["default"] = None if default is None else class_named(default)
            said.append(f"default: {'as declared' if default is None else class_named(default).name.lower()}")
        name = f"{self.name} ({', '.join(said)})" if said else self.name
        return replace(self, name=name, **changes)

    def search(self, text: str) -> dict[str, CastClass]:
        """Return the ops whose name, or the library's name for them, contains `text`, with their classes."""
        word = text.lower()
        return {op: kind for op, kind in self.rules.items()
                if word in op.lower() or word in self.remarks.get(op, "").lower()}  # fmt: skip

    def diff(self, other: Policy) -> PolicyDiff:
        """Return where this policy and another one differ."""
        return difference(self, other)

    def at(self, release: str) -> Policy:
        """Return the policy as of a release: "2.11", or the build that was read, "2.11.0".

        Raises:
            SettingError: the rules of that release were not read, the policy has no history, or the release
                is a number (2.10 is 2.1).
        """
        named = release_of(self.name, release, self.releases)
        if named == self.releases[-1]:
            return self
        rules = rules_as_of(self.rules, self.changes, named, self.releases)
        first = self.name.partition("@")[0]
        kept = self.releases[: self.releases.index(named) + 1]
        return replace(
            self, name=f"{first}@{named}", rules=rules, releases=kept,
            source=self.source.replace(RELEASES[self.releases[-1]], RELEASES[named]), note="",
            lacking=self.lacking | {op for op in rules if op not in ACTING},
            changes=tuple(row for row in self.changes if row.release in kept),
        )  # fmt: skip

    def history(self) -> History:
        """Return what changed from release to release; print it for a report.

        Raises:
            SettingError: the policy has no history: it was edited, or is not PyTorch's.
        """
        if not self.releases:
            release_of(self.name, "", self.releases)
        return History(self.name, self.changes, self.releases)

    def explain(self, op: Any, inputs: Iterable[Any], **options: Any) -> Explanation:
        """Say which format each input of an op is computed in under this policy, and which rule says so.

        The op is not run.

        >>> print(mp.policies["torch-cuda"].explain("addcmul", ["float32", "float16", 2.0]))
        addcmul in a float16 region of torch-cuda: promote (inputs to float32 if any is float32, else as
          they are), as its table says
          1. float32: float32 is among the inputs, so all are computed in float32, which it has
          2. float16 -> float32: float32 is among the inputs, so all are computed in float32
          3. a float: it has no format to change
          result: float32
          rules: PyTorch 2.13.0, CUDA

        Args:
            op: the op, or its name.
            inputs: its positional arguments: tensors, arrays, formats or names of formats, numbers, None.
            options: its keyword arguments, as `dtype=`; and `low=`, the region's format: by default that of
                the region in force, else float16.

        Raises:
            SettingError: no op of that name (the nearest is offered).
            FormatError: the name of no format. (A call that would raise in the region is explained:
                :attr:`Explanation.refused`.)
        """
        return explained(self, op, inputs, **options)

    def to_dict(self) -> dict[str, Any]:
        """Return the policy as plain data, fit for JSON; :meth:`from_dict` makes it again."""
        return to_plain(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], also: Iterable[Any] = ()) -> Policy:
        """Return the policy that :meth:`to_dict` gave, or that was written by hand in the same form.

        Args:
            data: ``{"name": ..., "rules": {class: [op, ...], ...}}`` at the least.
            also: ops of your own that the rules name.

        Raises:
            SettingError: an unknown key, class or op, or an op that stands under two classes.
        """
        return cls(**from_plain(data, also))

    def __str__(self) -> str:
        """Show the table, grouped by class, within 100 columns."""
        return as_text(self)

    def _editable(self, op: Any) -> str:
        name: str = op if isinstance(op, str) else op.name
        if isinstance(op, str):
            self._check(op)
        if name == UNTOUCHABLE:
            raise SettingError("a policy cannot rule the op 'cast': it does what it is told")
        if name in self.lacking:
            raise SettingError(
                f"{name} is not an op of minimp: its rule would act nowhere", op=f"policy {self.name}",
                help="edit the op that minimp runs in its place: minimp.modes.listen tells which",
            )  # fmt: skip
        return name

    def _check(self, op: str) -> None:
        if op not in self.rules:
            raise SettingError(
                unknown_name("op", op, sorted(self.rules)),
                op=f"policy {self.name}", help="for an op of your own, write policy.with_({the_op: ...})",
            )  # fmt: skip


def _made(given: dict[str, Any]) -> Policy:
    return Policy(**given)


class Policies(Named[Policy]):
    """The named policies; ``"torch-cuda@2.11"`` is ``["torch-cuda"].at("2.11")``."""

    def __init__(self, *rows: Policy) -> None:
        super().__init__("policy", *rows)

    def __getitem__(self, name: str) -> Policy:
        plain, at, release = name.partition("@")
        found = super().__getitem__(plain)
        return found.at(release) if at else found

    def __contains__(self, name: object) -> bool:
        if not isinstance(name, str) or "@" not in name:
            return super().__contains__(name)
        try:
            return bool(self[name])
        except SettingError:
            return False

    def __str__(self) -> str:
        """Show the names and where the rules come from."""
        return "\n".join(f"{row.name}: {row.source}" for row in self.values())
