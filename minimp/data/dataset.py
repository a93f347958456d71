"""A data set in memory: frozen arrays of inputs and targets that were checked once, on the way in."""

from __future__ import annotations

import hashlib
import math
import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from minimp.data.checks import Place, array_place, as_inputs, as_labels, as_values
from minimp.data.order import Purpose, check_seed, permutation
from minimp.errors import DataError, SettingError

__all__ = ["ArrayDataset", "Dataset", "TrainTest"]

Array = npt.NDArray[Any]
IMAGE_RANK = 3
CHANNELS = (1, 3, 4)  # grey, colour, colour with alpha: to tell (C, H, W) from (H, W, C)


class Dataset(Protocol):
    """What a DataLoader needs (torch's map-style data set): a length, and a sample of arrays for each number.

    A data set that also has ``take(indices) -> tuple of batched arrays`` is read a batch at a time.
    """

    def __len__(self) -> int:
        """Return the number of samples."""

    def __getitem__(self, index: int, /) -> tuple[Any, ...]:
        """Return sample number `index` as a tuple of array-likes, one of each field."""


@dataclass(frozen=True, eq=False, repr=False, init=False)
class ArrayDataset:
    """Inputs and targets held as arrays (torch's ``TensorDataset``), with what a model must know about them.

    Both arrays are checked, converted and made read-only; an array that the caller could still change is
    copied. Values are kept as they are (no scaling): integers become their float32 value, float64 is rounded
    once.

    Args:
        inputs: (N, features) or (N, C, H, W) or any (N, ...), N >= 1; all finite. Kept as float32.
        targets: (N,) class labels 0 .. num_classes - 1, kept as int64; with ``num_classes=0`` any (N, ...) of
            finite values, kept as float32 (regression, auto-encoders).
        name: what the data is called in messages and tables.
        num_classes: the number of classes; None counts them as the largest label + 1.
        class_names: one word for each class, or nothing.
        place: names a row or a value in error messages; a reader of text files names lines here.

    Attributes:
        inputs, targets, name, num_classes, class_names: as above.

    Raises:
        DataError: empty, not numbers, NaN or infinite, wrong rank, lengths that differ, labels that are not
            whole numbers or out of range. The message names the first such row.
        SettingError: `num_classes` or `class_names` cannot be.
    """

    inputs: npt.NDArray[np.float32]
    targets: npt.NDArray[np.int64] | npt.NDArray[np.float32]
    name: str
    num_classes: int
    class_names: tuple[str, ...]

    def __init__(
        self,
        inputs: npt.ArrayLike,
        targets: npt.ArrayLike,
        *,
        name: str = "arrays",
        num_classes: int | None = None,
        class_names: Sequence[str] = (),
        place: Place = array_place,
    ) -> None:
        """Check and freeze."""
        checked = as_inputs(inputs, op=name, place=place)
        held: Array
        if num_classes == 0:
            held, classes = as_values(targets, what="targets", op=name, place=place), 0
        else:
            held, classes = as_labels(targets, _check_classes(num_classes, name), op=name, place=place)
        if len(checked) != len(held):
            raise DataError(
                f"as many inputs as targets are needed, got {len(checked)} inputs and {len(held)} targets",
                op=name,
                shapes=[checked.shape, held.shape],
                help="each row of inputs belongs to one target",
            )
        if class_names and len(class_names) != classes:
            raise SettingError(f"class_names has {len(class_names)} names for {classes} classes", op=name)
        values = (read_only(checked), read_only(held), name, classes, tuple(class_names))
        for field, value in zip(fields(self), values, strict=True):
            object.__setattr__(self, field.name, value)

    def __len__(self) -> int:
        """Return N."""
        return len(self.inputs)

    def __getitem__(self, index: Any) -> tuple[Array, Array]:
        """Return ``(inputs[index], targets[index])``; `index` is a number, a slice or an array."""
        return self.inputs[index], self.targets[index]

    def __iter__(self) -> Iterator[tuple[Array, Any]]:
        """Give each input with its target."""
        return zip(self.inputs, self.targets, strict=True)

    def take(self, indices: Array) -> tuple[Array, Array]:
        """Return fresh, writable batches ``(inputs, targets)`` of the rows numbered `indices` (int64)."""
        return self.inputs.take(indices, axis=0), self.targets.take(indices, axis=0)

    def __repr__(self) -> str:
        """Show the name, the sizes and the number of classes."""
        kind = f"{self.num_classes} classes" if self.num_classes else f"targets {self.targets.shape[1:]}"
        return f"ArrayDataset({self.name!r}: {len(self)} x {self.input_shape}, {kind})"

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one input, without N."""
        return self.inputs.shape[1:]

    @property
    def unit(self) -> str:
        """What is counted by `len`, in a word."""
        return "rows"

    @property
    def size_text(self) -> str:
        """The size in words: the number of rows."""
        return f"{len(self):,} rows"

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over shapes, dtypes and bytes of both arrays: equal for equal data under any name."""
        digest = hashlib.sha256()
        for array in (self.inputs, self.targets):
            little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
            digest.update(f"{little.dtype.str}{little.shape}".encode())
            digest.update(little.data)
        return digest.hexdigest()

    def with_(
        self,
        inputs: npt.ArrayLike | None = None,
        targets: npt.ArrayLike | None = None,
        *,
        name: str | None = None,
    ) -> ArrayDataset:
        """Return a copy with other inputs, targets (of the same classes) or name."""
        return ArrayDataset(
            self.inputs if inputs is None else inputs,
            self.targets if targets is None else targets,
            name=self.name if name is None else name,
            num_classes=self.num_classes,
            class_names=self.class_names,
        )

    def subset(self, indices: npt.ArrayLike, *, name: str | None = None) -> ArrayDataset:
        """Return the rows numbered `indices`, in that order, as a data set (torch's ``Subset``)."""
        rows = np.asarray(indices)
        return self.with_(read_only(self.inputs[rows]), read_only(self.targets[rows]), name=name)

    def flat(self) -> ArrayDataset:
        """Return the data with each input as one row of features: (N, C, H, W) -> (N, C*H*W)."""
        return self.with_(self.inputs.reshape(len(self), -1))

    def images(self, shape: tuple[int, int, int] | None = None) -> ArrayDataset:
        """Return the data with each input as an image (C, H, W).

        Args:
            shape: (C, H, W) of one image. None takes inputs (H, W) as one channel and (C, H, W) as they are.

        Raises:
            DataError: the sizes do not fit; or, without `shape`, flat inputs or channels in the last axis.
        """
        found = self.input_shape
        wanted = shape or (found if len(found) == IMAGE_RANK else (1, *found))
        if len(wanted) != IMAGE_RANK or math.prod(wanted) != math.prod(found):
            needed = f"{math.prod(wanted)} values, for {wanted}" if shape else "shape (H, W) or (C, H, W)"
            raise DataError(
                f"images need inputs of {needed}, got {found}",
                op=self.name,
                shapes=[found],
                help="give the shape of one image, (channels, height, width)",
            )
        if shape is None and wanted[0] not in CHANNELS and wanted[-1] in CHANNELS:
            raise DataError(
                f"images must be (C, H, W), inputs of {found} seem to have their channels last",
                op=self.name,
                shapes=[found],
                help="save them as inputs.transpose(0, 3, 1, 2), or give their shape",
            )
        return self.with_(self.inputs.reshape(len(self), *wanted))

    def reconstruction(self) -> ArrayDataset:
        """Return the data of an auto-encoder: each input is its own target, ``num_classes`` is 0."""
        return ArrayDataset(self.inputs, self.inputs, name=self.name, num_classes=0)

    def split(self, train: float, *, seed: int = 0) -> TrainTest:
        """Split into a training and a test part, each with its share of every class, to within one row.

        With k training rows out of N, class c of n_c rows gives floor(n_c k / N) of them, and one more to the
        classes with the largest remainders (ties to the smaller label) until there are k. Which rows of a
        class is a random choice fixed by `seed` (see `minimp.data.order`); both parts keep the order of the
        rows. Data without classes is treated as one class.

        Args:
            train: the number of training rows, an integer from 1 to N - 1; or their share, a float between 0
                and 1, rounded to the nearest number of rows that leaves both parts at least one.
            seed: chooses the rows; an integer from 0 to 2^64 - 1.

        Returns:
            ``(train, test)``.

        Raises:
            DataError: there is only one row.
            SettingError: `train` or `seed` is out of range.
        """
        if len(self) == 1:
            raise DataError("one row cannot be split into a training and a test part", op=self.name)
        wanted, seed = _train_rows(train, len(self), self.name), check_seed(seed, self.name)
        labels = self.targets if self.num_classes else np.zeros(len(self), np.int64)
        shuffled = permutation(len(self), seed=seed, stream=0, purpose=Purpose.SPLIT)
        grouped = shuffled[np.argsort(labels[shuffled], kind="stable")]  # class by class, random inside each
        sizes = np.bincount(labels.astype(np.int64), minlength=1)
        taken = np.zeros(len(self), bool)
        for start, count in zip(np.cumsum(sizes) - sizes, _shares(sizes, wanted), strict=True):
            taken[grouped[start : start + count]] = True
        return TrainTest(
            self.subset(np.flatnonzero(taken), name=f"{self.name}/train"),
            self.subset(np.flatnonzero(~taken), name=f"{self.name}/test"),
        )


