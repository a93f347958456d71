"""IDX files; oracle: bytes packed by `struct`, or written out by hand."""

from __future__ import annotations

import gzip
import math
import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimp.data import mnist, read_idx
from minimp.data.idx import parse_idx
from minimp.errors import DataError, SettingError

# type code: letter of `struct`, and values to pack
CODES: dict[int, tuple[str, st.SearchStrategy[Any]]] = {
    0x08: ("B", st.integers(0, 255)),
    0x09: ("b", st.integers(-128, 127)),
    0x0B: ("h", st.integers(-(2**15), 2**15 - 1)),
    0x0C: ("i", st.integers(-(2**31), 2**31 - 1)),
    0x0D: ("f", st.floats(width=32)),
    0x0E: ("d", st.floats()),
}


def pack(code: int, shape: tuple[int, ...], values: Any) -> bytes:
    """Write an IDX file with `struct` alone: big-endian header and elements."""
    header = bytes([0, 0, code, len(shape)]) + struct.pack(f">{len(shape)}I", *shape)
    return header + struct.pack(f">{len(values)}{CODES[code][0]}", *values)


@st.composite
def idx_files(draw: st.DrawFn) -> tuple[int, tuple[int, ...], list[Any]]:
    """Draw the content of an IDX file."""
    code = draw(st.sampled_from(sorted(CODES)))
    shape = tuple(draw(st.lists(st.integers(0, 4), min_size=1, max_size=4)))
    size = math.prod(shape)
    return code, shape, draw(st.lists(CODES[code][1], min_size=size, max_size=size))


