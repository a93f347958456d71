"""What the real CuPy has: its names, and the arguments of its functions, kept as data in cupy_names.json.

``python -m minimp_backends.strict.naming`` writes that file anew from the CuPy that is installed; where one
is, a test says whether the file is still right.
"""

from __future__ import annotations

import importlib
import inspect
import json
import re
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any, NamedTuple

__all__ = ["FILE", "Callee", "names_of", "read_names", "survey"]

FILE = Path(__file__).with_name("cupy_names.json")
MODULES = ("cupy", "cupy.lib.stride_tricks", "cupy.linalg", "cupy.random", "cupyx", "cupyx.scipy.special")
"""The modules that are looked at; the last ones may need libraries that are not everywhere."""
PARTS = ("fft", "lib", "linalg", "random", "stride_tricks")
METHODS = "cupy.ndarray"
MANY = -1


class Callee(NamedTuple):
    """How a function may be called.

    Attributes:
        kind: "function", "ufunc", "method", or what else the name stands for: "type", "module", "constant".
        positional: how many arguments may come by position; MANY for any number.
        keywords: those that may come by name; None where that is not known.
    """

    kind: str
    positional: int = MANY
    keywords: frozenset[str] | None = None


@cache
def read_names() -> Mapping[str, Mapping[str, Callee]]:
    """Return module (or "cupy.ndarray") -> name -> what may be called how, from the file."""
    found = json.loads(FILE.read_text(encoding="utf-8"))["names"]
    return MappingProxyType(
        {
            module: MappingProxyType({name: _read(entry) for name, entry in names.items()})
            for module, names in found.items()
        }
    )


def names_of(module: str) -> Mapping[str, Callee]:
    """Return the names of one module."""
    return read_names()[module]


def version() -> str:
    """Return the version of CuPy that the file was made from."""
    made: str = json.loads(FILE.read_text(encoding="utf-8"))["cupy"]
    return made


def _read(entry: Any) -> Callee:
    if isinstance(entry, str):
        return Callee(entry)
    kind, positional, keywords = entry
    return Callee(kind, positional, None if keywords is None else frozenset(keywords))


# ---- looking at the real one -----------------------------------------------------------------------------


def survey() -> dict[str, Any]:
    """Return what the file holds, of the CuPy that is installed.

    Raises:
        ImportError: none is.
    """
    cupy = importlib.import_module("cupy")
    names = {name: _survey_module(importlib.import_module(name)) for name in MODULES}
    public = [name for name in dir(cupy.ndarray) if not name.startswith("_")]
    names[METHODS] = {name: _entry(getattr(cupy.ndarray, name), "method") for name in public}
    special = [name for name in dir(cupy.ndarray) if name.startswith("__")]
    names[METHODS] |= dict.fromkeys(special, "special")
    return {"cupy": cupy.__version__, "names": names}


def _survey_module(module: ModuleType) -> dict[str, Any]:
    """Return the public names; of modules in it those of PARTS, as others come when somebody imports them."""
    found = {name: _entry(getattr(module, name)) for name in dir(module) if not name.startswith("_")}
    return {name: entry for name, entry in found.items() if entry != "module" or name in PARTS}


def _entry(thing: Any, kind: str = "function") -> Any:
    if isinstance(thing, ModuleType):
        return "module"
    if isinstance(thing, type):
        return "type"
    if not callable(thing):
        return "attribute" if kind == "method" else "constant"
    if type(thing).__name__ == "ufunc":
        keywords = _after_slash(thing.__doc__ or "")
        return ["ufunc", thing.nin + thing.nout, keywords]
    try:
        return [kind, *_counted(inspect.signature(thing))]
    except (TypeError, ValueError):
        return [kind, *_from_first_line(thing.__doc__ or "")]


def _counted(signature: inspect.Signature) -> tuple[int, list[str] | None]:
    each = list(signature.parameters.values())
    if each and each[0].name == "self":
        del each[0]
    by_name = {inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY}
    by_place = {inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.POSITIONAL_ONLY}
    kinds = [p.kind for p in each]
    many = inspect.Parameter.VAR_POSITIONAL in kinds
    open_ended = inspect.Parameter.VAR_KEYWORD in kinds
    keywords = None if open_ended else sorted(p.name for p in each if p.kind in by_name)
    return (MANY if many else sum(kind in by_place for kind in kinds)), keywords


def _from_first_line(text: str) -> tuple[int, list[str] | None]:
    """Read ``name(self, dtype, order='K', *shape)``, as extension modules write their signatures."""
    found = re.match(r"[\w.]*\((.*?)\)(\s*->.*)?$", text.split("\n", maxsplit=1)[0])
    if found is None:
        return MANY, None
    parts = [part.strip() for part in re.sub(r"\([^)]*\)", "", found[1]).split(",")]
    parts = [part for part in parts if part and not re.fullmatch(r"([\w.]+\s+)?self|\$self", part)]
    if any(part.startswith("**") for part in parts):
        return MANY, None
    stop = next((i for i, part in enumerate(parts) if part.startswith("*")), len(parts))
    many = stop < len(parts) and parts[stop] != "*"
    names = [re.split(r"[=:]", part)[0].split()[-1] for part in parts if part[0] not in "*/"]
    return (MANY if many else sum(part != "/" for part in parts[:stop])), sorted(names)


def _after_slash(text: str) -> list[str]:
    """The keywords of a ufunc: what its first line has after the slash; a few have no such line."""
    _, _, rest = text.split("\n", maxsplit=1)[0].partition("/")
    return sorted(re.findall(r"(\w+)=", rest)) or ["casting", "dtype", "out"]


def main() -> None:
    """Write the file."""
    made = survey()
    lines = [
        f'    "{module}": {{\n'
        + ",\n".join(f"      {json.dumps(name)}: {json.dumps(names[name])}" for name in sorted(names))
        + "\n    }"
        for module, names in made["names"].items()
    ]
    text = f'{{\n  "cupy": {json.dumps(made["cupy"])},\n  "names": {{\n' + ",\n".join(lines) + "\n  }\n}\n"
    assert json.loads(text) == made
    FILE.write_text(text, encoding="utf-8")
    sys.stdout.write(f"{FILE}: CuPy {made['cupy']}, {sum(map(len, made['names'].values()))} names\n")


if __name__ == "__main__":
    main()
