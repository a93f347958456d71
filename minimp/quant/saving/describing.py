"""A model as a tree of JSON and named arrays."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import numpy.typing as npt

from minimp.errors import FormatError, SettingError, unknown_name
from minimp.files.sealed import SAVED
from minimp.nn.module import Module
from minimp.nn.tree import join
from minimp.quant.calibration import Calibrated
from minimp.quant.fusion.flow import hooked
from minimp.quant.saving.classes import Row
from minimp.quant.saving.values import folded
from minimp.tensors import Tensor

__all__ = ["Description", "fits", "said_of"]

Array = npt.NDArray[Any]
OWN = frozenset({"training", "_parameters", "_buffers", "_modules", "_transient", "_hooks"})
"""What every module has beside its settings."""


def fits(name: str, row: Row) -> bool:
    """Tell whether a class can have a setting of this name."""
    if row.settings is None:
        return name.isidentifier() and name not in OWN and not hasattr(row.kind, name)
    return name in row.optional or any(fnmatchcase(name, each) for each in row.settings)


class Description:
    """Takes a model apart.

    A module is ``{"class": name, "settings": {...}, "parameters": {...}, "buffers": {...}, "children":
    {...}}``, without what is empty; a tensor ``"int8 3x4"``, one of a single number ``"float32"``. What stood
    at another path before is ``{"same": path}``. ``"transient"`` and ``"frozen"`` name buffers that no state
    dict has, and parameters without gradients.

    Attributes:
        rows: the classes that can be named.
        arrays: path -> array, contiguous and little-endian.
        tree: the model's module.

    Raises:
        SettingError: a class that is not in the table, an attribute that no setting is, hooks.
        FormatError: a tensor of a format that safetensors has no name for.
    """

    def __init__(self, model: Module, rows: Mapping[str, Row]) -> None:
        self.rows = rows
        self.arrays: dict[str, Array] = {}
        self._seen: dict[int, str] = {}
        self.tree = self._module(model, "")

    def _module(self, module: Module, path: str) -> dict[str, Any]:
        if id(module) in self._seen:
            return {"same": self._seen[id(module)]}
        self._seen[id(module)] = path
        row = self._row(module, path)
        node: dict[str, Any] = {
            "class": row.kind.__name__,
            "settings": self._settings(module, row, path),
            "parameters": {name: self._leaf(each, path, name) for name, each in module._parameters.items()},
            "buffers": {name: self._leaf(each, path, name) for name, each in module._buffers.items()},
            "transient": sorted(module._transient),
            "frozen": [
                name
                for name, each in module._parameters.items()
                if each is not None and not each.requires_grad
            ],
        }
        children: Any = module._modules
        node["children"] = {
            name: None if child is None else self._module(child, join(path, name))
            for name, child in children.items()
        }
        return {name: each for name, each in node.items() if each or name == "class"}

    def _row(self, module: Module, path: str) -> Row:
        """Return the row of a module's class."""
        kind, where = type(module), f"'{path}'" if path else "the model"
        row = self.rows.get(kind.__name__)
        if isinstance(module, Calibrated):
            raise SettingError(
                f"{where} is a {kind.__name__}, which is still to be converted", op="save",
                help="save convert(model); what is trained on is kept by mp.save(path, model.state_dict())",
            )  # fmt: skip
        if row is None or row.kind is not kind:
            raise SettingError(
                f"{where} is a {kind.__name__}, a class that files have no name for", op="save",
                help=f"name it when saving and when loading: classes=[{kind.__name__}]",
            )  # fmt: skip
        if why := hooked(module):
            raise SettingError(f"{where}: {why}", op="save")
        return row

    def _settings(self, module: Module, row: Row, path: str) -> dict[str, Any]:
        """Return the settings of a module as JSON."""
        found: dict[str, Any] = {}
        for name, value in vars(module).items():
            if name in OWN:
                continue
            where = f"'{join(path, name)}'"
            if not fits(name, row):
                raise SettingError(
                    f"{where} is an attribute that a {row.kind.__name__} does not have by itself", op="save",
                    help="take it off the module, or give the module a class of its own and name that: "
                    "classes=[...]",
                )  # fmt: skip
            found[name] = folded(value, where)
        return found

    def _leaf(self, leaf: Tensor | None, path: str, name: str) -> dict[str, str] | str | None:
        if leaf is None:
            return None
        where = join(path, name)
        if id(leaf) in self._seen:
            return {"same": self._seen[id(leaf)]}
        self._seen[id(leaf)] = where
        array = np.asarray(leaf.backend.to_host(leaf.array))
        native = array.dtype.newbyteorder("=")
        if native not in SAVED:
            known = ", ".join(each.name for each in SAVED)
            raise FormatError(
                unknown_name("format of a tensor in a file:", native.name, [known]), op="save",
                formats=[native.name], help=f"'{where}' must be one of {known}",
            )  # fmt: skip
        self.arrays[where] = np.asarray(array, native.newbyteorder("<"), order="C")
        return said_of(array)


def said_of(array: Array) -> str:
    """Return the dtype and the shape of an array: ``"int8 3x4"``."""
    return " ".join(filter(None, (array.dtype.name, "x".join(map(str, array.shape)))))
