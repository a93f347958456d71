"""Saving and loading: one safetensors file, written whole or not at all, every byte of it under a checksum.

A state is a nested dict: tensors, arrays, numbers, strings, bools and None, in dicts, lists and tuples. An
array lies in the file under its path in the state, as in ``model/0.weight``; all the rest is JSON in the
metadata of the file. So any reader of safetensors can open a checkpoint, and nothing in it is ever executed.

=====================  =====================================================================================
metadata               what it holds
=====================  =====================================================================================
``minimp.checkpoint``  the version of this layout
``minimp.state``       JSON: the state with null in the place of each array, and what JSON cannot say of it
``minimp.sha256``      SHA-256 of the whole file with 64 zeros in the place of these 64 digits
others                 the ``meta`` of the caller
=====================  =====================================================================================

The checksum is taken over the bytes of the file and not over what they mean, so that no byte escapes it:
lengths, names, padding and numbers alike. Equal states give equal files.

Source: the safetensors format, https://github.com/huggingface/safetensors (8 bytes that hold the length of
the header, little-endian; the header, JSON padded with spaces; the tensors without holes, little-endian).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, deserialize

from minimp.errors import CheckpointError, SettingError
from minimp.files import AnyPath, read_whole, write_whole
from minimp.tensors import Tensor

__all__ = ["load", "read_meta", "save"]

Array = npt.NDArray[Any]

LAYOUT = 1
OURS = "minimp."
VERSION, STATE, DIGEST = OURS + "checkpoint", OURS + "state", OURS + "sha256"
METADATA = "__metadata__"  # safetensors' own entry in the header
LONGEST_HEADER = 100_000_000  # bytes; safetensors reads no longer one
DEEPEST = 64  # dicts and lists inside each other: a state that holds itself is caught here
LONGEST_INTEGER = 8192  # bits; Python itself refuses to print more than 4300 digits

# What every safetensors since 0.4.3 has a name for. An array of another one-byte dtype (the other float8, and
# float6, float4, int4, ...) is stored as its codes, as U8, and minimp.state has its dtype.
_BOTH_WAYS = {
    "BOOL": np.bool_,
    "U8": np.uint8, "U16": np.uint16, "U32": np.uint32, "U64": np.uint64,
    "I8": np.int8, "I16": np.int16, "I32": np.int32, "I64": np.int64,
    "F16": np.float16, "BF16": ml_dtypes.bfloat16, "F32": np.float32, "F64": np.float64,
    "F8_E4M3": ml_dtypes.float8_e4m3fn, "F8_E5M2": ml_dtypes.float8_e5m2,
}  # fmt: skip
# What newer ones may have written.
_ONLY_READ = {
    "F8_E8M0": ml_dtypes.float8_e8m0fnu,
    "F8_E4M3FNUZ": ml_dtypes.float8_e4m3fnuz,
    "F8_E5M2FNUZ": ml_dtypes.float8_e5m2fnuz,
    "C64": np.complex64,
}
READ = {code: np.dtype(kind) for code, kind in (_BOTH_WAYS | _ONLY_READ).items()}
SAVED = {np.dtype(kind): code for code, kind in _BOTH_WAYS.items()}

# What Python raises on JSON that is not what it should be.
UNFIT = (KeyError, IndexError, TypeError, AttributeError, ValueError, OverflowError, RecursionError)

BLANK = "0" * 64  # stands in the place of the checksum while it is taken
OTHER_COPY = "use another copy, or an older checkpoint"


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
    tree = _Tree(op=f"save {os.fspath(path)}")
    shape = tree.fold_all(state)
    # Wide dtypes first, as safetensors does it: each tensor then starts at a multiple of its item's size.
    arrays = dict(sorted(tree.arrays.items(), key=lambda item: (-item[1].itemsize, item[0])))
    stored = {"tree": shape, "tuples": tree.tuples, "codes": tree.codes}
    notes = _checked_meta(meta or {}, tree.op) | {
        VERSION: str(LAYOUT),
        STATE: json.dumps(stored, separators=(",", ":")),
        DIGEST: BLANK,
    }
    header = _header_of(arrays, notes, tree.op)
    tensors = [array.reshape(-1).view(np.uint8).data for array in arrays.values()]
    seal = _seal(_sha256(header, *tensors))
    write_whole(path, [header.replace(_seal(BLANK), seal), *tensors], error=CheckpointError)


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
    data, notes = _read(path, op)
    if STATE not in notes:
        if require_checksum:
            raise CheckpointError("another program wrote it, without a checksum", op=op, help=OTHER_COPY)
        return dict(_arrays(data, {}, op))
    try:
        stored = json.loads(notes[STATE])
        arrays = dict(_arrays(data, stored["codes"], op))
        state: dict[str, Any] = _unfold(stored["tree"], arrays, stored["tuples"])
    except CheckpointError:
        raise
    except UNFIT as fault:
        raise CheckpointError("its parts do not belong together", op=op, help=OTHER_COPY) from fault
    return state


def read_meta(path: AnyPath) -> dict[str, str]:
    """Return the strings that were given to :func:`save` as `meta`. Errors are those of :func:`load`."""
    _, notes = _read(path, f"load {os.fspath(path)}")
    return {key: text for key, text in notes.items() if not key.startswith(OURS)}


# ---- the state: a tree of JSON, and named arrays ----------------------------------------------------------


class _Tree:
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
        if isinstance(value, np.ma.MaskedArray) or not (native in SAVED or _is_one_byte(native)):
            known = ", ".join(each.name for each in SAVED)
            kind = "masked array" if isinstance(value, np.ma.MaskedArray) else f"array of {native.name}"
            raise self._refusal(path, f"is a {kind}", f"convert it to one of {known}")
        if native not in SAVED:
            self.codes[name] = native.name
        self.arrays[name] = np.asarray(array, native.newbyteorder("<"), order="C")

    def _key(self, key: Any, path: tuple[str, ...]) -> str:
        if _is_unicode(key) and key and "/" not in key and (path or key != METADATA):
            return str(key)
        said = f"has the key {key!r}, which cannot be part of a tensor's name"
        raise self._refusal(path, said, f"use a string: not empty, without '/', and not {METADATA!r}")

    def _refusal(self, path: tuple[str, ...], said: str, advice: str) -> SettingError:
        where = "".join(f"[{part!r}]" for part in path[:8]) + ("..." if len(path) > 8 else "")
        return SettingError(f"state{where} {said}", op=self.op, help=advice)


def _is_one_byte(dtype: np.dtype[Any]) -> bool:
    """Whether it is one of ml_dtypes' that have a byte for each number (8 bits or fewer)."""
    return dtype.itemsize == 1 and getattr(ml_dtypes, dtype.name, None) is dtype.type


