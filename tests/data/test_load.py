"""The one door; oracle: the readers it must choose between, and the faults that the system reports."""

from __future__ import annotations

import gzip
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minimp.data import Standardize, digits, load, mnist, read_csv, read_npz
from minimp.errors import DataError, SettingError
from tests.data.test_idx import pack, write_mnist

TABLE = "a,b,label\n" + "".join(f"{k},{k * k},{k % 2}\n" for k in range(10))


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Write ten rows of CSV."""
    path = tmp_path / "table.csv"
    path.write_text(TABLE)
    return path


def test_digits_by_name() -> None:
    """Oracle: the two parts of `digits`."""
    for shape in ("flat", "image"):
        expected = [digits(part, shape=shape).fingerprint for part in ("train", "test")]
        assert [part.fingerprint for part in load("digits", shape=shape)] == expected
    assert load("digits").train.input_shape == (1, 8, 8)


def test_a_file_called_digits_is_reached_by_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: a path with a slash is never a name."""
    monkeypatch.chdir(tmp_path)
    np.savez("digits.npz", x=[[1.0], [2.0]], y=[0, 1])
    Path("digits.npz").rename("digits")
    assert len(load("./digits").train) == 1


def test_csv(table: Path) -> None:
    """Oracle: `read_csv` then `split`; 0.8 of ten rows is eight, four of each class."""
    train, test = load(table)
    parts = read_csv(table).split(0.8, seed=0)
    assert (train.fingerprint, test.fingerprint) == (parts.train.fingerprint, parts.test.fingerprint)
    assert np.bincount(train.targets).tolist() == [4, 4]
    other = load(str(table), train=5, seed=3, label="b", header=True, delimiter=",", num_classes=100)
    assert (len(other.train), other.train.num_classes) == (5, 100)


def test_npz_with_and_without_a_test_part(tmp_path: Path) -> None:
    """Oracle: `read_npz`."""
    x, y = np.arange(20.0).reshape(10, 2), np.arange(10) % 2
    np.savez(tmp_path / "one.npz", x=x, y=y)
    np.savez(tmp_path / "two.npz", x_train=x, y_train=y, x_test=x[:3], y_test=y[:3])
    assert [len(part) for part in load(tmp_path / "one.npz", train=0.5)] == [5, 5]
    train, test = load(tmp_path / "two.npz")
    expected = read_npz(tmp_path / "two.npz")
    assert [train.fingerprint, test.fingerprint] == [part.fingerprint for part in expected]  # type: ignore[union-attr]
    with pytest.raises(SettingError, match=r"train= cannot act on an \.npz file .*test part of its own"):
        load(tmp_path / "two.npz", train=0.5)


@pytest.mark.parametrize("gz", [False, True])
def test_a_folder_of_mnist_files(gz: bool, tmp_path: Path) -> None:
    """Oracle: `mnist`."""
    write_mnist(tmp_path, gz=gz)
    train, test = load(tmp_path)
    assert train.fingerprint == mnist(tmp_path, "train").fingerprint
    assert test.fingerprint == mnist(tmp_path, "test").fingerprint
    assert load(tmp_path, shape="flat", num_classes=12).train.input_shape == (4,)


def test_content_goes_before_ending(table: Path, tmp_path: Path) -> None:
    """Oracle: the same bytes under a misleading name, plain or gzip."""
    archive = tmp_path / "really_npz.csv"
    with archive.open("wb") as stream:
        np.savez(stream, x=[[1.0], [2.0]], y=[0, 1])
    assert len(load(archive).train) == 1
    packed = tmp_path / "table.csv.gz"
    packed.write_bytes(gzip.compress(TABLE.encode()))
    assert load(packed).train.fingerprint == load(table).train.fingerprint


def test_standardize_is_measured_on_the_training_part(table: Path) -> None:
    """Oracle: `Standardize.fit` of the training part, applied to both."""
    raw, scaled = load(table), load(table, standardize=True)
    rule = Standardize.fit(raw.train)
    assert [part.fingerprint for part in scaled] == [rule(part).fingerprint for part in raw]
    assert raw.train.fingerprint != scaled.train.fingerprint