class TrainTest(NamedTuple):
    """The two parts of a data set: one to train on, one to judge with."""

    train: ArrayDataset
    test: ArrayDataset


def read_only(array: Array) -> Array:
    """Return a view that cannot be written to; of a fresh array nobody else holds a writable one."""
    view = array.view()
    view.flags.writeable = False
    return view


def _check_classes(num_classes: object, name: str) -> int | None:
    """Return a usable number of classes, or None where it is to be counted."""
    if num_classes is None:
        return None
    if isinstance(num_classes, bool) or not isinstance(num_classes, int | np.integer) or num_classes < 0:
        raise SettingError(
            f"num_classes must be a whole number, 0 or more, or None, got {num_classes!r}", op=name
        )
    return int(num_classes)


def _train_rows(train: object, count: int, name: str) -> int:
    """Return the number of training rows that `train` asks for."""
    if isinstance(train, float) and 0.0 < train < 1.0:
        return min(max(math.floor(count * train + 0.5), 1), count - 1)
    try:
        rows = 0 if isinstance(train, bool) else operator.index(train)  # type: ignore[arg-type]  # what is no index raises
    except TypeError:
        rows = 0
    if not 1 <= rows < count:
        raise SettingError(
            f"train must be a share between 0 and 1 or a number of rows from 1 to {count - 1}, got {train!r}",
            op=name,
        )
    return rows


def _shares(sizes: npt.NDArray[np.int64], wanted: int) -> list[int]:
    """Divide `wanted` rows over classes of these sizes by largest remainder, in exact integers."""
    total = int(sizes.sum())
    shares = [int(size) * wanted // total for size in sizes]
    by_remainder = sorted(range(len(sizes)), key=lambda c: (-(int(sizes[c]) * wanted % total), c))
    for each in by_remainder[: wanted - sum(shares)]:
        shares[each] += 1
    return shares
