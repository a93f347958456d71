"""A user's script: read, run once, and asked for a function."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dis import get_instructions
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from minimp.bisecting.scripts import as_python_does
from minimp.cli.script_steps import first_step
from minimp.errors import DataError, MinimpError, SettingError
from minimp.files import read_whole

__all__ = ["function_of", "leaving_refused", "running_as"]

NAME = "__bisect__"
"""What `__name__` is in a script: not "__main__", so that what only runs by itself does not run."""


STORES = frozenset({"STORE_NAME", "STORE_GLOBAL"})
"""Instructions that give a module's variable a value."""


@contextmanager
def running_as(script: str, arguments: Sequence[str]) -> Iterator[None]:
    """Give the process the arguments and the import path that Python gives a script."""
    known = NAME in sys.modules
    file, _ = _parts(script)
    folder = Path.cwd() if file is None else file.resolve().parent
    try:
        with as_python_does(script, arguments, folder):
            yield
    finally:
        if not known:
            sys.modules.pop(NAME, None)


@contextmanager
def leaving_refused(script: str) -> Iterator[None]:
    """Turn an exit of the interpreter into an error.

    Raises:
        SettingError: the code leaves the interpreter.
    """
    try:
        yield
    except SystemExit as fault:
        raise SettingError(
            f"{script} leaves the interpreter (sys.exit, or a parser of arguments)",
            help="arguments for the script stand after --; or leave sys.exit to `if __name__ == '__main__':`",
        ) from fault


def function_of(script: str, *, usual: str = "run") -> Callable[[], Any]:
    """Return the function that a script names: "FILE.py", "FILE.py:FUNCTION" or "MODULE:FUNCTION".

    Of a file that names none and does not define the usual one it is the first training step that it takes
    when it is run (:mod:`minimp.cli.script_steps`).

    Args:
        script: the name.
        usual: the function, where none is named.

    Raises:
        SettingError: there is no such file, module or function; the code raises or leaves the interpreter; or
            the function cannot be called without arguments.
    """
    file, name = _parts(script)
    with leaving_refused(script):
        if file is not None and not name and not _defines(_text(file), str(file), usual):
            return _first_step(file)
        if file is not None:
            module = execute(_text(file), str(file))
        else:
            module = _imported(script.rpartition(":")[0], script)
    return _callable(module, name or usual, script)


def execute(text: str, file: str) -> ModuleType:
    """Run a source once, as a module of its own.

    Raises:
        SettingError: it is no Python, or raises.
    """
    module = ModuleType(NAME)
    module.__file__ = file
    sys.modules[NAME] = module  # where dataclasses and typing look for a class's module
    try:
        exec(compile(text, file, "exec", dont_inherit=True), vars(module))
    except SyntaxError as fault:
        raise SettingError(f"{file}, line {fault.lineno}: {fault.msg}") from fault
    except Exception as fault:
        raise _raised(fault, file) from fault
    return module


def _first_step(file: Path) -> Callable[[], Any]:
    try:
        return first_step(file)
    except MinimpError:
        raise
    except Exception as fault:
        raise _raised(fault, str(file)) from fault


def _defines(text: str, file: str, name: str) -> bool:
    """Tell whether a source makes a name at its outermost level."""
    try:
        found = compile(text, file, "exec", dont_inherit=True)
    except SyntaxError as fault:
        raise SettingError(f"{file}, line {fault.lineno}: {fault.msg}") from fault
    made = {each.argval for each in get_instructions(found) if each.opname in STORES}
    return name in made


def _parts(script: str) -> tuple[Path | None, str]:
    """Return (file, function); no file: a module is named."""
    file, _, name = script.rpartition(":")
    if Path(script).is_file() or script.endswith(".py"):
        return Path(script), ""
    if file.endswith(".py") or (file and Path(file).is_file()):
        return Path(file), name
    if file and name:
        return None, name
    raise SettingError(f"no file {script}", help="name a Python file, or MODULE:FUNCTION")


def _text(file: Path) -> str:
    try:
        return read_whole(file).decode("utf-8-sig")
    except UnicodeDecodeError as fault:
        raise DataError(f"{file} is no text in UTF-8: {fault.reason} at byte {fault.start}") from fault


def _imported(name: str, script: str) -> ModuleType:
    try:
        return import_module(name)
    except ModuleNotFoundError as fault:
        raise SettingError(f"no module {fault.name!r}", help=f"{script} was taken for a module") from fault
    except Exception as fault:
        raise _raised(fault, name) from fault


def _callable(module: ModuleType, name: str, script: str) -> Callable[[], Any]:
    found = getattr(module, name, None)
    if not callable(found):
        raise SettingError(
            f"{script} defines no function {name}()",
            help="define it: it computes, and returns a tensor, a number, or a dict or list of them",
        )
    try:
        inspect.signature(found).bind()
    except TypeError as fault:
        raise SettingError(
            f"{name}() of {script} cannot be called without arguments: {fault}",
            help=f"define {name}() around it",
        ) from fault
    except ValueError:  # a callable that does not say what it takes
        pass
    return found  # type: ignore[no-any-return]  # what it returns is found out when it runs


def _raised(fault: Exception, where: str) -> SettingError:
    text = str(fault) if isinstance(fault, MinimpError) else f"{type(fault).__name__}: {fault}"
    lines = [each.tb_lineno for each in _frames(fault) if each.tb_frame.f_code.co_filename == where]
    at = f", line {lines[-1]}," if lines else ""
    return SettingError(f"{where}{at} raises before it can be run: {text}")


def _frames(fault: BaseException) -> Iterator[Any]:
    trace = fault.__traceback__
    while trace is not None:
        yield trace
        trace = trace.tb_next