def _is_unicode(text: Any) -> bool:
    """Whether it is text that can be written as UTF-8: half of a surrogate pair cannot."""
    return isinstance(text, str) and not any("\ud800" <= each <= "\udfff" for each in text)


def _unfold(tree: Any, arrays: dict[str, Array], tuples: list[str]) -> Any:
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


# ---- the file ---------------------------------------------------------------------------------------------


def _checked_meta(meta: Mapping[str, str], op: str) -> dict[str, str]:
    for key, text in meta.items():
        if not (_is_unicode(key) and _is_unicode(text)):
            raise SettingError(f"meta has {key!r}: {text!r}, and holds text only", op=op, help="use str()")
        if key.startswith(OURS):
            raise SettingError(f"meta has the key {key!r}; {OURS}* is taken", op=op, help="choose another")
    return dict(meta)


def _header_of(arrays: dict[str, Array], notes: dict[str, str], op: str) -> bytes:
    """Return the header of a safetensors file, the eight bytes of its length included."""
    entries: dict[str, Any] = {METADATA: notes}
    end = 0
    for name, array in arrays.items():
        start, end = end, end + array.nbytes
        code = SAVED.get(array.dtype.newbyteorder("="), "U8")
        entries[name] = {"dtype": code, "shape": array.shape, "data_offsets": (start, end)}
    text = json.dumps(entries, separators=(",", ":")).encode("ascii")
    text += b" " * (-len(text) % 8)
    if len(text) > LONGEST_HEADER:
        raise SettingError(
            f"names and all that is no array take {len(text)} bytes, and safetensors reads {LONGEST_HEADER}",
            op=op,
            help="put long lists of numbers into arrays",
        )
    return len(text).to_bytes(8, "little") + text


