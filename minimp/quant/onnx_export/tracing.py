"""One run of a model on codes, written down: which module took what, and what it gave.

Codes are told apart by the identity of their QTensor, floats by that of their array: nothing changes either
in place, and the record keeps them all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from minimp.errors import SettingError
from minimp.modes import no_grad
from minimp.nn.hooks import register_module_forward_hook, register_module_forward_pre_hook
from minimp.nn.module import Module
from minimp.quant.fusion.flow import apart
from minimp.quant.qtensor import QTensor
from minimp.tensors import Tensor, tensor

__all__ = ["Record", "Site", "array_of", "key_of", "record", "values_in"]

Value = QTensor | Tensor
Known = Callable[[type[Module]], bool]


@dataclass(frozen=True, eq=False)
class Site:
    """One call of a module that is written as it is.

    Attributes:
        name: the module's path; from its second call on, with the number of the call: ``act:2``.
        path: the module's path.
        module: the module.
        inputs: the codes and floats that it took.
        output: what it gave.
    """

    name: str
    path: str
    module: Module
    inputs: tuple[Value, ...]
    output: Value


@dataclass(frozen=True, eq=False)
class Record:
    """One run.

    Attributes:
        inputs, outputs: of the model, in order.
        sites: the calls of modules that are written, in order.
        names: path or index of each output, as ``output`` or ``output.1.a``.
        passing: keys of values -> the module that gave them and is not written, for messages.
    """

    inputs: tuple[Tensor, ...]
    outputs: tuple[Value, ...]
    names: tuple[str, ...]
    sites: tuple[Site, ...]
    passing: dict[int, str]


def key_of(value: Value) -> int:
    """Return what tells a value from others for as long as both live."""
    return id(value) if isinstance(value, QTensor) else id(value.array)


def array_of(value: Value) -> npt.NDArray[Any]:
    """Return codes, or floats, on the host."""
    if isinstance(value, QTensor):
        return value.codes
    return np.asarray(value.backend.to_host(value.array))


def values_in(value: Any, name: str = "") -> Iterator[tuple[str, Value]]:
    """Yield (name, each) of codes and tensors in nested tuples, lists and dicts, in order."""
    if isinstance(value, QTensor | Tensor):
        yield name, value
    elif isinstance(value, dict):
        for key, each in value.items():
            yield from values_in(each, f"{name}.{key}")
    elif isinstance(value, tuple | list):
        for i, each in enumerate(value):
            yield from values_in(each, f"{name}.{i}")


def record(model: Module, inputs: Iterable[Any], known: Known, op: str) -> Record:
    """Run a model, and note every call of a module of a known class that is not inside of another such.

    Args:
        model: the model, in evaluation mode.
        inputs: arrays or tensors.
        known: tells whether modules of a class are written as they are.
        op: for messages.

    Raises:
        SettingError: no module; a model in training mode; results that are no tensors.
        MinimpError: as the model's forward.
    """
    if not isinstance(model, Module):
        raise SettingError(f"expected a module, got {type(model).__name__}", op=op)
    _check_mode(model, op)
    writing = _Writing(model, known)
    taken = apart(each if isinstance(each, Tensor) else tensor(each) for each in inputs)
    handles = [
        register_module_forward_pre_hook(writing.begin),
        register_module_forward_hook(writing.end, with_kwargs=True),
    ]
    try:
        with no_grad():
            made = model(*taken)
    finally:
        for handle in handles:
            handle.remove()
    named = list(values_in(made, "output"))
    if not named:
        raise SettingError(f"the model gives a {type(made).__name__}, and no tensor", op=op)
    names, outputs = zip(*named, strict=True)
    return Record(taken, outputs, names, tuple(writing.sites), writing.passing)


def _check_mode(model: Module, op: str) -> None:
    for path, module in model.named_modules():
        if getattr(module, "compute", "float32") != "float32":
            raise SettingError(
                f"'{path}' computes in {module.compute}, which is not written to ONNX", op=op,
                help='keep its floats in float32: compute="float32"',
            )  # fmt: skip
        if module.training:
            raise SettingError(
                f"'{path}' ({type(module).__name__}) is in training mode", op=op, help="call model.eval()"
            )


class _Writing:
    """The hooks that make a record."""

    def __init__(self, model: Module, known: Known) -> None:
        self.sites: list[Site] = []
        self.passing: dict[int, str] = {}
        self._known = known
        self._paths = {id(module): path or "model" for path, module in model.named_modules()}
        self._inside = 0
        self._calls: Counter[str] = Counter()

    def begin(self, module: Module, _: Any) -> None:
        """Note that a module begins, whose parts are its own affair."""
        self._inside += id(module) in self._paths and self._known(type(module))

    def end(self, module: Module, args: Any, options: Any, result: Any) -> None:
        """Note a call."""
        if id(module) not in self._paths:
            return
        path = self._paths[id(module)]
        given = [each for _, each in values_in(result)]
        if not self._known(type(module)):
            for each in given:
                self.passing.setdefault(key_of(each), f"'{path}' ({type(module).__name__})")
            return
        self._inside -= 1
        if self._inside:
            return
        self._calls[path] += 1
        name = path if self._calls[path] == 1 else f"{path}:{self._calls[path]}"
        taken = tuple(each for _, each in values_in((args, options)))
        (output,) = given
        self.sites.append(Site(name, path, module, taken, output))
