"""The exact dot product, rounded once, against fractions."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimp.formats import matmul
from minimp.formats.exact import round_fraction
from tests.formats.accumulation.products import K, M, N, by_loops, draw
from tests.formats.oracle import assert_same


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


def test_exact_takes_any_length() -> None:
    """Oracle: by hand. Two million and one terms of 1, and one of 2^-30 that float64 holds just so."""
    long = np.ones((1, 2_000_002))
    other = np.ones((2_000_002, 1))
    other[1_234_567] = 2.0**-30
    expected = 2_000_001 + 2.0**-30
    assert expected != 2_000_001
    assert matmul(long, other, fmt="float32", accumulate="exact", output="float64").item() == expected
    assert matmul(-long, other, fmt="float32", accumulate="exact", output="float64").item() == -expected


@pytest.mark.slow
def test_exact_settles_what_a_long_sum_piles_up() -> None:
    """Oracle: by hand. 2^23 squares of 2^24 - 1, all digits ones: a plane of whole numbers would overflow."""
    long = np.full((1, 1 << 23), 2.0**24 - 1, np.float32)
    got = matmul(long, long.T, fmt="float32", accumulate="exact", output="float64").item()
    assert got == (2.0**24 - 1) ** 2 * 2**23


def test_exact_carries_between_parts_of_a_long_sum() -> None:
    """Oracle: fractions; K in several parts, of both signs, over many binades."""
    a, b = draw("float32", (1, 9000), 20, 30), draw("float32", (9000, 2), 21, 30)

    def dot(x: np.ndarray, y: np.ndarray, start: float) -> float:
        total = sum((Fraction(u) * Fraction(v) for u, v in zip(x, y, strict=True)), Fraction(start))
        return round_fraction(total, "float64")

    got = matmul(a, b, fmt="float32", accumulate="exact", output="float64")
    assert_same(got, by_loops(a, b, np.zeros((1, 2)), dot))
