"""DataLoader; oracles: the laws of permutations, NumPy indexing, and an uninterrupted run."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimp.data import ArrayDataset, DataLoader
from minimp.errors import CheckpointError, DataError, SettingError
from tests.tolerances import assert_close

SETTINGS = st.fixed_dictionaries(
    {
        "batch_size": st.integers(1, 9),
        "shuffle": st.booleans(),
        "drop_last": st.booleans(),
        "seed": st.integers(0, 2**64 - 1),
    }
)


def numbered(count: int) -> ArrayDataset:
    """Make a data set whose row k holds k, with target k mod 3."""
    return ArrayDataset(
        np.arange(count, dtype=np.float32).reshape(-1, 1), np.arange(count) % 3, num_classes=3
    )


def rows(batches: Any) -> list[list[int]]:
    """Return the row numbers of each batch, after checking that targets belong to them."""
    found = []
    for inputs, targets in batches:
        numbers = inputs[:, 0].astype(int)
        assert np.array_equal(targets, numbers % 3)
        found.append(numbers.tolist())
    return found


@given(count=st.integers(9, 60), settings=SETTINGS)
def test_every_epoch_is_a_permutation(count: int, settings: dict[str, Any]) -> None:
    """Oracle: the law; each row once an epoch, in batches of the size asked for, the last may be short."""
    loader = DataLoader(numbered(count), **settings)
    size = settings["batch_size"]
    for _ in range(3):
        batches = rows(loader)
        assert len(batches) == len(loader)
        assert all(len(batch) == size for batch in batches[:-1])
        seen = [row for batch in batches for row in batch]
        if settings["drop_last"]:
            assert len(batches[-1]) == size
            assert len(set(seen)) == len(seen) == count - count % size
        else:
            assert sorted(seen) == list(range(count))
        if not settings["shuffle"]:
            assert seen == list(range(len(seen)))


@given(count=st.integers(9, 40), settings=SETTINGS, data=st.data())
def test_a_run_resumes_at_any_batch(count: int, settings: dict[str, Any], data: st.DataObject) -> None:
    """Oracle: the uninterrupted run; state goes through JSON text, into a loader made afresh."""
    loader = DataLoader(numbered(count), **settings)
    steps = data.draw(st.integers(0, 3 * len(loader)))
    going = loader.cycle()
    for _ in range(steps):
        next(going)
    state = json.loads(json.dumps(loader.state_dict()))
    expected = rows(itertools.islice(going, 2 * len(loader) + 1))
    resumed = DataLoader(numbered(count), **settings)
    resumed.load_state_dict(state)
    assert resumed.state_dict() == state, "loading and saving at once changes nothing"
    assert rows(itertools.islice(resumed.cycle(), 2 * len(loader) + 1)) == expected
    assert resumed.state_dict() == loader.state_dict()


@given(count=st.integers(9, 40), settings=SETTINGS, data=st.data())
def test_the_rest_of_an_epoch(count: int, settings: dict[str, Any], data: st.DataObject) -> None:
    """Oracle: batches k.. of the same epoch; then the next epoch, whole; none left after the last batch."""
    reference = DataLoader(numbered(count), **settings)
    epochs = [rows(reference) for _ in range(4)]
    epoch, batch = data.draw(st.integers(0, 2)), data.draw(st.integers(0, len(reference)))
    loader = DataLoader(numbered(count), **settings)
    loader.load_state_dict({**loader.state_dict(), "epoch": epoch, "batch": batch})
    assert loader.epoch == epoch
    assert rows(loader) == epochs[epoch][batch:]
    assert loader.epoch == epoch + 1
    assert rows(loader) == epochs[epoch + 1]


def test_shuffles_are_thorough_and_differ() -> None:
    """Oracle: 30! orders, so two alike, or one in order, are no chance; other seeds, other orders."""
    loader, twin, other = (DataLoader(numbered(30), 30, shuffle=True, seed=s) for s in (1, 1, 2))
    orders = [rows(loader)[0] for _ in range(5)]
    assert orders == [rows(twin)[0] for _ in range(5)]
    assert len({tuple(order) for order in (*orders, rows(other)[0], list(range(30)))}) == 7
    assert loader.order(3).tolist() == orders[3]


def test_shuffles_are_uniform() -> None:
    """Oracle: Pearson's chi-square over the 6 orders of 3 rows, 500 of each expected."""
    loader = DataLoader(numbered(3), 3, shuffle=True)
    counts: dict[tuple[int, ...], int] = {}
    for epoch in range(3000):
        order = tuple(loader.order(epoch).tolist())
        counts[order] = counts.get(order, 0) + 1
    assert len(counts) == 6
    chi_square = sum((count - 500) ** 2 / 500 for count in counts.values())
    assert_close(chi_square, 0.0, "uniform_orders")


