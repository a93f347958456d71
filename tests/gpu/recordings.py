"""What a device computed, kept in files that a CPU replays: inputs and results of kernels and ops.

A folder holds `manifest.json` (what it was recorded on, when, and the SHA-256 of every file) and one `.npz` a
kernel or op. An array's name in it is `<sample>/<in or out>/<argument>`, `/<place>` behind it in a sequence,
`@<dtype>` behind that where NumPy has no such dtype (it is stored as unsigned integers). Nothing is pickled.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

__all__ = ["FOLDER", "BrokenRecordingError", "Recorder", "folders", "read"]

FOLDER = Path(__file__).parent / "recorded"
SCHEMA = 1
MANIFEST = "manifest.json"
Sample = dict[str, dict[str, Any]]
"""in and out -> name -> array, or list of arrays, or number."""


class BrokenRecordingError(Exception):
    """A recording that cannot be believed."""


def folders(root: Path = FOLDER) -> list[Path]:
    """Return the recordings below a folder."""
    return sorted(each.parent for each in root.glob(f"*/{MANIFEST}"))


class Recorder:
    """Writes a recording.

    Args:
        folder: a new folder, or an empty one.
        facts: what it is recorded on.
    """

    def __init__(self, folder: Path, facts: Mapping[str, str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.facts = folder, dict(facts)
        self.files: dict[str, dict[str, str]] = {}

    def add(self, kind: str, name: str, samples: list[Sample]) -> None:
        """Write what a kernel or an op computed.

        Args:
            kind: "kernel" or "op".
            name: of it.
            samples: host arrays.
        """
        arrays = {
            key: value for place, sample in enumerate(samples) for key, value in _flat(str(place), sample)
        }
        file = self.folder / f"{kind}-{name}.npz"
        np.savez_compressed(file, **arrays)
        self.files[file.name] = {"kind": kind, "name": name, "sha256": _hash(file)}

    def close(self) -> None:
        """Write the manifest; without it there is no recording."""
        now = dt.datetime.now(dt.UTC)
        told = {"schema": SCHEMA, "date": f"{now:%Y-%m-%d}", "on": self.facts, "files": self.files}
        (self.folder / MANIFEST).write_text(json.dumps(told, indent=1, sort_keys=True) + "\n")


def _hash(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _flat(head: str, value: Any) -> Iterator[tuple[str, np.ndarray]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(f"{head}/{key}", inner)
    elif isinstance(value, list | tuple):
        yield f"{head}/length", np.asarray(len(value))
        for place, inner in enumerate(value):
            yield from _flat(f"{head}/{place}", inner)
    elif value is not None:
        array = np.asarray(value)
        if array.dtype.kind == "V" or array.dtype == ml_dtypes.bfloat16:
            yield f"{head}@{array.dtype.name}", array.view(f"u{array.itemsize}")
        else:
            yield head, array


def manifest(folder: Path) -> dict[str, Any]:
    """Return what a recording says of itself.

    Raises:
        BrokenRecordingError: there is none, it is of another schema, or files are missing or too many.
    """
    try:
        told = json.loads((folder / MANIFEST).read_text())
        schema, files = told["schema"], told["files"]
    except (OSError, ValueError, KeyError) as fault:
        raise BrokenRecordingError(f"{folder}: no manifest that can be read: {fault}") from fault
    if schema != SCHEMA:
        raise BrokenRecordingError(f"{folder}: schema {schema}, expected {SCHEMA}")
    there = {each.name for each in folder.glob("*.npz")}
    if there != set(files):
        raise BrokenRecordingError(f"{folder}: files and manifest differ: {sorted(there ^ set(files))}")
    return dict(told)


def read(folder: Path, file: str) -> list[Sample]:
    """Return the samples of one file.

    Raises:
        BrokenRecordingError: its bytes are not those that were written.
    """
    path = folder / file
    if _hash(path) != manifest(folder)["files"][file]["sha256"]:
        raise BrokenRecordingError(
            f"{path}: its SHA-256 is not the manifest's: it was changed after it was recorded"
        )
    samples: dict[int, Sample] = {}
    with np.load(path, allow_pickle=False) as held:
        for key in held.files:
            name, _, dtype = key.partition("@")
            array = held[key].view(np.dtype(getattr(ml_dtypes, dtype))) if dtype else held[key]
            place, side, *rest = name.split("/")
            sample = samples.setdefault(int(place), {"in": {}, "out": {}})
            _put(sample[side], rest, array)
    return [samples[place] for place in sorted(samples)]


def _put(side: dict[str, Any], rest: list[str], array: np.ndarray) -> None:
    if len(rest) == 1:
        side[rest[0]] = array
        return
    name, place = rest
    held = side.setdefault(name, [])
    if place == "length":
        held += [None] * (int(array) - len(held))
    else:
        held[int(place)] = array
