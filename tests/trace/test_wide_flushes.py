"""Flushes of float32 ops, without a shadow."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import minimp as mp
from minimp import trace
from minimp.trace.wide_flushes import FLUSHING

CASES: dict[str, tuple[Any, ...]] = {
    "mul": ([1e-30, 0.0, 1e-30, 2.0, np.inf], [1e-30, 1e-30, 0.0, 3.0, 0.0]),
    "div": ([1e-30, 0.0, 1.0, 1.0, 1e-40], [1e30, 1e30, np.inf, 2.0, 1e38]),
    "exp": ([-200.0, -np.inf, 0.0, -50.0, -104.0],),
    "sigmoid": ([-200.0, -np.inf, 0.0, -50.0, 3.0],),
}


@pytest.mark.parametrize("name", FLUSHING)
def test_zeros_that_an_op_made_are_told_from_those_that_were_there(name: str) -> None:
    """Oracle: NumPy in float64 on the same inputs: results that are 0 in float32 and not there."""
    inputs = [np.array(each, np.float32) for each in CASES[name]]
    with trace.record() as made:
        result = mp.OPS[name](*map(mp.tensor, inputs))
    wide = [x.astype(np.float64) for x in inputs]
    formulas: dict[str, Any] = {
        "mul": np.multiply, "div": np.divide, "exp": np.exp,
        "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    }  # fmt: skip
    with np.errstate(all="ignore"):
        exact = formulas[name](*wide)
    wanted = np.count_nonzero((result.numpy() == 0) & (exact != 0))
    assert made.events[0].flushed == wanted > 0
    assert made.underflow().rows[0][0] == name


def test_a_shadow_says_the_same() -> None:
    """Oracle: the float64 shadow of the same product, with a number in the place of an array too."""
    x = mp.tensor(np.float32([1e-30, 0.0, 1.0]))
    counts = []
    for shadow in (False, True):
        with trace.record(shadow=shadow) as made:
            x * x
            x * 1e-20
        counts.append([event.flushed for event in made.events])
    assert counts == [[1, 1], [1, 1]]
