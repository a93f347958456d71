"""IDX, the format of MNIST and Fashion-MNIST: a big-endian header and one array, plain or gzip.

::

    00 00 TT DD     TT the element type (table below), DD the number of axes
    n1 ... nDD      the length of each axis, unsigned 32-bit
    elements        row-major, big-endian

Source: "The MNIST database of handwritten digits", Y. LeCun, C. Cortes and C. J. C. Burges, section on file
formats.
"""

from __future__ import annotations

import io
import math
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from minimp.data.dataset import ArrayDataset, read_only
from minimp.data.files import CHUNK, open_bytes, read_at_most, unreadable
from minimp.errors import DataError, SettingError, unknown_name

__all__ = ["IDX_TYPES", "looks_like_idx", "mnist", "mnist_files", "parse_idx", "pixels", "read_idx"]

OP = "read_idx"
IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
NUMPY_MAX_AXES = 64
MNIST_CLASSES = 10
MNIST_AXES = {"images": 3, "labels": 1}
MNIST_PARTS = {"train": "train", "test": "t10k"}


def looks_like_idx(head: bytes) -> bool:
    """Tell whether a file that starts with these bytes is IDX."""
    return len(head) > 3 and head[:2] == b"\0\0" and head[2] in IDX_TYPES


def read_idx(path: str | os.PathLike[str]) -> npt.NDArray[Any]:
    """Read one IDX file, plain or gzip, as an array in the machine's byte order; the values are not scaled.

    Element types: uint8, int8, int16, int32, float32, float64.

    Raises:
        DataError: the file is missing or unreadable, is no IDX file, or is shorter or longer than its header
            says; the message gives the file and the expected and found sizes.
    """
    source = Path(path)
    with open_bytes(source, OP) as stream:
        return parse_idx(stream, str(source))


def parse_idx(stream: io.BufferedIOBase, name: str) -> npt.NDArray[Any]:
    """Read IDX data from an open stream (already decompressed); `name` stands for it in messages."""
    magic = _header(stream, 4, "its first 4 bytes", name)
    if not looks_like_idx(magic) or not 1 <= magic[3] <= NUMPY_MAX_AXES:
        known = ", ".join(f"{code:02x}" for code in IDX_TYPES)
        raise DataError(
            f"{name}: expected an IDX file starting with 00 00 TT DD (type TT one of {known}; DD from 1 to "
            f"{NUMPY_MAX_AXES}), found {magic.hex(' ')}",
            op=OP,
            help="this is another kind of file, or its start is damaged",
        )
    dtype, axes = np.dtype(IDX_TYPES[magic[2]]), magic[3]
    shape = struct.unpack(f">{axes}I", _header(stream, 4 * axes, f"the lengths of its {axes} axes", name))
    size = math.prod(shape) * dtype.itemsize
    data = read_at_most(stream, size)
    extra = _count_rest(stream)
    if len(data) + extra != size:
        state, advice = (
            ("too long", "its header or its end is damaged") if extra else ("truncated", "it is incomplete")
        )
        raise DataError(
            f"{name}: {state}: expected {size} bytes of data for shape {shape} of {dtype.name}, "
            f"found {len(data) + extra}",
            op=OP,
            shapes=[shape],
            help=f"{advice}: copy or download the file again",
        )
    return np.frombuffer(data, dtype).reshape(shape).astype(dtype.newbyteorder("="), copy=False)


def _header(stream: io.BufferedIOBase, count: int, what: str, name: str) -> bytes:
    """Read a part of the header in full."""
    found = read_at_most(stream, count)
    if len(found) < count:
        raise DataError(
            f"{name}: truncated: expected {count} bytes for {what}, found {len(found)}",
            op=OP,
            help="the file is incomplete: copy or download it again",
        )
    return found


def _count_rest(stream: io.BufferedIOBase) -> int:
    """Count the bytes left in a stream without keeping them."""
    count = 0
    while part := stream.read(CHUNK):
        count += len(part)
    return count


def pixels(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Scale 8-bit images to [0, 1]: uint8 becomes float32 v / 255, correctly rounded; others are kept."""
    if values.dtype != np.uint8:
        return values
    return read_only(values.astype(np.float32) / np.float32(255))


def mnist_files(folder: Path, *, op: str = "mnist") -> dict[tuple[str, str], Path]:
    """Find the files of MNIST or Fashion-MNIST in a folder: ``{("train", "images"): path, ...}``.

    Names: ``{train,t10k}-{images-idx3,labels-idx1}-ubyte``, also with a dot before ``idx``, each plain or
    ``.gz``; the plain file is taken where both are there.

    Raises:
        DataError: the folder cannot be read.
    """
    with unreadable(folder, op):
        present = {each.name: each for each in folder.iterdir()}
    found = {}
    for part, prefix in MNIST_PARTS.items():
        for what, axes in MNIST_AXES.items():
            names = (f"{prefix}-{what}{dot}idx{axes}-ubyte{end}" for end in ("", ".gz") for dot in "-.")
            path = next((present[name] for name in names if name in present), None)
            if path is not None:
                found[part, what] = path
    return found


def mnist(
    folder: str | os.PathLike[str], split: str = "train", *, num_classes: int = MNIST_CLASSES
) -> ArrayDataset:
    """Read one part of MNIST, Fashion-MNIST or another set in the same files, as images (N, 1, H, W).

    Pixels are scaled to [0, 1] (v / 255, float32). Only files on disk are read; nothing is downloaded.

    Args:
        folder: holds ``train-images-idx3-ubyte`` and its kin, plain or ``.gz`` (see `mnist_files`).
        split: ``"train"`` or ``"test"`` (the ``t10k`` files).
        num_classes: labels must be below this.

    Raises:
        DataError: files missing, unreadable, damaged or of the wrong rank, different numbers of images and
            labels, or a label out of range.
        SettingError: `split` is unknown.
    """
    if split not in MNIST_PARTS:
        raise SettingError(unknown_name("split", split, MNIST_PARTS), op="mnist")
    place = Path(folder)
    files = mnist_files(place)
    missing = [what for what in MNIST_AXES if (split, what) not in files]
    if missing:
        names = [f"{MNIST_PARTS[split]}-{what}-idx{MNIST_AXES[what]}-ubyte[.gz]" for what in missing]
        raise DataError(
            f"{place} has no {' and no '.join(names)}",
            op="mnist",
            help="give the folder that holds the MNIST files",
        )
    images, labels = (_read_part(files[split, what], what) for what in MNIST_AXES)
    if len(images) != len(labels):
        raise DataError(
            f"{len(images)} images in {files[split, 'images']}, but {len(labels)} labels in "
            f"{files[split, 'labels']}",
            op="mnist",
            shapes=[images.shape, labels.shape],
            help="both files must come from the same set",
        )
    name = f"{place.resolve().name}/{split}"
    return ArrayDataset(pixels(images)[:, np.newaxis], labels, name=name, num_classes=num_classes)


def _read_part(path: Path, what: str) -> npt.NDArray[Any]:
    """Read images or labels, of the rank they must have."""
    array = read_idx(path)
    if array.ndim != MNIST_AXES[what]:
        raise DataError(
            f"{path}: {what} need {MNIST_AXES[what]} axes, found shape {array.shape}",
            op="mnist",
            shapes=[array.shape],
            help="the file holds something else; are two files swapped?",
        )
    return array
