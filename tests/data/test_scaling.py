"""Standardising; oracle: the statistics module, exact rational arithmetic on the same numbers."""

from __future__ import annotations

import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimp.data import ArrayDataset, Standardize
from minimp.data import scaling as module
from minimp.errors import DataError
from tests.tolerances import assert_bound

FLOATS = st.floats(-1e6, 1e6, width=32)


def test_by_hand() -> None:
    """Oracle: columns (1, 3), (5, 5) and (-8, 8): means 2, 5, 0 and deviations 1, none, 8; all exact."""
    train = ArrayDataset([[1, 5, -8], [3, 5, 8]], [0, 1])
    scale = Standardize.fit(train)
    assert scale.mean.tolist() == [2, 5, 0]
    assert scale.std.tolist() == [1, 1, 8]
    assert scale(train).inputs.tolist() == [[-1, 0, -1], [1, 0, 1]]
    test = ArrayDataset([[2.0, 7.0, 4.0]], [1], num_classes=2, name="held out")
    assert scale(test).inputs.tolist() == [[0, 2, 0.5]], (
        "the test part is measured by the training part's rule"
    )
    assert (scale(test).name, scale(test).num_classes) == ("held out", 2)


@given(st.lists(FLOATS, min_size=2, max_size=30), st.integers(1, 5))
def test_against_exact_statistics(column: list[float], block: int) -> None:
    """Oracle: statistics.fmean and pstdev (exact fractions, rounded once), whatever the block size."""
    data = ArrayDataset(np.array(column, np.float32).reshape(-1, 1), np.zeros(len(column), int))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK_ROWS", block)
        result = Standardize.fit(data)(data).inputs[:, 0]
    exact = [float(np.float32(value)) for value in column]
    spread = statistics.pstdev(exact) if len(set(exact)) > 1 else 1.0
    middle = statistics.fmean(exact)
    expected = np.array([(value - middle) / spread for value in exact])
    # Half an ulp of float32 on the result (normal or subnormal); the float64 mean of n numbers is off by at
    # most n u max|x|, which x - mean shows in full and the quotient divides by the spread.
    largest, roundoff = max(map(abs, exact)), 2.0**-53
    # Twice that, for the oracle's own roundings.
    bound = (
        2.0**-24 * np.abs(expected)
        + 2.0**-150
        + 2 * (len(exact) + 4) * roundoff * (largest / spread + np.abs(expected))
    )
    assert_bound(result, expected, bound, "standardize")


def test_what_does_not_fit_is_refused() -> None:
    """Oracle: shapes that differ, and a value that leaves float32 when divided by a tiny deviation."""
    scale = Standardize.fit(ArrayDataset([[0.0], [1e-30]], [0, 1]))
    with pytest.raises(DataError, match=r"shape \(1,\), got \(2,\)"):
        scale(ArrayDataset([[1, 2]], [0]))
    with pytest.raises(DataError, match=r"row 0, column 0 .*holds inf"):
        scale(ArrayDataset([[1e30]], [0]))
