"""A handle that takes back what was registered."""

from __future__ import annotations

import itertools
from typing import Any, Self

__all__ = ["RemovableHandle"]

_numbers = itertools.count()


class RemovableHandle:
    """Takes a hook out of the table that it was put in (torch.utils.hooks.RemovableHandle).

    Also a context manager: leaving the block removes the hook.

    Args:
        table: number -> hook, called in the order of the table.
        hook: what to put in.
        first: whether it is called before those that are there.
    """

    def __init__(self, table: dict[int, Any], hook: Any, *, first: bool = False) -> None:
        self.id = next(_numbers)
        self._table = table
        rest = dict(table) if first else {}
        if first:
            table.clear()
        table[self.id] = hook
        table.update(rest)

    def remove(self) -> None:
        """Take the hook out; once it is out, nothing happens."""
        self._table.pop(self.id, None)

    def __enter__(self) -> Self:
        """Enter the block."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Remove the hook."""
        self.remove()
