"""Sizes of a model on the command line: ``--sizes width=64,layers=2,hidden=128x64``."""

from __future__ import annotations

from typing import Any

from minimp.errors import SettingError, unknown_name
from minimp.models import ModelKind

__all__ = ["parse_sizes", "sizes_text"]

SWITCH = {"yes": True, "no": False}
NONE = "none"
"""An empty row of numbers."""


def parse_sizes(text: str | None, kind: ModelKind) -> dict[str, Any]:
    """Return the sizes that a text names, each of the type of the model's own default.

    Whole numbers stand as ``64``, shares as ``0.1``, rows of numbers as ``128x64`` or ``none``, switches as
    ``yes`` or ``no``.

    Raises:
        SettingError: no ``name=value``, a size that the model has not, or a value of another type.
    """
    found: dict[str, Any] = {}
    for part in (text or "").split(",") if text else ():
        name, equals, value = (each.strip() for each in part.partition("="))
        if not equals or not value:
            raise SettingError(
                f"--sizes takes name=value,name=value, got {part!r}", help=f"for example {_example(kind)}"
            )
        if name not in kind.sizes:
            raise SettingError(unknown_name(f"size of model {kind.name!r},", name, kind.sizes))
        if name in found:
            raise SettingError(f"--sizes names {name!r} twice")
        found[name] = _value(name, value, kind.sizes[name])
    return found


def _value(name: str, text: str, default: Any) -> Any:
    """Return a value of the default's type."""
    try:
        if isinstance(default, bool):
            return SWITCH[text.lower()]
        if isinstance(default, tuple):
            return () if text == NONE else tuple(int(each) for each in text.split("x"))
        return type(default)(text)
    except (KeyError, ValueError):
        wanted = _words(default)
        raise SettingError(f"--sizes {name}= takes {wanted}, got {text!r}") from None


def _words(default: Any) -> str:
    """Say what a size of this type looks like."""
    kinds = {
        bool: "yes or no",
        int: "a whole number",
        float: "a number",
        tuple: "whole numbers like 64x32, or none",
    }
    return kinds[type(default)]


def sizes_text(kind: ModelKind) -> str:
    """Return the sizes of a model with their defaults, as they stand on a command line."""
    return ",".join(f"{name}={_shown(value)}" for name, value in kind.sizes.items())


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ("x".join(map(str, value)) or NONE) if isinstance(value, tuple) else str(value)


def _example(kind: ModelKind) -> str:
    return f"--sizes {sizes_text(kind)}"
