"""The data set that ships with the package."""

from __future__ import annotations

import gzip
import hashlib
import io
import zlib
from importlib.resources import files

import numpy as np
import numpy.typing as npt

from minimp.data.dataset import ArrayDataset, read_only
from minimp.data.idx import parse_idx
from minimp.errors import DataError, SettingError, unknown_name

__all__ = ["DIGITS_SHA256", "DIGITS_TRAIN", "digits"]

DIGITS_SHA256 = "68aea062d35a127749050fa0e52dca09d6569ac08092c925610e0954e172dde2"
DIGITS_TRAIN = 1400
SIDE = 8
LARGEST_PIXEL = 16
SHAPES = {"flat": (SIDE * SIDE,), "image": (1, SIDE, SIDE)}
SPLITS = ("train", "test")


def digits(split: str | None = None, *, shape: str = "flat") -> ArrayDataset:
    """Give the optical digits of UCI: 1,797 handwritten digits of 8 x 8 pixels, in 10 classes.

    The counts of the digits 0 to 9 are 178, 182, 177, 183, 181, 182, 181, 179, 174 and 180. A pixel counts
    the dark points of a 4 x 4 block, 0 to 16; it is given as count / 16, exact in float32. Labels are int64.

    Source: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning
    Repository, 1998, doi:10.24432/C50P49; the test set, in the order of the repository. Licence: CC BY 4.0
    (see ``minimp/data/LICENSE-digits.txt``). Its 13 writers are spread over both parts of the split below, so
    the test part measures new images, not new hands.

    Args:
        split: ``"train"`` (1,400 images), ``"test"`` (397), or None for all 1,797. The split is fixed and
            stratified: ``digits().split(1400, seed=0)``.
        shape: ``"flat"`` for inputs (N, 64), ``"image"`` for (N, 1, 8, 8).

    Raises:
        SettingError: `split` or `shape` is unknown.
        DataError: the installed file is damaged (its SHA-256 is checked on every load).
    """
    if shape not in SHAPES:
        raise SettingError(unknown_name("shape", shape, SHAPES), op="digits")
    if split is not None and split not in SPLITS:
        raise SettingError(unknown_name("split", split, SPLITS), op="digits")
    table = _table()
    inputs = table[:, :-1].astype(np.float32) / np.float32(LARGEST_PIXEL)
    whole = ArrayDataset(
        read_only(inputs.reshape(len(table), *SHAPES[shape])),
        table[:, -1],
        name="digits",
        num_classes=10,
        class_names=tuple("0123456789"),
    )
    if split is None:
        return whole
    return whole.split(DIGITS_TRAIN, seed=0)[SPLITS.index(split)]


def _table() -> npt.NDArray[np.uint8]:
    """Read the shipped bytes: (1797, 65), 64 pixels and the digit in each row."""
    advice = "install minimp again"
    try:
        packed = files("minimp.data").joinpath("digits.idx.gz").read_bytes()
        with gzip.GzipFile(fileobj=io.BytesIO(packed)) as stream:
            table = parse_idx(stream, "the digits that ship with minimp")
    except (OSError, EOFError, zlib.error) as fault:
        raise DataError(
            f"the data file in the package cannot be read: {fault}", op="digits", help=advice
        ) from fault
    found = hashlib.sha256(table.tobytes()).hexdigest()
    if found != DIGITS_SHA256:
        raise DataError(
            f"the data file in the package has changed: expected SHA-256 {DIGITS_SHA256}, found {found}",
            op="digits",
            help=advice,
        )
    return table