@given(content=idx_files(), packed=st.booleans())
def test_every_type_and_shape_is_read(
    content: tuple[int, tuple[int, ...], list[Any]], packed: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Oracle: the values that `struct` packed, compared bit by bit in the machine's byte order."""
    code, shape, values = content
    data = pack(*content)
    path = tmp_path_factory.getbasetemp() / "any-name"
    path.write_bytes(gzip.compress(data, 1) if packed else data)
    array = read_idx(path)
    assert array.shape == shape
    assert array.dtype.isnative
    assert array.tobytes() == struct.pack(f"={len(values)}{CODES[code][0]}", *values)


def test_bytes_by_hand(tmp_path: Path) -> None:
    """Oracle: 00 00 0b 02, axes 1 and 3, then 1, -2 and 256 as big-endian 16-bit words, typed out."""
    path = tmp_path / "words"
    path.write_bytes(bytes.fromhex("00000b02 00000001 00000003 0001 fffe 0100"))
    assert read_idx(path).tolist() == [[1, -2, 256]]
    assert read_idx(str(path)).dtype == np.int16


WHOLE = pack(0x0B, (2, 3), [1, 2, 3, 4, 5, 6])


@pytest.mark.parametrize("end", range(len(WHOLE)))
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
def test_a_file_cut_anywhere_is_noticed(end: int, packed: bool, tmp_path: Path) -> None:
    """Oracle: every proper prefix of a valid file is invalid."""
    path = tmp_path / "cut"
    path.write_bytes(gzip.compress(WHOLE[:end]) if packed else WHOLE[:end])
    with pytest.raises(DataError, match=r"cut: truncated: expected \d+ bytes .*found \d+") as caught:
        read_idx(path)
    if end >= 12:
        assert f"expected 12 bytes of data for shape (2, 3) of int16, found {end - 12}" in str(caught.value)


def test_a_gzip_stream_cut_anywhere_is_noticed(tmp_path: Path) -> None:
    """Oracle: every proper prefix of a gzip file lacks its end, checksum or length (RFC 1952, 2.3)."""
    packed = gzip.compress(WHOLE)
    path = tmp_path / "cut.gz"
    for end in range(1, len(packed)):
        path.write_bytes(packed[:end])
        with pytest.raises(DataError, match=r"cut\.gz"):
            read_idx(path)


@given(place=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_a_flipped_bit_in_gzip_data_is_noticed(
    place: int, bit: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Oracle: the CRC-32 of gzip; past the 10 header bytes, no single flipped bit keeps it."""
    packed = bytearray(gzip.compress(pack(0x08, (300,), list(range(256)) + [7] * 44)))
    packed[10 + place % (len(packed) - 10)] ^= 1 << bit
    path = tmp_path_factory.getbasetemp() / "flipped.gz"
    path.write_bytes(bytes(packed))
    with pytest.raises(DataError, match=r"flipped\.gz"):
        read_idx(path)


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("extra", [1, 5, 3_000_000])
def test_a_file_that_is_too_long_is_noticed(extra: int, packed: bool, tmp_path: Path) -> None:
    """Oracle: 12 bytes belong to shape (2, 3) of int16; the message counts what is there."""
    path = tmp_path / "long"
    data = WHOLE + bytes(extra)
    path.write_bytes(gzip.compress(data, 1) if packed else data)
    with pytest.raises(DataError, match=rf"long: too long: expected 12 bytes .* found {12 + extra}\b"):
        read_idx(path)


@pytest.mark.parametrize(
    "start",
    ["89504e47", "00010803", "01000803", "00000a03", "00000f01", "00000800", "00000841", "504b0304"],
    ids=["png", "byte 1", "byte 0", "type 0a", "type 0f", "no axes", "65 axes", "zip"],
)
def test_another_kind_of_file_is_refused(start: str, tmp_path: Path) -> None:
    """Oracle: the magic number is 00 00, one of six types, 1 to 64 axes."""
    path = tmp_path / "other"
    path.write_bytes(bytes.fromhex(start) + bytes(400))
    with pytest.raises(DataError, match=rf"expected an IDX file .*found {bytes.fromhex(start).hex(' ')}"):
        read_idx(path)


def test_a_header_that_lies_claims_no_memory(tmp_path: Path) -> None:
    """Oracle: 2^96 bytes promised and 16 there is an answer at once, not a MemoryError."""
    path = tmp_path / "liar"
    path.write_bytes(bytes.fromhex("00000803" + "ffffffff" * 3) + bytes(16))
    with pytest.raises(DataError, match=rf"expected {(2**32 - 1) ** 3} bytes .*found 16"):
        read_idx(path)


class FourBytes:
    """A stream that gives at most four bytes a read, as a pipe may."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def read(self, count: int) -> bytes:
        """Give up to four bytes."""
        part, self.data = self.data[: min(count, 4)], self.data[min(count, 4) :]
        return part


def test_short_reads_are_put_together() -> None:
    """Oracle: `read` may return less than asked without being at the end."""
    assert parse_idx(FourBytes(WHOLE), "stream").tolist() == [[1, 2, 3], [4, 5, 6]]  # type: ignore[arg-type]


def write_mnist(folder: Path, *, gz: bool = False, dot: str = "-") -> None:
    """Write four small files: 3 training and 2 test images of 2 x 2 pixels."""
    folder.mkdir(exist_ok=True)
    for prefix, count in (("train", 3), ("t10k", 2)):
        images = pack(0x08, (count, 2, 2), [51 * k % 256 for k in range(4 * count)])
        labels = pack(0x08, (count,), [9 - k for k in range(count)])
        for name, data in (
            (f"{prefix}-images{dot}idx3-ubyte", images),
            (f"{prefix}-labels{dot}idx1-ubyte", labels),
        ):
            (folder / (name + ".gz" * gz)).write_bytes(gzip.compress(data) if gz else data)


@pytest.mark.parametrize("gz", [False, True])
@pytest.mark.parametrize("dot", ["-", "."])
def test_a_folder_of_mnist_files(gz: bool, dot: str, tmp_path: Path) -> None:
    """Oracle: pixel 51 k is k/5 of white, so its float32 is the nearest to k/5."""
    folder = tmp_path / "fashion"
    write_mnist(folder, gz=gz, dot=dot)
    train, test = mnist(folder), mnist(str(folder), "test")
    assert (len(train), len(test), train.input_shape, train.num_classes) == (3, 2, (1, 2, 2), 10)
    assert train.inputs[0].tolist() == [
        [[np.float32(0), np.float32(0.2)], [np.float32(0.4), np.float32(0.6)]]
    ]
    assert (train.targets.tolist(), test.targets.tolist()) == ([9, 8, 7], [9, 8])
    assert (train.name, test.name) == ("fashion/train", "fashion/test")


def test_every_pixel_value_is_the_nearest_float32(tmp_path: Path) -> None:
    """Oracle: exact fractions; neither neighbour of the value lies nearer to k / 255."""
    write_mnist(tmp_path)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(pack(0x08, (3, 8, 32), list(range(256)) * 3))
    for k, value in enumerate(mnist(tmp_path).inputs[0].ravel()):
        error = abs(Fraction(float(value)) - Fraction(k, 255))
        neighbours = (np.nextafter(value, np.float32(s)) for s in (-1, 2))
        assert all(error <= abs(Fraction(float(each)) - Fraction(k, 255)) for each in neighbours)


def test_a_plain_file_goes_before_its_gzip_twin(tmp_path: Path) -> None:
    """Oracle: the documented preference."""
    write_mnist(tmp_path)
    write_mnist(tmp_path, gz=True)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(pack(0x08, (3,), [1, 1, 1]))
    assert mnist(tmp_path).targets.tolist() == [1, 1, 1]


LABELS, IMAGES = "train-labels-idx1-ubyte", "train-images-idx3-ubyte"
BAD_FOLDERS = {
    "label 10": (
        LABELS,
        pack(0x08, (3,), [0, 10, 1]),
        r"labels must be in 0\.\.9 for 10 classes, row 1 .*label 10",
    ),
    "fewer labels": (LABELS, pack(0x08, (2,), [0, 1]), r"3 images in .*images.* but 2 labels in .*labels"),
    "swapped files": (IMAGES, pack(0x08, (3,), [0, 1, 2]), r"images need 3 axes, found shape \(3,\)"),
    "labels with axes": (LABELS, pack(0x08, (3, 1), [0, 1, 2]), r"labels need 1 axes, found shape \(3, 1\)"),
    "nan": (IMAGES, pack(0x0D, (3, 1, 1), [0.0, 1.0, math.nan]), r"row 2, element \(0, 0, 0\) .*holds nan"),
    "half labels": (LABELS, pack(0x0E, (3,), [0.0, 0.5, 1.0]), r"row 1 .*has 0\.5"),
}


@pytest.mark.parametrize("case", BAD_FOLDERS)
def test_bad_folders_are_refused(case: str, tmp_path: Path) -> None:
    """Oracle: the fault planted by each row of the table above."""
    name, data, match = BAD_FOLDERS[case]
    write_mnist(tmp_path)
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=f"(?s){match}"):
        mnist(tmp_path)


def test_a_set_of_no_images_is_refused(tmp_path: Path) -> None:
    """Oracle: files that are whole and agree, and hold nothing."""
    write_mnist(tmp_path)
    (tmp_path / IMAGES).write_bytes(pack(0x08, (0, 2, 2), []))
    (tmp_path / LABELS).write_bytes(pack(0x08, (0,), []))
    with pytest.raises(DataError, match=r"inputs is empty: shape \(0, 1, 2, 2\)"):
        mnist(tmp_path)


def test_missing_files_are_named(tmp_path: Path) -> None:
    """Oracle: the names of the four files."""
    write_mnist(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    assert len(mnist(tmp_path, "train")) == 3
    with pytest.raises(DataError, match=r"has no t10k-labels-idx1-ubyte\[\.gz\]"):
        mnist(tmp_path, "test")
    with pytest.raises(DataError, match=r"has no train-images.* and no train-labels"):
        mnist(tmp_path.parent)
    with pytest.raises(DataError, match="there is no such file or directory"):
        mnist(tmp_path / "nowhere")
    with pytest.raises(SettingError, match="did you mean 'train'"):
        mnist(tmp_path, "trian")
