"""The thread in which the screen carries commands out."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from contextvars import copy_context
from queue import SimpleQueue
from threading import Thread
from typing import Any

__all__ = ["Hand"]


class Hand:
    """One thread that does one thing after the other; the end of the process does not wait for it.

    One, for a recording tells threads apart; and a thread that may be left, for a model may take its time.
    """

    def __init__(self) -> None:
        self._given: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._thread = Thread(target=copy_context().run, args=(_work, self._given), daemon=True)

    def give(self, function: Callable[[], Any]) -> Future[Any]:
        """Have something done; the future has what it returns or raises."""
        if not self._thread.ident:
            self._thread.start()
        made: Future[Any] = Future()
        self._given.put((made, function))
        return made

    def end(self, seconds: float) -> bool:
        """Take nothing more, and wait so long for what runs; tell whether it has ended."""
        self._given.put(None)
        if self._thread.ident:
            self._thread.join(seconds)
        return not self._thread.is_alive()


def _work(given: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None]) -> None:
    while (task := given.get()) is not None:
        made, function = task
        if made.set_running_or_notify_cancel():
            try:
                made.set_result(function())
            except BaseException as fault:  # noqa: BLE001 - it is raised where the result is asked for
                made.set_exception(fault)
