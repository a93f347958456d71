"""A model from the tree of JSON and the arrays of a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from minimp.backend import default_backend
from minimp.errors import CheckpointError, MinimpError, plain, unknown_name
from minimp.files.sealed import OTHER_COPY, UNFIT
from minimp.nn.module import Module
from minimp.nn.parameter import Parameter
from minimp.nn.tree import join
from minimp.quant.saving.classes import Row
from minimp.quant.saving.describing import fits, said_of
from minimp.quant.saving.values import unfolded
from minimp.tensors import Tensor

__all__ = ["Building"]

Array = npt.NDArray[Any]
NODE = {"class", "settings", "parameters", "buffers", "transient", "frozen", "children"}


class Building:
    """Puts a model together; the rows' checks look at each module when it has all of its parts.

    Args:
        tree: of :class:`~minimp.quant.saving.describing.Description`.
        arrays: path -> array.
        rows: the classes that a tree may name.
        op: what is being done, for messages.

    Attributes:
        model: the model, in evaluation mode, on the backend in force.

    Raises:
        CheckpointError: a class that is not in the table; settings, tensors or codes that do not fit it.
    """

    def __init__(self, tree: Any, arrays: Mapping[str, Array], rows: Mapping[str, Row], op: str) -> None:
        self.arrays, self.rows, self.op = arrays, rows, op
        self._made: dict[str, Module] = {}
        self._leaves: dict[str, Tensor] = {}
        try:
            self.model = self._module(tree, "").eval()
        except CheckpointError:
            raise
        except (MinimpError, *UNFIT) as fault:
            raise self._unfit(f"its parts do not belong together: {_said(fault)}") from fault
        left = sorted(set(arrays) - set(self._leaves))
        if left:
            raise self._unfit(f"no module has its tensor '{left[0]}'")

    def _unfit(self, said: str, advice: str = OTHER_COPY) -> CheckpointError:
        return CheckpointError(said, op=self.op, help=advice)

    def _module(self, node: Any, path: str) -> Module:
        if "same" in node:
            return self._made[node["same"]]
        if set(node) - NODE:
            raise self._unfit(f"'{path}' has unknown parts: {', '.join(sorted(set(node) - NODE))}")
        row = self._row(node["class"], path)
        made = row.kind.__new__(row.kind)
        Module.__init__(made)
        vars(made).update(self._settings(node.get("settings", {}), row, path))
        frozen = node.get("frozen", [])
        for name, leaf in node.get("parameters", {}).items():
            made.register_parameter(name, self._parameter(leaf, join(path, name), name in frozen))
        transient = node.get("transient", [])
        for name, leaf in node.get("buffers", {}).items():
            made.register_buffer(name, self._buffer(leaf, join(path, name)), name not in transient)
        self._made[path] = made
        for name, child in node.get("children", {}).items():
            made.add_module(name, None if child is None else self._module(child, join(path, name)))
        try:
            row.check(made)
            repr(made)  # reads settings and shapes
        except (MinimpError, *UNFIT) as fault:
            said = f"'{path}' is no {row.kind.__name__} that can be: {_said(fault)}"
            raise self._unfit(said) from fault
        return made

    def _row(self, name: Any, path: str) -> Row:
        if name not in self.rows:
            raise self._unfit(
                f"'{path}': {unknown_name('class', str(name), self.rows)}",
                f"if it is yours, name it: load(path, classes=[{name}]); else update minimp",
            )
        return self.rows[name]

    def _settings(self, given: Mapping[str, Any], row: Row, path: str) -> dict[str, Any]:
        strange = [name for name in given if not fits(name, row)]
        missing = [each for each in row.settings or () if "*" not in each and each not in given]
        if strange or missing:
            what = f"has a setting {strange[0]!r}" if strange else f"lacks the setting {missing[0]!r}"
            said = f"'{path}' {what}, which is not as a {row.kind.__name__} of this minimp is"
            raise self._unfit(said, "read it with the minimp that wrote it, and convert the model anew")
        return {name: unfolded(each, self.op) for name, each in given.items()}

    def _parameter(self, leaf: Any, path: str, frozen: bool) -> Parameter | None:
        if leaf is None:
            return None
        if isinstance(leaf, dict):
            found = self._leaves[leaf["same"]]
            if not isinstance(found, Parameter):
                raise self._unfit(f"'{leaf['same']}' is a buffer, and '{path}' a parameter")
            return found
        made = Parameter(self._tensor(leaf, path), requires_grad=not frozen)
        self._leaves[path] = made
        return made

    def _buffer(self, leaf: Any, path: str) -> Tensor | None:
        if leaf is None:
            return None
        if isinstance(leaf, dict):
            return self._leaves[leaf["same"]]
        self._leaves[path] = made = self._tensor(leaf, path)
        return made

    def _tensor(self, said: str, path: str) -> Tensor:
        """Return a tensor of the dtype and shape that the tree says."""
        array = self.arrays.get(path)
        if array is None:
            raise self._unfit(f"the tensor '{path}' is missing")
        if said != said_of(array):
            raise self._unfit(f"the tensor '{path}' is {said_of(array)}, and the model has {said}")
        backend = default_backend()
        return Tensor(backend.from_host(np.array(array)), backend)


def _said(fault: BaseException) -> str:
    if isinstance(fault, MinimpError):
        return plain(fault)
    return f"{type(fault).__name__}: {str(fault).partition(chr(10))[0]}"
