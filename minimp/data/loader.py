"""Batches: a DataLoader whose orders are functions of (seed, epoch), so that a run resumes bit for bit."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from minimp.data.dataset import Dataset
from minimp.data.order import Purpose, check_seed, permutation
from minimp.errors import CheckpointError, DataError, SettingError

__all__ = ["DataLoader"]

OP = "DataLoader"
Indices = npt.NDArray[np.int64]


class DataLoader:
    """Give a data set in batches, as ``torch.utils.data.DataLoader``; each ``iter()`` begins the next epoch.

    The order of epoch e is a pure function of (seed, e): see `minimp.data.order`. So every epoch has an order
    of its own, two loaders with one seed agree, and the state to save is a few integers.

    Args:
        dataset: an `ArrayDataset`, or anything with ``len()`` and ``[i] -> tuple of array-likes``.
        batch_size: samples in a batch; the last batch may be smaller.
        shuffle: a new random order in every epoch; without it the order of the data set.
        seed: chooses the orders, an integer from 0 to 2^64 - 1 (torch has ``generator=`` here).
        drop_last: leave out a last batch that is not full.
        collate: makes what is given from the batched fields, ``collate(inputs, targets)``; None gives the
            tuple of NumPy arrays. (torch's ``collate_fn`` gets a list of samples instead.)

    Attributes:
        dataset, batch_size, shuffle, seed, drop_last: as given.

    Raises:
        SettingError: a batch size below 1, or no full batch under `drop_last`; a seed out of range.
        DataError: the data set is empty.

    Example:
        >>> loader = DataLoader(digits("train"), batch_size=64, shuffle=True, seed=0)       # doctest: +SKIP
        >>> for inputs, targets in loader: ...           # (64, 64) float32, (64,) int64    # doctest: +SKIP
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int = 1,
        shuffle: bool = False,
        *,
        seed: int = 0,
        drop_last: bool = False,
        collate: Callable[..., Any] | None = None,
    ) -> None:
        """Check the settings; nothing is read yet."""
        self.dataset, self.shuffle, self.drop_last = dataset, bool(shuffle), bool(drop_last)
        self.batch_size, self.seed = _check_batch_size(batch_size), check_seed(seed, OP)
        self._collate = collate or _as_tuple
        self._start = (0, 0)  # the epoch and batch where the next iter() begins
        self._running: _Epoch | None = None
        if len(dataset) == 0:
            raise DataError("the data set is empty", op=OP, help="give at least one sample")
        if len(self) == 0:
            raise SettingError(
                f"drop_last with batch_size={batch_size} leaves no batch of {len(dataset)} samples",
                op=OP,
                help=f"use batch_size up to {len(dataset)}, or drop_last=False",
            )

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        full, rest = divmod(len(self.dataset), self.batch_size)
        return full + (1 if rest and not self.drop_last else 0)

    def __iter__(self) -> Iterator[Any]:
        """Begin the next epoch, or go on where a loaded state stopped; an epoch left early is gone."""
        epoch, batch = self._start
        self._start = (epoch + 1, 0)
        self._running = _Epoch(self, epoch, batch)
        return self._running

    def cycle(self) -> Iterator[Any]:
        """Give batches without end, epoch after epoch: for a run that counts steps."""
        while True:
            yield from self

    @property
    def epoch(self) -> int:
        """The epoch that is running, or the next one: 0 at first, one more whenever an epoch has ended."""
        return self._position()[0]

    def order(self, epoch: int) -> Indices:
        """Return the order of the samples in an epoch, int64 (len(dataset),)."""
        if not self.shuffle:
            return np.arange(len(self.dataset))
        return permutation(len(self.dataset), seed=self.seed, stream=epoch, purpose=Purpose.LOADER)

    def state_dict(self) -> dict[str, Any]:
        """Return where the loader stands, as plain JSON values.

        ``epoch`` and ``batch`` (batches already given in that epoch, by the iterator begun last); and, to
        refuse a state of another run: ``seed``, ``shuffle``, ``batch_size``, ``drop_last``, ``samples`` and
        the data's ``fingerprint`` (None for a data set that has none).
        """
        epoch, batch = self._position()
        return {"epoch": epoch, "batch": batch, **self._identity()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Let the next ``iter()`` give exactly the batches that were still to come in that epoch, then go on.

        A state saved after the last batch of an epoch leaves none: the next ``iter()`` ends at once.

        Raises:
            CheckpointError: the state is incomplete, not of this loader's settings and data, or out of range.
        """
        expected = self._identity()
        known = {"epoch", "batch", *expected}
        if set(state) != known:
            raise CheckpointError(
                f"the state of a loader has {sorted(known)}, got {sorted(map(str, state))}",
                op=OP,
                help="give what state_dict() returned",
            )
        for name, value in expected.items():
            if state[name] != value or type(state[name]) is not type(value):
                raise CheckpointError(
                    f"the state was saved with {name}={state[name]!r}, this loader has {value!r}",
                    op=OP,
                    help="make the loader with the settings and the data of the saved run",
                )
        epoch, batch = state["epoch"], state["batch"]
        if type(epoch) is not int or type(batch) is not int or epoch < 0 or not 0 <= batch <= len(self):
            raise CheckpointError(
                f"epoch must be 0 or more and batch 0 to {len(self)}, got epoch={epoch!r}, batch={batch!r}",
                op=OP,
            )
        self._start, self._running = (epoch, batch), None

    def _position(self) -> tuple[int, int]:
        """Return the epoch and the batch within it that come next."""
        running = self._running
        return self._start if running is None or running.ended else (running.epoch, running.batch)

    def _identity(self) -> dict[str, Any]:
        """Return what must be equal for a state to fit."""
        return {
            "seed": self.seed,
            "shuffle": self.shuffle,
            "batch_size": self.batch_size,
            "drop_last": self.drop_last,
            "samples": len(self.dataset),
            "fingerprint": getattr(self.dataset, "fingerprint", None),
        }

    def _batch(self, indices: Indices) -> Any:
        """Return the collated samples numbered `indices`."""
        take = getattr(self.dataset, "take", None)
        if take is not None:
            return self._collate(*take(indices))
        samples = [self.dataset[int(index)] for index in indices]
        try:
            batch = [np.stack(each) for each in zip(*samples, strict=True)]
        except ValueError as fault:
            raise DataError(
                f"samples {indices[:8].tolist()} of the data set do not stack: {fault}",
                op=OP,
                help="every sample needs the same fields with the same shapes",
            ) from fault
        return self._collate(*batch)


class _Epoch:
    """One pass over the data: an iterator that knows where it stands."""

    def __init__(self, loader: DataLoader, epoch: int, batch: int) -> None:
        self._loader, self._order = loader, loader.order(epoch)
        self.epoch, self.batch, self.ended = epoch, batch, False

    def __iter__(self) -> _Epoch:
        return self

    def __next__(self) -> Any:
        if self.batch >= len(self._loader):
            self.ended = True
            raise StopIteration
        size = self._loader.batch_size
        given = self._loader._batch(self._order[self.batch * size : (self.batch + 1) * size])
        self.batch += 1
        return given


def _as_tuple(*fields: Any) -> tuple[Any, ...]:
    """Give the batched fields as they are."""
    return fields


def _check_batch_size(batch_size: object) -> int:
    """Return a batch size of 1 or more."""
    try:
        size = 0 if isinstance(batch_size, bool) else operator.index(batch_size)  # type: ignore[arg-type]  # what is no index raises
    except TypeError:
        size = 0
    if size < 1:
        raise SettingError(f"batch_size must be an integer of 1 or more, got {batch_size!r}", op=OP)
    return size
