"""When numbers agree; oracle: the definition max |y - r| / max |r|, by hand."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import pytest

import minimp as mp
from minimp.bisecting.comparing import IncomparableError, distance, judge_of, numbers_of
from minimp.formats import bfloat16, float16

INF, NAN = math.inf, math.nan


def apart(reference: Any, found: Any) -> tuple[float, str, str]:
    """The distance of two results."""
    return distance(numbers_of(reference)[1], numbers_of(found)[1])


@pytest.mark.parametrize(
    ("reference", "found", "error", "where"),
    [
        (2.0, 2.0, 0.0, "the result"),
        (2.0, 2.5, 0.25, "the result"),
        ([1.0, 4.0], [1.0, 3.0], 0.25, "1"),
        (np.array([1.0, 4.0]), np.array([0.0, 4.0]), 0.25, "the result"),
        ({"a": 1.0, "b": 100.0}, {"a": 1.5, "b": 100.0}, 0.5, "a"),
        ({"g": {"a": 1.0, "b": 100.0}}, {"g": {"a": 1.5, "b": 100.0}}, 0.005, "g.a"),
        (INF, INF, 0.0, "the result"),
        (NAN, NAN, 0.0, "the result"),
        (1.0, INF, INF, "the result"),
        (INF, 1.0, INF, "the result"),
        (INF, -INF, INF, "the result"),
        (0.0, 1e-9, INF, "the result"),
        (np.zeros(2), np.zeros(3), INF, "the result"),
        ({"a": 1.0}, {"b": 1.0}, INF, "a"),
        (np.array([1, 2]), np.array([1, 3]), 0.5, "the result"),
        (True, False, 1.0, "the result"),
    ],
)
def test_the_error_is_relative_to_the_largest_element(
    reference: Any, found: Any, error: float, where: str
) -> None:
    """Oracle: by hand; an inner dict is measured as one array."""
    assert apart(reference, found)[:2] == (error, where)


class Pair(NamedTuple):
    """A result with names."""

    loss: Any
    grad: Any


def test_everything_that_holds_numbers_is_taken() -> None:
    """Oracle: the same values as NumPy has them, in the containers that they came in; arrays of their own."""
    x = mp.tensor([1.0, 2.0], dtype="bfloat16", requires_grad=True)
    held, numbers = numbers_of({"x": x, "pair": Pair(1.5, np.float16(2.0)), "none": None, "n": [3, True]})
    assert [name for _, name in numbers] == ["x", "pair.0", "pair.1", "n.0", "n.1"]
    assert held["pair"] == Pair(1.5, 2.0)
    assert held["x"].dtype == ml_dtypes.bfloat16
    assert held["x"] is not x.array
    assert not np.shares_memory(held["x"], x.array)
    for part in ("text", None, {}, {"a": "b"}, np.array(["x"]), np.array([1j])):
        with pytest.raises(IncomparableError, match="expected numbers"):
            numbers_of(part)


def test_the_bound_without_one_is_32_roundings() -> None:
    """Oracle: 32 x 2^-11 = 2^-6 and 32 x 2^-8 = 2^-3."""
    for low, bound in ((float16, 2.0**-6), (bfloat16, 2.0**-3)):
        judge = judge_of(None, lambda low=low: low)
        reference = numbers_of(1.0)
        assert judge(*reference, *numbers_of(1.0 + bound))
        assert not judge(*reference, *numbers_of(1.0 + 1.01 * bound))
