"""`with mp.debug(2):`, and MINIMP_DEBUG=2."""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import Any, Self

from minimp.errors import SettingError
from minimp.ladder.ladder import Ladder, Memory
from minimp.ladder.levels import VARIABLE, parse_level
from minimp.modes import DEFAULT_MODES, Modes, Scope

__all__ = ["begin", "debug"]

ENDLESS = ExitStack()
"""What the ladder of the environment holds on to, as long as the program runs."""


class debug(Scope):  # noqa: N801 - reads as a statement: `with debug(2):`
    """Write what happens in the block to stderr, one line an event; also a decorator.

    A block replaces the ladder around it, so that ``debug(0)`` silences a part. It is of the thread or task
    that opened it, and of those that run in a copy of its context. What is computed is the same bits.

    Args:
        level: 0 nothing; 1 training steps, loss scale, and which parameters had a step skipped; 2 also each
            cast with the zeros and infinities it made; 3 also each op with formats, shapes, largest magnitude
            and module; 4 also values and lines of code (:mod:`minimp.ladder` has all).

    Raises:
        SettingError: no such level.
    """

    def __init__(self, level: int) -> None:
        super().__init__()
        self.level = parse_level(level, "debug")
        self._memory = Memory()
        self._open: list[ExitStack] = []

    def changes(self, now: Modes) -> dict[str, Any]:
        """Put a ladder in the place of the one in force."""
        if not self.level:
            return _heard(None, now)
        ladder = Ladder(self.level, self._memory)
        ladder.attach(self._open[-1])
        return _heard(ladder, now)

    def _recreate_cm(self) -> Self:
        fresh = super()._recreate_cm()
        fresh._open = []
        return fresh

    def __enter__(self) -> Any:
        """Begin to write."""
        self._open.append(ExitStack())
        try:
            return super().__enter__()
        except BaseException:
            self._open.pop().close()
            raise

    def __exit__(self, *exc: object) -> None:
        """Go on as before."""
        super().__exit__(*exc)
        self._open.pop().close()


class Refusal:
    """Stands where the ladder of the environment would, if that had been a level: each op and step raises."""

    def __init__(self, value: str) -> None:
        self.value = value

    def hear(self, *_: Any) -> None:
        """Raise (a listener)."""
        parse_level(self.value, VARIABLE)

    begin_stage = end_stage = hear


def begin() -> None:
    """Do as MINIMP_DEBUG says in all threads of the program; :mod:`minimp` calls it when it is imported.

    An import never fails for it: of a value that is no level, the first op or step raises a SettingError.
    """
    value = os.environ.get(VARIABLE, "")
    try:
        level = parse_level(value, VARIABLE)
    except SettingError:
        _install(Refusal(value))
        return
    if level:
        ladder = Ladder(level)
        ladder.attach(ENDLESS)
        _install(ladder)


def _install(ladder: Ladder | Refusal) -> None:
    """Put a ladder into the record that every thread begins with: a variable's default stays the object."""
    for name, value in _heard(ladder, DEFAULT_MODES).items():
        object.__setattr__(DEFAULT_MODES, name, value)


def _heard(ladder: Ladder | Refusal | None, now: Modes) -> dict[str, Any]:
    """Return the listeners and watchers in force, with `ladder` in the place of any other."""
    kinds = (Ladder, Refusal)
    listeners = [each for each in now.listeners if not isinstance(getattr(each, "__self__", None), kinds)]
    watchers = [each for each in now.watchers if not isinstance(each, kinds)]
    if ladder is not None:
        watchers.append(ladder)
        if isinstance(ladder, Refusal) or ladder.level >= 2:
            listeners.append(ladder.hear)
    return {"listeners": tuple(listeners), "watchers": tuple(watchers)}
