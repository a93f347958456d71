"""Reading ``.npz`` archives of NumPy arrays; nothing in them is ever unpickled."""

from __future__ import annotations

import math
import os
import zipfile
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from minimp.data.checks import array_place, as_labels, encode_labels
from minimp.data.dataset import ArrayDataset, TrainTest
from minimp.data.files import open_raw
from minimp.data.idx import pixels
from minimp.errors import DataError

__all__ = ["LAYOUTS", "read_npz"]

OP = "read_npz"
Array = npt.NDArray[Any]


class Layout(NamedTuple):
    """The names of the arrays in an archive: inputs and targets of one part, or of training and test."""

    parts: tuple[tuple[str, str], ...]

    @property
    def keys(self) -> frozenset[str]:
        """Every name that must be there."""
        return frozenset(name for pair in self.parts for name in pair)

    def __str__(self) -> str:
        """List the names as a message shows them."""
        return "/".join(name for pair in self.parts for name in pair)


# The archives that are understood; upper and lower case are alike. Two parts (training, test) go before one.
LAYOUTS = tuple(
    Layout(parts)
    for parts in (
        (("x_train", "y_train"), ("x_test", "y_test")),
        (("train_images", "train_labels"), ("test_images", "test_labels")),
        (("x", "y"),),
        (("images", "labels"),),
        (("inputs", "targets"),),
        (("features", "labels"),),
        (("data", "target"),),
    )
)


