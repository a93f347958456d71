"""Loading a state dict: everything is looked at first, and nothing is taken over if anything is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from minimp.errors import FormatError, SettingError, ShapeError
from minimp.tape import Value
from minimp.tensors import Tensor

__all__ = ["LoadResult", "load_state"]

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
        leaves: path -> parameter or buffer.
        state: path -> tensor or array.
        strict: whether both must have the same paths.
    """
    if not isinstance(state, Mapping):
        raise SettingError(f"expected a mapping of paths to tensors, got {type(state).__name__}", op=owner)
    missing = [path for path in leaves if path not in state]
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
    for path, array in {path: _stored(value, leaves[path]) for path, value in given.items()}.items():
        leaves[path].array = array
    return LoadResult(missing, unexpected)


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


def _stored(value: Tensor, leaf: Tensor) -> Any:
    """Return a copy of the value's array in the leaf's format."""
    if leaf.format is None or value.format is leaf.format:
        return value.array.astype(leaf.dtype, copy=True)
    return leaf.backend.cast(value.array, leaf.format)


def _list(kind: str, names: list[str]) -> str:
    rest = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{kind}: {', '.join(names[:SHOWN])}{rest}"
