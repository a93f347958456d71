"""Archives of arrays; oracle: `numpy.savez` on known arrays, and zip files made or damaged by hand."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from minimp.data import ArrayDataset, TrainTest, read_npz
from minimp.errors import DataError

X = np.array([[0.5, 1 / 3], [2.0, -1.0], [4.0, 8.0]])
Y = np.array([0, 1, 1])


def save(path: Path, **arrays: Any) -> Path:
    """Write an archive."""
    np.savez(path, **arrays)
    return path


def npy(header: str, data: bytes, version: tuple[int, int] = (1, 0)) -> bytes:
    """Write an .npy file with any header text (format 1.0: magic, length, text)."""
    text = header.encode() + b"\n"
    size = struct.pack("<H" if version == (1, 0) else "<I", len(text))
    return b"\x93NUMPY" + bytes(version) + size + text + data


def archive(path: Path, **entries: bytes) -> Path:
    """Write a zip of raw .npy files."""
    with zipfile.ZipFile(path, "w") as target:
        for name, data in entries.items():
            target.writestr(f"{name}.npy", data)
    return path


@pytest.mark.parametrize(
    "keys", ["x y", "X Y", "images labels", "inputs targets", "Features Labels", "data target"]
)
@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
def test_every_pair_of_names_is_found(keys: str, write: Any, tmp_path: Path) -> None:
    """Oracle: the arrays that were saved; float64 is rounded once to float32, other arrays do not matter."""
    first, second = keys.split()
    path = tmp_path / "flowers.npz"
    write(path, **{first: X, second: Y, "notes": np.array(["unread"])})
    data = read_npz(path)
    assert isinstance(data, ArrayDataset)
    assert np.array_equal(data.inputs, X.astype(np.float32))
    assert (data.targets.tolist(), data.num_classes, data.name) == ([0, 1, 1], 2, "flowers")


@pytest.mark.parametrize(
    "keys", ["x_train y_train x_test y_test", "train_images train_labels test_images test_labels"]
)
def test_two_parts_share_their_classes(keys: str, tmp_path: Path) -> None:
    """Oracle: the arrays that were saved; class 4 stands in the test part only, and both count 5 classes."""
    arrays = dict(zip(keys.split(), (X, Y, X[:2], np.array([4, 0])), strict=True))
    parts = read_npz(save(tmp_path / "two.npz", **arrays, x=X, y=Y))
    assert isinstance(parts, TrainTest)
    assert [(len(each), each.num_classes, each.name) for each in parts] == [
        (3, 5, "two/train"),
        (2, 5, "two/test"),
    ]
    assert parts.test.targets.tolist() == [4, 0]


def test_number_types(tmp_path: Path) -> None:
    """Oracle: uint8 is an image, v / 255; int64, float16 and big-endian floats keep their values."""
    bytes_ = np.array([[[0, 51], [102, 255]]], np.uint8)
    image = read_npz(save(tmp_path / "a.npz", images=bytes_, labels=[3]))
    assert isinstance(image, ArrayDataset)
    assert image.inputs.tolist() == [[[0, np.float32(0.2)], [np.float32(0.4), 1]]]
    for dtype in (np.int64, np.float16, ">f8", ">i2"):
        kept = read_npz(save(tmp_path / "b.npz", x=np.array([[3, 300]], dtype), y=np.array([1.0], ">f4")))
        assert isinstance(kept, ArrayDataset)
        assert (kept.inputs.tolist(), kept.targets.tolist()) == ([[3, 300]], [1])


def test_text_labels_are_numbered_in_sorted_order_over_both_parts(tmp_path: Path) -> None:
    """Oracle: sorted(["cat", "dog", "ant"]) is ant, cat, dog."""
    path = save(tmp_path / "a.npz", x_train=X, y_train=["dog", "cat", "dog"], x_test=X[:1], y_test=["ant"])
    train, test = read_npz(path)
    assert train.class_names == test.class_names == ("ant", "cat", "dog")
    assert (train.targets.tolist(), test.targets.tolist()) == ([2, 1, 2], [0])
    path = save(tmp_path / "b.npz", x_train=X, y_train=["dog", "cat", "dog"], x_test=X[:1], y_test=[0])
    with pytest.raises(DataError, match="text labels must be one word a row in every part"):
        read_npz(path)


def test_values_as_targets(tmp_path: Path) -> None:
    """Oracle: with num_classes=0 the targets are the numbers that were saved."""
    data = read_npz(save(tmp_path / "a.npz", x=X, y=X / 2), num_classes=0)
    assert isinstance(data, ArrayDataset)
    assert np.array_equal(data.targets, (X / 2).astype(np.float32))


class Trap:
    """An object whose unpickling leaves a mark."""

    sprung = False

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        """Say how it would be rebuilt: by springing the trap."""
        return spring, ()


def spring() -> None:
    """Leave the mark."""
    Trap.sprung = True


def test_objects_are_refused_and_never_unpickled(tmp_path: Path) -> None:
    """Oracle: a pickled object that would leave a mark when read; no mark, and an error that says why."""
    path = tmp_path / "objects.npz"
    np.savez(path, x=X, y=np.array([Trap(), Trap(), Trap()], dtype=object))
    with pytest.raises(DataError, match=r"array 'y' holds Python objects .*unpickling"):
        read_npz(path)
    assert not Trap.sprung
    np.load(path, allow_pickle=True)["y"]
    assert Trap.sprung, "the trap works where unpickling is allowed"
    Trap.sprung = False


BAD_ARRAYS = {
    "ranks": ({"x": X, "y": np.eye(3)}, r"labels must have shape \(N,\), got \(3, 3\)"),
    "lengths": ({"x": X, "y": [0, 1]}, "got 3 inputs and 2 targets"),
    "nan": ({"x": np.where(X == 8, np.nan, X), "y": Y}, r"bad\.npz: row 2, column 1 .*holds nan"),
    "halves": ({"x": X, "y": [0, 0.5, 1]}, "row 1 .*has 0.5"),
    "empty": ({"x": X[:0], "y": Y[:0]}, "is empty"),
    "text inputs": ({"x": [["a"]], "y": [0]}, "inputs must hold real numbers, got text"),
    "bfloat16": ({"x": X.astype(ml_dtypes.bfloat16), "y": Y}, "raw or structured bytes"),
    "no names": (
        {"a": X, "b": Y},
        r"expected arrays named as one of x_train/y_train.*found a, b(?s:.*)numpy\.savez",
    ),
    "half a pair": ({"x": X, "labels": Y}, "found labels, x"),
    "two pairs": ({"x": X, "y": Y, "data": X, "target": Y}, "cannot choose between x/y and data/target"),
    "case": ({"x": X, "X": X, "y": Y}, "two arrays are called 'x'"),
    "parts": (
        {"x_train": X, "y_train": Y, "x_test": X[:, :1], "y_test": Y},
        r"differ in shape: \(2,\) and \(1,\)",
    ),
}


@pytest.mark.parametrize("case", BAD_ARRAYS)
def test_bad_arrays_are_refused(case: str, tmp_path: Path) -> None:
    """Oracle: the fault planted by each row of the table above."""
    arrays, match = BAD_ARRAYS[case]
    with pytest.raises(DataError, match=match):
        read_npz(save(tmp_path / "bad.npz", **arrays))


def test_a_label_above_the_given_number_of_classes(tmp_path: Path) -> None:
    """Oracle: 1 is outside 0..0."""
    with pytest.raises(DataError, match=r"labels must be in 0\.\.0 .*a\.npz: row 1 "):
        read_npz(save(tmp_path / "a.npz", x=X, y=Y), num_classes=1)


def test_a_file_cut_anywhere_is_noticed(tmp_path: Path) -> None:
    """Oracle: a zip ends with its directory, so every proper prefix lacks it."""
    whole = save(tmp_path / "whole.npz", x=X, y=Y).read_bytes()
    path = tmp_path / "cut.npz"
    for end in range(0, len(whole), 7):
        path.write_bytes(whole[:end])
        with pytest.raises(DataError, match=r"cannot read .*cut\.npz: it is not a whole zip archive"):
            read_npz(path)


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
def test_a_flipped_bit_never_changes_the_data(write: Any, tmp_path: Path) -> None:
    """Oracle: CRC-32 of zip; each flipped bit is refused, or fell where it does not matter (names, dates)."""
    path = tmp_path / "flip.npz"
    write(path, x=X, y=Y)
    whole, fingerprint = path.read_bytes(), read_npz(path).fingerprint  # type: ignore[union-attr]
    refused = 0
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        try:
            data = read_npz(path)
        except DataError:
            refused += 1
        else:
            assert isinstance(data, ArrayDataset)
            assert data.fingerprint == fingerprint
    assert refused > len(whole) // 2


PLAIN = "{'descr': '<f8', 'fortran_order': False, 'shape': (2, 1), }"
BAD_HEADERS = {
    "too little data": (npy(PLAIN, bytes(15)), "expected 16 bytes of data .*found 15"),
    "too much data": (npy(PLAIN, bytes(17)), "expected 16 bytes of data .*found 17"),
    "a lie": (npy(PLAIN.replace("2, 1", "1 << 40, 1"), bytes(16)), "cannot be read"),
    "a huge shape": (
        npy(PLAIN.replace("2, 1", "9999999999, 999"), bytes(16)),
        "expected 79919999992008 bytes",
    ),
    "no header": (b"", "cannot be read"),
    "another magic": (b"\x93NUMPX" + bytes(80), "cannot be read"),
    "code": (npy("__import__('os').system('true')", bytes(16)), "cannot be read"),
    "format 3": (npy(PLAIN, bytes(16), (3, 0)), r"version \(3, 0\)"),
    "format 9": (npy(PLAIN, bytes(16), (9, 0)), r"version \(9, 0\)"),
    "negative": (npy(PLAIN.replace("2, 1", "-2, -1"), bytes(16)), "cannot be read|negative"),
}


@pytest.mark.parametrize("case", BAD_HEADERS)
def test_bad_headers_are_refused(case: str, tmp_path: Path) -> None:
    """Oracle: the .npy format 1.0; `expected` and `found` count the bytes after the header."""
    data, match = BAD_HEADERS[case]
    good = io.BytesIO()
    np.save(good, Y)
    with pytest.raises(DataError, match=f"array 'x'.*{match}"):
        read_npz(archive(tmp_path / "header.npz", x=data, y=good.getvalue()))


def test_version_2_headers_are_read(tmp_path: Path) -> None:
    """Oracle: format 2.0 differs from 1.0 in its 4-byte length alone."""
    x = npy(PLAIN, struct.pack("<2d", 5.0, 7.0), (2, 0))
    labels = io.BytesIO()
    np.save(labels, Y[:2])
    data = read_npz(archive(tmp_path / "v2.npz", x=x, y=labels.getvalue()))
    assert isinstance(data, ArrayDataset)
    assert data.inputs.tolist() == [[5], [7]]


def test_other_zips_are_refused(tmp_path: Path) -> None:
    """Oracle: a zip without .npy files, such as a torch checkpoint, holds no arrays."""
    path = tmp_path / "model.npz"
    with zipfile.ZipFile(path, "w") as target:
        target.writestr("model/data.pkl", b"\x80\x02.")
    with pytest.raises(DataError, match=r"a zip archive without NumPy arrays(?s:.*)never read"):
        read_npz(path)
    with pytest.raises(DataError, match="it is a directory"):
        read_npz(tmp_path)
