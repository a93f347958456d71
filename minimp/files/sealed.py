"""Safetensors files: named arrays and notes, sealed by a checksum when minimp writes them.

======================  ====================================================================================
note (metadata entry)   what it holds
======================  ====================================================================================
``minimp.checkpoint``   the version of the layout
``minimp.state``        JSON that :mod:`minimp.checkpoint` reads; here only its ``codes``: name of an array ->
                        its dtype, where safetensors has no name for that
``minimp.sha256``       SHA-256 of the whole file with 64 zeros in the place of these 64 digits
======================  ====================================================================================

The checksum is taken over the bytes of the file and not over what they mean, so that no byte escapes it:
lengths, names, padding and numbers alike. Equal content gives equal files.

Source: the safetensors format, https://github.com/huggingface/safetensors (8 bytes that hold the length of
the header, little-endian; the header, JSON padded with spaces; the tensors without holes, little-endian).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, deserialize

from minimp.errors import CheckpointError, SettingError
from minimp.files.whole import AnyPath, read_whole, write_whole

__all__ = [
    "METADATA", "OTHER_COPY", "OURS", "SAVED", "STATE", "UNFIT", "Array", "arrays_of", "is_one_byte",
    "read_arrays", "read_sealed", "write_sealed",
]  # fmt: skip

Array = npt.NDArray[Any]

LAYOUT = 1
OURS = "minimp."
VERSION, STATE, DIGEST = OURS + "checkpoint", OURS + "state", OURS + "sha256"
METADATA = "__metadata__"  # safetensors' own entry in the header
LONGEST_HEADER = 100_000_000  # bytes; safetensors reads no longer one

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

_NEVER_UNPICKLED = "it is a pickle, as torch.save writes it, which can run any code and is not opened"
_CONVERT = (
    "convert it where it was made: safetensors.torch.save_file("
    'torch.load("OLD", weights_only=True), "NEW.safetensors")'
)
# How files begin that people take for weights: pattern -> (what it is, what to do).
_OTHERS = {
    rb"PK\x03\x04.{26}[^\0]{0,90}\.npy": (
        "it is NumPy's npz", "read it by numpy.load(PATH, allow_pickle=False), and mp.save its arrays",
    ),
    rb"PK\x03\x04|\x80[\x02-\x05]": (_NEVER_UNPICKLED, _CONVERT),
    rb"\x93NUMPY": ("it is NumPy's npy", "read it by numpy.load(PATH, allow_pickle=False)"),
    rb"\x89HDF": ("it is HDF5, as Keras writes it", "write its weights by safetensors.numpy.save_file"),
    rb"GGUF": ("it is a GGUF file", "take the safetensors file that it was made from"),
}  # fmt: skip


def write_sealed(path: AnyPath, arrays: Mapping[str, Array], notes: Mapping[str, str], *, op: str) -> None:
    """Write arrays and notes under a checksum, whole or not at all.

    Args:
        path: the file; its folder must exist.
        arrays: name -> array, contiguous and little-endian, of a dtype of SAVED or of one byte.
        notes: what stands in the metadata, beside the version and the checksum.
        op: what the caller is doing, for messages.

    Raises:
        SettingError: names and notes are longer than safetensors reads.
        CheckpointError: the file cannot be written.
    """
    # Wide dtypes first, as safetensors does it: each tensor then starts at a multiple of its item's size.
    ordered = dict(sorted(arrays.items(), key=lambda item: (-item[1].itemsize, item[0])))
    header = _header_of(ordered, {**notes, VERSION: str(LAYOUT), DIGEST: BLANK}, op)
    tensors = [array.reshape(-1).view(np.uint8).data for array in ordered.values()]
    seal = _seal(_sha256(header, *tensors))
    write_whole(path, [header.replace(_seal(BLANK), seal), *tensors], error=CheckpointError)


def read_sealed(path: AnyPath, op: str) -> tuple[bytes, dict[str, str]]:
    """Return the bytes of a file and its notes; a file of minimp has passed its checksum.

    Raises:
        CheckpointError: the file is missing, is no safetensors file, is cut short, or does not have the bytes
            that were written; or a newer minimp wrote it.
    """
    data = read_whole(path, error=CheckpointError)
    header, size = _parsed_header(data, op)
    notes: dict[str, str] = header.get(METADATA, {})
    if len(data) < size:
        raise CheckpointError(f"it is cut short: {len(data)} of {size} bytes", op=op, help=OTHER_COPY)
    if any(key.startswith(OURS) for key in notes):  # one is enough: a damaged name must not hide the others
        _check_seal(data, notes, op)
    return data, notes


def read_arrays(path: AnyPath, op: str) -> tuple[dict[str, Array], dict[str, str]]:
    """Return all arrays of a file by their names in it, and its notes. Errors are those of `read_sealed`."""
    data, notes = read_sealed(path, op)
    try:
        codes = json.loads(notes[STATE])["codes"] if STATE in notes else {}
        return dict(arrays_of(data, codes, op)), notes
    except CheckpointError:
        raise
    except UNFIT as fault:
        raise CheckpointError("its parts do not belong together", op=op, help=OTHER_COPY) from fault


def arrays_of(data: bytes, codes: Mapping[str, str], op: str) -> Iterator[tuple[str, Array]]:
    """Yield each tensor's name and its values, in memory of their own.

    Raises:
        CheckpointError: safetensors cannot read it, or NumPy has no such numbers.
    """
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


def is_one_byte(dtype: np.dtype[Any]) -> bool:
    """Whether it is one of ml_dtypes' that have a byte for each number (8 bits or fewer)."""
    return dtype.itemsize == 1 and getattr(ml_dtypes, dtype.name, None) is dtype.type


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


def _parsed_header(data: bytes, op: str) -> tuple[dict[str, Any], int]:
    """Return the header of a file, and the size in bytes that the file should have."""
    start = 8 + int.from_bytes(data[:8], "little")
    if len(data) > 8 and data[8:9] != b"{":
        said, advice = _what_else(data)
        raise CheckpointError(f"it is no safetensors file{said}", op=op, help=advice)
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


def _what_else(data: bytes) -> tuple[str, str]:
    """Say what a file is that is none of safetensors, and what to do about it."""
    for pattern, (kind, advice) in _OTHERS.items():
        if re.match(pattern, data, re.DOTALL):
            return f": {kind}", advice
    return "", f"minimp reads safetensors only; if it was one, {OTHER_COPY}"


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
