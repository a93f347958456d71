"""Saving and loading a state in one file."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from minimp.checkpoint.tree import Tree, is_unicode, unfold
from minimp.errors import CheckpointError, SettingError
from minimp.files import AnyPath
from minimp.files.sealed import OTHER_COPY, OURS, STATE, UNFIT, arrays_of, read_sealed, write_sealed

__all__ = ["load", "read_meta", "save"]


def save(path: AnyPath, state: Mapping[str, Any], *, meta: Mapping[str, str] | None = None) -> None:
    """Write a state to the file at `path`, whole or not at all.

    For example ``mp.save("run.safetensors", {"model": model.state_dict(), "step": 700})``.

    Args:
        path: the file; its folder must exist. What was there before stays until the new file is complete.
        state: a dict with strings as keys, nested at will. It holds Tensors, NumPy arrays and scalars of real
            numbers or bools (ml_dtypes' too), all of which come back as arrays; and int, float (NaN and
            infinities too), str, bool and None, which come back as they are, as do lists and tuples.
        meta: strings for people and for other tools, put into the metadata of the file beside minimp's own.

    Raises:
        SettingError: the state holds something else; or a key is no string, is empty or has a "/" in it, and
            so cannot be part of a tensor's name; or a key of `meta` starts with "minimp.".
        CheckpointError: the file cannot be written.
    """
    tree = Tree(op=f"save {os.fspath(path)}")
    shape = tree.fold_all(state)
    stored = {"tree": shape, "tuples": tree.tuples, "codes": tree.codes}
    notes = _checked_meta(meta or {}, tree.op) | {STATE: json.dumps(stored, separators=(",", ":"))}
    write_sealed(path, tree.arrays, notes, op=tree.op)


def load(path: AnyPath, *, require_checksum: bool = False) -> dict[str, Any]:
    """Read what :func:`save` wrote: the state as it was, its arrays and tensors as new NumPy arrays.

    A safetensors file of another program has no checksum; its arrays come back in one flat dict.

    Args:
        path: the file.
        require_checksum: refuse a file that has none.

    Raises:
        CheckpointError: the file is missing, is no safetensors file, is cut short, or does not have the bytes
            that were written; or a newer minimp wrote it.
    """
    op = f"load {os.fspath(path)}"
    data, notes = read_sealed(path, op)
    if STATE not in notes:
        if require_checksum:
            raise CheckpointError("another program wrote it, without a checksum", op=op, help=OTHER_COPY)
        return dict(arrays_of(data, {}, op))
    try:
        stored = json.loads(notes[STATE])
        arrays = dict(arrays_of(data, stored["codes"], op))
        state: dict[str, Any] = unfold(stored["tree"], arrays, stored["tuples"])
    except CheckpointError:
        raise
    except UNFIT as fault:
        raise CheckpointError("its parts do not belong together", op=op, help=OTHER_COPY) from fault
    return state


def read_meta(path: AnyPath) -> dict[str, str]:
    """Return the strings that were given to :func:`save` as `meta`. Errors are those of :func:`load`."""
    _, notes = read_sealed(path, f"load {os.fspath(path)}")
    return {key: text for key, text in notes.items() if not key.startswith(OURS)}


def _checked_meta(meta: Mapping[str, str], op: str) -> dict[str, str]:
    for key, text in meta.items():
        if not (is_unicode(key) and is_unicode(text)):
            raise SettingError(f"meta has {key!r}: {text!r}, and holds text only", op=op, help="use str()")
        if key.startswith(OURS):
            raise SettingError(f"meta has the key {key!r}; {OURS}* is taken", op=op, help="choose another")
    return dict(meta)
