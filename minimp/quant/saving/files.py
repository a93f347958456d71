"""Saving and loading a quantised model."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from minimp.checkpoint.tree import is_unicode
from minimp.errors import CheckpointError, SettingError, plain
from minimp.files import AnyPath
from minimp.files.sealed import OTHER_COPY, OURS, STATE, UNFIT, arrays_of, read_sealed, write_sealed
from minimp.nn.module import Module
from minimp.quant.saving.building import Building
from minimp.quant.saving.classes import Row, rows_for
from minimp.quant.saving.describing import Array, Description

__all__ = ["load", "save"]

SCHEMA = 1
NOTE = f"{OURS}quant"


def save(
    path: AnyPath, model: Module, *, meta: Mapping[str, str] | None = None,
    classes: Iterable[type[Module]] = (),
) -> None:  # fmt: skip
    """Write a model on codes to a safetensors file, whole or not at all.

    Works for what :func:`minimp.quant.convert`, :func:`minimp.quant.quantize_dynamic` and
    :func:`minimp.quant.weight_only` return, and for modules in floating point. Before anything is written
    the model is rebuilt from its description, and must be the same to the last bit.

    Args:
        path: the file; its folder must exist. What was there before stays until the new file is complete.
        model: the model. Gradients are not saved, nor is whether it trains: it comes back in evaluation mode.
        meta: strings for people and for other tools, for the metadata of the file.
        classes: classes of your own in the model, which :func:`load` must be given too. Their attributes must
            be numbers, strings, None, or lists, tuples and dicts of them; their constructors do not run.

    Raises:
        SettingError: a class that is not known, an attribute that a file cannot describe, hooks, a key of
            `meta` that is taken.
        FormatError: a tensor of a format that safetensors has no name for.
        CheckpointError: the file cannot be written.
    """
    rows = rows_for(classes, "save")
    if not isinstance(model, Module):
        raise SettingError(f"expected a module, got {type(model).__name__}", op="save")
    made = Description(model, rows)
    _check_rebuilt(made, rows)
    text = json.dumps({"schema": SCHEMA, "model": made.tree}, separators=(",", ":"))
    write_sealed(path, made.arrays, {**_checked_meta(meta or {}), NOTE: text}, op=f"save {os.fspath(path)}")


def load(path: AnyPath, *, classes: Iterable[type[Module]] = ()) -> Module:
    """Read what :func:`save` wrote: the model, in evaluation mode, on the backend in force.

    Codes, scales and results have the bits that they had. Nothing in the file is ever executed: classes are
    rows of a table, and settings plain data.

    Args:
        path: the file.
        classes: classes of your own that the file names.

    Raises:
        CheckpointError: the file is missing, is no safetensors file, is cut short or does not have the bytes
            that were written; it holds something else, or was written by a newer minimp; it names a class
            that is not known; a tensor is missing, or does not fit its module.
        SettingError: `classes` that are none.
    """
    rows, op = rows_for(classes, "load"), f"load {os.fspath(path)}"
    data, notes = read_sealed(path, op)
    if NOTE not in notes:
        kind = "a state that minimp saved" if STATE in notes else "weights alone, without a model"
        raise CheckpointError(
            f"it holds {kind}, and no quantised model", op=op,
            help="mp.load reads it; quantised models are written by `minimp quantize` and mp.quant.save",
        )  # fmt: skip
    try:
        stored = json.loads(notes[NOTE])
        schema, tree = stored["schema"], stored["model"]
    except UNFIT as fault:
        raise CheckpointError("its description is damaged", op=op, help=OTHER_COPY) from fault
    if type(schema) is not int or not 1 <= schema <= SCHEMA:
        newer = type(schema) is int and schema > SCHEMA
        raise CheckpointError(
            f"it has schema {schema!r}, and this minimp knows schemas up to {SCHEMA}", op=op,
            help="update minimp" if newer else OTHER_COPY,
        )  # fmt: skip
    return Building(tree, dict(arrays_of(data, {}, op)), rows, op).model


def _check_rebuilt(made: Description, rows: Mapping[str, Row]) -> None:
    """Rebuild a model from what would be written, and compare.

    Raises:
        SettingError: it cannot be, or is another.
    """
    stored = json.loads(json.dumps(made.tree))
    try:
        again = Description(Building(stored, made.arrays, rows, "save").model, rows)
    except CheckpointError as fault:
        raise SettingError(
            f"the model cannot be rebuilt: {plain(fault)}", op="save", help="save it as convert returned it"
        ) from fault
    if json.loads(json.dumps(again.tree)) != stored or not _same(made.arrays, again.arrays):
        raise SettingError(
            "the model would come back as another", op="save",
            help="a class among `classes` changes what it is given: keep its attributes plain",
        )  # fmt: skip


def _same(a: Mapping[str, Array], b: Mapping[str, Array]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(_bits(a[name]), _bits(b[name])) for name in a)


def _bits(array: Array) -> Any:
    return np.frombuffer(array.tobytes(), np.uint8)


def _checked_meta(meta: Mapping[str, str]) -> dict[str, str]:
    for key, text in meta.items():
        if not (is_unicode(key) and is_unicode(text)) or key.startswith(OURS):
            raise SettingError(
                f"meta has {key!r}: {text!r}", op="save",
                help=f"give strings only, under keys that do not begin with {OURS!r}",
            )  # fmt: skip
    return dict(meta)
