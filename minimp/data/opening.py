"""The doors to all data: `load` tells what a path holds and calls the right reader; `load_text` does text."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minimp.data.archive import read_npz
from minimp.data.builtin import digits
from minimp.data.corpus import CONTEXT, STDLIB, read_text, stdlib
from minimp.data.dataset import ArrayDataset, TrainTest
from minimp.data.files import head_of, unreadable
from minimp.data.idx import MNIST_PARTS, looks_like_idx, mnist, mnist_files
from minimp.data.pictures import image_folder, looks_like_pictures
from minimp.data.scaling import Standardize
from minimp.data.table import read_csv
from minimp.data.text import TextParts
from minimp.errors import DataError, SettingError, unknown_name

__all__ = ["BUILT_IN", "NAMES", "load", "load_text"]

OP = "load"
TRAIN_SHARE = 0.8
ZIP_MAGIC = b"PK"
NPY_MAGIC = b"\x93NUMPY"
CSV_ENDINGS = (".csv", ".tsv", ".txt", ".data")
SHAPES: dict[str, Callable[[ArrayDataset], ArrayDataset]] = {
    "flat": ArrayDataset.flat,
    "image": ArrayDataset.images,
}
SUPPORTED = (
    "a folder with the four MNIST/Fashion-MNIST files (IDX, plain or .gz), a folder with a folder of "
    "pictures for each class, an .npz file with x and y (or x_train, y_train, x_test, y_test), or a "
    ".csv/.tsv file with a label column; text is read for the model gpt alone"
)
NO_TEXT = {NPY_MAGIC: "a NumPy array", ZIP_MAGIC: "a zip archive (.npz)"}
"""What a file that starts with these bytes is, when text was wanted."""

Loaded = ArrayDataset | TrainTest


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of source: how it is read, and the options that mean something to its reader."""

    name: str
    read: Callable[..., Loaded]
    options: frozenset[str] = frozenset()


def _digits_parts() -> TrainTest:
    """Return both parts of the digits, as images like those of every other source of images."""
    return TrainTest(digits("train", shape="image"), digits("test", shape="image"))


def _mnist_parts(folder: Path, **options: Any) -> TrainTest:
    """Return both parts of a folder of MNIST files."""
    train, test = (mnist(folder, part, **options) for part in MNIST_PARTS)
    return TrainTest(train, test)


BUILT_IN = {"digits": Kind("the built-in digits", _digits_parts)}
NAMES = (*BUILT_IN, STDLIB)
"""Sources that are no paths."""
FOLDER = Kind("a folder of IDX files", _mnist_parts, frozenset({"num_classes"}))
PICTURES = Kind("a folder of pictures", image_folder, frozenset({"image_size", "colour"}))
NPZ = Kind("an .npz file", read_npz, frozenset({"num_classes"}))
CSV = Kind("a CSV file", read_csv, frozenset({"label", "header", "delimiter", "num_classes"}))


def load(
    source: str | os.PathLike[str],
    *,
    label: str | int | None = None,
    header: bool | None = None,
    delimiter: str | None = None,
    num_classes: int | None = None,
    image_size: int | None = None,
    colour: str | None = None,
    shape: str | None = None,
    train: float | None = None,
    seed: int | None = None,
    standardize: bool = False,
) -> TrainTest:
    """Read a data set from `source` and return its training and test part.

    What a file is, its first bytes say (gzip is seen through); text is told by its ending.

    ==========================  ==============================================  ===========================
    source                      reader                                          scaling
    ==========================  ==============================================  ===========================
    ``"digits"``                `digits`, ships with minimp                     count / 16
    folder of MNIST files       `mnist`                                         uint8 / 255, float32
    folder of folders           `image_folder`, pictures (needs Pillow)         8 bits / 255, float32
    ``.npz``                    `read_npz`                                      uint8 / 255; others kept
    ``.csv .tsv .txt .data``    `read_csv`                                      kept
    ==========================  ==============================================  ===========================

    A source without a test part of its own is split by `ArrayDataset.split`, stratified and seeded.

    Args:
        source: a path, or the name of a built-in set (write ``./digits`` for a file of that name).
        label, header, delimiter: see `read_csv`; for CSV only.
        num_classes: labels must be below this; None counts them (10 for a folder of MNIST files). Not for
            pictures, whose classes are their folders.
        image_size, colour: see `image_folder`; for pictures only.
        shape: ``"flat"`` for inputs (N, features), ``"image"`` for (N, C, H, W), None as the reader gives
        them.
        train: the share or number of training rows (default 0.8); only where the source has no test part.
        seed: chooses the training rows (default 0); only where the source has no test part.
        standardize: apply `Standardize`, measured on the training part, to both parts.

    Raises:
        DataError: the source is missing, unreadable, of an unknown kind, or its data cannot be used.
        SettingError: an option that does not exist, or that cannot act on this source.
    """
    if shape is not None and shape not in SHAPES:
        raise SettingError(unknown_name("shape", shape, SHAPES), op=OP)
    kind = BUILT_IN.get(os.fspath(source)) or _kind_of(Path(source))
    given = {
        "label": label, "header": header, "delimiter": delimiter, "num_classes": num_classes,
        "image_size": image_size, "colour": colour,
    }  # fmt: skip
    options = {name: value for name, value in given.items() if value is not None}
    for name in options:
        if name not in kind.options:
            raise SettingError(f"{name}= cannot act on {kind.name} ({source})", op=OP, help="leave it out")
    loaded = kind.read(**options) if kind in BUILT_IN.values() else kind.read(Path(source), **options)
    parts = _split(loaded, train, seed, f"{kind.name} ({source})")
    if shape is not None:
        parts = TrainTest(*map(SHAPES[shape], parts))
    if standardize:
        parts = TrainTest(*map(Standardize.fit(parts.train), parts))
    return parts