def make_bad(tmp_path: Path) -> dict[str, Path]:
    """Write one source of each kind that cannot be loaded."""
    write_mnist(tmp_path / "mnist")
    contents = {
        "nothing.csv": b"",
        "nothing.gz": gzip.compress(b""),
        "images-idx3-ubyte": pack(0x08, (1, 1, 1), [0]),
        "array.npy": b"\x93NUMPY\x01\x00" + bytes(70),
        "model.pkl": b"\x80\x04K\x01.",
        "photo.png": b"\x89PNG\r\n\x1a\n" + bytes(30),
        "notes": b"just some words\n",
        "words.npz": b"just some words\n",
        "one.csv": b"a,label\n1,0\n",
    }
    for name, data in contents.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "empty").mkdir()
    with zipfile.ZipFile(tmp_path / "model.pt", "w") as target:
        target.writestr("archive/data.pkl", b"")
    return {
        name: tmp_path / name for name in (*contents, "empty", "model.pt", "nowhere.csv", "one.csv/x.csv")
    }


BAD = {
    "nothing.csv": r"is empty \(0 bytes\)",
    "nothing.gz": r"is empty \(0 bytes\)",
    "images-idx3-ubyte": "one IDX file(?s:.*)give the folder",
    "array.npy": r"one \.npy array(?s:.*)numpy\.savez",
    "model.pkl": r"cannot tell what .*ends in '\.pkl'(?s:.*)MNIST.*\.npz.*\.csv",
    "photo.png": r"cannot tell what .*starts with b'\\x89PNG",
    "notes": "cannot tell what .*ends in ''",
    "words.npz": "it is not a whole zip archive",
    "one.csv": "one row cannot be split",
    "empty": "holds no data that can be read(?s:.*)MNIST",
    "model.pt": "a zip archive without NumPy arrays",
    "nowhere.csv": "there is no such file or directory",
    "one.csv/x.csv": "a part of the path is not a directory",
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_loaded(name: str, tmp_path: Path) -> None:
    """Oracle: the table above; each message names the source's path or file."""
    with pytest.raises(DataError, match=BAD[name]) as caught:
        load(make_bad(tmp_path)[name])
    assert name.split(".", maxsplit=1)[0] in str(caught.value)
    assert "\n  help: " in str(caught.value) or name == "one.csv"


def test_a_name_that_is_no_path() -> None:
    """Oracle: no file name holds a zero byte (POSIX.1-2017, 3.170)."""
    with pytest.raises(DataError, match="null"):
        load("a\0b")


@pytest.mark.parametrize("folder", [False, True])
def test_permission(folder: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: what the system raises for a path that may not be read (raised here: root may read all)."""
    write_mnist(tmp_path)

    def refuse(self: Path, *_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "iterdir" if folder else "open", refuse)
    with pytest.raises(DataError, match=r"you may not read it(?s:.*)chmod"):
        load(tmp_path if folder else tmp_path / "train-labels-idx1-ubyte")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are a thing of POSIX")
def test_a_pipe_is_refused_not_waited_for(tmp_path: Path) -> None:
    """Oracle: opening a pipe that nobody writes to would wait for ever."""
    path = tmp_path / "pipe.npz"
    os.mkfifo(path)
    for read in (load, read_npz, read_csv):
        with pytest.raises(DataError, match="it is a device, pipe or socket"):
            read(path)


@pytest.mark.parametrize(
    ("source", "options", "match"),
    [
        ("digits", {"label": 3}, "label= cannot act on the built-in digits"),
        ("digits", {"train": 0.5}, "train= cannot act on the built-in digits"),
        ("digits", {"seed": 1}, "seed= cannot act on the built-in digits"),
        ("digits", {"num_classes": 10}, "num_classes= cannot act"),
        ("digits", {"shape": "imgae"}, "did you mean 'image'"),
        ("table.csv", {"train": 10}, "a number of rows from 1 to 9"),
        ("table.csv", {"seed": -1}, "seed must be an integer"),
        ("mnist", {"delimiter": ";"}, "delimiter= cannot act on a folder of IDX files"),
    ],
)
def test_options_that_cannot_act(
    source: str, options: dict[str, Any], match: str, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: the table of sources in the docstring of `load`."""
    monkeypatch.chdir(table.parent)
    write_mnist(table.parent / "mnist")
    with pytest.raises(SettingError, match=match):
        load(source, **options)


def test_flat_data_are_no_images(table: Path) -> None:
    """Oracle: two columns have no height and width."""
    with pytest.raises(DataError, match=r"images need inputs of shape \(H, W\)"):
        load(table, shape="image")
