"""The tree of modules: walking it, finding what is at a path, counting."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Self

from minimp.errors import SettingError, unknown_name
from minimp.nn.hooks import Hooked
from minimp.nn.parameter import Parameter
from minimp.tensors import Tensor

if TYPE_CHECKING:
    from minimp.nn.module import Module

__all__ = ["Tree", "count_parameters", "join"]


class Tree(Hooked):
    """The walking half of :class:`minimp.nn.Module`: paths are names joined by dots, ``"0.weight"``."""

    _modules: dict[str, Module | None]  # type: ignore[assignment]  # the registry of the tree's own kind

    def named_modules(self, prefix: str = "", remove_duplicate: bool = True) -> Iterator[tuple[str, Module]]:
        """Yield (path, module) for this module, whose path is `prefix`, and all below it, parents first."""
        seen: set[int] = set()
        stack: list[tuple[str, Any]] = [(prefix, self)]
        while stack:
            path, module = stack.pop()
            if remove_duplicate and id(module) in seen:
                continue
            seen.add(id(module))
            yield path, module
            below = [
                (join(path, name), child) for name, child in module._modules.items() if child is not None
            ]
            stack.extend(reversed(below))

    def modules(self) -> Iterator[Module]:
        """Yield this module and all below it, each once."""
        return (module for _, module in self.named_modules())

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """Yield (name, module) for each direct child, each once."""
        seen: set[int] = set()
        for name, child in self._modules.items():
            if child is not None and id(child) not in seen:
                seen.add(id(child))
                yield name, child

    def children(self) -> Iterator[Module]:
        """Yield the direct children, each once."""
        return (child for _, child in self.named_children())

    def _named(
        self, registry: str, prefix: str, recurse: bool, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Any]]:
        """Yield (path, member) of one registry, each member once unless `remove_duplicate` is False."""
        seen: set[int] = set()
        owners: Any = self.named_modules(prefix, remove_duplicate) if recurse else iter([(prefix, self)])
        for path, module in owners:
            for name, member in getattr(module, registry).items():
                if member is None or (remove_duplicate and id(member) in seen):
                    continue
                seen.add(id(member))
                yield join(path, name), member

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        """Yield (path, parameter); a tied parameter comes once, under its first path."""
        return self._named("_parameters", prefix, recurse, remove_duplicate)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """Yield the parameters, each once: what an optimizer takes."""
        return (param for _, param in self.named_parameters(recurse=recurse))

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        """Yield (path, buffer)."""
        return self._named("_buffers", prefix, recurse, remove_duplicate)

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """Yield the buffers, each once."""
        return (buffer for _, buffer in self.named_buffers(recurse=recurse))

    def apply(self, fn: Callable[[Module], Any]) -> Self:
        """Call `fn` on every module below, then on this one; return this one."""
        for child in self.children():
            child.apply(fn)
        fn(self)  # type: ignore[arg-type]  # every tree is a Module
        return self

    # ---- by path ----------------------------------------------------------------------------------------

    def get_submodule(self, target: str) -> Module:
        """Return the module at a path such as ``"features.0"``; the empty path is this module.

        Raises:
            SettingError: there is none.
        """
        found: Any = self
        for name in target.split(".") if target else ():
            found = found._modules.get(name)
            if found is None:
                raise SettingError(
                    f"no module at {target!r}", op=self._name(), help="named_modules() lists the paths"
                )
        return found  # type: ignore[no-any-return]  # a module

    def get_parameter(self, target: str) -> Parameter:
        """Return the parameter at a path such as ``"0.weight"``.

        Raises:
            SettingError: there is none.
        """
        return self._member("_parameters", "parameter", target)  # type: ignore[no-any-return]  # by registry

    def get_buffer(self, target: str) -> Tensor:
        """Return the buffer at a path such as ``"1.running_mean"``.

        Raises:
            SettingError: there is none.
        """
        return self._member("_buffers", "buffer", target)  # type: ignore[no-any-return]  # by registry

    def _member(self, registry: str, kind: str, target: str) -> Any:
        path, _, name = target.rpartition(".")
        found = getattr(self.get_submodule(path), registry).get(name)
        if found is None:
            known = [path for path, _ in self._named(registry, "", True, False)]
            raise SettingError(unknown_name(kind, target, known), op=self._name())
        return found

    def set_submodule(self, target: str, module: Module, strict: bool = False) -> None:
        """Put a module at a path, in place of the one that is there or as a new one.

        Args:
            target: the path; the module that owns its last name must exist.
            module: what to put there.
            strict: refuse a path at which no module is.

        Raises:
            SettingError: an empty path, no such owner, no module to replace (strict), or `module` is none.
        """
        path, _, name = target.rpartition(".")
        if not target:
            raise SettingError("the empty path is this module, which cannot replace itself", op=self._name())
        owner = self.get_submodule(path)
        if strict:
            self.get_submodule(target)
        owner.add_module(name, module)

    # ---- counting ---------------------------------------------------------------------------------------

    def num_parameters(self, only_trainable: bool = False) -> int:
        """Return the number of elements of all parameters, tied ones once; see :func:`count_parameters`."""
        return sum(p.size for p in self.parameters() if p.requires_grad or not only_trainable)


def join(path: str, name: str) -> str:
    """Return the path of `name` below `path`."""
    return f"{path}.{name}" if path else name


def count_parameters(module: Tree, *, trainable_only: bool = False) -> int:
    """Return the number of elements of all parameters of a module, tied ones counted once."""
    return module.num_parameters(trainable_only)