def _split(loaded: Loaded, train: float | None, seed: int | None, what: str) -> TrainTest:
    """Return two parts: those of the source, or a split of its one."""
    if isinstance(loaded, ArrayDataset):
        return loaded.split(TRAIN_SHARE if train is None else train, seed=0 if seed is None else seed)
    for name, value in (("train", train), ("seed", seed)):
        if value is not None:
            raise SettingError(
                f"{name}= cannot act on {what}, which has a test part of its own", op=OP, help="leave it out"
            )
    return loaded


def _kind_of(path: Path) -> Kind:
    """Tell what a path holds: by its first bytes, then by its ending."""
    with unreadable(path, OP):
        if path.is_dir():
            return _kind_of_folder(path)
    if str(path) == STDLIB and not path.exists():
        raise DataError(
            f"{STDLIB!r} is text, and inputs with labels are wanted",
            op=OP,
            help="text is for the model gpt (--model gpt)",
        )
    head = head_of(path, OP)
    ending = "".join(path.suffixes[-2:]).lower().removesuffix(".gz")
    if not head:
        raise DataError(f"{path} is empty (0 bytes)", op=OP, help=f"give {SUPPORTED}")
    if looks_like_idx(head):
        raise DataError(
            f"{path} is one IDX file, which holds only images or only labels",
            op=OP,
            help="give the folder that holds the four files",
        )
    if head.startswith(NPY_MAGIC):
        raise DataError(
            f"{path} is one .npy array; inputs and labels are needed",
            op=OP,
            help="numpy.savez(path, x=..., y=...)",
        )
    if head.startswith(ZIP_MAGIC) or ending.endswith(".npz"):
        return NPZ
    if ending.endswith(CSV_ENDINGS):
        return CSV
    raise DataError(
        f"cannot tell what {path} is: it starts with {head[:8]!r} and ends in {path.suffix!r}",
        op=OP,
        help=f"give {SUPPORTED}",
    )


def _kind_of_folder(folder: Path) -> Kind:
    """Tell what a folder holds: MNIST files, or folders of pictures."""
    if mnist_files(folder, op=OP):
        return FOLDER
    if looks_like_pictures(folder):
        return PICTURES
    raise DataError(f"{folder} holds no data that can be read", op=OP, help=f"give {SUPPORTED}")


def load_text(
    source: str | os.PathLike[str], *, context: int = CONTEXT, train: float | None = None
) -> TextParts:
    """Read a text and return its training and test part, in windows of characters.

    ==========================  ==============================================
    source                      reader
    ==========================  ==============================================
    ``"stdlib"``                `stdlib`: the standard library's own source
    any other                   `read_text`: a UTF-8 file, plain or gzip
    ==========================  ==============================================

    Args:
        source: a path, or ``"stdlib"`` (write ``./stdlib`` for a file of that name).
        context, train: see `split_text`.

    Raises:
        DataError: the source is missing, unreadable, no text, or too short; or it is what `load` reads.
        SettingError: `context` or `train` is out of range.
    """
    if os.fspath(source) == STDLIB:
        return stdlib(context=context, train=train)
    path = Path(source)
    if os.fspath(source) in BUILT_IN and not path.exists():
        raise _no_text(path, BUILT_IN[os.fspath(source)].name)
    with unreadable(path, "load_text"):
        if path.is_dir():
            raise _no_text(path, "a folder")
    head = head_of(path, "load_text")
    for magic, what in NO_TEXT.items():
        if head.startswith(magic):
            raise _no_text(path, what)
    if looks_like_idx(head):
        raise _no_text(path, "an IDX file")
    return read_text(path, context=context, train=train)


def _no_text(path: Path, what: str) -> DataError:
    """Say that something is no text."""
    return DataError(
        f"{path} is {what}, and text is wanted",
        op="load_text", help=f"give a UTF-8 text file or {STDLIB!r}; for images take the model cnn or resnet",
    )  # fmt: skip
