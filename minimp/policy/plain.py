"""Policies as plain data for JSON, and back; what cannot be meant is refused."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from minimp.errors import SettingError, unknown_name
from minimp.policy.catalogue import ACTING
from minimp.policy.classes import CastClass
from minimp.policy.history import RELEASES, Change
from minimp.policy.printed import class_named

if TYPE_CHECKING:
    from minimp.policy.table import Policy

__all__ = ["from_plain", "to_plain"]

KEYS: dict[str, type] = {
    "name": str, "rules": dict, "source": str, "note": str, "default": str, "by_format": dict,
    "lacking": list, "remarks": dict, "settings": dict, "changes": list, "releases": list,
}  # fmt: skip
"""What the data may hold, and as what; all but name and rules may be left out."""


def to_plain(policy: Policy) -> dict[str, Any]:
    """Return a policy as dicts, lists, strings and numbers; ops that stand there by default are left out."""
    changes = [asdict(row) | {"before": row.before.value, "after": row.after.value} for row in policy.changes]
    return {
        "name": policy.name,
        "source": policy.source,
        "note": policy.note,
        "default": None if policy.default is None else policy.default.value,
        "rules": _by_class(policy.named),
        "by_format": {low: _by_class(rules) for low, rules in policy.by_format.items()},
        "lacking": sorted(policy.lacking),
        "remarks": dict(policy.remarks),
        "settings": dict(policy.settings),
        "changes": changes,
        "releases": list(policy.releases),
    }


def from_plain(data: Mapping[str, Any], also: Iterable[Any] = ()) -> dict[str, Any]:
    """Return the arguments of the Policy that `data` describes; see :meth:`Policy.from_dict`."""
    for key, value in data.items():
        if key not in KEYS:
            raise SettingError(unknown_name("key", key, KEYS), op="Policy.from_dict")
        if not isinstance(value, KEYS[key]) and not (key == "default" and value is None):
            raise _refused(f"{key}: expected a {KEYS[key].__name__}, got {type(value).__name__}")
    for key in ("name", "rules"):
        if key not in data:
            raise _refused(f"expected a {key!r}")
    lacking = frozenset(map(str, data.get("lacking", ())))
    own = {each if isinstance(each, str) else each.name for each in also}
    acting = lacking & {*ACTING, *own}
    if acting:
        raise _refused(f"{', '.join(sorted(acting))}: minimp has it, so it cannot be among what it lacks")
    known = [*ACTING, *sorted(own | lacking)]
    default = data.get("default")
    return {
        **{key: data[key] for key in ("name", "source", "note", "remarks", "settings") if key in data},
        "rules": _rules(data["rules"], known),
        "default": None if default is None else class_named(default),
        "by_format": {low: _rules(rules, known) for low, rules in data.get("by_format", {}).items()},
        "lacking": lacking,
        "changes": tuple(_change(row) for row in data.get("changes", ())),
        "releases": tuple(_known_release(each) for each in data.get("releases", ())),
    }


def _by_class(rules: Mapping[str, CastClass]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for op in sorted(rules):
        groups.setdefault(rules[op].value, []).append(op)
    return groups


def _rules(groups: Mapping[str, Iterable[str]], known: list[str]) -> dict[str, CastClass]:
    found: dict[str, CastClass] = {}
    for word, ops in groups.items():
        kind = class_named(word)
        if isinstance(ops, str):
            raise _refused(f"{word}: expected a list of ops, got {ops!r}")
        for op in ops:
            if op not in known:
                raise SettingError(unknown_name("op", op, known), op="Policy.from_dict",
                                   help="name ops of your own in also=, others under 'lacking'")  # fmt: skip
            if op in found:
                raise _refused(f"{op} stands under {found[op].value} and under {kind.value}")
            if op == "cast" and kind is not CastClass.KEEP:
                raise _refused("a policy cannot rule the op 'cast': it does what it is told")
            found[op] = kind
    return dict(sorted(found.items()))


def _change(row: Mapping[str, Any]) -> Change:
    try:
        return Change(**{**row, "before": class_named(row["before"]), "after": class_named(row["after"])})
    except (TypeError, KeyError) as fault:
        raise _refused(f"a change of a release cannot be read: {row!r}") from fault


def _known_release(text: str) -> str:
    if text not in RELEASES:
        raise SettingError(unknown_name("release", text, RELEASES), op="Policy.from_dict")
    return text


def _refused(why: str) -> SettingError:
    return SettingError(why, op="Policy.from_dict", help="to_dict() shows the form")
