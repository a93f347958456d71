"""Modules that hold parameters: in a list, by name."""

from __future__ import annotations

import operator
from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from typing import Any, Self

from minimp.errors import SettingError, unknown_name
from minimp.nn.module import Module
from minimp.nn.parameter import Parameter
from minimp.tensors import Tensor

__all__ = ["ParameterDict", "ParameterList"]


class _Held(Module):
    """What both share: what becomes a parameter, and how the members are shown."""

    def _put(self, name: str, value: Any) -> None:
        made = value if isinstance(value, Parameter) else Parameter(value)
        self._check_name(name, "_parameters")
        self._parameters[name] = made

    def __len__(self) -> int:
        return len(self._parameters)

    def extra_repr(self) -> str:
        """Show format and shape of each member."""
        members: list[tuple[str, Any]] = list(self._parameters.items())
        return "\n".join(
            f"  ({name}): Parameter containing: [{p.format.name} of size {'x'.join(map(str, p.shape))}]"
            for name, p in members
        )


class ParameterList(_Held):
    """A list of parameters, named "0", "1", ...; it has no forward.

    Args:
        values: parameters, or what becomes one: tensors and arrays.

    Raises:
        GradientError, DataError, FormatError: as :class:`minimp.nn.Parameter`.
    """

    def __init__(self, values: Iterable[Any] | None = None) -> None:
        super().__init__()
        self.extend(() if values is None else values)

    def __iter__(self) -> Iterator[Any]:
        return iter(list(self._parameters.values()))

    def __getitem__(self, index: int | slice) -> Any:
        """Return the parameter at `index`, or a list of those of a slice."""
        if isinstance(index, slice):
            return self.__class__(list(self)[index])
        return self._parameters[self._key(index)]

    def __setitem__(self, index: int, value: Any) -> None:
        self._put(self._key(index), value)

    def _key(self, index: int) -> str:
        at = operator.index(index)
        if not -len(self) <= at < len(self):
            raise IndexError(f"{self._name()} has {len(self)} parameters, there is none at {at}")
        return str(at % len(self))

    def append(self, value: Any) -> Self:
        """Add a parameter at the end."""
        self._put(str(len(self)), value)
        return self

    def extend(self, values: Iterable[Any]) -> Self:
        """Add several parameters at the end."""
        if isinstance(values, Tensor):
            raise SettingError(
                "expected several parameters, got one tensor", op=self._name(), help="use append"
            )
        for value in list(values):
            self.append(value)
        return self

    def __iadd__(self, values: Iterable[Any]) -> Self:
        return self.extend(values)

    def __dir__(self) -> list[str]:
        """Leave out numbers, which are no names."""
        return [name for name in super().__dir__() if not name.isdigit()]


class ParameterDict(_Held):
    """Parameters by name, in the order of insertion; it has no forward.

    Args:
        parameters: name -> a parameter, or what becomes one: a tensor or an array.

    Raises:
        GradientError, DataError, FormatError: as :class:`minimp.nn.Parameter`.
    """

    def __init__(self, parameters: Mapping[str, Any] | Iterable[tuple[str, Any]] | None = None) -> None:
        super().__init__()
        self.update(parameters or {})

    def __getitem__(self, key: str) -> Any:
        """Return the parameter called `key`.

        Raises:
            KeyError: there is none.
        """
        if key not in self._parameters:
            raise KeyError(unknown_name("parameter", key, self._parameters))
        return self._parameters[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self._put(key, value)

    def __delitem__(self, key: str) -> None:
        del self._parameters[key]

    def __contains__(self, key: object) -> bool:
        return key in self._parameters

    def __iter__(self) -> Iterator[str]:
        return iter(self._parameters)

    def __reversed__(self) -> Iterator[str]:
        return reversed(self._parameters)

    def keys(self) -> KeysView[str]:
        """Return the names."""
        return self._parameters.keys()

    def values(self) -> ValuesView[Any]:
        """Return the parameters."""
        return self._parameters.values()

    def items(self) -> ItemsView[str, Any]:
        """Return (name, parameter) pairs."""
        return self._parameters.items()

    def get(self, key: str, default: Any = None) -> Any:
        """Return the parameter called `key`, or the default."""
        return self._parameters.get(key, default)

    def setdefault(self, key: str, default: Any) -> Any:
        """Return the parameter called `key`, which is made of the default if there is none."""
        if key not in self:
            self[key] = default
        return self[key]

    def pop(self, key: str) -> Any:
        """Remove the parameter called `key` and return it."""
        found = self[key]
        del self[key]
        return found

    def clear(self) -> None:
        """Remove all parameters."""
        self._parameters.clear()

    def update(self, parameters: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> None:
        """Add or replace parameters by name."""
        for name, value in dict(parameters).items():
            self[name] = value

    def copy(self) -> Self:
        """Return another container of the very same parameters."""
        return self.__class__(self._parameters)

    def __or__(self, other: Mapping[str, Any] | ParameterDict) -> Self:
        made = self.copy()
        made.update(dict(other.items()))
        return made

    def __ior__(self, other: Mapping[str, Any] | ParameterDict) -> Self:
        self.update(dict(other.items()))
        return self
