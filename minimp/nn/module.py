"""Module: a tree of parameters, buffers and child modules with a forward function."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Mapping
from typing import Any, Self

from minimp import formats
from minimp.backend import get_backend
from minimp.errors import FormatError, SettingError
from minimp.files import AnyPath
from minimp.nn.hooks import call_hooked
from minimp.nn.parameter import copy_leaf, move, recast
from minimp.nn.states import LoadResult, load_state, read_state
from minimp.nn.tree import Tree, count_parameters, join
from minimp.tensors import Tensor

__all__ = ["Module", "count_parameters", "indent"]


class Module(Tree):
    """The base of every layer and model, with torch.nn.Module's names.

    A subclass calls ``super().__init__()``, assigns parameters and modules to attributes, which registers
    them, and defines ``forward``. Names are paths: ``"0.weight"`` is the parameter `weight` of child `0`.
    What a module inherits stands in three files: how members are registered (`registry`), how functions are
    hooked in (`hooks`), how the tree is walked (`tree`).

    Attributes:
        training: True after :meth:`train`, False after :meth:`eval`; dropout acts only when True.
    """

    training: bool

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
        """Run :meth:`forward`, and the hooks around it if there are any."""
        hooks = self._hooks
        if hooks is None:
            return self.forward(*inputs, **options)
        return call_hooked(self, hooks, inputs, options)

    # ---- state ------------------------------------------------------------------------------------------

    def state_dict(self, prefix: str = "", keep_vars: bool = False) -> dict[str, Tensor]:
        """Return path -> detached tensor for parameters and persistent buffers, in torch's order.

        The tensors share the module's memory as it is now; an optimizer's step replaces arrays and so leaves
        them as they were. A tied parameter stands under each of its paths.

        Args:
            prefix: what each path begins with.
            keep_vars: give the parameters and buffers themselves, not detached.
        """
        found: dict[str, Tensor] = {}
        ended: list[tuple[str, Module]] = []
        for path, module in self.named_modules(remove_duplicate=False):
            here = f"{prefix}{path}." if path else prefix
            for hook in module._hooks.state_dict_pre.values() if module._hooks else ():
                hook.function(module, here, keep_vars)
            for name, leaf in module._saved():
                found[here + name] = leaf if keep_vars else leaf.detach()
            ended.append((here, module))
        for here, module in reversed(ended):
            for hook in module._hooks.state_dict.values() if module._hooks else ():
                hook.function(module, found, here, {})
        return found

    def _saved(self) -> Iterator[tuple[str, Tensor]]:
        """Yield (name, leaf) of what this module itself saves."""
        for name, leaf in [*self._parameters.items(), *self._buffers.items()]:
            if leaf is not None and name not in self._transient:
                yield name, leaf

    def load_state_dict(
        self, state_dict: Mapping[str, Any] | AnyPath, strict: bool = True, assign: bool = False
    ) -> LoadResult:
        """Take over the values of `state_dict`, or none of them.

        Args:
            state_dict: path -> tensor or array of the leaf's shape; or a safetensors file that holds them, of
                minimp, torch or others. Values of another floating format are rounded once, to nearest; they
                are copied. A tied parameter may stand under one of its paths only.
            strict: refuse missing and unexpected paths; else they are only named in the result.
            assign: must stay False: parameters keep their format; convert the model first.

        Returns:
            `.missing_keys` and `.unexpected_keys`.

        Raises:
            SettingError: paths are missing or unexpected (strict), a hook objects, or assign=True.
            ShapeError: a shape differs.
            FormatError, DataError: a value is no array of numbers, or integers stand where floats are.
            CheckpointError: the file cannot be read or trusted.
        """
        if assign:
            raise SettingError(
                "assign=True cannot act: values are taken over in the format of the parameters",
                op=f"{self._name()}.load_state_dict", help="convert the model first, with .to(...)",
            )  # fmt: skip
        modules = list(self.named_modules(remove_duplicate=False))
        if isinstance(state_dict, str | os.PathLike):
            names = [join(path, name) for path, module in modules for name, _ in module._saved()]
            state_dict = read_state(state_dict, names, f"{self._name()}.load_state_dict")
        state, noted = self._before_loading(modules, state_dict, strict)
        leaves = {join(path, name): leaf for path, module in modules for name, leaf in module._saved()}
        found = load_state(self._name(), leaves, state, strict)
        missing, unexpected = ([*a, *b] for a, b in zip(found, noted, strict=True))
        result = LoadResult(missing, unexpected)
        for _, module in reversed(modules):
            for hook in module._hooks.load.values() if module._hooks else ():
                hook.function(module, result)
        return result

    def _before_loading(
        self, modules: list[tuple[str, Module]], state: Any, strict: bool
    ) -> tuple[Any, tuple[list[str], list[str]]]:
        """Call the hooks before loading; return the state as they leave it, and the paths that they noted."""
        hooked = [(path, module) for path, module in modules if module._hooks and module._hooks.load_pre]
        missing: list[str] = []
        unexpected: list[str] = []
        errors: list[str] = []
        if hooked and isinstance(state, Mapping):
            state = dict(state)
            for path, module in hooked:
                for hook in module._hooks.load_pre.values() if module._hooks else ():
                    lists = (strict, missing, unexpected, errors)
                    hook.function(module, state, f"{path}." if path else "", {}, *lists)
        if strict:
            errors += [f"missing key: {path}" for path in missing]
            errors += [f"unexpected key: {path}" for path in unexpected]
        if errors:
            op = f"{self._name()}.load_state_dict"
            raise SettingError(f"a hook found faults in the state: {'; '.join(errors)}", op=op)
        return state, (missing, unexpected)

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

    statistics: tuple[str, ...] = ()
    """Names of the buffers that hold running statistics."""

    def to(self, target: Any = None, *, dtype: Any = None, keep_statistics: bool = False) -> Self:
        """Turn all floating parameters and buffers into a format, or move everything to a backend; in place.

        Args:
            target: a format in any spelling of `mp.formats.get`, or a backend's name.
            dtype: a format, by keyword.
            keep_statistics: leave running statistics, of batch normalisation above all, in the format that
                they have: a mean of small changes stands still in 16 bits. torch has no such switch.

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
        kept = {id(each) for each in self._running_statistics()} if keep_statistics else set()
        changing = [leaf for leaf in leaves if id(leaf) not in kept]
        for leaf in changing:
            leaf.backend.require(form)
        for leaf in changing:
            recast(leaf, form)
        return self

    def _running_statistics(self) -> Iterator[Tensor]:
        """Yield the buffers that modules name as running statistics."""
        for module in self.modules():
            for name in module.statistics:
                buffer = module._buffers.get(name)
                if buffer is not None:
                    yield buffer

    def type(self, dst_type: Any) -> Self:
        """Turn all floating parameters and buffers into a format (torch's other name for :meth:`to`)."""
        return self.to(dtype=formats.get(dst_type))

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


def indent(text: str) -> str:
    """Indent every line but the first by two blanks."""
    return text.replace("\n", "\n  ")


def _is_format(spelling: str) -> bool:
    try:
        formats.get(spelling)
    except FormatError:
        return False
    return True