def _seal(digest: str) -> bytes:
    """Return the checksum's entry, byte for byte. In any other string its quotes would be escaped."""
    return f'"{DIGEST}":"{digest}"'.encode("ascii")


def _sha256(*parts: Any) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def _read(path: AnyPath, op: str) -> tuple[bytes, dict[str, str]]:
    """Return the bytes of a file and its metadata; a file of minimp has passed its checksum."""
    data = read_whole(path, error=CheckpointError)
    header, size = _parsed_header(data, op)
    notes: dict[str, str] = header.get(METADATA, {})
    if len(data) < size:
        raise CheckpointError(f"it is cut short: {len(data)} of {size} bytes", op=op, help=OTHER_COPY)
    if any(key.startswith(OURS) for key in notes):  # one is enough: a damaged name must not hide the others
        _check_seal(data, notes, op)
    return data, notes


def _parsed_header(data: bytes, op: str) -> tuple[dict[str, Any], int]:
    """Return the header of a file, and the size in bytes that the file should have."""
    start = 8 + int.from_bytes(data[:8], "little")
    if len(data) > 8 and data[8:9] != b"{":
        raise CheckpointError("it is no safetensors file", op=op, help="minimp reads safetensors only")
    if len(data) <= 8 or len(data) < start:
        raise CheckpointError(f"it is cut short: it has {len(data)} bytes", op=op, help=OTHER_COPY)
    try:
        header = json.loads(data[8:start])
        end = max((entry["data_offsets"][1] for name, entry in header.items() if name != METADATA), default=0)
        size, texts = start + int(end), header.get(METADATA, {}).values()
    except UNFIT as fault:
        raise CheckpointError("its header is damaged", op=op, help=OTHER_COPY) from fault
    if not all(isinstance(each, str) for each in texts):
        raise CheckpointError("its metadata is damaged", op=op, help=OTHER_COPY)
    return header, size


def _check_seal(data: bytes, notes: dict[str, str], op: str) -> None:
    """Raise unless the file is as it was written, in a layout known here."""
    version, digest = notes.get(VERSION, ""), notes.get(DIGEST, "")
    if re.fullmatch("[1-9][0-9]{0,8}", version) and int(version) > LAYOUT:
        raise CheckpointError(
            f"it has layout {version}, and this minimp knows layouts up to {LAYOUT}",
            op=op,
            help="update minimp; if no newer one wrote it, it is damaged: use another copy",
        )
    seal = _seal(digest) if re.fullmatch("[0-9a-f]{64}", digest) else b"none"
    start, view = data.find(seal), memoryview(data)
    if start < 0 or _sha256(view[:start], _seal(BLANK), view[start + len(seal) :]) != digest:
        said = "its bytes are not those that were written (SHA-256 differs)"
        raise CheckpointError(said, op=op, help=OTHER_COPY)


def _arrays(data: bytes, codes: dict[str, str], op: str) -> Iterator[tuple[str, Array]]:
    """Yield each tensor's name and its values, in memory of their own."""
    try:
        tensors = deserialize(data)  # type: ignore[no-untyped-call]  # safetensors has no annotation for it
    except SafetensorError as fault:
        raise CheckpointError(f"it is damaged: {fault}", op=op, help=OTHER_COPY) from fault
    for name, tensor in tensors:
        if tensor["dtype"] not in READ:
            said = f"tensor {name!r} is of type {tensor['dtype']}, which minimp cannot read"
            raise CheckpointError(said, op=op, help=f"convert it to one of {', '.join(READ)}")
        dtype = np.dtype(getattr(ml_dtypes, codes[name])) if name in codes else READ[tensor["dtype"]]
        array = np.frombuffer(tensor["data"], dtype.newbyteorder("<")).reshape(tensor["shape"])
        yield name, array.astype(dtype, copy=not array.flags.writeable)
