"""Where an op was called: the module that is running, and the user's line."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any
from weakref import ref

from minimp.nn import Module
from minimp.nn.hooks import register_module_forward_hook, register_module_forward_pre_hook

__all__ = ["ModuleStack", "Modules", "hook_modules", "user_line"]

HERE = str(Path(__file__).parents[1]) + os.sep
_inside: dict[str, bool] = {}
_short: dict[str, str] = {}


def user_line(beyond: tuple[str, ...] = ()) -> str:
    """Return "file.py:12" of the innermost frame outside of minimp, and of the folders `beyond`."""
    frame: FrameType | None = sys._getframe(1)
    known = _inside
    while frame is not None:
        file = frame.f_code.co_filename
        inside = known.get(file)
        if inside is None:
            inside = known[file] = file.startswith((HERE, "<frozen")) or file.endswith("contextlib.py")
        if not inside and not file.startswith(beyond):
            return f"{_shortened(file)}:{frame.f_lineno}"
        frame = frame.f_back
    return ""


def _shortened(file: str) -> str:
    """Return the file's name below the working folder, else its last two parts."""
    if file not in _short:
        try:
            made = str(Path(file).relative_to(Path.cwd()))
        except ValueError:
            made = "/".join(Path(file).parts[-2:])
        _short[file] = made
    return _short[file]


class Modules:
    """The paths of modules and the names of parameters, from the outermost modules that were called."""

    def __init__(self) -> None:
        self._paths: dict[int, tuple[ref[Any], str]] = {}
        self._leaves: dict[int, tuple[ref[Any], str]] = {}

    def add(self, root: Module) -> None:
        """Name everything below a module; names that are known stay."""
        for path, module in root.named_modules():
            if self.path(module) is None:
                self._paths[id(module)] = (ref(module), path or f"({type(module).__name__})")
        for path, leaf in (*root.named_parameters(), *root.named_buffers()):
            if self.leaf(leaf) is None:
                self._leaves[id(leaf)] = (ref(leaf), path)

    def path(self, module: Module) -> str | None:
        """Return the path of a module, or None if it is not known."""
        held = self._paths.get(id(module))
        return held[1] if held is not None and held[0]() is module else None

    def leaf(self, leaf: Any) -> str | None:
        """Return the name of a parameter or buffer, or None if it is not known."""
        held = self._leaves.get(id(leaf))
        return held[1] if held is not None and held[0]() is leaf else None


class ModuleStack:
    """The modules that are running now in this thread, innermost last.

    Args:
        enter, leave: called with the path of a module when it begins and when it has ended.
    """

    def __init__(self, names: Modules, enter: Callable[[str], None], leave: Callable[[str], None]) -> None:
        self.names, self.enter, self.leave = names, enter, leave
        self._running: list[tuple[Module, str]] = []

    @property
    def path(self) -> str:
        """The path of the innermost module, "" outside of all."""
        return self._running[-1][1] if self._running else ""

    def push(self, module: Module) -> None:
        """Take note that a module begins."""
        path = self.names.path(module)
        if path is None:
            self.names.add(module)
            path = self.names.path(module) or ""
            if self._running and not path.startswith("("):
                path = f"{self.path}.{path}"
        self._running.append((module, path))
        self.enter(path)

    def pop(self, module: Module) -> None:
        """Take note that a module has ended, by itself or by an exception."""
        if self._running and self._running[-1][0] is module:
            self.leave(self._running.pop()[1])


def hook_modules(push: Callable[[Module], None], pop: Callable[[Module], None]) -> Callable[[], None]:
    """Call `push` before and `pop` after the forward of every module; return what ends that."""

    def before(module: Module, _: Any) -> None:
        push(module)

    def after(module: Module, _: Any, __: Any) -> None:
        pop(module)

    handles = (
        register_module_forward_pre_hook(before),
        register_module_forward_hook(after, always_call=True),
    )

    def end() -> None:
        for handle in handles:
            handle.remove()

    return end
