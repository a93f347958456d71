"""What a function can change, kept and put back: everything that is reached from it."""

from __future__ import annotations

import random
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from types import CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

from minimp import rng
from minimp.tape import Node, Value

__all__ = ["Memento"]

MISSING = object()
Restore = Callable[[], object]
FOREIGN = frozenset({"numpy", "minimp_backends", "ml_dtypes", "torch", "builtins", *sys.stdlib_module_names})
"""Packages whose functions and objects hold no state of a user's: they are not looked into."""
INSTALLED = frozenset({"site-packages", "dist-packages"})
"""Folders of what was installed."""
OURS = ("nn", "optim", "scaler", "step", "data", "quant", "trainer", "fp8", "models", "tensors")
"""Those parts of minimp whose objects hold state."""


class Memento:
    """The state that is reached from some functions and objects, as it is now.

    It holds: parameters, buffers, their gradients, and the other attributes of modules; optimizers, scalers,
    loaders, training steps; attributes of the user's own objects; lists, dicts, sets and arrays; variables of
    functions around, and globals that are named in the functions' code; random generators: minimp's, NumPy's
    and Python's. It does not hold: attributes of classes; variables of installed packages; how far an
    iterator has gone; files.

    What is there is put back by identity: a parameter gets the very array that it had, with the bits that it
    had.

    Args:
        roots: where to begin.
    """

    def __init__(self, roots: Iterable[Any]) -> None:
        self._restores: list[Restore] = []
        self._seen: dict[int, Any] = {}
        self._open = deque(roots)
        self._keep_randomness()
        while self._open:
            each = self._open.popleft()
            if id(each) not in self._seen:
                self._seen[id(each)] = each
                self._look(each)

    def restore(self) -> None:
        """Put everything back."""
        for restore in self._restores:
            restore()

    def _keep_randomness(self) -> None:
        self._restores.append(partial(rng.set_rng_state, rng.get_rng_state()))
        legacy = np.random.mtrand._rand  # what np.random.seed and its like act on
        self._look(legacy)
        self._restores.append(partial(random.setstate, random.getstate()))

    def _look(self, each: Any) -> None:
        """Keep one object, and note what it leads to."""
        for kinds, keep in KEEPERS:
            if isinstance(each, kinds):
                keep(self, each)
                return
        if not isinstance(each, type | CodeType | Node) and _may_hold_state(type(each)):
            self._keep_instance(each)

    # ---- the kinds of objects ---------------------------------------------------------------------------

    def _keep_array(self, array: np.ndarray[Any, Any]) -> None:
        chain = [*_with_bases(array)]
        if any(each.flags.writeable for each in chain):  # else nobody can change it
            flags = [(each, each.flags.writeable) for each in reversed(chain)]
            self._restores.append(partial(_put_back, array, array.copy(), flags))
        if array.dtype == object:
            self._open.extend(array.flat)

    def _keep_tensor(self, tensor: Value) -> None:
        names = [name for name in Value.__slots__ if not name.startswith("__")]
        self._keep_attributes(tensor, names)
        hooks = getattr(tensor, "hooks", None)
        self._open.extend(x for x in (tensor.array, tensor.grad, hooks) if x is not None)
        if type(tensor) is not Value and hasattr(tensor, "__dict__"):
            self._look(tensor.__dict__)

    def _keep_dict(self, held: dict[Any, Any]) -> None:
        kept = dict(held)

        def restore() -> None:
            if len(held) != len(kept) or any(held.get(k, MISSING) is not v for k, v in kept.items()):
                held.clear()
                held.update(kept)

        self._restores.append(restore)
        self._open.extend(kept.values())
        self._open.extend(kept)

    def _keep_list(self, held: Any) -> None:
        kept = list(held)

        def restore() -> None:
            held.clear()
            held.extend(kept)

        self._restores.append(restore)
        self._open.extend(kept)

    def _keep_set(self, held: set[Any]) -> None:
        kept = set(held)

        def restore() -> None:
            held.clear()
            held.update(kept)

        self._restores.append(restore)
        self._open.extend(kept)

    def _keep_members(self, held: Iterable[Any]) -> None:
        self._open.extend(held)

    def _keep_function(self, function: FunctionType) -> None:
        if _is_foreign(function.__module__, function.__code__.co_filename):
            return
        for cell in function.__closure__ or ():
            self._keep_cell(cell)
        self._open.extend(function.__defaults__ or ())
        self._open.extend((function.__kwdefaults__ or {}).values())
        self._open.append(function.__dict__)
        names = _names(function.__code__)
        self._keep_named(function.__globals__, names)
        for name in names:
            module = function.__globals__.get(name)
            if isinstance(module, ModuleType) and not _is_foreign(
                module.__name__, getattr(module, "__file__", None)
            ):
                self._keep_named(vars(module), names)

    def _keep_cell(self, cell: CellType) -> None:
        try:
            kept = cell.cell_contents
        except ValueError:  # not assigned yet
            return
        self._restores.append(lambda: setattr(cell, "cell_contents", kept))
        self._open.append(kept)

    def _keep_named(self, variables: dict[str, Any], names: Iterable[str]) -> None:
        """Keep some variables of a module."""
        for name in names:
            if name in variables:
                kept = variables[name]
                self._restores.append(partial(variables.__setitem__, name, kept))
                self._open.append(kept)

    def _keep_method(self, method: MethodType) -> None:
        self._open.extend((method.__self__, method.__func__))

    def _keep_partial(self, made: partial[Any]) -> None:
        self._open.extend((made.func, made.args, made.keywords))

    def _keep_generator(self, generator: np.random.Generator) -> None:
        self._open.append(generator.bit_generator)

    def _keep_bits(self, bits: np.random.BitGenerator) -> None:
        self._restores.append(partial(setattr, bits, "state", bits.state))

    def _keep_legacy(self, made: np.random.RandomState) -> None:
        self._restores.append(partial(made.set_state, made.get_state()))

    def _keep_random(self, made: random.Random) -> None:
        self._restores.append(partial(made.setstate, made.getstate()))

    def _keep_instance(self, each: Any) -> None:
        """Keep the attributes of an object of the user's, or of one of minimp's that holds state."""
        variables = getattr(each, "__dict__", None)
        if isinstance(variables, dict):
            self._look(variables)
        for kind in type(each).__mro__:
            slots = vars(kind).get("__slots__", ())
            names = [slots] if isinstance(slots, str) else [*slots]
            self._keep_attributes(each, [x for x in names if not x.startswith("__")])
            self._open.extend(getattr(each, x) for x in names if not x.startswith("__") and hasattr(each, x))
            if _package(kind.__module__) not in FOREIGN:
                self._open.extend(x for x in vars(kind).values() if isinstance(x, FunctionType))

    def _keep_attributes(self, each: Any, names: Iterable[str]) -> None:
        kept = {name: getattr(each, name, MISSING) for name in names}

        def restore() -> None:
            for name, value in kept.items():
                if value is not getattr(each, name, MISSING):
                    _set(each, name, value)

        self._restores.append(restore)


