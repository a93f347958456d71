"""A table of named things: read-only, in order, and an unknown name is refused with the nearest one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol, TypeVar

from minimp.errors import SettingError, unknown_name

__all__ = ["Named"]


class _HasName(Protocol):
    @property
    def name(self) -> str: ...


Row = TypeVar("Row", bound=_HasName)


class Named(Mapping[str, Row]):
    """The rows by their `.name`.

    Args:
        kind: what a row is, for messages: ``"recipe"``.
        rows: in the order in which they are listed.

    Raises:
        SettingError: on looking up a name that is not there.
    """

    def __init__(self, kind: str, *rows: Row) -> None:
        self.kind = kind
        self._rows = {row.name: row for row in rows}

    def __getitem__(self, name: str) -> Row:
        if name not in self._rows:
            raise SettingError(unknown_name(self.kind, name, self._rows))
        return self._rows[name]

    def __contains__(self, name: object) -> bool:
        return name in self._rows

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)
