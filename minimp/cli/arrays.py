"""Arrays from files: .npy, .npz and safetensors, known by their first bytes. Nothing is ever unpickled."""

from __future__ import annotations

import io
import math
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from tokenize import TokenError
from typing import Any

import numpy as np
import numpy.typing as npt

from minimp.checkpoint import load
from minimp.errors import DataError, unknown_name
from minimp.files import read_whole

__all__ = ["read_array", "split_name"]

Array = npt.NDArray[Any]

_SUFFIXES = (".npy", ".npz", ".safetensors")
_NPY, _ZIP = np.lib.format.MAGIC_PREFIX, b"PK"
_HEADERS: Mapping[tuple[int, int], Callable[..., Any]] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
# What NumPy, zipfile and Python's parser of literals raise on bytes that are not what they should be.
_UNFIT = (
    ValueError, TypeError, KeyError, SyntaxError, TokenError, EOFError, OverflowError, RecursionError,
    MemoryError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError,
)  # fmt: skip


def read_array(text: str) -> Array:
    """Read one array of real numbers.

    Args:
        text: a file, or file:name for one of several arrays in it.

    Raises:
        DataError: the file is missing, damaged or of another kind; it holds several arrays and none is named,
            or no such one; the array is empty or not real numbers.
        CheckpointError: a safetensors file is damaged.
    """
    path, name = split_name(text)
    raw = read_whole(path)
    if raw.startswith(_NPY):
        if name is not None:
            raise DataError(f"{path} holds a single array, without a name", help=f"--data {path}")
        return _checked(_from_npy(raw, path), path)
    if raw.startswith(_ZIP):
        with _opened(raw, path) as archive:
            members = [each.removesuffix(".npy") for each in archive.namelist() if each.endswith(".npy")]
            chosen = _chosen(members, name, path)
            return _checked(_from_npy(_member(archive, chosen, path), f"{path}:{chosen}"), f"{path}:{chosen}")
    if path.endswith(".safetensors") or raw[8:9] == b"{":
        del raw  # load reads the file itself, and checks its checksum
        arrays = dict(_flattened(load(path)))
        chosen = _chosen(list(arrays), name, path)
        return _checked(arrays[chosen], f"{path}:{chosen}")
    raise DataError(f"{path} is no .npy, .npz or .safetensors file", help="numpy.save writes a .npy file")


def split_name(text: str) -> tuple[str, str | None]:
    """Split file:name; a colon may belong to either.

    >>> split_name("weights.npz:fc1.weight")
    ('weights.npz', 'fc1.weight')
    """
    cuts = [at for at, letter in enumerate(text) if letter == ":"]
    heads = [text, *(text[:at] for at in reversed(cuts))]
    known = [head for head in heads if head and os.path.isfile(head)]
    known += [head for head in heads if head.endswith(_SUFFIXES)]
    head = known[0] if known else text
    return head, text[len(head) + 1 :] if len(head) < len(text) else None


def _chosen(names: list[str], name: str | None, path: str) -> str:
    """The array that is asked for, or the only one."""
    if not names:
        raise DataError(f"{path} holds no arrays", help="numpy.savez writes a .npz file")
    if name is None and len(names) == 1:
        return names[0]
    few = names[:_FEW] + [f"... {len(names)} in all"] * (len(names) > _FEW)
    if name is None:
        raise DataError(f"{path} holds several arrays: {', '.join(few)}", help=f"--data {path}:{names[0]}")
    if name not in names:
        raise DataError(f"{path}: {unknown_name('array', name, few, also=names)}")
    return name


_FEW = 8  # names in a message


def _opened(raw: bytes, path: str) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(io.BytesIO(raw))
    except _UNFIT as fault:
        raise _damaged(path, fault) from fault


def _member(archive: zipfile.ZipFile, name: str, path: str) -> bytes:
    try:
        return archive.read(f"{name}.npy")
    except _UNFIT as fault:
        raise _damaged(f"{path}:{name}", fault) from fault


def _from_npy(raw: bytes, where: str) -> Array:
    """The numbers of a .npy file, in the order in which they lie there; nothing is copied."""
    stream = io.BytesIO(raw)
    try:
        shape, _, dtype = _HEADERS[np.lib.format.read_magic(stream)](stream)
        count, start = math.prod(shape), stream.tell()
    except _UNFIT as fault:
        raise _damaged(where, fault) from fault
    if dtype.hasobject:
        said = f"{where} holds Python objects, which only unpickling could read"
        raise DataError(said, help="save it as an array of floats: numpy.save(file, x.astype(float))")
    there = len(raw) - start
    if count < 0 or count * dtype.itemsize != there:
        said = f"its header tells of {count * dtype.itemsize} bytes of numbers, and there are {there}"
        raise DataError(f"{where} is damaged: {said}", help="use another copy")
    return np.frombuffer(raw, dtype, count, start).reshape(shape)


def _damaged(where: str, fault: BaseException) -> DataError:
    said = str(fault).partition("\n")[0] or type(fault).__name__
    return DataError(f"{where} is damaged: {said}", help="use another copy")


def _flattened(state: Any, path: str = "") -> Iterator[tuple[str, Array]]:
    """The arrays of a checkpoint under their names in the file."""
    if isinstance(state, np.ndarray):
        yield path, state
    elif isinstance(state, dict | list | tuple):
        items = state.items() if isinstance(state, dict) else enumerate(state)
        for key, value in items:
            yield from _flattened(value, f"{path}/{key}" if path else str(key))


def _checked(x: Array, where: str) -> Array:
    """Refuse an array in which there is nothing to look at."""
    if x.dtype.kind == "V" and x.dtype.type is np.void:
        raise DataError(
            f"{where} is of type {x.dtype}: NumPy's files do not keep the name of a bfloat16 or float8 type",
            help="save it as safetensors (mp.save), or as float32",
        )
    if x.size == 0:
        raise DataError(f"{where} is empty: its shape is {x.shape}", help="name an array with numbers in it")
    return x
