"""Adding at places that meet; oracle: numpy.add.at, one value after the other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minimp_backends import scattering
from minimp_backends.scattering import FlatScatter, add_rows
from tests.tolerances import assert_close


@pytest.mark.parametrize(
    "index",
    [
        lambda rng: (np.arange(30)[:, None], rng.integers(0, 20, (30, 40))),
        lambda rng: rng.integers(-30, 30, 50),
        lambda rng: (slice(2, 9), rng.integers(0, 20, 60)),
        lambda rng: (..., rng.integers(0, 20, (4, 5))),
        lambda rng: (np.array([3]), np.array([4])),
        lambda rng: (rng.integers(-30, 30, (6, 1)), rng.integers(-20, 20, 40)),
        lambda rng: (rng.integers(0, 30, 40).astype(np.int32), rng.integers(0, 20, 40)),
        lambda rng: rng.integers(0, 30, 0),
    ],
)
def test_places_of_any_index(index: Any, rng: np.random.Generator) -> None:
    """Oracle: numpy.add.at itself, bit for bit; values that broadcast, outputs that are not in C order."""
    where = index(rng)
    shape = np.zeros((30, 20))[where].shape
    for values in (rng.standard_normal(shape).astype(np.float32), np.ones(shape[-1:], np.float32)):
        for order in ("C", "F"):
            found, wanted = (np.zeros((30, 20), np.float32, order=order) for _ in range(2))
            FlatScatter()._add_at(found, where, values)
            np.add.at(wanted, where, values)
            np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("places", [1, 7, 100, 3000])
def test_rows_are_added_in_their_order(places: int, rng: np.random.Generator) -> None:
    """Oracle: the sums one row after the other; bits where few meet, close where NumPy sums them."""
    taken, rows = rng.integers(0, places, 500), rng.standard_normal((500, 33)).astype(np.float32)
    wanted = np.zeros((places, 33), np.float32)
    for place, row in zip(taken, rows, strict=True):
        wanted[place] += row
    for meeting in (0, scattering.MEETING, 501):
        found = np.zeros_like(wanted)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(scattering, "MEETING", meeting)
            add_rows(found, taken, rows)
        if meeting > len(taken):
            np.testing.assert_array_equal(found, wanted)
        assert_close(found, wanted, "parity_gradient_fp32")
    empty = np.zeros((3, 2), np.float32)
    add_rows(empty, np.zeros(0, int), np.zeros((0, 2), np.float32))
    assert not empty.any()
