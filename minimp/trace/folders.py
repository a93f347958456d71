"""A trace on the disk: a folder of JSON lines and safetensors.

======================  ====================================================================================
file                    what it holds
======================  ====================================================================================
``meta.json``           ``kind`` ("minimp.trace"), ``schema`` (1), ``info`` (what was recorded, and how),
                        ``dropped`` (events that a ring let go), ``files`` (name -> bytes and SHA-256 of each
                        other file), ``seal`` (SHA-256 of all this as JSON with sorted keys). Written last:
                        a folder without it was not finished.
``events.jsonl``        one :class:`minimp.trace.TraceEvent` a line, oldest first, by the names of its fields;
                        fields that have their default are left out; histograms are objects of exponent ->
                        count; infinities are the strings "inf" and "-inf"
``spans.jsonl``         one :class:`minimp.trace.Span` a line: the times of modules and stages
``values-N.safetensors``  arrays that were kept, as ``17/out0``: the first output of event 17
======================  ====================================================================================
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from minimp.errors import CheckpointError, DataError
from minimp.files import AnyPath, read_whole, sync_folder, write_whole
from minimp.files.sealed import SAVED, STATE, UNFIT, is_one_byte, read_arrays, write_sealed
from minimp.trace.codec import event_from, plain, span_from
from minimp.trace.events import Span, TraceEvent
from minimp.trace.stores import Kept, Memory

__all__ = ["SCHEMA", "Folder", "read_folder"]

SCHEMA, KIND = 1, "minimp.trace"
META, EVENTS, SPANS = "meta.json", "events.jsonl", "spans.jsonl"
PARTS = {"info": dict, "dropped": int, "files": dict}
"""What the meta file must tell, and as what."""
CHUNK = 16 * 2**20
"""So many bytes of values are gathered for one file."""


class Folder:
    """A store that writes to a folder as events come; in memory is only what is being gathered.

    Args:
        path: a folder that does not exist yet, or is empty; its parent must exist.

    Raises:
        DataError: it cannot be made, or has something in it.
    """

    def __init__(self, path: AnyPath) -> None:
        self.path, self.dropped, self.finished = Path(path), 0, False
        try:
            self.path.mkdir(exist_ok=True)
            filled = any(self.path.iterdir())
        except OSError as fault:
            raise DataError(
                f"{self.path}: {fault.strerror}", op="trace", help="name a new folder in one that exists"
            ) from fault
        if filled:
            raise DataError(
                f"{self.path}: there is something in this folder", op="trace", help="name a new one"
            )
        self._lines: dict[str, IO[bytes]] = {name: (self.path / name).open("wb") for name in (EVENTS, SPANS)}
        self._gathered: dict[int, Kept] = {}
        self._bytes, self._chunks = 0, 0
        self._where: dict[int, int] = {}
        self._read: tuple[int, Kept] = (-1, {})  # the values that were read last: questions go in order

    def add(self, event: TraceEvent, values: Kept) -> None:
        """Write an event down."""
        self._write(EVENTS, event)
        if values:
            self._gathered[event.number] = values
            self._where[event.number] = self._chunks
            self._bytes += sum(array.nbytes for array in values.values())
            if self._bytes >= CHUNK:
                self._put_values()

    def add_span(self, span: Span) -> None:
        """Write a time down."""
        self._write(SPANS, span)

    def _write(self, name: str, record: Any) -> None:
        text = json.dumps(plain(record), allow_nan=False, separators=(",", ":"))
        self._lines[name].write(text.encode() + b"\n")

    def _put_values(self) -> None:
        if not self._gathered:
            return
        arrays = {f"{number}/{name}": np.ascontiguousarray(array).reshape(array.shape)
                  for number, kept in self._gathered.items() for name, array in kept.items()}  # fmt: skip
        codes = {
            name: array.dtype.name
            for name, array in arrays.items()
            if array.dtype not in SAVED and is_one_byte(array.dtype)
        }
        path = self.path / f"values-{self._chunks}.safetensors"
        write_sealed(path, arrays, {STATE: json.dumps({"codes": codes})}, op="trace")
        self._gathered, self._bytes, self._chunks = {}, 0, self._chunks + 1

    def events(self) -> list[TraceEvent]:
        """Read the events back."""
        self._flush()
        return [event_from(found) for found in _lines(self.path / EVENTS)]

    def spans(self) -> list[Span]:
        """Read the times back."""
        self._flush()
        return [span_from(found) for found in _lines(self.path / SPANS)]

    def _flush(self) -> None:
        if not self.finished:
            for file in self._lines.values():
                file.flush()

    def values(self, number: int) -> Kept:
        """Return the values kept of an event."""
        if number in self._gathered or number not in self._where:
            return self._gathered.get(number, {})
        if self._read[0] != self._where[number]:
            chunk = self._where[number]
            self._read = (chunk, read_arrays(self.path / f"values-{chunk}.safetensors", "trace")[0])
        arrays = self._read[1]
        lead = f"{number}/"
        return {name[len(lead) :]: array for name, array in arrays.items() if name.startswith(lead)}

    def close(self) -> None:
        """Close the files, finished or not."""
        for file in self._lines.values():
            file.close()

    def finish(self, info: dict[str, Any]) -> None:
        """Write what is left, and the file that says that all is there."""
        if self.finished:
            return
        self._put_values()
        self.close()
        self.finished = True
        files = {path.name: _facts(path) for path in sorted(self.path.iterdir())}
        meta = {"kind": KIND, "schema": SCHEMA, "info": info, "dropped": self.dropped, "files": files}
        text = json.dumps({**meta, "seal": _seal(meta)}, indent=1, sort_keys=True) + "\n"
        write_whole(self.path / META, text, op="trace")
        sync_folder(self.path)


def read_folder(path: AnyPath) -> tuple[Memory, dict[str, Any]]:
    """Return what a folder holds, all of it, and its info.

    Raises:
        DataError: it is no trace, was not finished, was changed since, or a newer minimp wrote it.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise DataError(
            f"{folder}: there is no such folder", op="trace.load", help="check the spelling of the path"
        )
    if not (folder / META).exists():
        what = "its recording was not finished" if (folder / EVENTS).exists() else "it is no trace"
        raise DataError(f"{folder}: {what}: it has no {META}", op="trace.load")
    meta = _meta(folder)
    for name, facts in meta["files"].items():
        if Path(name).name != name or not (folder / name).is_file():
            raise _spoilt(folder, f"{name} is missing")
        if _facts(folder / name) != facts:
            raise _spoilt(folder, f"{name} does not have the bytes that were written")
    try:
        events = [event_from(found) for found in _lines(folder / EVENTS)]
        spans = [span_from(found) for found in _lines(folder / SPANS)]
        values: dict[int, dict[str, Any]] = {}
        for name in meta["files"]:
            if name.endswith(".safetensors"):
                for key, array in read_arrays(folder / name, "trace.load")[0].items():
                    number, _, which = key.partition("/")
                    values.setdefault(int(number), {})[which] = array
        ordered = {e.number: {n: values[e.number][n] for n in e.values} for e in events if e.number in values}
    except (*UNFIT, CheckpointError) as fault:
        raise _spoilt(folder, "its parts do not belong together") from fault
    return Memory.holding(events, spans, ordered, meta["dropped"]), meta["info"]


