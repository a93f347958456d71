"""Layers of a model exchanged for ones whose weights are codes: which, by what, and what became of each."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from minimp.errors import DataError, FormatError, SettingError, plain
from minimp.nn.module import Module
from minimp.quant.affine import floats_of
from minimp.quant.fusion.flow import hooked
from minimp.quant.layer_reports import LayerReport, LayerRow, bytes_of, sqnr
from minimp.quant.modules.base import QuantizedModule
from minimp.tensors import Tensor

__all__ = ["Exchange", "Narrowed", "blank", "exchange", "weights_of"]

Floats = npt.NDArray[np.float32]
Made = TypeVar("Made", bound=Module)


class Narrowed(Module):
    """A layer whose weights are stored as codes.

    It is made from a layer in floating point; its codes and scales are buffers, and nothing of it is trained.
    """

    def __init__(self, *_: Any, **__: Any) -> None:
        raise SettingError(
            f"a {self._name()} is made from a layer in floating point", op=self._name(),
            help="build the model in floating point and convert it; load_state_dict then takes the codes",
        )  # fmt: skip

    def stored(self) -> str:
        """Say how weights are stored, in a few words."""
        raise NotImplementedError

    def read_weights(self) -> dict[str, Floats]:
        """Return name -> the numbers that the codes of a weight stand for, in the shape of the weight."""
        raise NotImplementedError

    def largest_scale(self) -> float:
        """Return the largest factor of the codes of all weights."""
        raise NotImplementedError

    def reset_parameters(self) -> None:
        """Refuse: codes are not drawn."""
        raise SettingError(
            "codes are not drawn anew", op=self._name(), help="draw the layer before it is converted"
        )


def blank(cls: type[Made], layer: Module) -> Made:
    """Return a module of a class that has the settings of a layer, and no parameters, buffers or children."""
    made = cls.__new__(cls)
    Module.__init__(made)
    own = set(vars(made))
    for name, value in vars(layer).items():
        if name not in own:
            object.__setattr__(made, name, value)
    return made.train(layer.training)


def weights_of(layer: Module, name: str, where: str) -> Floats:
    """Return a weight in float32.

    Raises:
        DataError: it holds an infinity or NaN, which no scale can take in.
        FormatError: it does not hold floating-point numbers.
    """
    values = floats_of(getattr(layer, name), where)
    if not np.isfinite(values).all():
        lost = int(np.count_nonzero(~np.isfinite(values)))
        raise DataError(
            f"{lost} of {values.size} numbers of {name} of a {type(layer).__name__} are infinite or NaN",
            op=where, help="look where training went wrong: such weights have no scale",
        )  # fmt: skip
    return values


@dataclass(frozen=True)
class Exchange:
    """One way of conversion.

    Attributes:
        op: the function's name, for messages.
        table: class -> how a layer of exactly this class is converted.
        faults: class -> why a layer of it cannot be, "" if it can.
        hints: class -> why layers of it are left, for classes that are not in the table.
    """

    op: str
    table: Mapping[type[Module], Callable[[Any], Narrowed]]
    faults: Mapping[type[Module], Callable[[Any], str]] = field(default_factory=dict)
    hints: Mapping[type[Module], str] = field(default_factory=dict)

    @property
    def known(self) -> str:
        """The classes of the table, for messages."""
        return ", ".join(each.__name__ for each in self.table)

    def fault(self, module: Module) -> str:
        """Say why a module cannot be converted, or "" if it can."""
        kind = type(module)
        if kind in self.table:
            return self.faults.get(kind, lambda _: "")(module) or hooked(module)
        if kind in self.hints:
            return self.hints[kind]
        base = next((each for each in self.table if isinstance(module, each)), None)
        if base is not None:
            return f"a class made from {base.__name__}, whose forward may be its own"
        return f"{self.op} converts {self.known}"


def exchange(
    model: Module, modules: Iterable[Any] | None, way: Exchange, *, inplace: bool
) -> tuple[Module, LayerReport]:
    """Convert layers of a model, or of a copy of it; if anything is wrong, nothing has changed.

    Args:
        model: the model.
        modules: classes and paths; None is every class of the table. A path stands for all layers below it.
        way: which conversion.
        inplace: whether to change `model` itself.

    Raises:
        SettingError: the model has codes already; a class or path that cannot be converted; no layer that is
            converted; or a model in place that is itself such a layer.
    """
    if not isinstance(model, Module):
        raise SettingError(f"expected a module, got {type(model).__name__}", op=way.op)
    codes = (Narrowed, QuantizedModule)
    narrow = [path for path, each in model.named_modules() if isinstance(each, codes)]
    if narrow:
        raise SettingError(
            f"{narrow[0] or 'the model'!r} is on codes already", op=way.op,
            help="convert the model in floating point; several classes or paths go into one call",
        )  # fmt: skip
    wanted = _wanted(model, modules, way)
    changed = model if inplace else copy.deepcopy(model)
    before, rows, made = bytes_of(changed), [], {}
    inside = ""
    shared = _shared(changed)
    for path, module in changed.named_modules():
        if inside and path.startswith(inside):
            continue
        why = "" if wanted(path, module) else "not among the modules asked for"
        why = why or way.fault(module)
        if why and any(True for _ in module.parameters(recurse=False)):
            size = _own_bytes(module)
            rows.append(LayerRow(path, type(module).__name__, "", size, size, note=why))
        if not why:
            made[id(module)] = new = _converted(path, module, way)
            rows.append(_row(path, module, new, shared))
            inside = f"{path}." if path else ""
            if not path:
                break
    _check_some(made, way, rows)
    changed = _replaced(changed, made, way, inplace=inplace)
    return changed, LayerReport(tuple(rows), before, bytes_of(changed))


def _wanted(model: Module, modules: Iterable[Any] | None, way: Exchange) -> Callable[[str, Module], bool]:
    """Return what tells whether a module was asked for; refuse what cannot be converted."""
    if modules is None:
        return lambda path, module: True  # noqa: ARG005 - everything
    asked = [modules] if isinstance(modules, str | type) else list(modules)
    kinds = {each for each in asked if isinstance(each, type)}
    paths = {each for each in asked if isinstance(each, str)}
    strange = [each for each in asked if not isinstance(each, str | type)]
    if strange or not asked:
        raise SettingError(
            f"expected classes of layers or paths, got {strange[0]!r}" if strange else "no modules are named",
            op=way.op, help="for example {nn.Linear, 'head'}; None takes every class that can be converted",
        )  # fmt: skip
    for kind in kinds - set(way.table):
        hint = way.hints.get(kind, f"it converts {way.known}")
        raise SettingError(f"a {kind.__name__} cannot be converted", op=way.op, help=hint)
    for path in sorted(paths):
        _check_path(model, path, way)
    return lambda path, module: (
        type(module) in kinds or any(path == each or path.startswith(f"{each}.") for each in paths)
    )


def _check_path(model: Module, path: str, way: Exchange) -> None:
    target = model.get_submodule(path)
    if any(type(each) in way.table for each in target.modules() if each is not target):
        return
    why = way.fault(target)
    if why:
        raise SettingError(
            f"{path!r}, a {type(target).__name__}, cannot be converted: {why}", op=way.op,
            help="leave it out, and it stays in floating point",
        )  # fmt: skip


def _converted(path: str, module: Module, way: Exchange) -> Narrowed:
    """Return the layer that takes a module's place; an error names the path."""
    try:
        return way.table[type(module)](module)
    except (DataError, FormatError) as fault:
        said = f"{path or 'the model'!r}: {plain(fault)}"
        raise type(fault)(said, op=fault.op, formats=fault.formats, help=fault.help) from fault


