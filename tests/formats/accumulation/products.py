"""What the tests of matrix products share: data, and a product by scalar loops."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from minimp import formats

M, K, N = 4, 37, 5
INPUTS = ("float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "tfloat32", "float4_e2m1fn", "int8")


def draw(fmt: str, shape: tuple[int, ...], seed: int, spread: int = 4) -> np.ndarray:
    """Draw values of a format around 1, over some binades, with zeros; integers from the whole range."""
    random, known = np.random.default_rng(seed), formats.get(fmt)
    x = random.standard_normal(shape) * 2.0 ** random.integers(-spread, spread, shape)
    x = random.integers(-128, 128, shape) if known.is_integer else np.where(random.random(shape) < 0.1, 0, x)
    return formats.round(x, fmt, overflow="saturate").astype(np.float64)


def by_loops(a: np.ndarray, b: np.ndarray, c: np.ndarray, dot: Callable) -> np.ndarray:
    """Apply a scalar dot product to every row and column."""
    rows, columns = range(a.shape[0]), range(b.shape[1])
    return np.array([[float(dot(a[i], b[:, j], c[i, j])) for j in columns] for i in rows])
