"""The attributes of a module: parameters, buffers and child modules are registered when they are assigned."""

from __future__ import annotations

import difflib
from typing import Any

from minimp.errors import SettingError
from minimp.nn.parameter import Parameter
from minimp.tensors import Tensor

__all__ = ["REGISTRIES", "Registry"]

REGISTRIES = ("_parameters", "_buffers", "_modules")
"""The dictionaries in which members are kept, each name -> member, in the order of registration."""


class Registry:
    """Sorts what is assigned to its attributes; :class:`minimp.nn.Module` is the one subclass.

    A Parameter goes to `_parameters`, a module to `_modules`; a tensor becomes a buffer only by
    :meth:`register_buffer`. A registered name keeps its kind, or becomes None.
    """

    _parameters: dict[str, Parameter | None]
    _buffers: dict[str, Tensor | None]
    _modules: dict[str, Registry | None]
    _transient: set[str]

    def __init__(self) -> None:
        for registry in REGISTRIES:
            object.__setattr__(self, registry, {})
        object.__setattr__(self, "_transient", set())

    def _name(self) -> str:
        return self.__class__.__name__

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Register a parameter under `name`; None says that there could be one (a layer without bias).

        Raises:
            SettingError: `param` is no Parameter, or the name is taken, empty or has a dot.
        """
        if param is not None and not isinstance(param, Parameter):
            raise SettingError(
                f"expected a Parameter or None for {name!r}, got {type(param).__name__}",
                op=self._name(),
                help="wrap it: nn.Parameter(data)",
            )
        self._check_name(name, "_parameters")
        self._parameters[name] = param

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Register a tensor that is no parameter but belongs to the module, such as a class weight.

        Args:
            name: the attribute's name.
            tensor: a leaf tensor, or None.
            persistent: whether :meth:`state_dict` has it.

        Raises:
            SettingError: `tensor` is no tensor, or the name is taken, empty or has a dot.
        """
        if tensor is not None and not isinstance(tensor, Tensor):
            raise SettingError(
                f"expected a tensor or None for buffer {name!r}, got {type(tensor).__name__}",
                op=self._name(),
                help="make one with mp.tensor(...)",
            )
        self._check_name(name, "_buffers")
        self._buffers[name] = tensor
        (self._transient.discard if persistent else self._transient.add)(name)

    def add_module(self, name: str, module: Registry | None) -> None:
        """Register a child module under `name`.

        Raises:
            SettingError: `module` is no Module, or the name is taken, empty or has a dot.
        """
        if module is not None and not isinstance(module, Registry):
            raise SettingError(
                f"expected a Module or None for {name!r}, got {type(module).__name__}", op=self._name()
            )
        self._check_name(name, "_modules")
        self._modules[name] = module

    def register_module(self, name: str, module: Registry | None) -> None:
        """Register a child module under `name` (torch's other name for :meth:`add_module`)."""
        self.add_module(name, module)

    def _check_name(self, name: str, registry: str) -> None:
        if not name or "." in name:
            raise SettingError(f"the name {name!r} must be a non-empty string without a dot", op=self._name())
        if hasattr(self, name) and name not in getattr(self, registry):
            raise SettingError(f"the name {name!r} is taken by another attribute", op=self._name())

    def __setattr__(self, name: str, value: Any) -> None:
        """Register parameters and modules; a registered name keeps its kind, or becomes None."""
        if "_transient" not in self.__dict__:
            raise SettingError(
                f"{self._name()}.{name} is set before Module.__init__() has run",
                help="call super().__init__() first in __init__",
            )
        if isinstance(value, Parameter):
            self._vacate(name, "_parameters")
            self.register_parameter(name, value)
            return
        if isinstance(value, Registry):
            self._vacate(name, "_modules")
            self.add_module(name, value)
            return
        kinds = {"_parameters": "Parameter", "_modules": "Module", "_buffers": "Tensor"}
        for registry, kind in kinds.items():
            if name in getattr(self, registry):
                self._put_registered(registry, kind, name, value)
                return
        object.__setattr__(self, name, value)

    def _vacate(self, name: str, keep: str) -> None:
        """Take a name out of everything but one registry, where it keeps its place in the order."""
        self.__dict__.pop(name, None)
        self._transient.discard(name)
        for registry in REGISTRIES:
            if registry != keep:
                getattr(self, registry).pop(name, None)

    def _put_registered(self, registry: str, kind: str, name: str, value: Any) -> None:
        if value is not None and not (kind == "Tensor" and isinstance(value, Tensor)):
            raise SettingError(
                f"{name!r} is registered as a {kind} and cannot become a {type(value).__name__}",
                op=self._name(),
                help="assign one of its kind or None, or delete the attribute first",
            )
        getattr(self, registry)[name] = value

    def __getattr__(self, name: str) -> Any:
        for registry in REGISTRIES:
            found = self.__dict__.get(registry, {})
            if name in found:
                return found[name]
        known = [each for registry in REGISTRIES for each in self.__dict__.get(registry, {})]
        near = difflib.get_close_matches(name, [*known, *self.__dict__], n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise AttributeError(f"{self._name()!r} has no attribute {name!r}{hint}", name=name, obj=self)

    def __delattr__(self, name: str) -> None:
        for registry in REGISTRIES:
            if name in getattr(self, registry):
                del getattr(self, registry)[name]
                self._transient.discard(name)
                return
        object.__delattr__(self, name)

    def __dir__(self) -> list[str]:
        """List the registered names beside the attributes, for completion."""
        members = (name for registry in REGISTRIES for name in self.__dict__.get(registry, {}))
        return sorted({*object.__dir__(self), *members})
