"""The three tables that the checks read, joined: what every op means, and how far it may be from that."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from minimp.checks import bounds, gradients, reference
from minimp.checks.bounds import Family, is_plain
from minimp.checks.case import Case
from minimp.checks.families import (
    activations,
    adaptive,
    attention,
    contractions,
    convolution,
    eight_bits,
    elementary,
    fake_quantization,
    indexing,
    losses,
    norms,
    places,
    recurrent,
    resampling,
    scans,
    selection,
    statistics,
)
from minimp.checks.running import Arithmetic, Running

__all__ = [
    "FAMILIES",
    "FORMATLESS",
    "GRADIENTS",
    "NO_DERIVATIVE",
    "REFERENCE",
    "TURNS",
    "forward_bound",
    "gradient_bound",
]

FILES: tuple[Any, ...] = (
    activations, adaptive, attention, contractions, convolution, eight_bits, elementary, fake_quantization,
    indexing, losses, norms, places, recurrent, resampling, scans, selection, statistics,
)  # fmt: skip
"""The modules of :mod:`minimp.checks.families`."""


def _joined(name: str, first: Mapping[str, Any]) -> Mapping[str, Any]:
    """Join one table of all files; an op stands in one of them."""
    table = dict(first)
    for file in FILES:
        table |= getattr(file, name)
    return MappingProxyType(table)


def _families() -> Mapping[str, Family]:
    """Join the programs of each family of bounds."""
    table = dict(bounds.FAMILIES)
    for file in FILES:
        for family, programs in file.BOUNDS.items():
            table[family] = Family(table[family].note, {**(table[family].programs or {}), **programs})
    return MappingProxyType(table)


FORMATLESS = frozenset({"eq", "ne", "lt", "le", "gt", "ge", "isfinite", "argmax"}).union(
    *(getattr(file, "FORMATLESS", ()) for file in FILES)
)
"""Ops whose results are booleans or indices."""
NO_DERIVATIVE: dict[str, Any] = {
    op: rule for file in FILES for op, rule in getattr(file, "NO_DERIVATIVE", {}).items()
}
"""Op name -> options -> whether its gradient is another than the derivative, by definition."""
TURNS: dict[str, Any] = {op: rule for file in FILES for op, rule in getattr(file, "TURNS", {}).items()}
"""Op name -> inputs -> whether the result turns back and forth within a small relative step of theirs."""
REFERENCE = _joined("REFERENCE", reference.REFERENCE)
"""Op name -> its forward in float64."""
GRADIENTS = _joined("GRADIENTS", gradients.GRADIENTS)
"""Op name -> for each input, its gradient."""
FAMILIES = _families()
"""The families of bounds by name; together they cover every op of :data:`minimp.door.OPS`."""


def forward_bound(
    family: str, op: str, at: Arithmetic, inputs: tuple[Any, ...], options: Mapping[str, Any]
) -> Running | None:
    """Return an op's result as a running number, not yet rounded to its format; None if it is exact.

    Args:
        family: a key of :data:`FAMILIES`.
        op: the op's name.
        at: what it computes in.
        inputs: its inputs: arrays, Python numbers, None.
        options: its keyword arguments.

    Raises:
        KeyError: the family, or the op in it, is unknown.
    """
    programs = FAMILIES[family].programs
    if programs is None:
        return None
    numbers = [x if is_plain(x) else at.number(x) for x in inputs]
    return programs[op](*numbers, **options)


def gradient_bound(op: str, index: int, case: Case) -> Running:
    """Return the gradient of input `index` of an op, rounded to its format, with its error bound.

    Raises:
        KeyError: the op is unknown; IndexError: it has no gradient for that input.
    """
    rules = GRADIENTS[op]
    found: Running = (rules(index) if callable(rules) else rules[index])(case)
    return found
