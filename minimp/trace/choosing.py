"""Of which ops statistics are taken: by op, module, stage and step."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache

from minimp.errors import SettingError

__all__ = ["Choice", "choose"]


@dataclass(frozen=True)
class Choice:
    """Patterns as of a shell; None takes everything."""

    ops: tuple[str, ...] | None = None
    modules: tuple[str, ...] | None = None
    stages: tuple[str, ...] | None = None
    steps: Collection[int] | None = None

    @property
    def everything(self) -> bool:
        """Whether nothing is left out."""
        return self == Choice()

    def takes(self, op: str, module: str, stage: str, step: int) -> bool:
        """Tell whether statistics are taken there."""
        return (
            (self.steps is None or step in self.steps)
            and _fits(op, self.ops)
            and _fits(module, self.modules)
            and _fits(stage, self.stages)
        )

    def as_dict(self) -> dict[str, list[str] | list[int] | None]:
        """Return the patterns, for JSON."""
        lists = {"ops": self.ops, "modules": self.modules, "stages": self.stages}
        found: dict[str, list[str] | list[int] | None] = {
            name: None if patterns is None else list(patterns) for name, patterns in lists.items()
        }
        return {**found, "steps": None if self.steps is None else sorted(self.steps)}


def choose(
    ops: str | Iterable[str] | None, modules: str | Iterable[str] | None, stages: str | Iterable[str] | None,
    steps: int | Iterable[int] | None,
) -> Choice:  # fmt: skip
    """Return a choice.

    Raises:
        SettingError: a pattern that is no text, or a step that is no whole number from 1.
    """
    if steps is not None:
        steps = (steps,) if isinstance(steps, int) else frozenset(steps)
        if not all(type(step) is int and step >= 1 for step in steps):
            raise SettingError(
                f"expected steps to be whole numbers from 1, got {sorted(steps, key=str)}", op="trace.record"
            )
    return Choice(_patterns("ops", ops), _patterns("modules", modules), _patterns("stages", stages), steps)


def _patterns(name: str, given: str | Iterable[str] | None) -> tuple[str, ...] | None:
    if given is None:
        return None
    found = (given,) if isinstance(given, str) else tuple(given)
    if not found or not all(isinstance(each, str) for each in found):
        raise SettingError(f"expected {name} to be names or patterns, got {given!r}", op="trace.record")
    return found


@lru_cache(maxsize=4096)
def _fits(name: str, patterns: tuple[str, ...] | None) -> bool:
    return patterns is None or any(fnmatchcase(name, each) for each in patterns)
