"""The exact dot product, rounded once, against fractions."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimp.errors import ShapeError
from minimp.formats import matmul
from minimp.formats.exact import round_fraction
from tests.formats.oracle import assert_same
from tests.formats.products import K, M, N, by_loops, draw


@pytest.mark.parametrize("output", ["float64", "float32", "float16", "bfloat16", "float8_e4m3fn"])
@pytest.mark.parametrize("fmt", ["float32", "bfloat16", "float16", "float8_e5m2", "int8"])
def test_exact_is_the_exact_sum_rounded_once(fmt: str, output: str) -> None:
    """Oracle: fractions, added without rounding, rounded once. A wide spread, so that slices have gaps."""
    spread = {"float32": 60, "bfloat16": 60, "float16": 8}.get(fmt, 4)
    a, b, c = (
        draw(fmt, (M, K), 10, spread),
        draw(fmt, (K, N), 11, spread),
        draw("float32", (M, N), 12, spread),
    )
    if output in ("float16", "float8_e4m3fn"):
        a, b, c = (np.where(np.abs(each) > 16, 1.0, each) for each in (a, b, c))

    def dot(x: np.ndarray, y: np.ndarray, start: float) -> float:
        total = sum((Fraction(u) * Fraction(v) for u, v in zip(x, y, strict=True)), Fraction(start))
        return round_fraction(total, output)

    assert_same(matmul(a, b, c, fmt=fmt, accumulate="exact", output=output), by_loops(a, b, c, dot))


@given(data=st.data())
def test_exact_under_cancellation(data: st.DataObject) -> None:
    """Oracle: fractions. Terms come with their near negatives, so that the sum is far below its terms."""
    number = st.floats(-(2.0**60), 2.0**60, width=32)
    factors = data.draw(st.lists(st.tuples(number, number), min_size=1, max_size=6))
    nudge = data.draw(st.sampled_from([0.0, 2.0**-149, 1.0, -(2.0**-70), 3.0]))
    x = [u for u, _ in factors] + [-u for u, _ in factors] + [nudge, 2.0**-60]
    y = [v for _, v in factors] * 2 + [1.0, data.draw(number)]
    total = sum((Fraction(u) * Fraction(v) for u, v in zip(x, y, strict=True)), Fraction(0))
    for output in ("float64", "float32", "bfloat16"):
        got = matmul([x], np.array(y)[:, None], fmt="float32", accumulate="exact", output=output)
        assert float(got[0, 0]) == round_fraction(total, output)


def test_exact_ties_are_seen_through_long_sums() -> None:
    """Oracle: by hand. 1 + 2^-53 is a tie in float64; 2^-149 times 2^-100 breaks it, far below."""
    x = np.array([[1.0, 2.0**-53, 2.0**-149]])
    for sign, expected in ((1.0, 1 + 2.0**-52), (-1.0, 1.0), (0.0, 1.0)):
        y = np.array([[1.0], [1.0], [sign * 2.0**-100]])
        assert matmul(x, y, fmt="float32", accumulate="exact", output="float64").item() == expected
    y = np.array([[1.0], [3.0], [-(2.0**-100)]])
    assert matmul(x, y, fmt="float32", accumulate="exact", output="float64").item() == 1 + 2.0**-52


def test_exact_is_not_rounded_to_float64_on_the_way() -> None:
    """Oracle: by hand. 1 + 2^-11 is a tie in float16; 2^-80 breaks it, and float64 does not see it."""
    for sign, expected in ((1.0, 1 + 2.0**-10), (-1.0, 1.0)):
        x = np.array([[1.0, 2.0**-11, sign * 2.0**-80]])
        assert (
            matmul(x, np.ones((3, 1)), fmt="float32", accumulate="exact", output="float16").item() == expected
        )
        assert (
            matmul(-x, np.ones((3, 1)), fmt="float32", accumulate="exact", output="float16").item()
            == -expected
        )


def test_exact_keeps_float32s_ends() -> None:
    """Oracle: by hand, at 2^-298 and 2^255, and a long K."""
    tiny, huge = 2.0**-149, 2.0**127
    a = np.array([[tiny, huge, huge]])
    b = np.array([[tiny], [huge], [-huge]])
    assert matmul(a, b, fmt="float32", accumulate="exact", output="float64").item() == 2.0**-298
    assert matmul(a[:, :2], b[:2], fmt="float32", accumulate="exact", output="float64").item() == 2.0**254
    ones = np.ones((1, 70_000))
    assert matmul(ones, ones.T, fmt="float16", accumulate="exact", output="float64").item() == 70_000


def test_exact_in_float64() -> None:
    """Oracle: math.fsum where products are exact, fractions elsewhere; overflow on the way does no harm."""
    a, b, c = (
        np.random.default_rng(seed).standard_normal(shape)
        for seed, shape in ((13, (3, 9)), (14, (9, 2)), (15, (3, 2)))
    )

    def dot(x: np.ndarray, y: np.ndarray, start: float) -> float:
        return float(sum((Fraction(u) * Fraction(v) for u, v in zip(x, y, strict=True)), Fraction(start)))

    assert_same(matmul(a, b, c, fmt="float64", accumulate="exact"), by_loops(a, b, c, dot))
    big = np.array([[2.0**1000, 2.0**1000, 2.0**-1074]])
    other = np.array([[2.0**1000], [-(2.0**1000)], [1.0]])
    assert matmul(big, other, fmt="float64", accumulate="exact").item() == 2.0**-1074
    special = matmul([[np.inf, 1.0], [1.0, np.inf]], [[1.0], [0.0]], fmt="float64", accumulate="exact")
    assert_same(special[:, 0], np.array([np.inf, np.nan]))


def test_exact_refuses_a_k_that_it_cannot_slice() -> None:
    """Oracle: the message says what is possible."""
    long = np.zeros((1, 1 << 21))
    with pytest.raises(ShapeError, match=r"K up to 2\^20"):
        matmul(long, long.T, fmt="float16", accumulate="exact")
