"""The digits; oracles: the counts that UCI publishes, and hashes taken from scikit-learn's copy."""

from __future__ import annotations

import gzip
import hashlib
import io
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from minimp.data import builtin, digits
from minimp.errors import DataError, SettingError

PUBLISHED_COUNTS = [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
# SHA-256 of the 1,797 x 65 bytes of sklearn/datasets/data/digits.csv.gz (scikit-learn 1.9.1), read as uint8.
SHA256_OF_SKLEARN = "68aea062d35a127749050fa0e52dca09d6569ac08092c925610e0954e172dde2"
# The first row of that file: the picture of a zero, then its label.
FIRST_ROW = [
    0, 0, 5, 13, 9, 1, 0, 0, 0, 0, 13, 15, 10, 15, 5, 0, 0, 3, 15, 2, 0, 11, 8, 0, 0, 4, 12, 0, 0, 8, 8, 0,
    0, 5, 8, 0, 0, 9, 8, 0, 0, 4, 11, 0, 1, 12, 7, 0, 0, 2, 14, 5, 10, 12, 0, 0, 0, 0, 6, 13, 10, 0, 0, 0,
]  # fmt: skip


def test_all_images_are_there_in_their_order() -> None:
    """Oracle: the published counts of each class, the first row, and the hash of scikit-learn's copy."""
    whole = digits()
    assert np.bincount(whole.targets).tolist() == PUBLISHED_COUNTS
    assert (len(whole), whole.input_shape, whole.num_classes) == (1797, (64,), 10)
    assert (whole.inputs.dtype, whole.targets.dtype) == (np.float32, np.int64)
    assert (whole.inputs[0] * 16).tolist() == FIRST_ROW
    assert whole.targets[:12].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    counts = np.column_stack([whole.inputs * 16, whole.targets])
    assert hashlib.sha256(counts.astype(np.uint8).tobytes()).hexdigest() == SHA256_OF_SKLEARN
    assert (counts == counts.astype(np.uint8)).all(), "v / 16 is exact, so v comes back"


def test_the_shipped_file_and_its_licence_state_the_source() -> None:
    """Oracle: the terms of CC BY 4.0, section 3(a): creator, licence and its address, changes."""
    notice = files("minimp.data").joinpath("LICENSE-digits.txt").read_text(encoding="utf-8")
    for needed in (
        "Alpaydin",
        "Kaynak",
        "10.24432/C50P49",
        "creativecommons.org/licenses/by/4.0",
        "Changes made",
        SHA256_OF_SKLEARN,
    ):
        assert needed in notice
    assert builtin.DIGITS_SHA256 == SHA256_OF_SKLEARN


def test_the_split_is_fixed_stratified_and_whole() -> None:
    """Oracle: 1400/1797 of each published count to within one row; the parts together are the set."""
    whole, train, test = digits(), digits("train"), digits("test")
    assert (len(train), len(test)) == (1400, 397)
    share = np.array(PUBLISHED_COUNTS) * 1400 / 1797
    assert (np.abs(np.bincount(train.targets) - share) < 1).all()
    both = np.concatenate([np.column_stack(part[:]) for part in (train, test)])
    everything = np.column_stack(whole[:])
    assert np.array_equal(both[np.lexsort(both.T)], everything[np.lexsort(everything.T)])
    again = digits().split(1400, seed=0)
    assert [part.fingerprint for part in again] == [train.fingerprint, test.fingerprint]


def test_the_split_never_moves() -> None:
    """Oracle: the fingerprint of the training part as released; old results stay comparable."""
    released = "1483d3f10c41984ed2154080227f842eadec523b8304cdc702fd72c6dbaddd37"
    assert digits("train").fingerprint == released


def test_shapes_hold_the_same_pixels() -> None:
    """Oracle: row-major order, pixel (r, c) is column 8 r + c."""
    flat, image = digits("test"), digits("test", shape="image")
    assert image.input_shape == (1, 8, 8)
    assert image.inputs[5, 0, 3, 2] == flat.inputs[5, 8 * 3 + 2]
    assert np.array_equal(image.inputs.reshape(397, 64), flat.inputs)


@pytest.mark.parametrize(
    ("options", "match"), [({"split": "tset"}, "did you mean 'test'"), ({"shape": "imgae"}, "'image'")]
)
def test_unknown_names_are_refused(options: dict[str, str], match: str) -> None:
    """Oracle: the documented names; the message offers the nearest."""
    with pytest.raises(SettingError, match=match):
        digits(**options)


def test_a_damaged_file_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: one flipped pixel, a file cut short and a missing file, each refused with what to do."""
    good = files("minimp.data").joinpath("digits.idx.gz").read_bytes()
    raw = bytearray(gzip.decompress(good))
    raw[500] ^= 1
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb") as stream:
        stream.write(bytes(raw))
    monkeypatch.setattr(builtin, "files", lambda _: tmp_path)
    target = tmp_path / "digits.idx.gz"
    for content, match in (
        (packed.getvalue(), "has changed: expected SHA-256"),
        (good[:-9], "cannot be read"),
    ):
        target.write_bytes(content)
        with pytest.raises(DataError, match=f"(?s){match}.*install minimp again"):
            digits()
    target.unlink()
    with pytest.raises(DataError, match="cannot be read"):
        digits()
    target.write_bytes(good)
    assert len(digits()) == 1797
