"""Modules that hold modules: in a row, in a list, by name."""

from __future__ import annotations

import operator
from collections import OrderedDict
from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from itertools import count
from typing import Any, Self, cast

from minimp.errors import SettingError, unknown_name
from minimp.nn.module import Module, indent

__all__ = ["ModuleDict", "ModuleList", "Sequential"]


class _Row(Module):
    """Modules in order, named "0", "1", ... unless they were given names; list access."""

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Module]:
        return iter(cast("ValuesView[Module]", self._modules.values()))

    def _key(self, index: int) -> str:
        """Return the name of the module at `index`, which may count from the end."""
        at = operator.index(index)
        if not -len(self) <= at < len(self):
            raise IndexError(f"{self._name()} has {len(self)} modules, there is none at {at}")
        return list(self._modules)[at]

    def __getitem__(self, index: int | slice) -> Any:
        """Return the module at `index`, or a container of the same class over the modules of a slice."""
        if not isinstance(index, slice):
            return self._modules[self._key(index)]
        part = self.__class__()
        for name, module in list(self._modules.items())[index]:
            part.add_module(self._name_in_slice(name, part), module)
        return part

    def _name_in_slice(self, name: str, part: _Row) -> str:  # noqa: ARG002 - Sequential keeps the name
        return str(len(part))

    def __setitem__(self, index: int, module: Module) -> None:
        """Replace the module at `index`."""
        setattr(self, self._key(index), module)

    def __delitem__(self, index: int | slice) -> None:
        """Remove the module at `index` or those of a slice; plain numbers are counted anew."""
        names = list(self._modules)
        for name in names[index] if isinstance(index, slice) else [self._key(index)]:
            del self._modules[name]
        self._renumber(list(self))

    def _renumber(self, modules: Iterable[Module]) -> None:
        """Give the modules the names "0", "1", ... in their order."""
        fresh = {str(i): module for i, module in enumerate(modules)}
        self._modules.clear()
        for name, module in fresh.items():
            self.add_module(name, module)

    def append(self, module: Module) -> Self:
        """Add a module at the end, under the first number from its place on that is free."""
        self.add_module(next(str(i) for i in count(len(self)) if str(i) not in self._modules), module)
        return self

    def extend(self, modules: Iterable[Module]) -> Self:
        """Add several modules at the end."""
        for module in list(modules):
            self.append(module)
        return self

    def insert(self, index: int, module: Module) -> Any:
        """Put a module before the one at `index`, as list.insert; all are counted anew."""
        if not isinstance(module, Module):
            raise SettingError(f"expected a Module, got {type(module).__name__}", op=self._name())
        row = list(self)
        row.insert(operator.index(index), module)
        self._renumber(row)

    def pop(self, key: int) -> Module:
        """Take the module at `key` out and return it; those behind it are counted anew."""
        found: Module = self[key]
        del self[key]
        return found

    def __iadd__(self, others: Iterable[Module]) -> Self:
        return self.extend(others)

    def __add__(self, others: Iterable[Module]) -> Self:
        """Return a new container with these modules and others behind them, all counted anew."""
        return self.__class__().extend([*self, *others])

    def __dir__(self) -> list[str]:
        """Leave out numbers, which are no names."""
        return [name for name in super().__dir__() if not name.isdigit()]


class Sequential(_Row):
    """Run modules one after another: y = f_n(... f_2(f_1(x))).

    Args:
        modules: the modules; or one OrderedDict of name -> module.
    """

    def __init__(self, *modules: Any) -> None:
        super().__init__()
        named = modules[0] if len(modules) == 1 and isinstance(modules[0], OrderedDict) else None
        for name, module in named.items() if named is not None else enumerate(modules):
            self.add_module(str(name), module)

    def forward(self, input: Any) -> Any:
        """Return the output of the last module; the input itself if there is none."""
        for module in self:
            input = module(input)
        return input

    def insert(self, index: int, module: Module) -> Self:
        """Put a module before the one at `index`, as list.insert; all are counted anew; returns itself."""
        super().insert(index, module)
        return self

    def __mul__(self, times: int) -> Self:
        """Return a new container in which the very same modules stand `times` times one after another."""
        return self.__class__().extend([*self] * self._count(times))

    __rmul__ = __mul__

    def __imul__(self, times: int) -> Self:
        return self.extend([*self] * (self._count(times) - 1))

    def _count(self, times: Any) -> int:
        if isinstance(times, bool) or not isinstance(times, int) or times < 1:
            raise SettingError(f"expected a whole number of at least 1, got {times!r}", op=self._name())
        return times

    def _name_in_slice(self, name: str, part: _Row) -> str:  # noqa: ARG002 - one signature with the list
        return name


class ModuleList(_Row):
    """A list of modules whose parameters are registered; it has no forward.

    Args:
        modules: the modules to begin with.
    """

    def __init__(self, modules: Iterable[Module] | None = None) -> None:
        super().__init__()
        self.extend(() if modules is None else modules)

    def __repr__(self) -> str:
        """Show the tree as torch does: equal neighbours on one line."""
        blocks: list[tuple[int, int, str]] = []
        for i, text in enumerate(map(repr, self)):
            first = blocks.pop()[0] if blocks and blocks[-1][2] == text else i
            blocks.append((first, i, text))
        if not blocks:
            return f"{self._name()}()"
        lines = [
            f"({first}): {text}" if first == last else f"({first}-{last}): {last - first + 1} x {text}"
            for first, last, text in blocks
        ]
        inner = "\n  ".join(map(indent, lines))
        return f"{self._name()}(\n  {inner}\n)"


class ModuleDict(Module):
    """Modules by name, in the order of insertion; it has no forward.

    Args:
        modules: name -> module.
    """

    def __init__(self, modules: Mapping[str, Module] | None = None) -> None:
        super().__init__()
        self.update(modules or {})

    def __getitem__(self, key: str) -> Any:
        """Return the module called `key`.

        Raises:
            KeyError: there is none.
        """
        if key not in self._modules:
            raise KeyError(unknown_name("module", key, self._modules))
        return self._modules[key]

    def __setitem__(self, key: str, module: Module) -> None:
        self.add_module(key, module)

    def __delitem__(self, key: str) -> None:
        del self._modules[key]

    def __contains__(self, key: object) -> bool:
        return key in self._modules

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def keys(self) -> KeysView[str]:
        """Return the names."""
        return self._modules.keys()

    def values(self) -> ValuesView[Any]:
        """Return the modules."""
        return self._modules.values()

    def items(self) -> ItemsView[str, Any]:
        """Return (name, module) pairs."""
        return self._modules.items()

    def pop(self, key: str) -> Any:
        """Remove the module called `key` and return it."""
        module = self[key]
        del self[key]
        return module

    def clear(self) -> None:
        """Remove all modules."""
        self._modules.clear()

    def update(self, modules: Mapping[str, Module]) -> None:
        """Add or replace modules by name."""
        for name, module in modules.items():
            self[name] = module
