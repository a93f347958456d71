"""A state taken apart into a tree of JSON and named arrays, and put together again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from minimp.errors import SettingError
from minimp.files.sealed import METADATA, SAVED, Array, is_one_byte
from minimp.tensors import Tensor

__all__ = ["Tree", "is_unicode", "unfold"]

DEEPEST = 64  # dicts and lists inside each other: a state that holds itself is caught here
LONGEST_INTEGER = 8192  # bits; Python itself refuses to print more than 4300 digits


class Tree:
    """Takes a state apart; `fold` returns its JSON, and what is no JSON is left in the attributes.

    Attributes:
        op: what is being done, for messages.
        arrays: path in the state -> array, contiguous and little-endian; its place in the JSON has null.
        codes: path -> dtype, where safetensors has no name for that.
        tuples: the paths of what JSON would turn into lists.
    """

    def __init__(self, op: str) -> None:
        self.op = op
        self.arrays: dict[str, Array] = {}
        self.codes: dict[str, str] = {}
        self.tuples: list[str] = []

    def fold_all(self, state: Any) -> Any:
        """Return the JSON of a whole state, which must be a dict."""
        if not isinstance(state, Mapping):
            raise SettingError(f"the state is a {type(state).__name__}", op=self.op, help="put it in a dict")
        return self.fold(state)

    def fold(self, value: Any, *path: str) -> Any:
        """Return the JSON of the part of the state at `path`."""
        if value is None or isinstance(value, bool | str) or type(value) is float:
            return value
        if isinstance(value, Tensor):
            value = value.backend.to_host(value.array)
        if isinstance(value, np.ndarray | np.generic):
            return self._array(value, path)
        if isinstance(value, float) or (isinstance(value, int) and value.bit_length() <= LONGEST_INTEGER):
            return value
        if len(path) >= DEEPEST:
            raise self._refusal(path, f"lies under {DEEPEST} others", "flatten it; or does it hold itself?")
        if isinstance(value, Mapping):
            return {key: self.fold(each, *path, self._key(key, path)) for key, each in value.items()}
        if isinstance(value, tuple):
            self.tuples.append("/".join(path))
        if isinstance(value, list | tuple):
            return [self.fold(each, *path, str(index)) for index, each in enumerate(value)]
        kind = "an integer of thousands of digits" if isinstance(value, int) else f"a {type(value).__name__}"
        raise self._refusal(path, f"is {kind}", "give arrays, numbers, strings, bools, None, dicts or lists")

    def _array(self, value: Any, path: tuple[str, ...]) -> None:
        array, name = np.asarray(value), "/".join(path)
        native = array.dtype.newbyteorder("=")
        if isinstance(value, np.ma.MaskedArray) or not (native in SAVED or is_one_byte(native)):
            known = ", ".join(each.name for each in SAVED)
            kind = "masked array" if isinstance(value, np.ma.MaskedArray) else f"array of {native.name}"
            raise self._refusal(path, f"is a {kind}", f"convert it to one of {known}")
        if native not in SAVED:
            self.codes[name] = native.name
        self.arrays[name] = np.asarray(array, native.newbyteorder("<"), order="C")

    def _key(self, key: Any, path: tuple[str, ...]) -> str:
        if is_unicode(key) and key and "/" not in key and (path or key != METADATA):
            return str(key)
        said = f"has the key {key!r}, which cannot be part of a tensor's name"
        raise self._refusal(path, said, f"use a string: not empty, without '/', and not {METADATA!r}")

    def _refusal(self, path: tuple[str, ...], said: str, advice: str) -> SettingError:
        where = "".join(f"[{part!r}]" for part in path[:8]) + ("..." if len(path) > 8 else "")
        return SettingError(f"state{where} {said}", op=self.op, help=advice)


def is_unicode(text: Any) -> bool:
    """Whether it is text that can be written as UTF-8: half of a surrogate pair cannot."""
    return isinstance(text, str) and not any("\ud800" <= each <= "\udfff" for each in text)


def unfold(tree: Any, arrays: dict[str, Array], tuples: list[str]) -> Any:
    """Put arrays and tuples back into the JSON of a state."""
    root = [tree]  # so that everything has a place in something
    for name, array in arrays.items():
        parent, place = _place(root, name)
        parent[place] = array
    for name in reversed(tuples):  # from the inside out: a tuple was noted before what it holds
        parent, place = _place(root, name)
        parent[place] = tuple(parent[place])
    return root[0]


def _place(root: list[Any], name: str) -> tuple[Any, Any]:
    """Return what holds the value of that name, and the key or index under which it does."""
    parent: Any = root
    place: Any = 0
    for part in name.split("/"):
        parent = parent[place]
        place = int(part) if isinstance(parent, list) else part
    return parent, place
