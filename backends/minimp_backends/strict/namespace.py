"""The array namespace of the strict device: the names of the real CuPy, and no others."""

from __future__ import annotations

import types
from typing import Any

import numpy as np

from minimp_backends.strict.arrays import StrictArray
from minimp_backends.strict.methods import DIFFERENT, function
from minimp_backends.strict.naming import names_of, version

__all__ = ["StrictNamespace"]

SPECIAL: dict[str, Any] = {"ndarray": StrictArray}
NESTED = {
    "cupy": {"lib": "cupy.lib", "linalg": "cupy.linalg"},
    "cupy.lib": {"stride_tricks": "cupy.lib.stride_tricks"},
}
"""The modules inside of modules that have a stand-in."""


class StrictNamespace(types.ModuleType):
    """What stands for the module `cupy`, or for one in it."""

    def __init__(self, name: str = "cupy", of: Any = np) -> None:
        super().__init__(name)
        self.__version__ = version()
        self._name, self._of = name, of

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        nested = NESTED.get(self._name, {}).get(name)
        if nested is not None:
            made: Any = StrictNamespace(nested, getattr(self._of, name))
        else:
            made = self._found(name)
        setattr(self, name, made)  # from now on it is there
        return made

    def _found(self, name: str) -> Any:
        names = names_of(self._name) if self._name != "cupy.lib" else {}
        callee = names.get(name)
        if callee is None:
            raise AttributeError(
                f"CuPy {self.__version__} has no {self._name}.{name}: what is written over xp must do without"
            )
        if name in SPECIAL:
            return SPECIAL[name]
        if callee.kind in ("function", "ufunc"):
            return function(name, callee, self._of if name not in DIFFERENT else np)
        found = getattr(self._of, name, None)
        if found is None:
            raise AttributeError(f"{self._name}.{name} has no stand-in on the strict device")
        return found
