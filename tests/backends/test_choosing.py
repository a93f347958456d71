"""Choosing without branches; oracle: numpy.where on the bits, and the sigmoid of two branches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minimp_backends.numpy_backend import NumpyBackend
from minimp_backends.special import logistic

ENDS = [0.0, -0.0, np.inf, -np.inf, np.nan, 1e-42, -1e-42, 3e38, 1.5]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_the_bits_are_those_of_where(dtype: Any, rng: np.random.Generator) -> None:
    """Oracle: numpy.where, on numbers of every kind, views, broadcast masks, and a number on either side."""
    backend = NumpyBackend()
    with np.errstate(over="ignore"):
        a, b = (rng.choice(np.asarray(ENDS, dtype), (40, 9)) for _ in range(2))
    mask = rng.random((40, 9)) < 0.5
    cases = [
        (mask, a, b), (mask.T, a.T, b.T), (mask[:, ::2], a[:, ::2], b[:, 1::2][:, :1]), (mask[:1], a, b),
        (mask, a[0, 0], b), (mask[:0], a[:0], b[:0]), (mask, 2.0, b), (mask, a, -1),
        (mask[0, 0], a[0, 0], b[0, 0]),
    ]  # fmt: skip
    for chosen, one, other in cases:
        found = backend.select(chosen, one, other)
        wanted = np.where(chosen, np.asarray(one, dtype), np.asarray(other, dtype))
        assert found.dtype == dtype
        assert found.shape == wanted.shape
        np.testing.assert_array_equal(found.view(f"u{found.itemsize}"), wanted.view(f"u{found.itemsize}"))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_the_logistic_function_has_the_bits_of_its_two_branches(dtype: Any) -> None:
    """Oracle: 1 / (1 + e^-x) from 0 on, e^x / (1 + e^x) below; every float16 number, and wide others."""
    x = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)
    if dtype is not np.float16:
        x = np.random.default_rng(0).uniform(-800, 800, 1 << 16).astype(dtype)
    with np.errstate(all="ignore"):
        small = np.exp(-np.abs(x))
        wanted = np.where(x >= 0, 1 / (1 + small), small / (1 + small))
        for given, expected in ((x, wanted), (x.reshape(256, -1).T, wanted.reshape(256, -1).T)):
            np.testing.assert_array_equal(logistic(np, given), expected)
        assert logistic(np, x[5]) == wanted[5]
