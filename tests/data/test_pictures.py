"""Folders of pictures; oracles: the pixels that were saved, means over blocks, sorted paths."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimp.data import ArrayDataset, TrainTest, image_folder, load
from minimp.errors import DataError, SettingError

Image = pytest.importorskip("PIL.Image", reason="folders of pictures need Pillow")
Pixels = npt.NDArray[np.uint8]


def save(path: Path, values: npt.ArrayLike, mode: str | None = None) -> Pixels:
    """Save 8-bit pixels without loss, and return them."""
    array = np.asarray(values, np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    made = Image.fromarray(array)
    (made if mode is None else made.convert(mode)).save(path)
    return array


def colours(*shape: int, seed: int = 0) -> Pixels:
    """Return random pixels."""
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make two classes of grey pictures, five in all, some of them deeper; and files that are no pictures."""
    place = tmp_path / "set"
    for number, name in enumerate(
        ("b/2.png", "b/10.png", "a/x/3.PNG", "a/1.bmp", "b/deep/er/0.png", "a/zz.png")
    ):
        save(place / name.lower(), np.full((4, 6), 40 * number))
    (place / "a" / "notes.txt").write_text("not a picture")
    (place / "a" / ".hidden.png").write_text("not a picture")
    (place / ".cache").mkdir()
    (place / "README").write_text("not a class")
    return place


def read_whole(*arguments: Any, **options: Any) -> ArrayDataset:
    """Read a folder without parts."""
    made = image_folder(*arguments, **options)
    assert isinstance(made, ArrayDataset)
    return made


def test_classes_and_order_come_from_the_paths(folder: Path) -> None:
    """Oracle: the names, sorted by hand; pixels / 255."""
    data = read_whole(folder)
    assert (data.class_names, data.num_classes, data.input_shape) == (("a", "b"), 2, (1, 4, 6))
    assert data.targets.tolist() == [0, 0, 0, 1, 1, 1]
    wanted = [3, 2, 5, 1, 0, 4]  # a/1, a/x/3, a/zz, b/10, b/2, b/deep
    assert data.inputs[:, 0, 0, 0].tolist() == [np.float32(40 * k) / np.float32(255) for k in wanted]
    assert data.name == "set"


def test_load_reads_and_splits(folder: Path) -> None:
    """Oracle: `image_folder`, then `split`; both shapes."""
    data = read_whole(folder)
    for options in ({"train": 4, "seed": 3}, {}):
        train, test = load(folder, **options)  # type: ignore[arg-type]  # the options are of several types
        parts = data.split(options.get("train", 0.8), seed=options.get("seed", 0))
        assert [train.fingerprint, test.fingerprint] == [each.fingerprint for each in parts]
    assert load(folder, shape="flat").train.input_shape == (24,)
    with pytest.raises(SettingError, match="label= cannot act on a folder of pictures"):
        load(folder, label="x")
    with pytest.raises(SettingError, match="image_size= cannot act on the built-in digits"):
        load("digits", image_size=8)


def test_parts_of_ones_own(tmp_path: Path) -> None:
    """Oracle: the pictures of each part; a class called train is a class where there is no test."""
    for part, count in (("train", 3), ("test", 2)):
        for name in ("cat", "dog"):
            for number in range(count):
                save(tmp_path / part / name / f"{number}.png", np.full((2, 2), 10 * number + count))
    made = image_folder(tmp_path)
    assert isinstance(made, TrainTest)
    assert [len(each) for each in made] == [6, 4]
    assert made.train.class_names == made.test.class_names == ("cat", "dog")
    assert (made.test.inputs[:, 0, 0, 0] * 255).round().tolist() == [2, 12, 2, 12]
    assert [each.name for each in made] == [f"{tmp_path.name}/train", f"{tmp_path.name}/test"]
    with pytest.raises(SettingError, match="train= cannot act"):
        load(tmp_path, train=0.5)
    save(tmp_path / "test" / "emu" / "1.png", np.zeros((2, 2)))
    with pytest.raises(DataError, match="different classes: emu"):
        image_folder(tmp_path)
    (tmp_path / "test").rename(tmp_path / "tests")
    with pytest.raises(DataError, match="a folder train/ with classes in it, and no test/"):
        image_folder(tmp_path)


