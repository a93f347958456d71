"""Settings of modules as JSON: numbers, words, None, lists, tuples, dicts, and a few kinds of records."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any

from minimp import formats, functional
from minimp.errors import CheckpointError, SettingError
from minimp.formats import Format
from minimp.formats.blocks.table import BlockFormat
from minimp.nn.cells import STEPS, Step
from minimp.quant.dynamic import Arithmetic
from minimp.quant.narrow_weights import Stored

__all__ = ["folded", "unfolded"]

RECORDS = (Arithmetic, BlockFormat, Stored)
"""Frozen dataclasses, stored field by field and made by their constructors, which check them."""
FUNCTIONS: Mapping[str, Any] = MappingProxyType({"relu": functional.relu, "gelu": functional.gelu})
"""The activations of transformer layers."""
LONGEST_INTEGER = 64  # bits


@dataclass(frozen=True)
class Kind:
    """One kind of value that JSON has no word for; it is stored as ``{name: ...}``.

    Attributes:
        holds: whether a value is of this kind.
        fold: value -> JSON, by means of a function for what it holds.
        unfold: JSON -> value, by means of a function for what it holds.
    """

    holds: Callable[[Any], bool]
    fold: Callable[[Any, Callable[[Any], Any]], Any]
    unfold: Callable[[Any, Callable[[Any], Any]], Any]


def _record(kind: type[Any]) -> Kind:
    """Return the row of a dataclass."""

    def fold(value: Any, inner: Callable[[Any], Any]) -> dict[str, Any]:
        return {each.name: inner(getattr(value, each.name)) for each in fields(kind)}

    def unfold(value: Any, inner: Callable[[Any], Any]) -> Any:
        return kind(**{name: inner(each) for name, each in value.items()})

    return Kind(lambda value: type(value) is kind, fold, unfold)


def _function(value: Any) -> str | None:
    return next((name for name, each in FUNCTIONS.items() if each is value), None)


def _cell(value: Any) -> str | None:
    """Return the name of a recurrence; a copied model has copies, which only their words tell apart."""
    if type(value) is not Step:
        return None
    return next((name for name, each in STEPS.items() if each.cell_op == value.cell_op), None)


KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "tuple": Kind(
            lambda value: type(value) is tuple,
            lambda value, inner: list(map(inner, value)),
            lambda value, inner: tuple(map(inner, value)),
        ),
        "dict": Kind(
            lambda value: type(value) is dict and all(type(name) is str for name in value),
            lambda value, inner: {name: inner(each) for name, each in value.items()},
            lambda value, inner: {name: inner(each) for name, each in value.items()},
        ),
        "format": Kind(
            lambda value: isinstance(value, Format) and formats.get(value.name) is value,
            lambda value, _: value.name,
            lambda value, _: formats.get(value),
        ),
        **{each.__name__: _record(each) for each in RECORDS},
        "function": Kind(
            lambda value: bool(_function(value)),
            lambda value, _: _function(value),
            lambda value, _: FUNCTIONS[value],
        ),
        "cell": Kind(
            lambda value: bool(_cell(value)), lambda value, _: _cell(value), lambda value, _: STEPS[value]
        ),
    }
)


def folded(value: Any, where: str) -> Any:
    """Return a setting as JSON.

    Raises:
        SettingError: it is of another kind; `where` names it.
    """
    plain = value is None or type(value) in (bool, str, float)
    if plain or (type(value) is int and value.bit_length() <= LONGEST_INTEGER):
        return value
    if type(value) is list:
        return [folded(each, where) for each in value]
    for name, kind in KINDS.items():
        if kind.holds(value):
            return {name: kind.fold(value, lambda each: folded(each, where))}
    raise SettingError(
        f"{where} is a {type(value).__name__}, which a file cannot describe", op="save",
        help="settings that can be are numbers, strings, None, and lists, tuples and dicts of them",
    )  # fmt: skip


def unfolded(value: Any, op: str) -> Any:
    """Return a setting from its JSON.

    Raises:
        CheckpointError: it is of a kind that is not known.
        MinimpError, TypeError: a record's fields do not make one.
    """
    if isinstance(value, list):
        return [unfolded(each, op) for each in value]
    if not isinstance(value, dict):
        return value
    ((name, inner),) = value.items()
    if name not in KINDS:
        raise CheckpointError(f"it has a setting of an unknown kind, {name!r}", op=op, help="update minimp")
    return KINDS[name].unfold(inner, lambda each: unfolded(each, op))
