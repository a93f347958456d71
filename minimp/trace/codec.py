"""Events as plain data for JSON, and back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any

from minimp.trace.events import Error, OpError, Side, Span, TraceEvent
from minimp.trace.statistics import Stats

__all__ = ["event_from", "plain", "span_from"]

NOT_FINITE = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}


def plain(value: Any) -> Any:
    """Return what JSON has: records as objects without the fields that have their default."""
    if is_dataclass(value):
        return {
            each.name: plain(found)
            for each in fields(value)
            if (found := getattr(value, each.name)) != _default(each)
        }
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def _default(each: Any) -> Any:
    if each.default is not MISSING:
        return each.default
    return each.default_factory() if each.default_factory is not MISSING else MISSING


def event_from(found: dict[str, Any]) -> TraceEvent:
    """Return the event that :func:`plain` was given.

    Raises:
        TypeError, KeyError, ValueError: it is none.
    """
    known = dict(found)
    sides: dict[str, Any] = {name: tuple(map(_side, known.pop(name))) for name in ("inputs", "outputs")}
    errors = tuple(map(_op_error, known.pop("errors", ())))
    values, facts = tuple(known.pop("values", ())), known.pop("facts", {})
    return TraceEvent(**known, **sides, errors=errors, values=values, facts=_numbers(facts))


def span_from(found: dict[str, Any]) -> Span:
    """Return a span; errors as :func:`event_from`."""
    return Span(**found)


def _side(found: dict[str, Any] | None) -> Side | None:
    if found is None:
        return None
    known = dict(found)
    shape, links = tuple(known.pop("shape")), tuple(known.pop("links", ()))
    stats, reach = known.pop("stats", None), known.pop("reach", None)
    return Side(
        **known, shape=shape, links=links, stats=None if stats is None else _stats(stats),
        reach=_numbers(reach),
    )  # fmt: skip


def _stats(found: dict[str, Any]) -> Stats:
    known = dict(found)
    binades = _by_number(known.pop("binades", {}))
    cuts = {int(n): _by_number(each) for n, each in known.pop("cuts", {}).items()}
    return Stats(**known, binades=binades, cuts=cuts)


def _by_number(found: dict[str, int]) -> dict[int, int]:
    return {int(exponent): int(count) for exponent, count in found.items()}


def _op_error(found: dict[str, Any] | None) -> OpError | None:
    if found is None:
        return None
    parts = {name: Error(**_numbers(found.get(name, {}))) for name in ("made", "inherited", "total")}
    unrounded = found.get("unrounded")
    stats = None if unrounded is None else _stats(unrounded)
    smooth, jumped = _numbers(found.get("smooth", 0.0)), found.get("jumped", 0)
    return OpError(
        **parts, entering=_numbers(found.get("entering", 0.0)), unrounded=stats, jumped=jumped, smooth=smooth
    )


def _numbers(value: Any) -> Any:
    """Turn the words for numbers that are not finite back."""
    if isinstance(value, dict):
        return {key: _numbers(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_numbers(each) for each in value]
    return NOT_FINITE.get(value, value) if isinstance(value, str) else value
