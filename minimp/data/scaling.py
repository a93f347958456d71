"""Standardising features: zero mean and unit variance, measured on the training part and applied to both."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from minimp.data.dataset import ArrayDataset, read_only
from minimp.errors import DataError

__all__ = ["Standardize"]

Doubles = npt.NDArray[np.float64]
BLOCK_ROWS = 4096  # rows widened to float64 at a time, so that memory stays near that of the float32 data


@dataclass(frozen=True, eq=False)
class Standardize:
    """z = (x - mean) / std for each feature, computed in float64 and rounded once to float32.

    ``std`` is the population standard deviation (divisor N); a feature that never changes has ``std`` 1, so
    it becomes 0 on the data it was measured on (the rule of scikit-learn's ``StandardScaler``).

    Args:
        mean: float64, the shape of one input.
        std: float64, the shape of one input, all positive.

    Example:
        >>> train, test = load("flowers.csv")                           # doctest: +SKIP
        >>> scale = Standardize.fit(train); train, test = scale(train), scale(test)     # doctest: +SKIP
    """

    mean: Doubles
    std: Doubles

    @classmethod
    def fit(cls, dataset: ArrayDataset) -> Standardize:
        """Measure mean and standard deviation over the rows of `dataset`, in two passes."""
        inputs = dataset.inputs
        mean = inputs.mean(axis=0, dtype=np.float64)
        squares = sum((np.square(block - mean).sum(axis=0) for block in _blocks(inputs)), np.zeros_like(mean))
        changes = inputs.min(axis=0) != inputs.max(axis=0)
        return cls(mean, np.where(changes, np.sqrt(squares / len(inputs)), 1.0))

    def __call__(self, dataset: ArrayDataset) -> ArrayDataset:
        """Return `dataset` with its inputs standardised.

        Raises:
            DataError: its inputs have another shape, or a result is beyond float32.
        """
        if dataset.input_shape != self.mean.shape:
            raise DataError(
                f"standardize was measured on inputs of shape {self.mean.shape}, got {dataset.input_shape}",
                op=dataset.name,
                shapes=[self.mean.shape, dataset.input_shape],
            )
        scaled = np.empty_like(dataset.inputs)
        with np.errstate(over="ignore"):  # shows as a non-finite input, which the new data set refuses
            for start, block in zip(range(0, len(scaled), BLOCK_ROWS), _blocks(dataset.inputs), strict=True):
                scaled[start : start + BLOCK_ROWS] = (block - self.mean) / self.std
        return dataset.with_(read_only(scaled))


def _blocks(inputs: npt.NDArray[np.float32]) -> Iterator[Doubles]:
    """Give the rows in float64, some thousands at a time."""
    for start in range(0, len(inputs), BLOCK_ROWS):
        yield inputs[start : start + BLOCK_ROWS].astype(np.float64)