@pytest.mark.parametrize("end", ["png", "ppm", "tif", "bmp"])
def test_colour_is_kept_to_the_bit(end: str, tmp_path: Path) -> None:
    """Oracle: the pixels that were saved, channels first."""
    values = [save(tmp_path / "only" / f"{k}.{end}", colours(5, 4, 3, seed=k)) for k in range(2)]
    data = read_whole(tmp_path)
    wanted = np.stack(values).transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)
    assert np.array_equal(data.inputs, wanted)


def test_channels(tmp_path: Path) -> None:
    """Oracle: ITU-R 601 luma in 16-bit fixed point, as Pillow has it; grey thrice, beside one in colour."""
    grey, colour = (
        save(tmp_path / "c" / "1.png", colours(4, 4)),
        save(tmp_path / "c" / "2.png", colours(4, 4, 3)),
    )
    both = read_whole(tmp_path)
    assert both.input_shape == (3, 4, 4)
    assert all(np.array_equal(both.inputs[0, c] * 255, grey.astype(np.float32)) for c in range(3))
    one = read_whole(tmp_path, colour="gray")
    assert one.input_shape == (1, 4, 4)
    luma = (colour.astype(np.int64) @ [19595, 38470, 7471] + 2**15) >> 16
    assert np.array_equal(one.inputs[1, 0], luma.astype(np.float32) / np.float32(255))
    (tmp_path / "c" / "2.png").unlink()
    assert read_whole(tmp_path).input_shape == (1, 4, 4)
    assert read_whole(tmp_path, colour="rgb").input_shape == (3, 4, 4)


@pytest.mark.parametrize("mode", ["P", "RGBA", "LA", "1", "CMYK"])
def test_other_modes_are_converted(mode: str, tmp_path: Path) -> None:
    """Oracle: Pillow's own conversion of what was saved; transparency is dropped."""
    end = "tif" if mode == "CMYK" else "png"
    save(tmp_path / "c" / f"1.{end}", colours(4, 4, 3), mode)
    with Image.open(tmp_path / "c" / f"1.{end}") as opened:
        wanted = np.asarray(opened.convert("L" if mode in ("LA", "1") else "RGB"), np.float32) / np.float32(
            255
        )
    wanted = wanted[np.newaxis] if wanted.ndim == 2 else wanted.transpose(2, 0, 1)
    assert np.array_equal(read_whole(tmp_path).inputs[0], wanted)


def test_scaling_takes_the_middle(tmp_path: Path) -> None:
    """Oracle: blocks of one grey each: halved exactly, and the outer columns are cut away."""
    blocks = np.repeat(np.repeat(np.arange(24).reshape(3, 8) * 10, 8, axis=0), 8, axis=1)  # 24 x 64
    save(tmp_path / "c" / "wide.png", blocks)
    save(tmp_path / "c" / "tall.png", blocks.T)
    save(tmp_path / "c" / "small.png", np.full((2, 2), 77))
    small, tall, wide = np.rint(read_whole(tmp_path, image_size=12).inputs * 255)
    assert wide.shape == (1, 12, 12)
    # The shorter side 24 becomes 12, the longer 64 becomes 32, of which 10 .. 21 are kept: blocks of 4, whose
    # two inner pixels the filter (2 pixels to each side) makes from their own block alone.
    inner = wide[0, 1::4, :][:, [0, 3, 4, 7, 8, 11]]
    row = np.arange(8) * 10
    wanted = row[[2, 3, 3, 4, 4, 5]] + np.array([[0], [80], [160]])
    assert np.array_equal(inner, wanted)
    assert np.array_equal(wide[0].T, tall[0])
    assert np.array_equal(small[0], np.full((12, 12), 77))


