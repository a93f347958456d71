"""Exercises, the checks that belong to them, and what a student's cells have left behind."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from minimp.errors import MinimpError, SettingError

__all__ = ["Exercise", "Lab", "NotAnswered", "exercise", "exercises_of"]

Check = Callable[["Lab"], None]


class NotAnswered(MinimpError):  # noqa: N818 - it reads as what is the case, in the place of an answer
    """An exercise that has no answer yet; it stands where the solution stood.

    Args:
        name: the exercise, such as ``"1a"``.
    """

    def __init__(self, name: str) -> None:
        super().__init__(f"exercise {name}: not answered yet", help="write your answer here")
        self.name = name


@dataclass(frozen=True)
class Exercise:
    """One graded exercise.

    Attributes:
        name: ``"1a"``.
        points: what it is worth.
        hints: what may be asked for, one after the other.
        check: takes a :class:`Lab`; passes, or says by an assertion what was expected and what came.
    """

    name: str
    points: int
    hints: tuple[str, ...]
    check: Check

    def __call__(self, lab: Lab) -> None:
        """Check the answer."""
        self.check(lab)


def exercise(name: str, *, points: int = 1, hints: tuple[str, ...] = ()) -> Callable[[Check], Exercise]:
    """Make a function the check of an exercise.

    >>> @exercise("1a", points=2, hints=("count the bits",))
    ... def check_1a(lab):
    ...     assert lab.bits == 16, f"bits: expected 16, got {lab.bits}"

    Args:
        name: the exercise, as it stands in ``raise mp.labs.NotAnswered("1a")``.
        points: a whole number above 0.
        hints: each says more than the one before.

    Raises:
        SettingError: the points are no whole number above 0, or the hints one string in the place of several.
    """
    if type(points) is not int or points < 1:
        raise SettingError(f"exercise {name}: expected points as a whole number above 0, got {points!r}")
    if not isinstance(hints, tuple):
        raise SettingError(f"exercise {name}: expected several hints, got one string", help='write ("...",)')
    return lambda check: Exercise(name, points, tuple(hints), check)


def exercises_of(module: ModuleType) -> list[Exercise]:
    """Return the exercises of a module of checks, in their order."""
    return [each for each in vars(module).values() if isinstance(each, Exercise)]


class Lab:
    """What the cells of a lab defined, by attribute.

    Args:
        names: what they defined.
        broken: the errors of cells that ended early, in order.
        sources: the text of those cells.

    Raises:
        NotAnswered: a name that an unanswered cell should have defined.
        AssertionError: a name that nothing defined; it says which cell ended early, if one did.
    """

    def __init__(
        self, names: dict[str, Any], broken: list[BaseException], sources: Sequence[str] = ()
    ) -> None:
        self.__dict__.update(_names=names, _broken=broken, _sources=sources, _asked="")

    def __getattr__(self, name: str) -> Any:
        names, broken, sources = (self.__dict__[each] for each in ("_names", "_broken", "_sources"))
        self.__dict__["_asked"] = name
        if name in names:
            return names[name]
        faults = [each for each in broken if not isinstance(each, NotAnswered)]
        own = [
            each for each, text in zip(broken, sources, strict=False)
            if each in faults and not isinstance(each, NameError) and _defines(text, name)
        ]  # fmt: skip
        if not own and len(faults) < len(broken):
            raise NotAnswered(name)
        fault = next(iter(own or faults), None)
        said = f"; a cell ended with {type(fault).__name__}: {str(fault)[:500]}" if fault else ""
        raise AssertionError(f"expected the lab to define {name!r}, and it does not{said}")


def _defines(text: str, name: str) -> bool:
    """Return whether a cell that ended early would have defined a name; a cell that only uses it does not.

    Read by pattern, since the text may be no Python. (A NameError does not count above: it is most often what
    an unanswered cell before it brings about.)
    """
    name, before = re.escape(name), r"(?:[\w*]+ *, *)*"
    said = rf"^\s*(?:(?:def|class) +{name}\b|{before}{name}\b(?: *[,:][^=\n(]*)?\s*=(?!=))"
    return re.search(said, text, re.MULTILINE) is not None