def test_batches_are_fresh_arrays_of_the_right_types() -> None:
    """Oracle: NumPy indexing of the data set; a batch written to leaves the data as it was."""
    data = numbered(5)
    for shuffle in (False, True):
        loader = DataLoader(data, batch_size=2, shuffle=shuffle)
        order = loader.order(0)
        for start, (inputs, targets) in zip(range(0, 5, 2), loader, strict=True):
            assert (inputs.dtype, targets.dtype) == (np.float32, np.int64)
            assert np.array_equal(inputs, data.inputs[order[start : start + 2]])
            inputs[:], targets[:] = -1, -1
    assert data.inputs[:, 0].tolist() == [0, 1, 2, 3, 4]


def test_collate_makes_what_is_given() -> None:
    """Oracle: the hook's own return value; a hook that fails does not count its batch as given."""
    loader = DataLoader(
        numbered(4), 2, collate=lambda inputs, targets: {"x": inputs.sum(), "y": targets.tolist()}
    )
    assert list(loader) == [{"x": 1, "y": [0, 1]}, {"x": 5, "y": [2, 0]}]

    def fail(*_: Any) -> None:
        raise RuntimeError("no memory")

    loader = DataLoader(numbered(4), 2, collate=fail)
    batches = iter(loader)
    with pytest.raises(RuntimeError, match="no memory"):
        next(batches)
    assert loader.state_dict()["batch"] == 0


class Pairs:
    """A data set with nothing but a length and items, as torch's map-style ones."""

    def __init__(self, count: int, ragged: bool = False) -> None:
        self.count, self.ragged = count, ragged

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int, /) -> tuple[Any, ...]:
        return np.full(2 + (self.ragged and index), index, np.float32), index, f"row {index}"


def test_any_data_set_with_items_will_do() -> None:
    """Oracle: np.stack of the items, field by field."""
    inputs, numbers, words = next(iter(DataLoader(Pairs(3), batch_size=2)))
    assert inputs.tolist() == [[0, 0], [1, 1]]
    assert (numbers.tolist(), words.tolist()) == ([0, 1], ["row 0", "row 1"])
    assert DataLoader(Pairs(3)).state_dict()["fingerprint"] is None
    with pytest.raises(DataError, match=r"samples \[0, 1, 2\] of the data set do not stack"):
        next(iter(DataLoader(Pairs(3, ragged=True), batch_size=3)))
    with pytest.raises(DataError, match="the data set is empty"):
        DataLoader(Pairs(0))


def test_an_epoch_left_early_is_gone() -> None:
    """Oracle: torch's rule that each iter() is a new epoch; the state follows the iterator begun last."""
    loader = DataLoader(numbered(6), 2, shuffle=True)
    first = iter(loader)
    next(first)
    assert (loader.epoch, loader.state_dict()["batch"]) == (0, 1)
    second: Iterator[Any] = iter(loader)
    assert (loader.epoch, loader.state_dict()["batch"]) == (1, 0)
    assert rows(second) == rows(_batches(loader, 1))
    assert loader.epoch == 2
    assert len(list(first)) == 2, "the older iterator still gives the rest of its own epoch"
    assert loader.epoch == 2
    assert next(first, None) is None