def test_sizes_that_differ_need_a_size(tmp_path: Path) -> None:
    """Oracle: the message names both files and the way out, which works."""
    save(tmp_path / "c" / "1.png", colours(4, 4))
    save(tmp_path / "c" / "2.png", colours(4, 5))
    with pytest.raises(DataError, match=r"1\.png has 4 x 4 pixels, .*2\.png 5 x 4\n.*--image-size") as caught:
        image_folder(tmp_path)
    assert caught.value.op == "image_folder"
    assert read_whole(tmp_path, image_size=4).input_shape == (1, 4, 4)


def test_damage_is_named(folder: Path) -> None:
    """Oracle: the file's name; a cut file, one of other content, one of 16 bits."""
    path = folder / "b" / "2.png"
    whole = path.read_bytes()
    for data in (whole[: len(whole) // 2], b"", b"not a picture", whole[:16] + b"\xff\xff" + whole[18:]):
        path.write_bytes(data)
        with pytest.raises(DataError, match=r"cannot read the picture .*b/2\.png: ") as caught:
            image_folder(folder)
        assert len(str(caught.value).splitlines()) == 2
    Image.fromarray(np.full((4, 6), 3000, np.uint16)).save(path)
    with pytest.raises(DataError, match=r"b/2\.png is of Pillow's mode 'I;16'"):
        image_folder(folder)


@given(
    at=st.integers(0, 10**6),
    byte=st.integers(0, 255),
    cut=st.booleans(),
    end=st.sampled_from(["png", "jpg", "gif", "webp", "tif"]),
)
def test_any_damage_is_a_picture_or_a_clear_error(
    tmp_path_factory: pytest.TempPathFactory, at: int, byte: int, cut: bool, end: str
) -> None:
    """Oracle: nothing but a DataError that names the file, under warnings as errors."""
    place = tmp_path_factory.mktemp("any")
    path = place / "c" / f"1.{end}"
    save(path, colours(9, 9, 3))
    data = bytearray(path.read_bytes())
    data[at % len(data)] = byte
    path.write_bytes(data[: at % len(data)] if cut else data)
    said = str(path)
    try:
        image_folder(place, image_size=9)
    except DataError as fault:
        said = str(fault)
    assert str(path) in said


def test_a_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: Pillow's limit, brought down; what this machine holds, brought down."""
    save(tmp_path / "c" / "1.png", colours(20, 20))
    monkeypatch.setattr("minimp.data.pictures.os.sysconf", lambda name: 40)
    with pytest.raises(DataError, match=r"1 pictures of \(1, 20, 20\) take 0\.0 GiB"):
        image_folder(tmp_path)
    monkeypatch.undo()
    for limit in (300, 100):  # a warning, an error
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(DataError, match="decompression bomb"):
            image_folder(tmp_path)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"image_size": 0}, SettingError, "image_size must be a whole number of at least 1"),
        ({"colour": "grey"}, SettingError, "did you mean 'gray'"),
    ],
)
def test_settings_that_cannot_be(folder: Path, options: Any, error: type[Exception], words: str) -> None:
    """Oracle: the kind of error, and its words."""
    with pytest.raises(error, match=words):
        image_folder(folder, **options)


def test_folders_that_hold_no_classes(tmp_path: Path) -> None:
    """Oracle: what is missing is named; `load` tells an empty folder from one without pictures."""
    with pytest.raises(DataError, match="has no folders"):
        image_folder(tmp_path)
    with pytest.raises(DataError, match="holds no data that can be read"):
        load(tmp_path)
    (tmp_path / "class").mkdir()
    for read in (image_folder, load):
        with pytest.raises(DataError, match=r"class has no pictures\n.*\.bmp, \.gif"):
            read(tmp_path)
    with pytest.raises(DataError, match="there is no such file"):
        image_folder(tmp_path / "nowhere")


def test_without_pillow(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: Python's own rule: None in sys.modules makes an import fail; the extra is named."""
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(DataError, match=r"need Pillow, which is not installed\n.*'minimp\[images\]'"):
        load(folder)