class Header(NamedTuple):
    """What the header of one array in an archive says, and how many bytes of data follow it."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    found: int


def read_npz(path: str | os.PathLike[str], *, num_classes: int | None = None) -> ArrayDataset | TrainTest:
    """Read inputs and class labels from an ``.npz`` file (`numpy.savez`, `numpy.savez_compressed`).

    The arrays are found by name, upper and lower case alike: ``x y``, ``images labels``, ``inputs targets``,
    ``features labels``, ``data target``; or, in two parts, ``x_train y_train x_test y_test`` or
    ``train_images train_labels test_images test_labels``. Other arrays in the file are not read.

    Inputs of type uint8 are taken for images and scaled to [0, 1] (v / 255); other numbers are kept, float64
    rounded once to float32. Labels are whole numbers from 0, or text, numbered in sorted order.

    Args:
        path: the file.
        num_classes: labels must be below this; None counts them over both parts, 0 takes targets as values.

    Returns:
        An ArrayDataset, or ``TrainTest(train, test)`` where the file has both parts.

    Raises:
        DataError: missing, unreadable, truncated or damaged file; no known names, or several; Python objects
            (which would need unpickling); arrays that make no data set (see `ArrayDataset`).
    """
    source = Path(path)
    with open_raw(source, OP) as stream, _directory(stream) as archive:
        names = _names(archive, source)
        layout = _choose(frozenset(names), source)
        parts = [
            (_array(archive, names[x], source), _array(archive, names[y], source)) for x, y in layout.parts
        ]
    labels, class_names = _labels([y for _, y in parts], source)
    if num_classes is None:
        num_classes = max(as_labels(each, None, op=str(source))[1] for each in labels)
    suffixes = ("/train", "/test") if len(parts) > 1 else ("",)
    datasets = [
        ArrayDataset(
            pixels(x),
            y,
            name=f"{source.stem}{suffix}",
            num_classes=num_classes,
            class_names=class_names,
            place=lambda index: f"{source}: {array_place(index)}",
        )
        for (x, _), y, suffix in zip(parts, labels, suffixes, strict=True)
    ]
    if len(datasets) == 1:
        return datasets[0]
    train, test = datasets
    if train.input_shape != test.input_shape:
        raise DataError(
            f"{source}: training and test inputs differ in shape: {train.input_shape} and {test.input_shape}",
            op=OP,
            shapes=[train.inputs.shape, test.inputs.shape],
            help="both parts must come from the same set",
        )
    return TrainTest(train, test)


def _directory(stream: IO[bytes]) -> zipfile.ZipFile:
    """Read the directory of a zip archive; damage to it shows in several kinds of exception."""
    try:
        return zipfile.ZipFile(stream)
    except (NotImplementedError, ValueError) as fault:  # a version or a name that no writer makes
        raise zipfile.BadZipFile(str(fault)) from fault


def _names(archive: zipfile.ZipFile, source: Path) -> dict[str, zipfile.ZipInfo]:
    """Map the lower-case name of each array to its entry."""
    names: dict[str, zipfile.ZipInfo] = {}
    for entry in archive.infolist():
        stem, dot, end = entry.filename.rpartition(".")
        if not (dot and end == "npy"):
            continue
        if stem.lower() in names:
            raise DataError(
                f"{source}: two arrays are called {stem.lower()!r}", op=OP, help="rename one of them"
            )
        names[stem.lower()] = entry
    if not names:
        raise DataError(
            f"{source}: a zip archive without NumPy arrays, not an .npz file",
            op=OP,
            help="save arrays with numpy.savez(path, x=..., y=...); pickled files (.pt, .pkl) are never read",
        )
    return names


def _choose(names: frozenset[str], source: Path) -> Layout:
    """Return the layout that the names in the archive fit."""
    fitting = [layout for layout in LAYOUTS if layout.keys <= names]
    fullest = [layout for layout in fitting if len(layout.parts) == len(fitting[0].parts)]
    if len(fullest) == 1:
        return fullest[0]
    known = ", ".join(str(layout) for layout in LAYOUTS)
    if fullest:
        raise DataError(
            f"{source}: cannot choose between {' and '.join(map(str, fullest))}",
            op=OP,
            help="keep one pair of arrays in the file",
        )
    raise DataError(
        f"{source}: expected arrays named as one of {known}, found {', '.join(sorted(names))}",
        op=OP,
        help="save them as numpy.savez(path, x=inputs, y=labels)",
    )


def _array(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, source: Path) -> Array:
    """Read one array, after its header was found to promise exactly the bytes that are there."""
    label = f"{source}: array {entry.filename.removesuffix('.npy')!r}"
    try:
        with archive.open(entry) as stream:
            header = _header(stream, entry.file_size)
        _check_header(header, label)
        with archive.open(entry) as stream:
            array: Array = np.lib.format.read_array(stream, allow_pickle=False)
    except DataError:
        raise
    except (ValueError, RuntimeError, NotImplementedError, MemoryError) as fault:
        raise DataError(
            f"{label} cannot be read: {fault}", op=OP, help="save the file again with numpy.savez"
        ) from fault
    array.flags.writeable = False
    return array


def _header(stream: IO[bytes], size: int) -> Header:
    """Read the header of an ``.npy`` stream of `size` bytes.

    Versions 1 and 2 are read; 3 is written for structured types only, which are no data here.
    """
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    version = np.lib.format.read_magic(stream)
    if version not in readers:
        raise ValueError(f"its format version {version} is made for structured arrays")
    shape, _, dtype = readers[version](stream)
    return Header(shape, dtype, size - stream.tell())


def _check_header(header: Header, label: str) -> None:
    """Refuse Python objects, and data of another size than the header says."""
    shape, dtype, found = header
    if dtype.hasobject:
        raise DataError(
            f"{label} holds Python objects (dtype {dtype}), which only unpickling could read",
            op=OP,
            help="save it as numbers or text: numpy.asarray(values, dtype=numpy.float32)",
        )
    expected = math.prod(shape) * dtype.itemsize
    if expected != found:
        raise DataError(
            f"{label} is damaged: expected {expected} bytes of data for shape {shape} of {dtype}, "
            f"found {found}",
            op=OP,
            shapes=[shape],
            help="save the file again with numpy.savez",
        )


def _labels(targets: list[Array], source: Path) -> tuple[list[Array], tuple[str, ...]]:
    """Number text labels in sorted order over all parts; labels that are numbers pass through."""
    if not any(each.dtype.kind == "U" for each in targets):
        return targets, ()
    if not all(each.dtype.kind == "U" and each.ndim == 1 for each in targets):
        raise DataError(
            f"{source}: text labels must be one word a row in every part, got shapes "
            f"{[each.shape for each in targets]} of {[str(each.dtype) for each in targets]}",
            op=OP,
            shapes=[each.shape for each in targets],
        )
    numbers, names = encode_labels([str(word) for each in targets for word in each])
    return np.split(numbers, np.cumsum([len(each) for each in targets])[:-1]), names
