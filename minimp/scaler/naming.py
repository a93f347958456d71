"""What parameters are called in reports and messages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Self

from minimp.errors import SettingError
from minimp.tape import Value

__all__ = ["Names", "WithNames", "listing", "named_parameters"]

MOST_NAMES = 5
"""As many names a message gives before it counts the rest."""


class Names:
    """What the parameters are called: as told by :meth:`learn`, by the optimizer, or by their place."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[Value, str]] = {}  # the parameter is held, so that its id stays its own

    def __deepcopy__(self, memo: dict[int, Any]) -> Names:
        """Name the copies of what was copied before, in the same call, and else the same parameters."""
        made = Names()
        made.learn((name, memo.get(id(param), param)) for param, name in self._known.values())
        return made

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the ids: parameters that are read back have others."""
        return {"named": [(name, param) for param, name in self._known.values()]}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Learn the names of the parameters that were read back."""
        self._known = {}
        self.learn(state["named"])

    def by_id(self) -> dict[int, str]:
        """Return id of a parameter -> the name that :meth:`learn` was told."""
        return {key: name for key, (_, name) in self._known.items()}

    def learn(self, named: Iterable[tuple[str, Any]]) -> None:
        """Take (name, parameter) pairs, all or none.

        Raises:
            SettingError: something else.
        """
        try:
            pairs = [(str(name), param) for name, param in named]
        except (TypeError, ValueError):
            raise _no_pairs(f"got {type(named).__name__}") from None
        for name, param in pairs:
            if not isinstance(param, Value):
                raise _no_pairs(f"got {type(param).__name__} for {name!r}")
        self._known |= {id(param): (param, name) for name, param in pairs}

    def known(self, param: Value) -> str | None:
        """Return the name that :meth:`learn` was told for a parameter, or None."""
        held = self._known.get(id(param))
        return None if held is None else held[1]

    def of(self, param: Value, group: dict[str, Any], place: tuple[int, int]) -> str:
        """Return the name of the parameter at (group, index) of an optimizer."""
        if id(param) in self._known:
            return self._known[id(param)][1]
        given = group.get("param_names")
        if given is not None:
            return str(given[place[1]])
        return f"parameter {place[1]} of group {place[0]} {param.shape}"


class WithNames:
    """What a scaler has been told about the names of parameters."""

    _names: Names

    def name_parameters(self, model: Any) -> Self:
        """Learn what the parameters are called, for reports and messages.

        Args:
            model: an object with `named_parameters()`, or (name, parameter) pairs.

        Raises:
            SettingError: neither.
        """
        named = model.named_parameters() if hasattr(model, "named_parameters") else model
        self._names.learn(named)
        return self

    def names_by_id(self) -> dict[int, str]:
        """Return id of a parameter -> the name that :meth:`name_parameters` learned."""
        return self._names.by_id()

    def name_of(self, param: Any) -> str | None:
        """Return the name that :meth:`name_parameters` learned for a parameter, or None."""
        return self._names.known(param)


def _no_pairs(got: str) -> SettingError:
    return SettingError(
        f"expected a model, or (name, parameter) pairs, {got}",
        op="name_parameters", help="pass the model, or model.named_parameters()",
    )  # fmt: skip


def listing(names: Iterable[str]) -> str:
    """Join names for a message: the first few, and how many more there are."""
    all_names = list(names)
    more = len(all_names) - MOST_NAMES
    return ", ".join(all_names[:MOST_NAMES]) + (f" and {more} more" if more > 0 else "")


def named_parameters(optimizer: Any, names: Names) -> Iterator[tuple[str, Value]]:
    """Yield (name, parameter) for everything that the optimizer updates.

    Raises:
        SettingError: it has no `param_groups`, or something in them is no tensor.
    """
    groups = getattr(optimizer, "param_groups", None)
    if groups is None:
        raise SettingError(
            f"expected an optimizer with param_groups, got {type(optimizer).__name__}",
            help="pass an optimizer of mp.optim",
        )
    for g, group in enumerate(groups):
        for i, param in enumerate(group["params"]):
            if not isinstance(param, Value):
                raise SettingError(f"expected tensors in group {g}, got {type(param).__name__}")
            yield names.of(param, group, (g, i)), param
