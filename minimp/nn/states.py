"""Loading a state dict: everything is looked at first, and nothing is taken over if anything is wrong."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from minimp.errors import DataError, FormatError, SettingError, ShapeError
from minimp.files import AnyPath
from minimp.files.sealed import read_arrays
from minimp.tape import Value
from minimp.tensors import Tensor

__all__ = ["LoadResult", "load_state", "read_state"]

SHOWN = 8
"""Names of one kind that a message lists before it counts the rest."""


class LoadResult(NamedTuple):
    """The paths that were missing in a state dict, and those that the module does not have."""

    missing_keys: list[str]
    unexpected_keys: list[str]

    def __repr__(self) -> str:
        """Say at a glance whether all paths matched."""
        if not self.missing_keys and not self.unexpected_keys:
            return "<All keys matched successfully>"
        return f"LoadResult(missing_keys={self.missing_keys}, unexpected_keys={self.unexpected_keys})"


def load_state(
    owner: str, leaves: Mapping[str, Tensor], state: Mapping[str, Any], strict: bool
) -> LoadResult:
    """Give each leaf the values that `state` has under its path, or raise and leave all as they were.

    Args:
        owner: the module's name, for messages.
        leaves: path -> parameter or buffer. One that stands under several paths (tied) is given where the
            state has one of them, as in the files of ``safetensors.torch.save_model``.
        state: path -> tensor or array.
        strict: whether both must have the same paths.
    """
    if not isinstance(state, Mapping):
        raise SettingError(
            f"expected a mapping of paths to tensors, or a file, got {type(state).__name__}", op=owner
        )
    there = {id(leaf) for path, leaf in leaves.items() if path in state}
    missing = [path for path, leaf in leaves.items() if id(leaf) not in there]
    unexpected = [path for path in state if path not in leaves]
    given = {path: _value(path, state[path], leaf) for path, leaf in leaves.items() if path in state}
    wrong = [
        f"{path}: expected {leaves[path].shape}, got {value.shape}"
        for path, value in given.items()
        if value.shape != leaves[path].shape
    ]
    faults = [_list("wrong shapes", wrong)] if wrong else []
    if strict and (missing or unexpected):
        keys = [("missing keys", missing), ("unexpected keys", unexpected)]
        faults = [_list(kind, names) for kind, names in keys if names] + faults
        raise SettingError(
            f"the state does not fit the module: {'; '.join(faults)}",
            op=f"{owner}.load_state_dict",
            help="build the model as it was when saved, or pass strict=False to take what fits",
        )
    if wrong:
        shapes = [each.shape for each in given.values()]
        raise ShapeError(faults[0], op=f"{owner}.load_state_dict", shapes=shapes)
    for path, array in {path: _stored(path, value, leaves[path]) for path, value in given.items()}.items():
        leaves[path].array = array
    return LoadResult(missing, unexpected)


def read_state(path: AnyPath, wanted: Collection[str], op: str) -> dict[str, Any]:
    """Return the arrays of a safetensors file by their names, for a module that has those of `wanted`.

    A tensor of which ``safetensors.torch.save_model`` kept one name only comes back under the others that are
    wanted: the metadata of the file maps them to the name that was kept.

    Raises:
        SettingError: the file holds a state with the module's somewhere in it.
        CheckpointError: the file cannot be read or trusted.
    """
    arrays, notes = read_arrays(path, op=f"load {os.fspath(path)}")
    found: dict[str, Any] = dict(arrays)
    for name in wanted:
        if name not in arrays and notes.get(name) in arrays:
            found[name] = arrays[notes[name]]
    parts = {name.partition("/")[0] for name in arrays if name.partition("/")[2] in wanted}
    if parts and not any(name in found for name in wanted):
        part = min(parts)
        raise SettingError(
            f"{os.fspath(path)} holds a larger state; what may fit the module lies in it under {part!r}",
            op=op,
            help=f"load_state_dict(mp.load(path)[{part!r}])",
        )
    return found


def _value(path: str, value: Any, leaf: Tensor) -> Tensor:
    """Return the value as a tensor on the leaf's backend."""
    lifted: Any = Value.lift(value, leaf.backend)
    held: Tensor = lifted if lifted.backend is leaf.backend else lifted.to(leaf.backend.name)
    if (held.format is None) != (leaf.format is None):
        raise FormatError(
            f"{path}: expected values of {leaf.dtype}, got {held.dtype}",
            op="load_state_dict",
            formats=[str(leaf.dtype), str(held.dtype)],
            help="floats and integers are not exchanged; convert the array first",
        )
    return held


def _stored(path: str, value: Tensor, leaf: Tensor) -> Any:
    """Return a copy of the value's array in the leaf's format."""
    if leaf.format is not None and value.format is not leaf.format:
        return leaf.backend.cast(value.array, leaf.format)
    made = value.array.astype(leaf.dtype, copy=True)
    if value.dtype != leaf.dtype and bool((made != value.array).any()):
        raise DataError(
            f"{path}: the integers, of {value.dtype}, do not fit {leaf.dtype}",
            op="load_state_dict",
            help="build the module with the integers that the state has",
        )
    return made


def _list(kind: str, names: list[str]) -> str:
    rest = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{kind}: {', '.join(names[:SHOWN])}{rest}"
