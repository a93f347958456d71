"""ArrayDataset: what it keeps, what it refuses, how it splits."""

from __future__ import annotations

import dataclasses
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimp.data import ArrayDataset
from minimp.errors import DataError, SettingError

X = np.arange(12, dtype=np.float64).reshape(6, 2)
Y = np.array([0, 1, 2, 0, 1, 2])


def test_arrays_are_converted_once_and_frozen() -> None:
    """Oracle: IEEE rounding of float64 to float32 by struct-like view, and NumPy's own write protection."""
    third = np.full((3, 2), 1 / 3)
    data = ArrayDataset(third, [0.0, 1.0, 2.0], name="thirds")
    assert data.inputs.view(np.uint32)[0, 0] == 0x3EAAAAAB, "1/3 rounded to nearest float32"
    assert (data.targets.dtype, data.targets.tolist(), data.num_classes) == (np.int64, [0, 1, 2], 3)
    with pytest.raises(ValueError, match="read-only"):
        data.inputs[0, 0] = 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        data.name = "other"  # type: ignore[misc]


@pytest.mark.parametrize("dtype", [np.float32, np.int64])
def test_the_callers_arrays_stay_the_callers(dtype: type) -> None:
    """Oracle: writing to the array given must not be seen inside, nor make it read-only."""
    inputs, targets = np.ones((2, 2), np.float32), np.array([0, 1], dtype)
    data = ArrayDataset(inputs, targets)
    inputs[:] = 7
    targets[:] = 0
    assert data.inputs.tolist() == [[1, 1], [1, 1]]
    assert data.targets.tolist() == [0, 1]


@pytest.mark.parametrize(
    "dtype",
    [
        bool,
        np.int8,
        np.uint8,
        np.int64,
        np.float16,
        np.longdouble,
        ml_dtypes.bfloat16,
        ml_dtypes.float8_e4m3fn,
    ],
)
def test_every_real_number_type_is_taken_by_value(dtype: Any) -> None:
    """Oracle: 0 and 1 are the same number in every format; nothing is scaled."""
    data = ArrayDataset(np.array([[0, 1]], dtype), [0])
    assert data.inputs.dtype == np.float32
    assert data.inputs.tolist() == [[0, 1]]


def test_indexing_is_that_of_numpy() -> None:
    """Oracle: NumPy indexing of the same arrays; iteration ends by IndexError as for any sequence."""
    data = ArrayDataset(X, Y)
    for index in (1, -1, slice(1, 4), np.array([5, 0]), X[:, 0] > 4):
        inputs, targets = data[index]
        assert np.array_equal(inputs, X[index])
        assert np.array_equal(targets, Y[index])
    assert [int(target) for _, target in data] == Y.tolist()
    with pytest.raises(IndexError):
        data[6]
    inputs, targets = data.take(np.array([3]))
    inputs[:], targets[:] = 9, 9  # batches are the user's own
    assert data.inputs[3].tolist() == X[3].tolist()


