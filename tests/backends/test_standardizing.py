"""Batch normalisation by blocks of channels. Oracle: the formulas in float64, whole arrays at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minimp_backends import standardizing
from minimp_backends.standardizing import normalize, normalize_backward, standardize
from tests.tolerances import assert_close

ROWS = {np.float32: "parity_op_fp32", np.float64: "fp64_sums"}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@settings(deadline=None, max_examples=50)
@given(
    st.integers(1, 4), st.integers(1, 5), st.sampled_from([1, 3, 63, 64, 70]), st.booleans(), st.booleans(),
    st.sampled_from([1, 600, 1 << 20]),
)  # fmt: skip
def test_any_block_gives_the_formulas(
    dtype: Any, images: int, channels: int, length: int, affine: bool, fixed: bool, block: int
) -> None:
    """Oracle: (x - m) / sqrt(v + eps) w + b and its gradients, of all channels at once."""
    random = np.random.default_rng(length)
    x, g = (random.standard_normal((images, channels, length)).astype(dtype) for _ in range(2))
    w, b = (random.standard_normal(channels).astype(dtype) if affine else None for _ in range(2))
    wide, count = x.astype(np.float64), images * length
    m = wide.mean(axis=(0, 2))
    centred = wide - m[:, None]
    v = (centred**2).mean(axis=(0, 2))
    s = 1 / np.sqrt(v + 0.25)
    a = s * (1.0 if w is None else w.astype(np.float64))
    before, standardizing.BLOCK_BYTES = standardizing.BLOCK_BYTES, block
    try:
        y, mean, square = standardize(x, 0.25, w, b)
        dx, total, product = normalize_backward(
            g, x, m.astype(dtype), s.astype(dtype), w, by_x=True, fixed=fixed
        )
        again = normalize(x, m.astype(dtype), s.astype(dtype), w, b)
    finally:
        standardizing.BLOCK_BYTES = before
    wanted = centred * a[:, None] + (0.0 if b is None else b.astype(np.float64)[:, None])
    sums = g.astype(np.float64).sum(axis=(0, 2)), (g * centred).sum(axis=(0, 2))
    by_x = g * a[:, None]
    if not fixed:
        by_x = by_x - (a * sums[0] / count)[:, None] - centred * (a * s * s * sums[1] / count)[:, None]
    scale: Any = (
        np.abs(by_x).max() + np.abs(a).max() * np.abs(g).max()
    )  # dx cancels where there are few values
    scale = dtype(scale)
    for got, right in (
        (y, wanted),
        (again, wanted),
        (mean + 1, m + 1),
        (square, v),
        (dx + scale, by_x + scale),
    ):
        assert got.dtype == dtype
        assert_close(got, right, ROWS[dtype])
    assert_close(total + count, sums[0] + count, ROWS[dtype])
    assert_close(product + count, sums[1] + count, ROWS[dtype])


def test_nothing_is_written_to_the_inputs() -> None:
    """Oracle: read-only arrays."""
    x, g = np.ones((2, 3, 4), np.float32), np.ones((2, 3, 4), np.float32)
    m = np.zeros(3, np.float32)
    for array in (x, g, m):
        array.setflags(write=False)
    standardize(x, 1e-5, m, m)
    assert normalize_backward(g, x, m, m, None, by_x=False, fixed=True)[0] is None


def test_a_channel_of_equal_values_is_its_bias() -> None:
    """Oracle: x - m is 0, whatever the scale."""
    y, mean, square = standardize(np.full((3, 2, 5), 7.0), 1e-5, np.ones(2), np.array([1.0, -2.0]))
    assert y[:, 0].tolist() == np.ones((3, 5)).tolist()
    assert (mean.tolist(), square.tolist()) == ([7.0, 7.0], [0.0, 0.0])