def _row(path: str, old: Module, new: Narrowed, shared: Mapping[int, list[str]]) -> LayerRow:
    named, read = dict(old.named_parameters()), new.read_weights()
    pairs = [(floats_of(named[name], ""), values) for name, values in read.items()]
    own = {f"{path}.{name}" if path else name for name in read}
    others = [each for name in read for each in shared[id(named[name])] if each not in own]
    note = f"tied to {', '.join(others)}; where that has other codes or none, both are kept" if others else ""
    sizes = _own_bytes(old, deep=True), _own_bytes(new, deep=True)
    largest = max(float(np.abs(values).max(initial=0.0)) for values, _ in pairs)
    kind = type(old).__name__
    return LayerRow(path, kind, new.stored(), *sizes, sqnr(pairs), note, largest, new.largest_scale())


def _shared(model: Module) -> dict[int, list[str]]:
    """Return the paths of each parameter."""
    found: dict[int, list[str]] = {}
    for path, leaf in model.named_parameters(remove_duplicate=False):
        found.setdefault(id(leaf), []).append(path)
    return found


def _own_bytes(module: Module, *, deep: bool = False) -> int:
    leaves: list[Tensor] = [*module.parameters(recurse=deep), *module.buffers(recurse=deep)]
    return sum(leaf.nbytes for leaf in leaves)


def _check_some(made: Mapping[int, Any], way: Exchange, rows: list[LayerRow]) -> None:
    if made:
        return
    why = f" ({rows[0].path}: {rows[0].note})" if rows else ""
    raise SettingError(f"no layer can be converted{why}", op=way.op, help=f"it converts {way.known}")


def _replaced(changed: Module, made: dict[int, Narrowed], way: Exchange, *, inplace: bool) -> Module:
    """Put the new layers in the places of the old ones, in each place that they stand at."""
    whole = made.get(id(changed))
    if whole is not None:
        if inplace:
            raise SettingError(
                "the model is itself the layer, which cannot become another in place", op=way.op,
                help="take the copy that comes back: inplace=False",
            )  # fmt: skip
        return whole
    places = [(path, made[id(each)]) for path, each in changed.named_modules(remove_duplicate=False)
              if id(each) in made]  # fmt: skip
    for path, new in places:
        changed.set_submodule(path, new)
    return changed
