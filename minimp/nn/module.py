"""Module: a tree of parameters, buffers and child modules with a forward function."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self

from minimp import formats
from minimp.backend import get_backend
from minimp.errors import FormatError, SettingError
from minimp.nn.parameter import Parameter, copy_leaf, move, recast
from minimp.nn.registry import Registry
from minimp.nn.states import LoadResult, load_state
from minimp.tensors import Tensor

__all__ = ["Module", "count_parameters", "indent"]


class Module(Registry):
    """The base of every layer and model, with torch.nn.Module's names.

    A subclass calls ``super().__init__()``, assigns parameters and modules to attributes, which registers
    them, and defines ``forward``. Names are paths: ``"0.weight"`` is the parameter `weight` of child `0`.

    Attributes:
        training: True after :meth:`train`, False after :meth:`eval`; dropout acts only when True.
    """

    training: bool
    _modules: dict[str, Module | None]  # type: ignore[assignment]  # the registry of this class's kind

    def __init__(self) -> None:
        super().__init__()
        object.__setattr__(self, "training", True)

    def forward(self, *inputs: Any, **options: Any) -> Any:  # noqa: ARG002 - a subclass says what it takes
        """Compute the output; every subclass that is called defines it."""
        raise SettingError(
            f"{self._name()} has no forward",
            help="define forward(self, ...) in the class, then call the module",
        )

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        """Run :meth:`forward`."""
        return self.forward(*inputs, **options)

    # ---- the tree ---------------------------------------------------------------------------------------

    def named_modules(self, prefix: str = "", remove_duplicate: bool = True) -> Iterator[tuple[str, Module]]:
        """Yield (path, module) for this module, whose path is `prefix`, and all below it, parents first."""
        seen: set[int] = set()
        stack: list[tuple[str, Module]] = [(prefix, self)]
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

    def get_submodule(self, target: str) -> Module:
        """Return the module at a path such as ``"features.0"``; the empty path is this module.

        Raises:
            SettingError: there is none.
        """
        for path, module in self.named_modules(remove_duplicate=False):
            if path == target:
                return module
        raise SettingError(
            f"no module at {target!r}", op=self._name(), help="named_modules() lists the paths"
        )

    def _named(
        self, registry: str, prefix: str, recurse: bool, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Any]]:
        """Yield (path, member) of one registry, each member once unless `remove_duplicate` is False."""
        seen: set[int] = set()
        owners = self.named_modules(prefix, remove_duplicate) if recurse else iter([(prefix, self)])
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

    def apply(self, fn: Callable[[Module], None]) -> Self:
        """Call `fn` on every module below, then on this one; return this one."""
        for child in self.children():
            child.apply(fn)
        fn(self)
        return self

    # ---- state ------------------------------------------------------------------------------------------

    def state_dict(self, prefix: str = "") -> dict[str, Tensor]:
        """Return path -> detached tensor for parameters and persistent buffers, in torch's order.

        The tensors share the module's memory as it is now; an optimizer's step replaces arrays and so leaves
        them as they were. A tied parameter stands under each of its paths.
        """
        found: dict[str, Tensor] = {}
        for path, module in self.named_modules(remove_duplicate=False):
            for name, leaf in module._saved():
                found[prefix + join(path, name)] = leaf.detach()
        return found

    def _saved(self) -> Iterator[tuple[str, Tensor]]:
        """Yield (name, leaf) of what this module itself saves."""
        for name, leaf in [*self._parameters.items(), *self._buffers.items()]:
            if leaf is not None and name not in self._transient:
                yield name, leaf

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> LoadResult:
        """Take over the values of `state_dict`, or none of them.

        Args:
            state_dict: path -> tensor or array of the leaf's shape. Values of another floating format are
                rounded once, to nearest; they are copied.
            strict: refuse missing and unexpected paths; else they are only named in the result.

        Returns:
            `.missing_keys` and `.unexpected_keys`.

        Raises:
            SettingError: paths are missing or unexpected (strict).
            ShapeError: a shape differs.
            FormatError, DataError: a value is no array of numbers, or integers stand where floats are.
        """
        leaves = {
            join(path, name): leaf
            for path, module in self.named_modules(remove_duplicate=False)
            for name, leaf in module._saved()
        }
        return load_state(self._name(), leaves, state_dict, strict)

    # ---- switches ---------------------------------------------------------------------------------------

    def train(self, mode: bool = True) -> Self:
        """Put this module and all below it in training mode, or out of it."""
        for module in self.modules():
            object.__setattr__(module, "training", bool(mode))
        return self

    def eval(self) -> Self:
        """Leave training mode: dropout lets everything pass."""
        return self.train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Ask for gradients of all parameters, or freeze them."""
        for param in self.parameters():
            param.requires_grad_(requires_grad)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop the gradients of all parameters, or set those that exist to zero."""
        for param in self.parameters():
            if param.grad is not None:
                zeros = None if set_to_none else param.backend.xp.zeros_like(param.grad.array)
                param.grad = None if zeros is None else Tensor(zeros, param.backend)

    def to(self, target: Any = None, *, dtype: Any = None) -> Self:
        """Turn all floating parameters and buffers into a format, or move everything to a backend; in place.

        Args:
            target: a format in any spelling of `mp.formats.get`, or a backend's name.
            dtype: a format, by keyword.

        Raises:
            FormatError, SettingError, DeviceError: neither a format nor a backend, or one that cannot store
                or run here; nothing has changed then.
        """
        leaves = [*self.parameters(), *self.buffers()]
        wanted = target if dtype is None else dtype
        if isinstance(wanted, str) and not _is_format(wanted):
            backend = get_backend(wanted)
            for leaf in leaves:
                move(leaf, backend)
            return self
        form = formats.get(wanted)
        for leaf in leaves:
            leaf.backend.require(form)
        for leaf in leaves:
            recast(leaf, form)
        return self

    def half(self) -> Self:
        """Turn all floating parameters and buffers into float16, each element rounded once."""
        return self.to(formats.float16)

    def bfloat16(self) -> Self:
        """Turn all floating parameters and buffers into bfloat16, each element rounded once."""
        return self.to(formats.bfloat16)

    def float(self) -> Self:
        """Turn all floating parameters and buffers into float32."""
        return self.to(formats.float32)

    def double(self) -> Self:
        """Turn all floating parameters and buffers into float64."""
        return self.to(formats.float64)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Copy the tree with memory of its own; what was tied stays tied."""
        made = self.__class__.__new__(self.__class__)
        memo[id(self)] = made
        for buffer in self.buffers(recurse=False):
            memo.setdefault(id(buffer), copy_leaf(buffer))
        made.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return made

    # ---- printing ---------------------------------------------------------------------------------------

    def extra_repr(self) -> str:
        """Return what `repr` shows of the module's own settings."""
        return ""

    def __repr__(self) -> str:
        """Show the tree as torch does."""
        own = self.extra_repr()
        lines = [f"({name}): {indent(repr(child))}" for name, child in self._modules.items()]
        if not lines and "\n" not in own:
            return f"{self._name()}({own})"
        inner = "\n  ".join([*own.split("\n"), *lines] if own else lines)
        return f"{self._name()}(\n  {inner}\n)"


def join(path: str, name: str) -> str:
    """Return the path of `name` below `path`."""
    return f"{path}.{name}" if path else name


def indent(text: str) -> str:
    """Indent every line but the first by two blanks."""
    return text.replace("\n", "\n  ")


def count_parameters(module: Module, *, trainable_only: bool = False) -> int:
    """Return the number of elements of all parameters of a module, tied ones counted once."""
    return sum(p.size for p in module.parameters() if p.requires_grad or not trainable_only)


def _is_format(spelling: str) -> bool:
    try:
        formats.get(spelling)
    except FormatError:
        return False
    return True