def _meta(folder: Path) -> dict[str, Any]:
    try:
        meta = json.loads(read_whole(folder / META))
        kind, schema = meta["kind"], meta["schema"]
    except UNFIT as fault:
        raise _spoilt(folder, f"{META} cannot be read") from fault
    if kind != KIND:
        raise DataError(f"{folder}: it is no trace: {META} says kind {kind!r}", op="trace.load")
    if schema != SCHEMA:
        raise DataError(
            f"{folder}: it has schema {schema!r}, and this minimp reads schema {SCHEMA}",
            op="trace.load", help="read it by the minimp that wrote it, or update",
        )  # fmt: skip
    seal = meta.pop("seal", None)
    if seal != _seal(meta):
        raise _spoilt(folder, f"{META} does not say what was written")
    if any(type(meta.get(name)) is not kind for name, kind in PARTS.items()) or not meta["files"].keys() >= {
        EVENTS, SPANS
    }:  # fmt: skip
        raise _spoilt(folder, f"{META} lacks some of {', '.join(PARTS)}")
    return dict(meta)


def _seal(meta: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(meta, sort_keys=True).encode()).hexdigest()


def _facts(path: Path) -> dict[str, Any]:
    data = read_whole(path)
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as file:
        for line in file:
            yield json.loads(line)


def _spoilt(folder: Path, why: str) -> DataError:
    return DataError(f"{folder}: {why}", op="trace.load", help="use another copy of the trace")
