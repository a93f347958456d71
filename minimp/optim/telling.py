"""Telling those who watch (:class:`minimp.modes.watch`) that an optimizer steps, in whoever's loop it does.

A watcher that wants to know has the methods `optimizer_steps(optimizer)`, called before, and
`optimizer_stepped(optimizer, done=...)`, called after; `done` is false where the step raised.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any

from minimp.modes import MODES

__all__ = ["telling_of"]


class telling_of:  # noqa: N801 - reads as a statement: `with telling_of(optimizer):`
    """Tell that an optimizer steps in the block."""

    __slots__ = ("_optimizer", "_watchers")

    def __init__(self, optimizer: Any) -> None:
        self._optimizer = optimizer
        watchers: tuple[Any, ...] = MODES.get().watchers
        self._watchers = [each for each in watchers if hasattr(each, "optimizer_steps")]

    def __enter__(self) -> None:
        """Tell that it begins."""
        for watcher in self._watchers:
            watcher.optimizer_steps(self._optimizer)

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, where: TracebackType | None
    ) -> None:
        """Tell that it has ended."""
        for watcher in reversed(self._watchers):
            watcher.optimizer_stepped(self._optimizer, done=kind is None)
