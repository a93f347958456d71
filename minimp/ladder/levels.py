"""The steps of the ladder."""

from __future__ import annotations

from typing import Any

from minimp.errors import SettingError

__all__ = ["LEVELS", "VARIABLE", "parse_level"]

VARIABLE = "MINIMP_DEBUG"
LEVELS = {
    0: "nothing",
    1: "loss scale and skipped steps",
    2: "and each cast, with the zeros and infinities it made",
    3: "and each op, with formats, shapes and largest magnitude",
    4: "and values, and lines of code",
}
"""Level -> what is written, beside what the level below it writes."""


def parse_level(given: Any, name: str) -> int:
    """Return a level of the ladder.

    Args:
        given: a whole number, or the text of one; "" is 0.
        name: what messages call it.

    Raises:
        SettingError: something else.
    """
    if isinstance(given, str):
        text = given.strip()
        level = int(text or 0) if text.isascii() and (text.isdigit() or not text) else None
    else:
        level = int(given) if hasattr(given, "__index__") and not isinstance(given, bool) else None
    if level not in LEVELS:
        known = "; ".join(f"{each} {words}" for each, words in LEVELS.items())
        raise SettingError(f"{name}: expected a level from 0 to {max(LEVELS)}, got {given!r}", help=known)
    return level