def _batches(loader: DataLoader, epoch: int) -> Iterator[Any]:
    """Give the batches of an epoch from its order, by plain indexing."""
    order, size = loader.order(epoch), loader.batch_size
    for start in range(0, len(order), size):
        yield loader.dataset[order[start : start + size]]  # type: ignore[index]


@pytest.mark.parametrize("bad", [0, -1, 1.5, "8", None, True])
def test_bad_batch_sizes_are_refused(bad: Any) -> None:
    """Oracle: a batch has a whole number of samples, 1 or more; under drop_last at least one must be full."""
    with pytest.raises(SettingError, match="batch_size must be an integer of 1 or more"):
        DataLoader(numbered(4), bad)
    with pytest.raises(SettingError, match="leaves no batch of 4 samples"):
        DataLoader(numbered(4), 5, drop_last=True)
    with pytest.raises(SettingError, match="seed must be"):
        DataLoader(numbered(4), seed=-1)
    assert len(DataLoader(numbered(4), np.int64(5))) == 1  # type: ignore[arg-type]


OTHERS = {
    "seed": {"seed": 8},
    "shuffle": {"shuffle": False},
    "batch_size": {"batch_size": 3},
    "drop_last": {"drop_last": True},
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_state_of_other_settings_is_refused(name: str) -> None:
    """Oracle: each setting changes what comes next, so a state saved under another must not fit."""
    settings: dict[str, Any] = {"batch_size": 2, "shuffle": True, "seed": 7}
    state = DataLoader(numbered(6), **settings).state_dict()
    with pytest.raises(CheckpointError, match=r"the state was saved with seed=7\.0, this loader has 7"):
        DataLoader(numbered(6), **settings).load_state_dict({**state, "seed": 7.0})
    with pytest.raises(CheckpointError, match=f"the state was saved with {name}="):
        DataLoader(numbered(6), **{**settings, **OTHERS[name]}).load_state_dict(state)


def test_a_running_loader_can_be_sent_back() -> None:
    """Oracle: the batches that the saved position had still to give, whatever was running."""
    loader = DataLoader(numbered(8), 2, shuffle=True)
    expected = rows(loader)
    running = iter(loader)
    next(running)
    loader.load_state_dict({**loader.state_dict(), "epoch": 0, "batch": 1})
    assert (loader.epoch, loader.state_dict()["batch"]) == (0, 1)
    assert rows(loader) == expected[1:]


def test_a_state_of_other_data_is_refused() -> None:
    """Oracle: another length, or one other label under the same length."""
    state = DataLoader(numbered(6), 2).state_dict()
    with pytest.raises(CheckpointError, match="saved with samples=6, this loader has 7"):
        DataLoader(numbered(7), 2).load_state_dict(state)
    changed = numbered(6).with_(targets=[0, 1, 2, 0, 1, 1])
    with pytest.raises(CheckpointError, match="saved with fingerprint="):
        DataLoader(changed, 2).load_state_dict(state)


@pytest.mark.parametrize(
    "change",
    [
        {"epoch": -1},
        {"batch": 4},
        {"batch": -1},
        {"epoch": 1.0},
        {"batch": True},
        {"batch": "1"},
        {"extra": 1},
    ],
)
def test_a_state_that_cannot_be_is_refused_and_changes_nothing(change: dict[str, Any]) -> None:
    """Oracle: epoch >= 0, 0 <= batch <= 3, both integers, and exactly the documented names."""
    loader = DataLoader(numbered(6), 2)
    next(iter(loader))
    before = loader.state_dict()
    with pytest.raises(CheckpointError):
        loader.load_state_dict({**before, **change})
    with pytest.raises(CheckpointError, match="the state of a loader has"):
        loader.load_state_dict({})
    assert loader.state_dict() == before


def test_the_state_is_small_and_plain() -> None:
    """Oracle: JSON text that reads back equal, and that does not grow with the data."""
    state = DataLoader(numbered(5000), 7, shuffle=True).state_dict()
    text = json.dumps(state)
    assert json.loads(text) == state
    assert len(text) < 300