KEEPERS: tuple[tuple[Any, Callable[[Memento, Any], None]], ...] = (
    (np.ndarray, Memento._keep_array),
    (Value, Memento._keep_tensor),
    (dict, Memento._keep_dict),
    (list | deque, Memento._keep_list),
    (set, Memento._keep_set),
    (tuple | frozenset, Memento._keep_members),
    (FunctionType, Memento._keep_function),
    (MethodType, Memento._keep_method),
    (partial, Memento._keep_partial),
    (np.random.Generator, Memento._keep_generator),
    (np.random.BitGenerator, Memento._keep_bits),
    (np.random.RandomState, Memento._keep_legacy),
    (random.Random, Memento._keep_random),
)
"""How an object of a kind is kept; the first that fits."""


def _may_hold_state(kind: type) -> bool:
    package, _, rest = kind.__module__.partition(".")
    return rest.partition(".")[0] in OURS if package == "minimp" else package not in FOREIGN


def _is_foreign(module: str | None, file: str | None) -> bool:
    """Tell whether a function or module is none of the user's own."""
    package = _package(module)
    return (
        package in FOREIGN
        or package == "minimp"
        or file is None
        or not INSTALLED.isdisjoint(Path(file).parts)
    )


def _package(name: str | None) -> str:
    return (name or "").partition(".")[0]


def _names(code: CodeType) -> set[str]:
    """Return the names of globals and attributes that a code uses, in the functions inside it too."""
    inner = [_names(each) for each in code.co_consts if isinstance(each, CodeType)]
    return set(code.co_names).union(*inner)


def _with_bases(array: Any) -> Iterator[np.ndarray[Any, Any]]:
    while isinstance(array, np.ndarray):
        yield array
        array = array.base


def _put_back(
    array: np.ndarray[Any, Any], kept: np.ndarray[Any, Any], flags: list[tuple[np.ndarray[Any, Any], bool]]
) -> None:
    """Give an array the bits that it had.

    The engine freezes arrays that it keeps for backward; what it kept in a run goes with that run, so that
    they may be written to again.

    Args:
        array: the array.
        kept: the bits.
        flags: it and what it is a view of, the owner first, and whether each may be written to.
    """
    for each, writeable in flags:
        if each.flags.writeable is not writeable:
            each.setflags(write=writeable)
    array.setflags(write=True)  # a view that is not to be written to, of an array that is
    np.copyto(array, kept)
    array.setflags(write=flags[-1][1])


def _set(each: Any, name: str, value: Any) -> None:
    if value is MISSING:
        object.__delattr__(each, name)
    else:
        object.__setattr__(each, name, value)
