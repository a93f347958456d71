"""The figures of int8 arithmetic; oracles: int64, the float32 kernels, and a clock by hand."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from minimp.benchmarks import integers
from minimp.benchmarks.integers import FIGURES, bytes_ratio, integer_contenders, integer_figures
from tests.tolerances import assert_close


@pytest.fixture
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make what is timed so small that all sums are exact in float32."""
    for name, value in (
        ("WIDTH", 16), ("IMAGES", (2, 3, 6, 6)), ("FILTERS", (4, 3, 3, 3)), ("SUMS", (2, 3, 5)),
    ):  # fmt: skip
        monkeypatch.setattr(integers, name, value)


@pytest.mark.usefixtures("_small")
def test_contenders_compute_the_same() -> None:
    """Oracle: each other: the float32 product is of the same codes, and the uint8 ones are those plus 128."""
    made = {name: call() for name, call in integer_contenders().items()}
    np.testing.assert_array_equal(made["int8 product"], made["sgemm"])
    shifted = made["uint8 by int8 product"].astype(np.int64) - made["sgemm"]
    assert (shifted == shifted[0]).all()  # (128 - 99) times the sum of each column
    assert (shifted % 29 == 0).all()
    assert (made["saturating product"] != made["uint8 by int8 product"]).any()
    raw, zeroed = made["float32 convolution"], made["uint8 by int8 convolution"]
    assert raw.shape == zeroed.shape
    assert ((raw[0] - raw[1]) == (zeroed[0] - zeroed[1])).all()  # the zero point takes the same from each
    one, other = made["requantising by float"], made["requantising by fixed point"]
    assert one.dtype == other.dtype == np.int8
    assert np.abs(one.astype(int) - other).max() <= 1
    assert one.std() > 10


@pytest.mark.usefixtures("_small")
def test_quantising_is_of_one_scale_or_of_channels() -> None:
    """Oracle: by hand: -4 to 3 in 255 steps has 0 at 146, and what is read back is (q - 146) 7 / 255; where
    channels have scales of their own, values over codes are one number a channel."""
    made = {name: call() for name, call in integer_contenders().items()}
    codes, values = (made[f"{name} a tensor"] for name in ("quantising", "dequantising"))
    assert (codes.dtype, values.dtype) == (np.uint8, np.float32)
    assert_close(values, (codes.astype(float) - 146) * 7 / 255, "parity_op_fp32")
    assert codes.std() > 10
    codes, values = (np.moveaxis(made[f"{name} channels"], 1, 0) for name in ("quantising", "dequantising"))
    assert codes.dtype == np.int8
    scales = [np.unique(v[q != 0] / q[q != 0]) for q, v in zip(codes, values, strict=True)]
    assert all(codes.std(axis=(1, 2)) > 10)
    for each in scales:
        assert_close(each, np.full_like(each, each[0]), "parity_op_fp32")
    assert len({each[0] for each in scales}) == 3


def test_bytes_are_counted() -> None:
    """Oracle: by hand: a byte for each of 144 + 4,608 + 15,680 weights, twelve for each of 58 biases, scales
    and zero points, less than 100 for the scales of activations; four for each of 20,490 in float32."""
    made = bytes_ratio() * 4 * 20_490
    least = 144 + 4_608 + 15_680 + 58 * 12
    assert least < made < least + 100


@pytest.mark.slow
@pytest.mark.usefixtures("_small")
def test_each_figure_is_its_ratio() -> None:
    """Oracle: a clock that gives each contender a time of its own, in every round: quotients by hand."""
    names = list(integer_contenders())
    times = {name: float(2 + i) for i, name in enumerate(names)}
    ticks: Any = itertools.cycle(itertools.accumulate(x for name in names for x in (1.0, times[name])))
    figures = integer_figures(3, clock=lambda: next(ticks))
    *timed, _ = figures
    assert [figure.name for figure in timed] == [f"quant: {name}" for name in FIGURES]
    for figure, (divided, by, aim, at_most) in zip(timed, FIGURES.values(), strict=True):
        assert_close(figure.value, times[divided] / times[by], "fp64_same_maths")
        assert (figure.target, figure.at_most) == (aim, at_most)
        assert ("speed over" in figure.name) != at_most


def test_a_speed_is_ours_over_theirs() -> None:
    """Oracle: by hand: a speed of ours divides their time by ours, a time of ours the other way round."""
    ours = {"int8 product", "uint8 by int8 product", "saturating product", "uint8 by int8 convolution",
            "requantising by float", "requantising by fixed point", "quantising a tensor",
            "quantising channels", "dequantising a tensor", "dequantising channels"}  # fmt: skip
    for divided, by, _, at_most in FIGURES.values():
        assert (divided if at_most else by) in ours
        assert (by if at_most else divided) not in ours