BAD = {
    "no rows": (np.zeros((0, 3)), [], r"inputs is empty: shape \(0, 3\)"),
    "no columns": (np.zeros((3, 0)), [0, 1, 2], "inputs is empty"),
    "one axis": (np.zeros(3), [0, 1, 2], r"\(N, features\).*got \(3,\)(?s:.*)reshape\(-1, 1\)"),
    "a scalar": (1.0, [0], r"inputs is empty: shape \(\)"),
    "nan": ([[1, 2], [3, np.nan], [np.nan, 5]], [0, 1, 2], r"row 1, column 1 .*holds nan \(2 such values"),
    "infinity": (
        np.where(np.arange(8) == 5, -np.inf, 1).reshape(2, 1, 2, 2),
        [0, 1],
        r"row 1, element \(0, 0, 1\).*-inf",
    ),
    "beyond float32": (
        [[1.0], [1e39]],
        [0, 1],
        r"row 1, column 0 .*1e\+39, beyond the largest float32 3.402823e\+38",
    ),
    "text": ([["a"]], [0], "inputs must hold real numbers, got text"),
    "objects": (np.array([[None]]), [0], "got Python objects"),
    "complex": ([[1j]], [0], "got complex"),
    "raw bytes": (np.zeros((1, 1), "V2"), [0], "raw or structured bytes"),
    "ragged": ([[1, 2], [3]], [0, 1], "inputs cannot be made into one array"),
    "more inputs": (X, Y[:5], "got 6 inputs and 5 targets"),
    "more targets": (X[:5], Y, "got 5 inputs and 6 targets"),
    "no labels": (X, [], r"targets is empty"),
    "one-hot": (X, np.eye(3)[Y], r"must have shape \(N,\), got \(6, 3\)(?s:.*)argmax"),
    "halves": (X, [0, 1, 2, 0.5, 1, 2], "row 3 .*has 0.5(?s:.*)num_classes=0"),
    "nan label": (X, [0, 1, np.nan, 0, 1, 2], "row 2 .*has nan"),
    "negative": (X, [0, 1, 2, 0, -1, 2], "row 4 .*has label -1"),
    "an identifier": (X, [0, 1, 2, 0, 1, 20240101], "20240102 classes out of 6 rows"),
    "huge": (X, np.array([0, 1, 2, 0, 1, 2**64 - 1], np.uint64), "row 5 .*label 18446744073709551615"),
    "text labels": (X, ["a", "b", "c", "a", "b", "c"], "targets must hold real numbers, got text"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_data_is_refused_with_its_place(case: str) -> None:
    """Oracle: the fault planted in each row of the table above, and its position."""
    inputs, targets, match = BAD[case]
    with pytest.raises(DataError, match=match):
        ArrayDataset(inputs, targets)


def test_labels_must_be_below_the_number_of_classes() -> None:
    """Oracle: 2 is the first label outside 0..1, and the last one inside 0..2."""
    with pytest.raises(DataError, match=r"labels must be in 0\.\.1 for 2 classes, row 2 .*has label 2"):
        ArrayDataset(X, Y, num_classes=2)
    assert ArrayDataset(X, Y, num_classes=3).num_classes == 3
    assert ArrayDataset(X, Y.reshape(-1, 1), num_classes=7).num_classes == 7, (
        "a column of labels is a row of them"
    )


@pytest.mark.parametrize("bad", [-1, 2.0, "3", True])
def test_settings_that_cannot_be_are_refused(bad: object) -> None:
    """Oracle: a number of classes is a whole number of 0 or more; names are as many as classes."""
    with pytest.raises(SettingError, match="num_classes must be a whole number"):
        ArrayDataset(X, Y, num_classes=bad)  # type: ignore[arg-type]
    with pytest.raises(SettingError, match="2 names for 3 classes"):
        ArrayDataset(X, Y, class_names=("a", "b"))


def test_values_as_targets() -> None:
    """Oracle: with num_classes=0 targets keep shape and value; non-finite ones are refused by place."""
    data = ArrayDataset(X, X / 3, num_classes=0)
    assert (data.targets.dtype, data.targets.shape, data.num_classes) == (np.float32, (6, 2), 0)
    with pytest.raises(DataError, match=r"targets must be finite, row 1 .*holds inf"):
        ArrayDataset(X[:2], [1.0, np.inf], num_classes=0)
    twin = ArrayDataset(X, Y).reconstruction()
    assert np.array_equal(twin.inputs, twin.targets)
    assert [len(part) for part in twin.split(4)] == [4, 2]


def test_shapes_flat_and_image() -> None:
    """Oracle: reshape keeps row-major order."""
    values = np.arange(2 * 3 * 2 * 2, dtype=np.float32).reshape(2, 3, 2, 2)
    image = ArrayDataset(values, [0, 1])
    assert np.array_equal(image.flat().inputs, values.reshape(2, 12))
    assert np.array_equal(image.flat().images((3, 2, 2)).inputs, values)
    assert image.images().input_shape == (3, 2, 2)
    assert ArrayDataset(values[:, 0], [0, 1]).images().input_shape == (1, 2, 2)
    with pytest.raises(DataError, match=r"shape \(H, W\) or \(C, H, W\), got \(12,\)"):
        image.flat().images()
    with pytest.raises(DataError, match=r"16 values, for \(1, 4, 4\), got \(12,\)"):
        image.flat().images((1, 4, 4))
    with pytest.raises(DataError, match="channels last"):
        ArrayDataset(np.zeros((1, 8, 8, 3)), [0]).images()


def test_fingerprint_sees_values_and_shapes_not_names() -> None:
    """Oracle: the definition; byte-equal arrays of another shape differ."""
    data = ArrayDataset(X, Y, name="a")
    assert data.fingerprint == ArrayDataset(X.astype(">f4"), Y.astype(np.int8), name="b").fingerprint
    other = [ArrayDataset(X + (X == 3) * 1e-6, Y), ArrayDataset(X, Y[::-1]), data.images((1, 1, 2))]
    assert len({data.fingerprint, *(each.fingerprint for each in other)}) == 4


@given(st.lists(st.integers(0, 4), min_size=2, max_size=60), st.data())
def test_a_split_is_a_stratified_partition(labels: list[int], draw: st.DataObject) -> None:
    """Oracle: the law of a partition; each class within one row of its exact share; order and rows kept."""
    count = len(labels)
    train_rows = draw.draw(st.integers(1, count - 1))
    inputs = np.arange(count, dtype=np.float32).reshape(-1, 1)
    data = ArrayDataset(inputs, labels, num_classes=5)
    train, test = data.split(train_rows, seed=draw.draw(st.integers(0, 2**64 - 1)))
    rows = [part.inputs[:, 0].astype(int).tolist() for part in (train, test)]
    assert len(rows[0]) == train_rows
    assert sorted(rows[0] + rows[1]) == list(range(count))
    assert all(each == sorted(each) for each in rows)
    for part, numbers in zip((train, test), rows, strict=True):
        assert part.targets.tolist() == [labels[row] for row in numbers]
        assert part.num_classes == 5
    for each in set(labels):
        assert abs(np.count_nonzero(train.targets == each) - labels.count(each) * train_rows / count) < 1


def test_a_split_follows_its_seed() -> None:
    """Oracle: one seed, one split; 20 seeds leave no row on one side for good (chance: 100 * 2^-19)."""
    data = ArrayDataset(np.arange(100.0).reshape(-1, 1), np.zeros(100, int))
    parts = [set(data.split(0.5, seed=seed).train.inputs[:, 0].tolist()) for seed in range(20)]
    assert parts[3] == set(data.split(50, seed=3).train.inputs[:, 0].tolist())
    assert set.union(*parts) == set(range(100))
    assert not set.intersection(*parts)


def test_split_sizes() -> None:
    """Oracle: shares rounded to the nearest row, at least one row a side; counts outside 1..N-1 refused."""
    data = ArrayDataset(X, Y)
    assert [len(part) for part in data.split(0.75)] == [5, 1], "4.5 rows, half up"
    assert [len(part) for part in data.split(0.001)] == [1, 5]
    assert [len(part) for part in data.split(0.999)] == [5, 1]
    for bad in (0, 6, -1, 1.0, 0.0, float("nan"), "0.5", True):
        with pytest.raises(SettingError, match="a share between 0 and 1 or a number of rows from 1 to 5"):
            data.split(bad)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="one row cannot be split"):
        ArrayDataset(X[:1], Y[:1]).split(0.5)
